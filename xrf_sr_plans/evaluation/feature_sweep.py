"""Features of known samples as a model and its peers see them, swept over size, dose and blur.

Samples of known structure (`metrics.standards`) are measured by the forward model and enhanced;
features are counted by `metrics.hallucination`.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.measurement import ENLARGED_SQUARES, Measurement, Reading, fly_scan, reading_name
from xrf_sr_plans.metrics.hallucination import FeatureRates, Rate, feature_rates
from xrf_sr_plans.metrics.standards import BACKGROUND, Standard, dots, empty_field, lines
from xrf_sr_plans.physics.counting import unstabilise
from xrf_sr_plans.sr.classical import upscale
from xrf_sr_plans.sr.estimate import estimate, run_network
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.sr.registry import load_model, load_network, model_path, read_card
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.sr.trust_boundary import SIZES_STEPS, visible_blobs
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

FIELD_STEPS = 64
"""Side of a field in coarse steps."""
LINE_STEPS = 8
"""Length of lines in coarse steps."""
DOTS = ("isolated dots", "paired dots", "dots in one element")
STANDARDS = (*DOTS, "lines", "empty field")
PEERS = ("bicubic + Gaussian", "SRCNN")
METHODS = ("model", "bicubic", *PEERS)
QUICK: dict[str, Any] = {"counts": (20, 200), "diameters": (1.0, 2.0), "contrasts": (0.1, 0.8)}
"""Arguments of `cells` for a first look."""
BLURRED: dict[str, Any] = {
    "counts": (20, 200),
    "diameters": (1.0, 1.5, 2.0, 3.0),
    "contrasts": (0.3, 0.8),
    "standards": ("isolated dots", "paired dots", "lines", "empty field"),
}
"""Arguments of `cells` for probes that the estimate is freed of."""
PROBES = (0.6, 1.0)
"""FWHM in coarse steps of the probes that the estimate is freed of."""


class Predict(Protocol):
    """Turns measured counts into the fields that features are counted in."""

    def __call__(self, counts: np.ndarray, measurement: Measurement, /) -> dict[str, np.ndarray]:
        """Return `estimate`, `baseline` and `trusted` of counts (element, y, x)."""
        ...


Peer = Callable[[np.ndarray, Measurement], np.ndarray | None]
"""Turns measured counts and how they were measured into an estimate, or None for other factors."""


@dataclass(frozen=True)
class Cell:
    """One combination of the sweep.

    Parameters
    ----------
    measurement
        How the sample is measured; the estimate is to be freed of the probe's blur.
    counts
        Photons per coarse pixel at relative intensity 1; the background has a fifth of it.
    diameter_steps
        Of the features (the width of lines), in coarse steps.
    contrast
        Height above the background, in relative intensity.
    standard
        Which of `STANDARDS` the sample is.
    """

    measurement: Measurement
    counts: float
    diameter_steps: float
    contrast: float
    standard: str

    @property
    def factor(self) -> int:
        """Fine pixels per coarse pixel along each axis."""
        return self.measurement.factor

    @property
    def radius_px(self) -> float:
        """Radius of the features in fine pixels."""
        return self.diameter_steps * self.factor / 2

    @property
    def significance(self) -> float:
        """Excess photons over the background's counting noise, both over the feature's area."""
        return significance(
            self.contrast * self.counts, BACKGROUND * self.counts, self.diameter_steps
        )

    @property
    def field(self) -> str:
        """What its sample is drawn from: empty fields don't depend on the size asked about."""
        size = "" if self.standard == "empty field" else f" {self.diameter_steps:g}"
        level = f"{reading_name(self.measurement.reading)} {self.counts:g}"
        level += f" {self.measurement.probe_steps:g}"
        return f"{level} {self.contrast:g} {self.standard}{size}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, flat: what tables are sorted by."""
        return {
            "factor": self.factor,
            "fast_pixels": self.measurement.fast_pixels,
            "counts": self.counts,
            "diameter_steps": self.diameter_steps,
            "contrast": self.contrast,
            "standard": self.standard,
            "probe": self.measurement.probe_steps,
        }


