"""Measure what a model invents, loses and leaks; the trust boundary that follows.

Samples of known structure are measured by the forward model and enhanced; features are counted by
`metrics.hallucination`. A feature's *significance* is its excess over the background, summed over
its area, in units of the counting noise of the background there: with one number per size and
factor, the boundary holds for any counts and any contrast.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from xrf_sr_plans.metrics.hallucination import FeatureRates, Rate, feature_rates
from xrf_sr_plans.metrics.standards import BACKGROUND, Standard, dots, empty_field
from xrf_sr_plans.sr.boundary import (
    NEVER,
    SIZES_STEPS,
    TrustBoundary,
    doubtful,
    visible_blobs,
)
from xrf_sr_plans.sr.estimate import Setting, estimate
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.pairs import Measurement, measure

FIELD_STEPS = 64
"""Side of a field in coarse steps."""
LIMITS = {2: 0.01, 4: 0.03}
"""False share of predicted features that is allowed inside the boundary, by factor."""
LOST_LIMIT = 0.10
"""Share of true features that may be lost for a size to count as seen."""
LEAST_FOUND = 100
"""A threshold is set where at least so many blobs lie above it."""
LEAST_BELIEVED = 20
"""Sizes of which fewer are predicted than this are not relied on."""
STANDARDS = ("isolated dots", "paired dots", "dots in one element", "empty field")
METHODS = ("model", "bicubic")
SHOWN = ("false", "believed", "lost", "leaked", "flagged", "doubted")
"""Rates that tables show, see `FeatureRates`."""
QUICK: dict[str, Any] = {"counts": (20, 200), "diameters": (1.0, 2.0), "contrasts": (0.1, 0.8)}
"""Arguments of `cells` for a first look."""

Predict = Callable[[np.ndarray, int], dict[str, np.ndarray]]
"""Coarse counts (element, y, x) and factor to `estimate`, `baseline` and `trusted`."""


@dataclass(frozen=True)
class Cell:
    """One combination of the sweep.

    Parameters
    ----------
    counts
        Photons per coarse pixel at relative intensity 1; the background has a fifth of it.
    diameter_steps
        Of the features, in coarse steps.
    contrast
        Height above the background, in relative intensity.
    """

    factor: int
    counts: float
    diameter_steps: float
    contrast: float
    standard: str

    @property
    def radius_px(self) -> float:
        """In fine pixels."""
        return self.diameter_steps * self.factor / 2

    @property
    def significance(self) -> float:
        """Excess photons over the background's counting noise, both over the feature's area."""
        return significance(
            self.contrast * self.counts, BACKGROUND * self.counts, self.diameter_steps
        )


@dataclass(frozen=True)
class Row:
    """What one method did in one cell, over all repeats."""

    cell: Cell
    method: str
    rates: FeatureRates
    blobs: np.ndarray
    """(n, 3) of `sr.boundary.blobs`: index of the size, significance, 1 where there is a feature;
    empty for methods other than the model."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; see `rate_json`."""
        rates = {name: rate_json(rate) for name, rate in vars(self.rates).items()}
        known = {"significance": self.cell.significance, "method": self.method}
        return {**asdict(self.cell), **known, **rates}


def significance(excess: float, background: float, diameter_steps: float) -> float:
    """Return how far a disc stands out of the counting noise of its background.

    `excess` and `background` are photons per coarse pixel. The background counts as half a photon
    at least.
    """
    area = math.pi * diameter_steps**2 / 4
    return excess * math.sqrt(area / max(background, 0.5))


def cells(
    factors: Sequence[int] = (2, 4),
    counts: Sequence[float] = (5, 20, 50, 200, 1000),
    diameters: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
    contrasts: Sequence[float] = (0.1, 0.3, 0.8),
) -> Iterator[Cell]:
    """Yield the cells of a sweep."""
    for numbers in itertools.product(factors, counts, diameters, contrasts, STANDARDS):
        yield Cell(*numbers)


def draw(cell: Cell, rng: np.random.Generator) -> Standard:
    """Paint the standard of a cell, two elements."""
    size = FIELD_STEPS * cell.factor
    if cell.standard == "empty field":
        return empty_field(size)
    gap = max(2 * cell.radius_px, 1.0) if cell.standard == "paired dots" else None
    only = 0 if cell.standard == "dots in one element" else None
    return dots(size, cell.radius_px, cell.contrast, rng, gap_px=gap, only_element=only)


