"""Figures of one model on maps whose truth, or whose fine map, is known: what is compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xrf_sr_plans.measurement import Measurement, Reading, fly_scan
from xrf_sr_plans.metrics.agreement import detail_share
from xrf_sr_plans.metrics.deconvolution import hidden_coverage
from xrf_sr_plans.metrics.image import data_range, ssim
from xrf_sr_plans.sr.estimate import estimate
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.prepare import Prepared
from xrf_sr_plans.training.paired_areas import PairedArea
from xrf_sr_plans.training.phantoms import ALL_FAMILIES, VALIDATION_SEED, phantom
from xrf_sr_plans.training.samples import fit_to_blocks
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

FIRST_SEED = VALIDATION_SEED + 40_000
"""Phantoms from here on compare models; those that tell when to stop come before."""
LEAST_SHARE = 0.02
"""Smallest error of a map, as a share of its target's noise: less can't be told."""
WORST_SHARE = 0.02
"""Share of the pixels of a map, those with the largest errors, that should be flagged."""
MOST_PIXELS = 2000
"""Pixels of a map whose coverage is computed."""


@dataclass(frozen=True, eq=False)
class MapFigures:
    """Figures of one element's map; NaN where there is none.

    Parameters
    ----------
    map, group, kind
        Which map of several elements, of which sample, of which kind.
    db
        Peak signal-to-noise ratio in dB, freed of the noise of the target.
    ssim
        Structural similarity with the target.
    edges
        How near the share of fine detail is to 1: ``-|1 - share|``.
    coverage
        Of the 90 % intervals, freed of the noise of the target.
    flag
        Share of the largest errors on pixels that aren't trusted.
    ratios
        Errors of some pixels over the side of the interval that they fall on; 1 is its end.
    even_coverage
        Coverage if the intervals of all maps together covered 90 % (`spread_evenly`).
    """

    map: str
    group: str
    kind: str
    db: float
    ssim: float
    edges: float
    coverage: float
    flag: float = float("nan")
    ratios: np.ndarray = field(default_factory=lambda: np.empty(0))
    even_coverage: float = float("nan")


def of_area(area: PairedArea, network: Any, calibration: Calibration) -> Iterator[MapFigures]:
    """Yield the figures of a model on each element of an area, against its fine map.

    There are none of an area without a measured pixel.
    """
    if not area.measured.any():
        return
    fields = fields_of(area.counts, area.measurement, network, calibration)
    inside = area.measured
    for element, name in enumerate(area.elements):
        made, low, high = (fields[key][element] for key in ("estimate", "lower", "upper"))
        target, variance = area.target[element], area.variance[element]
        error = float(np.square(made - target)[inside].mean())
        noise = float(variance[inside].mean())
        excess = max(error - noise, LEAST_SHARE * noise + 1e-9)
        shown = np.where(inside, target, np.nan)
        span = data_range(shown)
        share = detail_share(made, target, variance, inside, float(area.measurement.factor))
        yield MapFigures(
            map=area.name,
            group=area.sample,
            kind=name,
            db=10 * float(np.log10(span**2 / excess)) if span > 0 else float("nan"),
            ssim=ssim(made, shown),
            edges=-abs(1 - share),
            coverage=_hidden(target, made, low, high, area.worth[element], inside),
        )


def _hidden(
    target: np.ndarray,
    made: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    worth: np.ndarray,
    inside: np.ndarray,
) -> float:
    places = np.flatnonzero(inside & (worth > 0))
    places = places[:: max(1, len(places) // MOST_PIXELS)]
    unit = worth.flat[places]
    made, low, high = (plane.flat[places] for plane in (made, low, high))
    # Values between pixels may be below 0, photons can't.
    counts = np.maximum(target.flat[places], 0) / unit
    return float(hidden_coverage(counts, made, low, high, 1.0, unit))


def of_phantoms(
    network: Any,
    calibration: Calibration,
    readings: Sequence[Reading],
    *,
    counts: Sequence[float],
    n_per_family: int,
    size: int,
    first_seed: int = FIRST_SEED,
) -> Iterator[MapFigures]:
    """Yield the figures of a model on phantoms of all families, against the truth.

    Every model that is asked gets the same maps with the same noise.
    """
    for family in sorted(ALL_FAMILIES):
        for seed in range(first_seed, first_seed + n_per_family):
            maps = phantom(family, seed, size=size)
            for number, (reading, level) in enumerate(
                (reading, level) for reading in readings for level in counts
            ):
                rng = np.random.default_rng([seed, number])
                how = Measurement(reading[0], fly_scan(reading))
                simulation = Simulation.plain(how, level, len(maps))
                pair = simulate(fit_to_blocks(maps, reading[0]), simulation, rng)
                fields = fields_of(pair.counts, how, network, calibration)
                name = f"{family}-{seed}"
                for element, truth in enumerate(pair.truth):
                    planes = {key: values[element] for key, values in fields.items()}
                    yield _against_truth(planes, truth, f"{name}-{number}", name, family)


def _against_truth(
    planes: dict[str, np.ndarray], truth: np.ndarray, name: str, group: str, kind: str
) -> MapFigures:
    made, trusted = planes["estimate"], planes["trusted"].astype(bool)
    error = np.abs(made - truth)
    span, square = data_range(truth), float(np.square(error).mean()) + 1e-9
    worst = error >= np.quantile(error, 1 - WORST_SHARE)
    sides = np.where(truth > made, planes["upper"] - made, made - planes["lower"])
    ratios = (error / np.maximum(sides, 1e-9)).ravel()
    detail = _gradient(truth)
    share = float((_gradient(made) * detail).sum() / max(float(np.square(detail).sum()), 1e-12))
    return MapFigures(
        map=name,
        group=group,
        kind=kind,
        db=10 * float(np.log10(span**2 / square)) if span > 0 else float("nan"),
        ssim=ssim(made, truth),
        edges=-abs(1 - share),
        coverage=float((ratios <= 1).mean()),
        flag=float((~trusted[worst]).mean()),
        ratios=ratios[:: max(1, ratios.size // MOST_PIXELS)],
    )


def _gradient(plane: np.ndarray) -> np.ndarray:
    return np.stack([np.gradient(plane.astype(float), axis=axis) for axis in (0, 1)])


def spread_evenly(rows: Sequence[MapFigures]) -> list[MapFigures]:
    """Return the figures with the coverage that intervals have which cover 90 % of all maps."""
    if not rows:
        return []
    stretch = float(np.quantile(np.concatenate([row.ratios for row in rows]), 0.9))
    return [
        replace(row, even_coverage=float((row.ratios <= stretch).mean()), ratios=np.empty(0))
        for row in rows
    ]


def fields_of(
    counts: np.ndarray, measurement: Measurement, network: Any, calibration: Calibration
) -> dict[str, np.ndarray]:
    """Return what a model makes of counts (element, y, x), in photons per coarse pixel."""
    names = [str(index) for index in range(len(counts))]
    ready = Prepared(counts, np.isfinite(counts))
    fields, _ = estimate(ready, names, measurement, calibration, network, "cpu")
    pixels = measurement.fast_pixels
    return {
        key: fields[key] if key == "trusted" else fields[key].astype(float) * pixels
        for key in ("estimate", "lower", "upper", "trusted")
    }
