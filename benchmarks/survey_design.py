"""How exact a survey is that is flown in squares, in rows, in every fine row, or as designed.

    python benchmarks/survey_design.py [--quick] [--validation] [--real FOLDER] [--model MODEL]
                                       [--per-family 4] [--json OUT] [--write]

A sample of 128 x 128 fine pixels is measured in each way there is, at many doses, and enhanced;
PSNR is that of the enhanced map, the mean over the sample's elements. A beamline profile (seconds
between rows, frames/s, highest velocity) and a time then say which dose each way has: rows cost
time, and detectors and stage bound how fast a row can be. The time is a share of that for a fine
map of everything (its raster) with 10 ms a pixel; N99 is what the brightest pixels count in 10 ms.

The design (`plans.survey_options`) chooses by the table that ships with the model, which knows
none of the samples here. `best` is the way that is best for this very sample; a choice is right if
it is within 0.2 dB of that. "Counts unknown" is the design's choice without being told N99. The
last rows are for designs that know no more than one way.

--write measures that table, on validation samples: phantoms of every family, at three widths of
the probe. --validation uses these samples for the figures, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.metrics.image import psnr_db
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


def reached_db(
    maps: np.ndarray, way: Way, probe_px: float, seed: Sequence[int], model: str | None
) -> list[float]:
    """Return the PSNR of one sample's enhanced map, flown in one way, for each of `PHOTONS`."""
    measurement = measurement_of(way, probe_px)
    reached = []
    for level, photons in enumerate(PHOTONS):
        simulation = Simulation.plain(measurement, photons * way.factor**2, len(maps))
        pair = simulate(maps, simulation, np.random.default_rng([*seed, level]))
        made = reconstruct(pair.counts, measurement, model)
        reached.append(
            np.mean([psnr_db(mine, true) for mine, true in zip(made, pair.truth, strict=True)])
        )
    # More photons never make it worse; what does so is the noise of this very simulation.
    return np.maximum.accumulate(reached).round(3).tolist()


def curves(
    samples: Sequence[Sample], probes_px: Sequence[float], model: str | None
) -> list[Curves]:
    """Return for each sample what each way reaches: name of the way -> [probe][photons]."""
    return [
        {
            name_of(way): [
                reached_db(
                    sample.maps, way, probe_px, (number, *way_seed(way), round(probe_px)), model
                )
                for probe_px in probes_px
            ]
            for way in WAYS
        }
        for number, sample in enumerate(samples)
    ]


def name_of(way: Way) -> str:
    """Return the name that tables have for a way."""
    return way_of(way.factor, rows=way.sampling == "rows")


def way_seed(way: Way) -> tuple[int, int]:
    """Return numbers that make the noise of one way differ from that of another."""
    return way.factor, way.fast_pixels


def mean_table(measured: Sequence[Curves], probes_px: Sequence[float]) -> dict:
    """Return the mean over samples as what the shipped file holds."""
    return {
        "photons": list(PHOTONS),
        "probe_px": list(probes_px),
        "psnr_db": {
            name: np.mean([one[name] for one in measured], axis=0).round(2).tolist()
            for name in measured[0]
        },
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

    @property
    def best_db(self) -> float:
        """PSNR of the best way."""
        return max(self.reached.values())

    def lost_db(self, name: str) -> float:
        """Return how much a way is behind the best; infinity where it can't be flown."""
        return self.best_db - self.reached.get(name, -np.inf)


def cases(
    samples: Sequence[Sample], measured: Sequence[Curves], table: ErrorTable
) -> Iterator[Case]:
    """Yield all cases in which at least one way can be flown."""
    own = [ErrorTable(PHOTONS, (0.0,), {k: v[:1] for k, v in one.items()}) for one in measured]
    for profile, share, n99 in itertools.product(PROFILES, SHARES, COUNTS):
        time_s = share * profile.raster_s()
        told = options_of(profile, time_s, n99 / FINE_DWELL_MS * 1e3, table)
        untold = options_of(profile, time_s, USUAL_COUNTS_PER_S, table)
        flown = [option for option in told if option.allowed]
        if not flown:
            continue
        for sample, curve in zip(samples, own, strict=True):
            reached = {
                name_of(option.way): curve.expected_db(name_of(option.way), option.photons)
                for option in flown
            }
            chosen, unaware = name_of(told[0].way), name_of(untold[0].way)
            yield Case(profile, share, n99, sample, reached, chosen, unaware)


def right(rows: Sequence[Case], names: Sequence[str]) -> str:
    """Return the share of right choices, and what the choices lose, as cells of a table."""
    lost = np.array([row.lost_db(name) for row, name in zip(rows, names, strict=True)])
    flyable = lost[np.isfinite(lost)]
    return (
        f"{np.mean(lost <= RIGHT_DB):.1%} | {np.isfinite(lost).mean():.0%} |"
        f" {flyable.mean():.2f} | {np.quantile(flyable, 0.95):.2f}"
        if len(flyable)
        else "0 % | 0 % | |"
    )


def report(rows: Sequence[Case]) -> list[str]:
    """Return the tables as lines of Markdown."""
    lines = [
        f"{len(rows)} cases",
        "",
        "| choice | right | can be flown | behind the best, dB: mean | 95 % |",
        "|---|---|---|---|---|",
        f"| design | {right(rows, [row.chosen for row in rows])} |",
        f"| design, counts unknown | {right(rows, [row.unaware for row in rows])} |",
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
        lines += ["", f"| {title} | right | | mean dB behind | 95 % |", "|---|---|---|---|---|"]
        for value in sorted({key(row) for row in rows}):
            some = [row for row in rows if key(row) == value]
            lines.append(f"| {value} | {right(some, [row.chosen for row in some])} |")
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


def squares_of(samples: Iterator[Sample]) -> list[Sample]:
    """Return a square of `SIZE_PX` from the middle of each map that has one, of five elements."""
    found = []
    for sample in samples:
        low = [(side - SIZE_PX) // 2 for side in sample.maps.shape[1:]]
        if min(low) >= 0:
            cut = sample.maps[:5, low[0] : low[0] + SIZE_PX, low[1] : low[1] + SIZE_PX]
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
    if options.write:
        made = curves(phantoms(DESIGN_SEED, number), PROBE_PX, options.model)
        path = Path(expected_error.__file__).with_name(expected_error.FILE_NAME)
        path.write_text(json.dumps(mean_table(made, PROBE_PX), indent=1) + "\n", encoding="utf-8")
        shipped_errors.cache_clear()
    samples = phantoms(DESIGN_SEED + 1000 if options.validation else TEST_SEED + 700, number)
    if options.real:
        samples += squares_of(real_samples(Path(options.real)))
    measured = curves(samples, (0.0,), options.model)
    rows = list(cases(samples, measured, shipped_errors()))
    print("\n".join(report(rows)), flush=True)
    if options.json:
        named = [{"sample": s.name, "psnr_db": m} for s, m in zip(samples, measured, strict=True)]
        Path(options.json).write_text(json.dumps(named), encoding="utf-8")


if __name__ == "__main__":
    main()
