"""`compare_models`: a candidate against the model in use, side by side on the same maps.

On held-out pairs, on phantoms of seeds that nothing was learnt from, and on known features
(`evaluation.feature_sweep`). The candidate is to be promoted if it is better on the held-out pairs
and nowhere worse (`learning.guards`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.evaluation.feature_sweep import QUICK, Cell, cells, predictor, sweep
from xrf_sr_plans.evaluation.fit_boundary import within
from xrf_sr_plans.learning.guards import Figures, Guard, judge, paired_bootstrap
from xrf_sr_plans.learning.map_figures import MapFigures, of_area, of_phantoms, spread_evenly
from xrf_sr_plans.measurement import Reading
from xrf_sr_plans.sr.registry import load_model, model_path, read_card
from xrf_sr_plans.sr.trust_boundary import read_boundary
from xrf_sr_plans.training.paired_areas import PairedArea

PAIRS, PHANTOMS, FEATURES = "held-out pairs", "phantoms", "known features"
MARGINS = {
    "dB": 0.1,
    "dB, worst element": 0.3,
    "SSIM": 0.005,
    "edges": 0.02,
    "coverage": 0.02,
    "coverage by kind": 0.02,
    "flag": 0.03,
    "false features": 0.005,
    "lost features": 0.03,
}
"""Falls of the means that don't matter yet: in dB, or as shares."""
GAIN_TAIL = 0.025
"""Probability beyond each end of the interval of the gain on held-out pairs."""


@dataclass(frozen=True)
class Effort:
    """How long a comparison takes."""

    phantoms_per_family: int = 1
    phantom_px: int = 96
    counts: tuple[float, ...] = (20.0, 200.0)
    """Photons per coarse pixel at the top of the phantoms."""
    feature_repeats: int = 2
    """Fields for each combination of known features; 0: none are looked at."""
    features: dict[str, Any] = field(default_factory=lambda: dict(QUICK))
    """Which combinations (`evaluation.feature_sweep.cells`)."""


@dataclass(frozen=True)
class Comparison:
    """Two models side by side.

    Parameters
    ----------
    candidate, in_use
        Names and checksums.
    gain
        What the candidate gains on held-out pairs, in dB.
    guards
        In none of which it may be worse.
    """

    candidate: dict[str, str]
    in_use: dict[str, str]
    gain: Guard
    guards: tuple[Guard, ...]

    @property
    def reasons(self) -> list[str]:
        """Why the candidate isn't to be used; empty if it is."""
        found = [] if self.gain.better else [f"not surely better: {self.gain.in_words()}"]
        return found + [f"worse: {guard.in_words()}" for guard in self.guards if guard.worse]

    @property
    def promotes(self) -> bool:
        """Whether the candidate is to be used instead."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "candidate": self.candidate,
            "in use": self.in_use,
            "promotes": self.promotes,
            "reasons": self.reasons,
            "gain": self.gain.to_dict(),
            "guards": [guard.to_dict() for guard in self.guards],
        }


def compare_models(
    candidate: str | Path,
    in_use: str | Path | None,
    held_out: Sequence[PairedArea],
    *,
    effort: Effort | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Compare two models on the same maps.

    Parameters
    ----------
    candidate, in_use
        Names or files; None: the default model.
    held_out
        Areas that nothing was learnt from.
    effort
        How long it may take; None: a few minutes.
    progress
        Called with what is looked at next.

    Raises
    ------
    ConfigError
        Nothing is held out.
    ModelError
        No such model, or a damaged one.
    """
    if not held_out:
        raise ConfigError("nothing is held out: two models can't be compared")
    effort = effort or Effort()
    models = [str(model_path(candidate)), str(model_path(in_use))]
    progress(PAIRS)
    pairs = [_on_pairs(model, held_out) for model in models]
    progress(PHANTOMS)
    readings = _shared_readings(models)
    phantoms = [_on_phantoms(model, readings, effort) for model in models]
    figures = [*_figures(pairs, PAIRS), *_figures(phantoms, PHANTOMS), *_by_kind(phantoms)]
    if effort.feature_repeats:
        progress(FEATURES)
        wanted = list(cells(readings, **effort.features))
        figures += _of_features([_swept(model, wanted, effort) for model in models])
    identities = [_identity(model) for model in models]
    return Comparison(identities[0], identities[1], _gain(figures[0]), tuple(judge(figures)))


def _identity(model: str) -> dict[str, str]:
    card, calibration, _ = load_model(model)
    return {"name": card.name, "sha256": card.sha256, "calibration": calibration.id}