@dataclass(frozen=True)
class CellResult:
    """What one method did in one cell, over all repeats."""

    cell: Cell
    method: str
    rates: FeatureRates
    blobs: np.ndarray
    """(n, 3) visible blobs of `sr.trust_boundary`: index of the size, significance, and 1 where
    there is a feature; empty for methods other than the model."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; see `rate_json`."""
        rates = {name: rate_json(rate) for name, rate in vars(self.rates).items()}
        known = {"significance": self.cell.significance, "method": self.method}
        return {**self.cell.to_dict(), **known, **rates}


def significance(excess: float, background: float, diameter_steps: float) -> float:
    """Return how far a disc stands out of the counting noise of its background.

    `excess` and `background` are photons per coarse pixel. The background counts as half a photon
    at least.
    """
    area = math.pi * diameter_steps**2 / 4
    return excess * math.sqrt(area / max(background, 0.5))


def cells(
    readings: Sequence[Reading] = ENLARGED_SQUARES,
    counts: Sequence[float] = (5, 20, 50, 200, 1000),
    diameters: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
    contrasts: Sequence[float] = (0.1, 0.3, 0.8),
    probes: Sequence[float] = (0.0,),
    standards: Sequence[str] = STANDARDS,
) -> Iterator[Cell]:
    """Yield the cells of a sweep; fly scans are measured as `readings` say."""
    numbers = itertools.product(readings, counts, diameters, contrasts, standards, probes)
    for reading, level, diameter, contrast, standard, probe_steps in numbers:
        measurement = Measurement(reading[0], fly_scan(reading), probe_steps)
        yield Cell(measurement, level, diameter, contrast, standard)


def draw(cell: Cell, rng: np.random.Generator) -> Standard:
    """Paint the standard of a cell, two elements."""
    size = FIELD_STEPS * cell.factor
    if cell.standard == "empty field":
        return empty_field(size)
    if cell.standard == "lines":
        return lines(size, cell.radius_px, LINE_STEPS * cell.factor, cell.contrast, rng)
    gap = max(2 * cell.radius_px, 1.0) if cell.standard == "paired dots" else None
    only = 0 if cell.standard == "dots in one element" else None
    return dots(size, cell.radius_px, cell.contrast, rng, gap_px=gap, only_element=only)


def predictor(model: str | None, *, regularity: float | None = None) -> Predict:
    """Return what `enhance` would do with fly scans, boundary left out.

    `regularity` is the limit of `sr.aliasing`; None: left out too (these samples are drawn on a
    grid). What exists is another question than how far a value may be off, so no pixel is
    untrusted for that (`sr.error_odds`).
    """
    _, calibration, network = load_model(model)
    update = {"blobs": None, "regularity": regularity, "largest_doubt": None}
    regime = calibration.regime.model_copy(update=update)
    calibration = calibration.model_copy(update={"regime": regime})

    def predict(counts: np.ndarray, measurement: Measurement, /) -> dict[str, np.ndarray]:
        names = [f"E{index}" for index in range(len(counts))]
        fields, _ = estimate(prepare(counts), names, measurement, calibration, network, "cpu")
        return fields

    return predict


