"""A model's trust boundary: fitted to one sweep over known samples, tested with another.

A feature's *significance* is its excess over the background, summed over its area, in units of
the counting noise of the background there: with one number per size and factor, the boundary
holds for any counts and any contrast. The sweep itself is in `evaluation.feature_sweep`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.evaluation.feature_sweep import (
    BLURRED,
    DOTS,
    METHODS,
    PROBES,
    STANDARDS,
    Cell,
    CellResult,
    Predict,
    cells,
    has_peers,
    peers,
    pooled,
    predictor,
    rate_json,
    sweep,
)
from xrf_sr_plans.measurement import ENLARGED_SQUARES, Measurement, Reading
from xrf_sr_plans.metrics.hallucination import FeatureRates
from xrf_sr_plans.sr.aliasing import regularity
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.sr.trust_boundary import (
    NEVER,
    SIZES_STEPS,
    TrustBoundary,
    blob_limits,
    blur_key,
    doubtful,
)
from xrf_sr_plans.training.phantoms import VALIDATION_SEED
from xrf_sr_plans.training.samples import fit_to_blocks, phantom_samples
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

LIMITS = {1: 0.01, 2: 0.01, 4: 0.03}
"""False share of predicted features that is allowed inside the boundary, by factor."""
SAFETY = 0.2
"""Share of `LIMITS` that the boundary is fitted to: other samples are other samples."""
LOST_LIMIT = 0.10
"""Share of true features that may be lost for a size to count as seen."""
LEAST_FOUND = 100
"""A threshold is set where at least so many blobs lie above it."""
LEAST_BELIEVED = 20
"""Sizes of dots of which fewer are predicted than this are not relied on."""
LEAST_LINES = 10
"""The same of lines, of which a field holds fewer."""
SHOWN = ("false", "believed", "lost", "leaked", "flagged", "doubted")
"""Rates that tables show, see `FeatureRates`."""
ORDINARY = 0.998
"""Share of the windows of ordinary samples that aren't called regular."""


def fit_boundary(rows: Iterable[CellResult], model_sha256: str, source: str) -> TrustBoundary:
    """Return the lowest boundary above which the share of false blobs stays within its limit.

    For each factor, group of blurs and size: the smallest significance above which, of the blobs
    of all standards, at most `SAFETY` x `LIMITS` are false.
    """
    found: dict[tuple[int, str], list[np.ndarray]] = {}
    for row in rows:
        if row.method == "model":
            key = row.cell.factor, blur_key(row.cell.measurement)
            found.setdefault(key, []).append(row.blobs)
    chosen = {}
    for (factor, key), each in sorted(found.items()):
        blobs = np.concatenate(each)
        chosen[key] = tuple(
            _threshold(blobs[blobs[:, 0] == index, 1:], LIMITS[factor] * SAFETY)
            for index in range(len(SIZES_STEPS))
        )
    swept = {factor for factor, _ in found}
    limits = {str(factor): limit for factor, limit in LIMITS.items() if factor in swept}
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


def smallest_believable(
    rows: Iterable[CellResult], standards: Sequence[str] = DOTS, least: int = LEAST_BELIEVED
) -> list[dict[str, float]]:
    """Return the smallest diameter to be relied on, by all but the diameter.

    That is by factor, measured pixels per step, counts, contrast and probe.

    For it and all larger ones, of the features predicted on trusted pixels at most `LIMITS` are
    false; and for `seen_steps` also at most `LOST_LIMIT` of the true ones are lost. Sizes of which
    fewer than `least` are predicted are not relied on.
    """
    rows = [row for row in rows if row.method == "model" and row.cell.standard in standards]
    names = ("factor", "fast_pixels", "counts", "contrast", "probe")
    table = []
    facts = [row.cell.to_dict() for row in rows]
    for key in sorted({tuple(fact[name] for name in names) for fact in facts}):
        here = dict(zip(names, key, strict=True))
        fitting = [here.items() <= fact.items() for fact in facts]
        mine = list(itertools.compress(rows, fitting))
        believed, seen, all_seen = NEVER, NEVER, True
        for size in sorted({row.cell.diameter_steps for row in mine}, reverse=True):
            rates = pooled(mine, "model", diameter_steps=size)
            few = rates.believed.total < least
            if few or rates.believed.value > LIMITS[here["factor"]]:
                break
            believed = size
            all_seen = all_seen and rates.lost.value <= LOST_LIMIT
            seen = size if all_seen else seen
        table.append({**here, "believed_steps": believed, "seen_steps": seen})
    return table