def _shared_readings(models: Sequence[str]) -> list[Reading]:
    known = [set(load_model(model)[1].readings) for model in models]
    return sorted(known[0] & known[1])


def _on_pairs(model: str, held_out: Sequence[PairedArea]) -> list[MapFigures]:
    _, calibration, network = load_model(model)
    return [row for area in held_out for row in of_area(area, network, calibration)]


def _on_phantoms(model: str, readings: Sequence[Reading], effort: Effort) -> list[MapFigures]:
    _, calibration, network = load_model(model)
    rows = of_phantoms(
        network,
        calibration,
        readings,
        counts=effort.counts,
        n_per_family=effort.phantoms_per_family,
        size=effort.phantom_px,
    )
    return spread_evenly(list(rows))


def _figures(models: Sequence[Sequence[MapFigures]], where: str) -> Iterator[Figures]:
    """Yield the figures of both models' maps: dB first."""
    groups = [row.group for row in models[0]]
    # How wide intervals are on the whole is what own pairs have decided, not phantoms.
    coverage = "coverage" if where == PAIRS else "even_coverage"
    for name, attribute in (
        ("dB", "db"),
        ("SSIM", "ssim"),
        ("edges", "edges"),
        ("coverage", coverage),
        ("flag", "flag"),
    ):
        values = [np.array([getattr(row, attribute) for row in rows]) for rows in models]
        if name == "coverage":
            values = [-np.abs(one - 0.9) for one in values]
        yield Figures(name, where, values[0], values[1], groups, MARGINS[name])
    maps = [row.map for row in models[0]]
    kinds = sorted(set(maps))
    of_map = {row.map: row.group for row in models[0]}
    worst = [
        np.array([min((r.db for r in rows if r.map == kind), default=np.nan) for kind in kinds])
        for rows in models
    ]
    name = "dB, worst element"
    yield Figures(name, where, worst[0], worst[1], [of_map[kind] for kind in kinds], MARGINS[name])


def _by_kind(models: Sequence[Sequence[MapFigures]]) -> Iterator[Figures]:
    """Yield what is missing of 90 % coverage on each kind of phantoms.

    The intervals of each model are made to cover 90 % of all of them together (`spread_evenly`).
    """
    name = "coverage by kind"
    for kind in sorted({row.kind for row in models[0]}):
        chosen = [[row for row in rows if row.kind == kind] for rows in models]
        values = [np.array([min(row.even_coverage, 0.9) for row in rows]) for rows in chosen]
        groups = [row.map for row in chosen[0]]
        yield Figures(name, kind, values[0], values[1], groups, MARGINS[name])


def _swept(model: str, wanted: Sequence[Cell], effort: Effort) -> list[Any]:
    path = model_path(model)
    boundary = read_boundary(path, read_card(path).sha256)
    plain = predictor(model)
    guarded = plain if boundary is None else within(plain, boundary)
    rows = sweep(guarded, wanted, repeats=effort.feature_repeats, seed=2)
    return [row for row in rows if row.method == "model"]


def _of_features(models: Sequence[Sequence[Any]]) -> Iterator[Figures]:
    """Yield the false share of the features that are believed, and the lost share of true ones.

    Per field, as parts of the mean number over all fields, so that the means are those shares.
    """
    groups = [row.cell.field for row in models[0]]
    for name, rate in (("false features", "believed"), ("lost features", "lost")):
        values = []
        for rows in models:
            hits, totals = (
                np.array([getattr(getattr(row.rates, rate), part) for row in rows], dtype=float)
                for part in ("hits", "total")
            )
            values.append(-hits / max(totals.mean(), 1e-9))
        yield Figures(name, FEATURES, values[0], values[1], groups, MARGINS[name])


def _gain(figures: Figures) -> Guard:
    """Return the gain on held-out pairs with an interval of its own."""
    difference = figures.candidate - figures.in_use
    known = np.isfinite(difference)
    groups = [group for group, one in zip(figures.groups, known, strict=True) if one]
    mean, low, high = paired_bootstrap(
        difference[known], groups, GAIN_TAIL, np.random.default_rng(0)
    )
    return Guard(
        "gain in dB",
        PAIRS,
        float(np.mean(figures.candidate[known])) if known.any() else float("nan"),
        float(np.mean(figures.in_use[known])) if known.any() else float("nan"),
        mean,
        low,
        high,
        int(known.sum()),
        len(set(groups)),
        0.0,
    )
