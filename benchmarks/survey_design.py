"""How exact a survey is that is flown in squares, in rows, in every fine row, or as designed.

    python benchmarks/survey_design.py [--quick] [--validation] [--real FOLDER] [--model MODEL]
                                       [--per-family 4] [--json OUT] [--write]

A sample of 128 x 128 fine pixels is measured in each way there is, at many doses, and enhanced;
PSNR is that of the enhanced map, the mean over the sample's elements. A beamline profile (seconds
between rows, frames/s, highest velocity) and a time then say which dose each way has: rows cost
time, and detectors and stage bound how fast a row can be. The time is a share of that for a fine
map of everything (its raster) with 10 ms a pixel; N99 is what the brightest pixels count in 10 ms.

The design (`plans.survey_options`) chooses by the table that ships with the model, which knows
none of the samples here. A choice is right where no way is better by more than 0.2 dB for this very
sample. "Counts unknown" is the design's choice without being told N99. "Like" is what it chooses
with an earlier map of the sample (`design_survey(like=...)`): of a phantom the other half, with 200
photons where it is brightest, and of a measured map another one of its kind. "In hindsight" is the
best choice for all samples at once. The last rows are for those who always fly in one way.

--write measures that table, on validation samples: phantoms of every family, at three widths of
the probe. --validation uses these samples for the figures, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.measurement import SAME_GRID, Measurement
from xrf_sr_plans.metrics.image import psnr_db
from xrf_sr_plans.physics.smoothing import smoothed
from xrf_sr_plans.plans.survey_options import (
    USUAL_COUNTS_PER_S,
    WAYS,
    Asked,
    Flight,
    SurveyOption,
    Way,
    survey_option,
)
from xrf_sr_plans.sr import expected_error
from xrf_sr_plans.sr.expected_error import ErrorTable, shipped_errors, way_of
from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.training.phantoms import ALL_FAMILIES, TEST_SEED, VALIDATION_SEED, phantom
from xrf_sr_plans.training.sample_errors import errors_on
from xrf_sr_plans.training.samples import Sample, real_samples
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

SIZE_PX = 128
"""Side of the samples in fine pixels."""
FINE_STEP_UM = 0.5
FINE_DWELL_MS = 10.0
PHOTONS = tuple(float(f"{value:.3g}") for value in np.geomspace(0.1, 3000, 10))
"""Photons per area of a fine pixel, where an element is brightest, at which is measured."""
PROBE_PX = (0.0, 2.0, 4.0)
"""Widths of the probe in fine pixels at which the shipped table is measured."""
OVERHEADS_S = (0.02, 0.1, 0.2, 3.8)
RATES_HZ = (200.0, 500.0, 2000.0)
VELOCITIES_UM_S = (200.0, 2000.0)
SHARES = (0.07, 0.14, 0.28)
COUNTS = (10.0, 50.0, 200.0, 1000.0)
EARLIER_N99 = 200.0
RIGHT_DB = 0.2
"""A choice is right where no way is better by more than this."""
DESIGN_SEED = VALIDATION_SEED + 500_000

Curves = dict[str, list[list[float]]]
"""PSNR that each way reaches, [probe][photons], by name of the way."""


def reconstruct(counts: np.ndarray, measurement: Measurement, model: str | None) -> np.ndarray:
    """Return the enhanced maps (element, Y, X) in photons per coarse pixel."""
    factor = measurement.factor
    enhanced = enhance(
        counts,
        elements=[f"E{index}" for index in range(len(counts))],
        factor=factor,
        step_um=float(factor),
        sampling=measurement.sampling,
        probe_fwhm_um=measurement.probe_steps * factor,
        deblur=False,
        model=model,
        device="cpu",
    )
    return enhanced.dataset["estimate"].values.astype(float) * measurement.fast_pixels


def measurement_of(way: Way, probe_px: float) -> Measurement:
    """Return how a fly scan measures in one way; the estimate keeps the probe's blur."""
    sampling = "rows" if way.fast_pixels > 1 else "fly"
    return Measurement(way.factor, sampling, probe_px / way.factor, deblur=False)