def peers() -> dict[str, Peer]:
    """Return the other methods of the table, by name; they don't remove a probe's blur."""

    def smooth(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
        return upscale(counts, measurement, "bicubic + Gaussian")

    @lru_cache
    def network_of(factor: int) -> Any:
        try:
            path = model_path(f"srcnn-x{factor}")
        except ModelError:
            return None
        return load_network(path, read_card(path))

    def srcnn(counts: np.ndarray, measurement: Measurement) -> np.ndarray | None:
        network = network_of(measurement.factor)
        if network is None or measurement.reading not in network.reads:
            return None
        return unstabilise(run_network(counts, Scale.of(counts), measurement, network, "cpu")[0])

    return dict(zip(PEERS, (smooth, srcnn), strict=True))


def has_peers(cell: Cell) -> bool:
    """Return whether all methods are compared in a cell: two levels of counts, no blur."""
    sharp = cell.measurement.probe_steps == 0
    return sharp and cell.counts in (20, 200) and cell.diameter_steps in (1.0, 2.0, 3.0)


def sweep(
    predict: Predict,
    wanted: Iterable[Cell],
    *,
    repeats: int = 2,
    seed: int = 0,
    others: Mapping[str, Peer] | None = None,
    progress: Callable[[Cell], None] = lambda cell: None,
) -> list[CellResult]:
    """Measure every cell and count what became of its features; `others` where `has_peers`."""
    rows: list[CellResult] = []
    known: dict[tuple[str, int], _Field] = {}
    for cell in wanted:
        progress(cell)
        found: dict[str, list[CellResult]] = {}
        for repeat in range(repeats):
            key = (cell.field, repeat)
            field = known.get(key) or _measured(predict, cell, [seed, repeat], others or {})
            if cell.standard == "empty field":
                known[key] = field
            for row in _counted(cell, field):
                found.setdefault(row.method, []).append(row)
        for method, each in found.items():
            rates = sum((row.rates for row in each), FeatureRates())
            blobs = np.concatenate([row.blobs for row in each])
            rows.append(CellResult(cell, method, rates, blobs))
    return rows


@dataclass(frozen=True, eq=False)
class _Field:
    standard: Standard
    fields: dict[str, np.ndarray]
    others: dict[str, np.ndarray]


def _measured(
    predict: Predict, cell: Cell, seed: Sequence[int], others: Mapping[str, Peer]
) -> _Field:
    rng = np.random.default_rng([*seed, zlib.crc32(cell.field.encode())])
    standard = draw(cell, rng)
    simulation = Simulation.plain(cell.measurement, float(cell.counts), len(standard.maps))
    counts = simulate(standard.maps, simulation, rng).counts
    made = {}
    if others and (has_peers(cell) or cell.standard == "empty field"):
        tried = {name: other(counts, cell.measurement) for name, other in others.items()}
        made = {name: values for name, values in tried.items() if values is not None}
    return _Field(standard, predict(counts, cell.measurement), made)


def _counted(cell: Cell, field: _Field) -> Iterator[CellResult]:
    """Yield a row per method; values are taken per coarse pixel."""
    methods = {"model": field.fields["estimate"], "bicubic": field.fields["baseline"]}
    methods |= field.others if has_peers(cell) else {}
    line = None
    if cell.standard == "lines":
        one = field.standard.features[0] if field.standard.features else None
        line = (float(LINE_STEPS * cell.factor), one.angle if one else 0.0)
    for method, measured in methods.items():
        values = measured * cell.measurement.fast_pixels
        ours = method == "model"
        rates = feature_rates(
            values / cell.counts,
            field.standard.features,
            radius_px=cell.radius_px,
            contrast=cell.contrast,
            trusted=field.fields["trusted"] if ours else None,
            line=line,
        )
        found = _blobs(values, field.standard, cell) if ours else np.empty((0, 3))
        yield CellResult(cell, method, rates, found)


def _blobs(estimate: np.ndarray, standard: Standard, cell: Cell) -> np.ndarray:
    """Return every visible blob of an estimate, and whether a true feature is there."""
    scale = cell.factor / 2
    level, size, seen = visible_blobs(estimate, cell.factor)
    # Two dots that have merged are one blob between them: blurred, not invented.
    reach = max(cell.radius_px, max(SIZES_STEPS) * cell.factor / 2)
    found = [np.empty((0, 3))]
    for element, mask in enumerate(seen):
        y, x = np.nonzero(mask)
        order = np.argsort(-level[element][y, x], kind="stable")
        y, x = y[order], x[order]
        fine = [axis * scale + (scale - 1) / 2 for axis in (y, x)]
        true = [f.distance(*fine) for f in standard.features if f.element == element]
        near = np.min(true, axis=0) <= reach if true else np.zeros(len(y))
        found.append(np.column_stack([size[element][y, x], level[element][y, x], near]))
    return np.concatenate(found)


def pooled(rows: Iterable[CellResult], method: str, **where: Any) -> FeatureRates:
    """Return the rates of a method over the cells that fit, such as ``factor=2``.

    `where` has values of `Cell.to_dict` by name.
    """
    total = FeatureRates()
    for row in rows:
        facts = row.cell.to_dict()
        if row.method == method and all(facts[name] == value for name, value in where.items()):
            total = total + row.rates
    return total


def rate_json(rate: Rate) -> dict[str, float | int | None]:
    """Return a rate (None where nothing was tried) with its 95 % interval as JSON types."""
    low, high = (round(end, 6) for end in rate.interval)
    value = round(rate.value, 6) if rate.total else None
    return {"hits": rate.hits, "of": rate.total, "rate": value, "low": low, "high": high}