def predictor(model: str | None) -> Predict:
    """Return what `enhance` would do with fly scans without probe blur, boundary left out."""
    _, calibration, network = load_model(model)
    regime = calibration.regime.model_copy(update={"blobs": None})
    calibration = calibration.model_copy(update={"regime": regime})

    def predict(counts: np.ndarray, factor: int) -> dict[str, np.ndarray]:
        names = [f"E{index}" for index in range(len(counts))]
        setting = Setting(factor, "fly", 0.0, deblur=True)
        fields, _ = estimate(prepare(counts), names, setting, calibration, network, "cpu")
        return fields

    return predict


def sweep(
    predict: Predict,
    wanted: Iterable[Cell],
    *,
    repeats: int = 2,
    seed: int = 0,
    progress: Callable[[Cell], None] = lambda cell: None,
) -> list[Row]:
    """Measure every cell and count what became of its features."""
    rows = []
    for cell in wanted:
        progress(cell)
        tries = [run_cell(predict, cell, [seed, repeat]) for repeat in range(repeats)]
        for method, each in zip(METHODS, zip(*tries, strict=True), strict=True):
            rates = sum((one.rates for one in each), FeatureRates())
            rows.append(Row(cell, method, rates, np.concatenate([one.blobs for one in each])))
    return rows


def run_cell(predict: Predict, cell: Cell, seed: Sequence[int]) -> list[Row]:
    """Measure one cell once; return a row per method."""
    words = f"{cell.factor} {cell.counts:g} {cell.diameter_steps:g} {cell.contrast:g}"
    rng = np.random.default_rng([*seed, zlib.crc32(f"{words} {cell.standard}".encode())])
    standard = draw(cell, rng)
    level = (float(cell.counts),) * len(standard.maps)
    pair = measure(standard.maps, Measurement(cell.factor, "fly", 0.0, 0.0, level), rng)
    fields = predict(pair.counts, cell.factor)
    rows = []
    for method, name in zip(METHODS, ("estimate", "baseline"), strict=True):
        rates = feature_rates(
            fields[name] / cell.counts,
            standard.features,
            radius_px=cell.radius_px,
            contrast=cell.contrast,
            trusted=fields["trusted"] if method == "model" else None,
        )
        found = _blobs(fields[name], standard, cell) if method == "model" else np.empty((0, 3))
        rows.append(Row(cell, method, rates, found))
    return rows


def _blobs(estimate: np.ndarray, standard: Standard, cell: Cell) -> np.ndarray:
    """Return every visible blob of an estimate, and whether a true feature is there."""
    scale = cell.factor / 2
    level, size, seen = visible_blobs(estimate, cell.factor)
    found = [np.empty((0, 3))]
    for element, mask in enumerate(seen):
        y, x = np.nonzero(mask)
        order = np.argsort(-level[element][y, x], kind="stable")
        y, x = y[order], x[order]
        true = np.array([(f.y, f.x) for f in standard.features if f.element == element])
        places = np.column_stack([y, x]) * scale + (scale - 1) / 2
        # Two dots that have merged are one blob between them: blurred, not invented.
        reach = max(cell.radius_px, max(SIZES_STEPS) * cell.factor / 2)
        near = cdist(places, true).min(axis=1) <= reach if len(true) else np.zeros(len(y))
        found.append(np.column_stack([size[element][y, x], level[element][y, x], near]))
    return np.concatenate(found)


def pooled(rows: Iterable[Row], method: str, **where: Any) -> FeatureRates:
    """Add up the rates of a method over the cells that fit, such as ``factor=2``."""
    total = FeatureRates()
    for row in rows:
        if row.method == method and all(getattr(row.cell, k) == v for k, v in where.items()):
            total = total + row.rates
    return total


def fit_boundary(rows: Iterable[Row], model_sha256: str, source: str) -> TrustBoundary:
    """Return the boundary from which on the false share of all blobs keeps its limit.

    For each factor and size: the smallest significance above which, of the blobs of all standards,
    at most a third of `LIMITS` are false; a third, for other samples are other samples.
    """
    rows = list(rows)
    chosen = {}
    for factor in sorted({row.cell.factor for row in rows}):
        found = np.concatenate(
            [row.blobs for row in rows if row.cell.factor == factor and row.method == "model"]
        )
        chosen[str(factor)] = tuple(
            _threshold(found[found[:, 0] == index, 1:], LIMITS[factor] / 3)
            for index in range(len(SIZES_STEPS))
        )
    limits = {str(factor): limit for factor, limit in LIMITS.items() if str(factor) in chosen}
    return TrustBoundary(
        model_sha256=model_sha256, significance=chosen, false_rate_limit=limits, source=source
    )