def treated(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the same without a network."""
    return smoothed(counts, measurement) * measurement.fast_pixels


Treatment = Callable[[np.ndarray, Measurement], np.ndarray]


def reached_db(
    maps: np.ndarray, way: Way, probe_px: float, number: int, treatment: Treatment
) -> list[float]:
    """Return the PSNR of a sample's map, flown in one way, for each of `PHOTONS`."""
    measurement = measurement_of(way, probe_px)
    reached = []
    for level, photons in enumerate(PHOTONS):
        simulation = Simulation.plain(measurement, photons * way.factor**2, len(maps))
        seed = (number, way.factor, way.fast_pixels, round(probe_px), level)
        pair = simulate(maps, simulation, np.random.default_rng(seed))
        made = treatment(pair.counts, measurement)
        reached.append(
            np.mean([psnr_db(mine, true) for mine, true in zip(made, pair.truth, strict=True)])
        )
    # More photons never make it worse; what does so is the noise of this very simulation.
    return np.maximum.accumulate(reached).round(3).tolist()


def curves(
    samples: Sequence[Sample], probes_px: Sequence[float], treatment: Treatment
) -> list[Curves]:
    """Return for each sample what each way reaches."""
    return [
        {
            name_of(way): [
                reached_db(sample.maps, way, probe_px, number, treatment) for probe_px in probes_px
            ]
            for way in WAYS
        }
        for number, sample in enumerate(samples)
    ]


def name_of(way: Way) -> str:
    """Return the name that tables have for a way."""
    return way_of(way.factor, rows=way.sampling == "rows")


def mean_of(measured: Sequence[Curves]) -> Curves:
    """Return the mean over samples."""
    return {
        name: np.mean([one[name] for one in measured], axis=0).round(2).tolist()
        for name in measured[0]
    }


def measured_table(samples: Sequence[Sample], treatment: Treatment) -> dict[str, Any]:
    """Return what the shipped file holds."""
    return {
        "photons": list(PHOTONS),
        "probe_px": list(PROBE_PX),
        "psnr_db": mean_of(curves(samples, PROBE_PX, treatment)),
        "classical_db": mean_of(curves(samples, PROBE_PX, treated)),
    }


@dataclass(frozen=True)
class Profile:
    """What a beamline allows."""

    overhead_s: float
    rate_hz: float
    velocity_um_s: float

    @cached_property
    def beamline(self) -> Beamline:
        """A simulated beamline of this kind, with a probe that blurs nothing."""
        return make_beamline(
            probe_fwhm_um=None,
            time_model=RowTimeModel(overhead_s=self.overhead_s),
            max_rate_hz=self.rate_hz,
            max_velocity_um_s=self.velocity_um_s,
        )

    def raster_s(self) -> float:
        """Return the seconds that a fine map of everything takes."""
        return SIZE_PX * (SIZE_PX * FINE_DWELL_MS * 1e-3 + self.overhead_s)


PROFILES = tuple(
    Profile(*values) for values in itertools.product(OVERHEADS_S, RATES_HZ, VELOCITIES_UM_S)
)


def options_of(
    profile: Profile, time_s: float, counts_per_s: float, table: ErrorTable
) -> tuple[SurveyOption, ...]:
    """Return the ways that there are in this time, as the design orders them."""
    asked = Asked(fine_step_um=FINE_STEP_UM, time_s=time_s, counts_per_s=counts_per_s)
    flights = {factor: Flight(SIZE_PX // factor, (SIZE_PX // factor) ** 2) for factor in (1, 2, 4)}
    options = (
        survey_option(profile.beamline, asked, way, flights[way.factor], table) for way in WAYS
    )
    return tuple(sorted(options, key=lambda option: option.rank))


@dataclass(frozen=True)
class Case:
    """One sample flown at one beamline in one time, with what each way reaches there."""

    profile: Profile
    share: float
    n99: float
    sample: Sample
    reached: dict[str, float]
    """PSNR in dB by name of the way, of those that can be flown."""
    chosen: str
    unaware: str
    """What is chosen without knowing the counts."""
    like: str
    """What is chosen with an earlier map."""
    hindsight: str
    """What is best for all samples at this beamline, time and dose."""

    @property
    def best_db(self) -> float:
        """PSNR of the best way."""
        return max(self.reached.values())

    def lost_db(self, name: str) -> float:
        """Return how much a way is behind the best; infinity where it can't be flown."""
        return self.best_db - self.reached.get(name, -np.inf)


def cases(
    samples: Sequence[Sample],
    measured: Sequence[Curves],
    earlier: Sequence[np.ndarray],
    table: ErrorTable,
) -> Iterator[Case]:
    """Yield all cases in which at least one way can be flown."""
    curve_of = [ErrorTable(PHOTONS, (0.0,), one) for one in measured]
    expected = [errors_on(maps, table) for maps in earlier]
    for profile, share, n99 in itertools.product(PROFILES, SHARES, COUNTS):
        time_s, counts_per_s = share * profile.raster_s(), n99 / FINE_DWELL_MS * 1e3
        told = options_of(profile, time_s, counts_per_s, table)
        flown = [option for option in told if option.allowed]
        if not flown:
            continue
        unaware = options_of(profile, time_s, USUAL_COUNTS_PER_S, table)[0]
        reached = [
            {
                name_of(option.way): curve.expected_db(name_of(option.way), option.photons)
                for option in flown
            }
            for curve in curve_of
        ]
        hindsight = max(
            reached[0],
            key=lambda name: sum(one[name] > max(one.values()) - RIGHT_DB for one in reached),
        )
        for sample, own, one in zip(samples, expected, reached, strict=True):
            like = options_of(profile, time_s, counts_per_s, own)[0]
            choices = [name_of(option.way) for option in (told[0], unaware, like)]
            yield Case(profile, share, n99, sample, one, *choices, hindsight)


def right(rows: Sequence[Case], names: Sequence[str]) -> str:
    """Return the share of right choices, and what the choices lose, as cells of a table."""
    lost = np.array([row.lost_db(name) for row, name in zip(rows, names, strict=True)])
    flyable = lost[np.isfinite(lost)]
    behind = f"{flyable.mean():.2f} | {np.quantile(flyable, 0.95):.2f}" if len(flyable) else " | "
    return f"{np.mean(lost <= RIGHT_DB):.1%} | {behind}"


def report(rows: Sequence[Case]) -> list[str]:
    """Return the tables as lines of Markdown."""
    lines = [
        f"{len(rows)} cases",
        "",
        "| choice | right | behind the best, dB: mean | 95 % |",
        "|---|---|---|---|",
        f"| design | {right(rows, [row.chosen for row in rows])} |",
        f"| design, counts unknown | {right(rows, [row.unaware for row in rows])} |",
        f"| design, like | {right(rows, [row.like for row in rows])} |",
        f"| in hindsight | {right(rows, [row.hindsight for row in rows])} |",
    ]
    lines += [f"| {way} | {right(rows, [name_of(way)] * len(rows))} |" for way in WAYS]
    for title, key in (
        ("kind", lambda row: row.sample.kind),
        ("s a row", lambda row: row.profile.overhead_s),
        ("frames/s", lambda row: row.profile.rate_hz),
        ("um/s", lambda row: row.profile.velocity_um_s),
        ("share of the raster's time", lambda row: row.share),
        ("N99", lambda row: row.n99),
    ):
        lines += [
            "",
            f"| {title} | right | dB behind | 95 % | like: right | dB behind | 95 % |",
            "|---" * 7 + "|",
        ]
        for value in sorted({key(row) for row in rows}):
            some = [row for row in rows if key(row) == value]
            cells = [
                right(some, [getattr(row, name) for row in some]) for name in ("chosen", "like")
            ]
            lines.append(f"| {value} | {' | '.join(cells)} |")
    return [*lines, "", *error_table(rows)]


def error_table(rows: Sequence[Case]) -> list[str]:
    """Return PSNR by seconds a row and N99, for 500 frames/s and 2 mm/s in 14 % of the time."""
    names = [name_of(way) for way in WAYS]
    lines = [
        f"| s a row | N99 | {' | '.join(map(str, WAYS))} | design |",
        "|---" * (len(names) + 3) + "|",
    ]
    for overhead_s, n99 in itertools.product(OVERHEADS_S, COUNTS):
        profile = Profile(overhead_s, 500.0, 2000.0)
        some = [r for r in rows if (r.profile, r.share, r.n99) == (profile, SHARES[1], n99)]
        if not some:
            continue
        cells = [
            f"{np.mean([row.reached[name] for row in some]):.2f}"
            if name in some[0].reached
            else "-"
            for name in names
        ]
        chosen = f"{np.mean([row.reached[row.chosen] for row in some]):.2f} ({some[0].chosen})"
        lines.append(f"| {overhead_s:g} | {n99:g} | {' | '.join(cells)} | {chosen} |")
    return lines


def phantoms(first: int, per_family: int) -> list[Sample]:
    """Return phantoms of all families, from consecutive seeds."""
    return [
        Sample(f"{family}-{seed}", family, phantom(family, seed, size=SIZE_PX))
        for family in sorted(ALL_FAMILIES)
        for seed in range(first, first + per_family)
    ]


def halves(first: int, per_family: int) -> tuple[list[Sample], list[np.ndarray]]:
    """Return one half of phantoms of all families, and an earlier map of the other."""
    samples, earlier = [], []
    for number, (family, seed) in enumerate(
        itertools.product(sorted(ALL_FAMILIES), range(first, first + per_family))
    ):
        whole = phantom(family, seed, size=2 * SIZE_PX)[:, :SIZE_PX]
        samples.append(Sample(f"{family}-{seed}", family, whole[..., SIZE_PX:]))
        earlier.append(seen_earlier(whole[..., :SIZE_PX], number))
    return samples, earlier


def seen_earlier(maps: np.ndarray, number: int) -> np.ndarray:
    """Return what a fine map with `EARLIER_N99` photons shows, as `sample_of` has it."""
    how = Measurement(SAME_GRID, deblur=False)
    simulation = Simulation.plain(how, EARLIER_N99, len(maps))
    counts = simulate(maps, simulation, np.random.default_rng([number, SAME_GRID])).counts
    return to_top(np.clip(smoothed(counts, how), 0, None))


def measured_maps(folder: Path) -> tuple[list[Sample], list[np.ndarray]]:
    """Return a square from the middle of each measured map, and another one of its kind."""
    samples = squares_of(real_samples(folder))
    others = []
    for index, sample in enumerate(samples):
        same = [k for k, one in enumerate(samples) if one.kind == sample.kind]
        other = samples[same[(same.index(index) + 1) % len(same)]]
        others.append(to_top(other.maps))
    return samples, others


def to_top(maps: np.ndarray) -> np.ndarray:
    """Return maps with the 99.9 % quantile of each element at 1."""
    return maps / np.maximum(np.quantile(maps, 0.999, axis=(1, 2), keepdims=True), 1e-6)


def squares_of(samples: Iterator[Sample]) -> list[Sample]:
    """Return a square from the middle of each map, of `SIZE_PX` or less, and of five elements."""
    found = []
    for sample in samples:
        side = min(SIZE_PX, *sample.maps.shape[1:]) // 4 * 4
        y, x = ((size - side) // 2 for size in sample.maps.shape[1:])
        cut = sample.maps[:5, y : y + side, x : x + side]
        found.append(Sample(sample.name, sample.kind, cut))
    return found


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--real")
    parser.add_argument("--model")
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--json")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    number = 1 if options.quick else options.per_family
    treatment = partial(reconstruct, model=options.model)
    if options.write:
        made = measured_table(phantoms(DESIGN_SEED, number), treatment)
        path = Path(expected_error.__file__).with_name(expected_error.FILE_NAME)
        path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        shipped_errors.cache_clear()
    samples, earlier = halves(DESIGN_SEED + 1000 if options.validation else TEST_SEED + 700, number)
    if options.real:
        for mine, more in zip((samples, earlier), measured_maps(Path(options.real)), strict=True):
            mine += more
    measured = curves(samples, (0.0,), treatment)
    print("\n".join(report(list(cases(samples, measured, earlier, shipped_errors())))), flush=True)
    if options.json:
        named = [{"sample": s.name, "psnr_db": m} for s, m in zip(samples, measured, strict=True)]
        Path(options.json).write_text(json.dumps(named), encoding="utf-8")


if __name__ == "__main__":
    main()