@dataclass(frozen=True)
class Hallucination:
    """A model's boundary, the sweep it was fitted to, and one made with it in force."""

    boundary: TrustBoundary
    rows: Sequence[CellResult]
    fitted_rows: Sequence[CellResult] = ()

    def summary(self) -> list[dict[str, Any]]:
        """Return the rates by reading, method, standard and probe, as JSON types.

        First without blur, for each standard and for all of them; then with the blur of each
        probe.
        """
        lines = []
        for factor, pixels in sorted({row.cell.measurement.reading for row in self.rows}):
            blurred = sorted({row.cell.measurement.probe_steps for row in self.rows} - {0.0})
            kinds = [("all", 0.0), *((name, 0.0) for name in STANDARDS)]
            kinds += [("all", probe) for probe in blurred]
            for method, (standard, probe) in itertools.product(METHODS[:2], kinds):
                where: dict[str, Any] = {
                    "factor": factor,
                    "fast_pixels": pixels,
                    "probe": probe,
                }
                where |= {} if standard == "all" else {"standard": standard}
                rates = pooled(self.rows, method, **where)
                lines.append({"method": method, **where, "standard": standard, **_plain(rates)})
        return lines

    def compared(self) -> list[dict[str, Any]]:
        """Return the rates of all methods in the cells where all were tried, as JSON types."""
        rows = [row for row in self.rows if has_peers(row.cell)]
        lines = []
        readings = sorted({row.cell.measurement.reading for row in rows})
        for (factor, pixels), method in itertools.product(readings, METHODS):
            where = {"factor": factor, "fast_pixels": pixels}
            rates = pooled(rows, method, **where)
            if rates.lost.total:
                lines.append({"method": method, **where, **_plain(rates)})
        return lines


def _plain(rates: FeatureRates) -> dict[str, dict[str, float | int | None]]:
    return {name: rate_json(rate) for name, rate in vars(rates).items()}


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
        Cells of the sweep; None: `usual_cells` of what the model reads.
    repeats
        Fields per cell of the second sweep; the first has one.

    Raises
    ------
    ModelError
        No such model, or damaged weights.
    """
    card, calibration, _ = load_model(model)
    wanted = usual_cells(calibration.readings) if wanted is None else wanted
    plain = predictor(model)
    first = sweep(plain, wanted, repeats=1, progress=progress)
    probes = sorted({cell.measurement.probe_steps for cell in wanted})
    source = (
        f"sweep over {len(wanted)} cells of dots, lines and empty fields; fly scans;"
        f" probes of {', '.join(f'{probe:g}' for probe in probes)} steps"
    )
    fitted = fit_boundary(first, card.sha256, source)
    fitted = fitted.model_copy(update={"regularity": fit_regularity()})
    guarded = within(plain, fitted)
    rows = sweep(guarded, wanted, repeats=repeats, seed=1, others=peers(), progress=progress)
    tables = {
        "smallest_steps": smallest_believable(rows),
        "smallest_line_steps": smallest_believable(rows, ("lines",), LEAST_LINES),
    }
    return Hallucination(fitted.model_copy(update=tables), rows, first)


def within(predict: Predict, boundary: TrustBoundary) -> Predict:
    """Return a prediction that trusts nothing outside the boundary."""

    def guarded(counts: np.ndarray, measurement: Measurement, /) -> dict[str, np.ndarray]:
        fields = predict(counts, measurement)
        limits = blob_limits(boundary.significance, measurement)
        if limits is None:
            return fields
        estimate = fields["estimate"] * measurement.fast_pixels
        doubt = doubtful(estimate, measurement.factor, limits)
        return {**fields, "trusted": fields["trusted"] & ~doubt}

    return guarded


def usual_cells(readings: Sequence[Reading] = ENLARGED_SQUARES) -> list[Cell]:
    """Return the cells of the full sweep: without blur, and with some."""
    return [*cells(readings), *cells(readings, probes=PROBES, **BLURRED)]


def ordinary_counts(
    first_seed: int = VALIDATION_SEED, *, n_per_family: int = 2
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yield phantoms that are not periodic as measured: family, photons, counts."""
    samples = phantom_samples(n_per_family, first_seed)
    for number, sample in enumerate(one for one in samples if one.kind != "gratings"):
        maps = fit_to_blocks(sample.maps, 2)
        for level in (5.0, 20.0, 200.0, 1000.0):
            simulation = Simulation.plain(Measurement(2), level, len(maps))
            rng = np.random.default_rng([number, int(level)])
            yield sample.kind, level, simulate(maps, simulation, rng).counts


def fit_regularity() -> float:
    """Return the limit of `sr.aliasing` that all but 1 - `ORDINARY` of ordinary windows keep."""
    shares = [share for _, _, counts in ordinary_counts() for *_, share in regularity(counts)]
    return round(float(np.quantile(np.concatenate(shares), ORDINARY)), 3)