def _threshold(found: np.ndarray, limit: float) -> float:
    """Return the smallest level; `found` is (n, 2): significance, 1.0 where true."""
    order = np.argsort(-found[:, 0], kind="stable")
    level, false = found[order, 0], np.cumsum(1 - found[order, 1])
    number = np.arange(1, len(level) + 1)
    good = np.flatnonzero((false <= limit * number) & (number >= LEAST_FOUND))
    return round(float(level[good[-1]]), 3) if good.size else NEVER


def smallest_believable(rows: Iterable[Row]) -> list[dict[str, float]]:
    """Return the smallest diameter, by factor, counts and contrast, that can be relied on.

    For it and all larger ones, of the features predicted on trusted pixels at most `LIMITS` are
    false; and for `seen_steps` also at most `LOST_LIMIT` of the true ones are lost.
    """
    rows = [row for row in rows if row.method == "model" and row.cell.standard != "empty field"]
    keys = sorted({(row.cell.factor, row.cell.counts, row.cell.contrast) for row in rows})
    table = []
    for factor, counts, contrast in keys:
        here = {"factor": factor, "counts": counts, "contrast": contrast}
        believed, seen, all_seen = NEVER, NEVER, True
        for size in sorted({row.cell.diameter_steps for row in rows}, reverse=True):
            rates = pooled(rows, "model", **here, diameter_steps=size)
            few = rates.believed.total < LEAST_BELIEVED
            if few or rates.believed.value > LIMITS[factor]:
                break
            believed = size
            all_seen = all_seen and rates.lost.value <= LOST_LIMIT
            seen = size if all_seen else seen
        table.append({**here, "believed_steps": believed, "seen_steps": seen})
    return table


@dataclass(frozen=True)
class Hallucination:
    """A model's boundary, and the sweep that was made with it in force."""

    boundary: TrustBoundary
    rows: Sequence[Row]

    def summary(self) -> list[dict[str, Any]]:
        """Return the rates by factor, method and standard (and over all of them), as JSON types."""
        lines = []
        for factor in sorted({row.cell.factor for row in self.rows}):
            for method, standard in itertools.product(METHODS, ("all", *STANDARDS)):
                where = {"factor": factor} | ({} if standard == "all" else {"standard": standard})
                rates = pooled(self.rows, method, **where)
                values = {name: rate_json(rate) for name, rate in vars(rates).items()}
                lines.append({"factor": factor, "method": method, "standard": standard, **values})
        return lines


def hallucinate(
    model: str | None = None,
    *,
    wanted: Sequence[Cell] | None = None,
    repeats: int = 2,
    progress: Callable[[Cell], None] = lambda cell: None,
) -> Hallucination:
    """Fit a model's trust boundary, then measure with other samples how it does.

    Parameters
    ----------
    model
        Name or file; None: the default.
    wanted
        Cells of the sweep; None: `cells()`.
    repeats
        Fields per cell of the second sweep; the first has one.

    Raises
    ------
    ModelError
        No such model, or damaged weights.
    """
    wanted = list(cells()) if wanted is None else wanted
    card, _, _ = load_model(model)
    plain = predictor(model)
    fitted = fit_boundary(
        sweep(plain, wanted, repeats=1, progress=progress),
        card.sha256,
        f"sweep over {len(wanted)} cells of dots and empty fields, fly scans, no probe blur",
    )

    guarded = within(plain, fitted)
    rows = sweep(guarded, wanted, repeats=repeats, seed=1, progress=progress)
    return Hallucination(
        fitted.model_copy(update={"smallest_steps": smallest_believable(rows)}), rows
    )


def within(predict: Predict, boundary: TrustBoundary) -> Predict:
    """Return a prediction that trusts nothing outside the boundary."""

    def guarded(counts: np.ndarray, factor: int) -> dict[str, np.ndarray]:
        fields = predict(counts, factor)
        doubt = doubtful(fields["estimate"], factor, boundary.significance[str(factor)])
        return {**fields, "trusted": fields["trusted"] & ~doubt}

    return guarded


def rate_json(rate: Rate) -> dict[str, float | int]:
    """Return a rate with its 95 % interval as JSON types."""
    low, high = rate.interval
    return {"hits": rate.hits, "of": rate.total, "rate": rate.value, "low": low, "high": high}
