"""What a survey and its rescans find in 20 % of the raster's time, by how the survey is flown.

    python benchmarks/survey_recall.py [--quick] [--validation] [--real FOLDER] [--model MODEL]
                                       [--share 0.2] [--survey 0.1] [--row-s 0.1] [--per-family 2]

The survey takes --survey of the time for a fine map of everything (the raster, 10 ms a pixel), in
each way that there is and in the one that the design chooses; the rest of --share goes to rescans,
chosen by the product (`benchmarks/beam_time.py` has targets, queries and rules). 500 frames/s, at
most 2 mm/s. Recall is by number, by area and by signal, over samples and over N99 of 10 to 1000
photons in 10 ms. A way that can't be flown in the survey's time has no row.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from beam_time import (
    COUNTS,
    FAMILIES_WITH_TARGETS,
    Task,
    ours,
    question,
    recalls,
    targets_of,
)
from survey_design import (
    DESIGN_SEED,
    FINE_DWELL_MS,
    FINE_STEP_UM,
    SIZE_PX,
    Profile,
    measurement_of,
    name_of,
    options_of,
    squares_of,
)

from xrf_sr_plans.plans.survey_options import SurveyOption
from xrf_sr_plans.sr.expected_error import shipped_errors
from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.training.phantoms import TEST_SEED, phantom
from xrf_sr_plans.training.samples import Sample, real_samples
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate


@dataclass(frozen=True, eq=False)
class SurveyedTask(Task):
    """A sample, surveyed in some way, with a query and its targets."""

    taken_s: float
    """Seconds that the survey took."""

    @property
    def survey_s(self) -> float:
        """Seconds for the coarse map."""
        return self.taken_s


def surveyed(
    sample: Sample,
    n99: float,
    option: SurveyOption,
    row_s: float,
    asked: tuple[int, float],
    model: str | None,
    seed: Sequence[int],
) -> SurveyedTask:
    """Return a sample that was surveyed in one way.

    `asked` is the element that the query is about, and the intensity that it asks for, relative
    to that where `n99` photons are counted in `FINE_DWELL_MS`.
    """
    way, (element, intensity) = option.way, asked
    measurement = measurement_of(way, 0.0)
    n99_of_step = n99 * option.dwell_ms / FINE_DWELL_MS
    simulation = Simulation.plain(measurement, n99_of_step, len(sample.maps))
    pair = simulate(sample.maps, simulation, np.random.default_rng(seed))
    names = [f"E{index}" for index in range(len(sample.maps))]
    enhanced = enhance(
        pair.counts,
        elements=names,
        factor=way.factor,
        step_um=option.step_um,
        sampling=measurement.sampling,
        deblur=False,
        dwell_ms=option.dwell_ms / way.fast_pixels,
        model=model,
        device="cpu",
    )
    threshold = intensity * n99_of_step
    return SurveyedTask(
        sample,
        n99,
        f"{names[element]} > {threshold:.8g}",
        element,
        threshold,
        pair.truth[element],
        enhanced,
        # Of squares only those rules take notice that aren't tried here.
        enhanced.dataset["estimate"].values,
        targets_of(sample.maps[element] > intensity),
        row_s,
        option.time_s,
    )


def found(
    samples: Sequence[Sample], options: argparse.Namespace
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield a way's name and what was found with it, for each sample and dose."""
    profile, table = Profile(options.row_s, 500.0, 2000.0), shipped_errors()
    for number, sample in enumerate(samples):
        asked = question(sample.maps, np.random.default_rng(number))
        if asked is None:
            continue
        for dose, n99 in enumerate(COUNTS):
            time_s = options.survey * profile.raster_s()
            counts_per_s = n99 / FINE_DWELL_MS * 1e3
            ranked = [o for o in options_of(profile, time_s, counts_per_s, table) if o.allowed]
            for option in ranked:
                seed = (number, dose, option.way.factor, option.way.fast_pixels)
                task = surveyed(sample, n99, option, options.row_s, asked, options.model, seed)
                boxes = ours(task, max(options.share * task.whole_s - task.survey_s, 0.0))
                recall = recalls(task, boxes)
                yield name_of(option.way), recall
                if option is ranked[0]:
                    yield "design", recall


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--real")
    parser.add_argument("--model")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--survey", type=float, default=0.1)
    parser.add_argument("--row-s", type=float, default=0.1)
    parser.add_argument("--per-family", type=int, default=2)
    options = parser.parse_args()
    first = DESIGN_SEED + 1000 if options.validation else TEST_SEED + 900
    number = 1 if options.quick else options.per_family
    samples = [
        Sample(f"{family}-{seed}", family, phantom(family, seed, size=SIZE_PX))
        for family in FAMILIES_WITH_TARGETS
        for seed in range(first, first + number)
    ]
    if options.real:
        samples += squares_of(real_samples(Path(options.real)))
    by_way: dict[str, list[tuple[float, float, float]]] = {}
    for name, recall in found(samples, options):
        by_way.setdefault(name, []).append(recall)
    print(f"survey {options.survey:.0%}, in all {options.share:.0%} of the raster's time,")
    print(f"{options.row_s:g} s a row, pixels of {FINE_STEP_UM:g} um\n")
    print("| way | maps | targets found | of their area | of their signal |")
    print("|---|---|---|---|---|")
    for name, rows in by_way.items():
        cells = " | ".join(f"{value:.2f}" for value in np.mean(rows, axis=0))
        print(f"| {name} | {len(rows)} | {cells} |")


if __name__ == "__main__":
    main()
