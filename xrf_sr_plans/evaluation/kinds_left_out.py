"""How intervals and trust flag do on a kind of sample that the calibration has not seen at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.measurement import Measurement, Reading, reading_name
from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.sr.conformal import Scores, fit
from xrf_sr_plans.sr.error_odds import TOLERANCE
from xrf_sr_plans.sr.estimate import estimate
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.training.samples import Sample, fit_to_blocks
from xrf_sr_plans.training.simulated_pairs import Pair, Simulation, simulate

FEWEST_WORSE = 30
"""Pixels worse than the baseline, in all maps of a line, for the share caught to be told."""


@dataclass(frozen=True)
class ElementFigures:
    """What came out for one element of one simulated measurement."""

    kind: str
    element: str
    reading: str
    n99: float
    coverage: float
    width: float
    """Mean width of the interval relative to the one that baseline and its rms error would need."""
    gain_db: float
    marked: float
    """Share of the pixels that are not trusted."""
    worse: int
    """Pixels that are worse than the baseline by more than `TOLERANCE` of the range."""
    caught: int
    """Of these, not trusted."""
    square_marked: float
    """Mean square error of what is not trusted, relative to the range squared; NaN: none is."""
    square_trusted: float
    lattice: float
    """Relative scatter, over the places in a coarse pixel, of sigma in units of the rms error."""
    far: bool
    """Whether the map was said to be unlike all known ones."""


def left_out(
    scores: Sequence[Scores],
    samples: Sequence[Sample],
    network: Any,
    model_sha256: str,
    levels: Sequence[float],
    readings: Sequence[Reading],
) -> Iterator[ElementFigures]:
    """Yield the figures of each sample with intervals calibrated on the scores of other kinds."""
    for kind in sorted({sample.kind for sample in samples}):
        others = [item for item in scores if item.kind != kind]
        known = fit(others, model_sha256, f"all but {kind}")
        mine = [sample for sample in samples if sample.kind == kind]
        yield from figures(mine, network, known, levels, readings)


def without_evidence(scores: Iterable[Scores]) -> list[Scores]:
    """Return scores that are calibrated by groups alone, as before there was any evidence."""
    return [replace(item, known=None, relative=None) for item in scores]


def figures(
    samples: Iterable[Sample],
    network: Any,
    calibration: Calibration,
    levels: Sequence[float],
    readings: Sequence[Reading],
) -> Iterator[ElementFigures]:
    """Yield the figures of every element of each sample, level of counts and reading."""
    for number, sample in enumerate(samples):
        for reading in readings:
            how = Measurement(reading[0], "rows" if reading[1] > 1 else "fly")
            maps = fit_to_blocks(sample.maps, 2 * reading[0])
            for index, level in enumerate(levels):
                rng = np.random.default_rng([11, number, index, *reading])
                pair = simulate(maps, Simulation.plain(how, level, len(maps)), rng)
                yield from _of_pair(sample, pair, level, network, calibration)


def _of_pair(
    sample: Sample, pair: Pair, level: float, network: Any, calibration: Calibration
) -> Iterator[ElementFigures]:
    how = pair.measurement
    names = [str(index) for index in range(len(pair.counts))]
    ready = prepare(pair.counts)
    fields, notes = estimate(ready, names, how, calibration, network, "cpu")
    truth = pair.truth / how.fast_pixels
    for index, name in enumerate(names):
        plane = {key: values[index] for key, values in fields.items()}
        true = truth[index]
        span = max(float(np.ptp(np.quantile(true, (0.01, 0.99)))), 1e-9)
        error, other = (np.abs(plane[key] - true) for key in ("estimate", "baseline"))
        worse = error - other > TOLERANCE * span
        unsure = ~plane["trusted"]
        square = np.square(error / span)
        rms = float(np.sqrt(np.square(other).mean()))
        yield ElementFigures(
            kind=sample.kind,
            element=f"{sample.name} {name}",
            reading=reading_name(how.reading),
            n99=level,
            coverage=float(((plane["lower"] <= true) & (true <= plane["upper"])).mean()),
            width=float((plane["upper"] - plane["lower"]).mean()) / (2 * NORMAL_90 * rms + 1e-9),
            gain_db=float(20 * np.log10(rms / np.sqrt(np.square(error).mean()))),
            marked=float(unsure.mean()),
            worse=int(worse.sum()),
            caught=int((worse & unsure).sum()),
            square_marked=float(square[unsure].mean()) if unsure.any() else float("nan"),
            square_trusted=float(square[~unsure].mean()) if (~unsure).any() else float("nan"),
            lattice=own_lattice(plane["sigma"], error, how.factor),
            far=any(note.startswith(f"{name}: unlike") for note in notes),
        )


def own_lattice(sigma: np.ndarray, error: np.ndarray, factor: int) -> float:
    """Return how much sigma (Y, X) changes with the place in a coarse pixel beyond its error.

    Errors do depend on the place: they are largest half-way between two rows. A sigma that says so
    is right; 0 is the best.
    """

    def by_place(squares: np.ndarray) -> np.ndarray:
        height, width = (side // factor for side in squares.shape)
        blocks = squares[: height * factor, : width * factor]
        return np.sqrt(blocks.reshape(height, factor, width, factor).mean(axis=(0, 2)) + 1e-12)

    ratio = by_place(np.square(sigma)) / by_place(np.square(error))
    return float(ratio.std() / ratio.mean())


@dataclass(frozen=True)
class KindFigures:
    """The figures of some elements together; every element map weighs alike."""

    maps: int
    coverage: float
    worst: float
    """Coverage of the worst element, over all its measurements."""
    width: float
    gain_db: float
    marked: float
    catch: float
    """Share of the pixels worse than the baseline that is not trusted; NaN: too few."""
    ratio: float
    """Rms error of what is not trusted over that of what is trusted."""
    lattice: float
    far: float
    """Share of the maps that were said to be unlike all known ones."""


def together(found: Sequence[ElementFigures]) -> KindFigures:
    """Average the figures of some elements."""
    elements: dict[str, list[float]] = {}
    for one in found:
        elements.setdefault(f"{one.kind} {one.element}", []).append(one.coverage)
    worse = sum(one.worse for one in found)
    both = [one for one in found if np.isfinite(one.square_marked + one.square_trusted)]
    ratio = float("nan")
    if both:
        marked = np.mean([one.square_marked for one in both])
        ratio = float(np.sqrt(marked / np.mean([one.square_trusted for one in both])))
    caught = sum(one.caught for one in found)
    return KindFigures(
        maps=len(found),
        coverage=float(np.mean([one.coverage for one in found])),
        worst=min(float(np.mean(shares)) for shares in elements.values()),
        width=float(np.exp(np.mean([np.log(max(one.width, 1e-9)) for one in found]))),
        gain_db=float(np.mean([one.gain_db for one in found])),
        marked=float(np.mean([one.marked for one in found])),
        catch=caught / worse if worse >= FEWEST_WORSE else float("nan"),
        ratio=ratio,
        lattice=float(np.mean([one.lattice for one in found])),
        far=float(np.mean([one.far for one in found])),
    )
