"""Estimates a calibration from the errors of many maps: quantiles of scores, for `sr.intervals`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.sr.evidence import Judged, SigmaLaw, fit_law
from xrf_sr_plans.sr.intervals import (
    BLUR_EDGES,
    FILL_EDGES,
    MOST_ELEMENTS,
    N_GROUPS,
    Calibration,
    Regime,
    table_key,
)

LARGEST_DOUBT = 0.025
"""With a sigma of this share of the range, 5 % of the pixels are off by 5 % of the range."""
WIDTHS = np.arange(1.0, 1.5, 0.02)
"""Widths of which the one is chosen that kinds left out need."""
PIXELS_PER_KIND = 60_000
"""Pixels of each kind from which quantiles are taken, some of them more than once."""


@dataclass(frozen=True)
class Scores:
    """Scores of one calibration map."""

    measurement: Measurement
    group: np.ndarray
    score: np.ndarray
    fill: np.ndarray | float = 0.0
    """`Scale.fill` of the element of each score."""
    roughness: float = 0.0
    """`Scale.roughness` of the roughest element that stands out of the noise."""
    kind: str = ""
    """Kind of the sample; all kinds weigh alike where there is evidence."""
    known: np.ndarray | None = None
    """The evidence on each element, (element, `evidence.NAMES`); its pixels follow each other."""
    relative: np.ndarray | None = None
    """Logarithm of each pixel's sigma relative to the root mean square of its element's."""

    def judged(self, weight: float, most: int) -> list[Judged]:
        """Return up to `most` pixels of each element as `evidence.fit_law` wants them."""
        assert self.known is not None, "scores without evidence"
        assert self.relative is not None, "scores without evidence"
        n_elements = len(self.known)
        planes = self.score.reshape(n_elements, -1)[:, :most]
        relative = self.relative.reshape(n_elements, -1)[:, :most]
        rows = zip(self.known, planes, relative, strict=True)
        return [Judged(*row, weight / n_elements) for row in rows]

    def restated(self, law: SigmaLaw) -> Scores:
        """Return the scores in units of restated sigmas, grouped by brightness alone."""
        assert self.known is not None, "scores without evidence"
        assert self.relative is not None, "scores without evidence"
        stretch = np.repeat(law.stretch(self.known), self.score.size // len(self.known))
        by = stretch * np.exp((law.contrast - 1) * self.relative)
        return replace(self, score=self.score / by, group=self.group % N_GROUPS[2], fill=0.0)


def beyond(calibration: Calibration, item: Scores) -> np.ndarray:
    """Return how far the truth is from the estimate, in units of the interval's end there."""
    law = calibration.law_of(item.measurement)
    item = item if law is None else item.restated(law)
    below, above = (table.ravel() for table in calibration.tables(item.measurement))
    score = item.score / calibration.stretch(item.measurement, item.fill)
    ends = np.where(score < 0, below[item.group], above[item.group])
    return np.abs(score) / np.maximum(ends, 1e-3)


def conformal_quantile(scores: np.ndarray, share: float) -> float:
    """Return the ceil((n + 1) share)-th smallest of n scores: the finite-sample quantile.

    The theory asks for infinity where there are too few scores for that; this returns the largest.
    """
    # Rounded: (1 - 0.05) * 20 must not become 19.000000000000004.
    rank = math.ceil(round((scores.size + 1) * share, 9))
    index = min(rank, scores.size) - 1
    return float(np.partition(scores, index)[index])


def fit(
    maps: Iterable[Scores], model_sha256: str, source: str, *, level: float = 0.9, least: int = 400
) -> Calibration:
    """Estimate a calibration from the scores of many maps.

    A group with fewer than `least` pixels takes the factors of the nearest dose group of the
    same roughness and brightness that has enough, else those of all pixels of the key.
    """
    maps = list(maps)
    lower: dict[str, Any] = {}
    upper: dict[str, Any] = {}
    blur: dict[str, list[float]] = {}
    fill: dict[str, Any] = {}
    laws: dict[str, SigmaLaw] = {}
    left_out: dict[str, dict[str, float]] = {}
    for key in sorted({table_key(item.measurement) for item in maps}):
        chosen = [item for item in maps if table_key(item.measurement) == key]
        if all(item.known is not None for item in chosen):
            laws[key] = _law(chosen, level)
            beyond_law = _left_out(chosen, level)
            margin = _margin(list(beyond_law.values()), level)
            left_out[key] = {
                kind: round(_share_within(scores, margin), 3) for kind, scores in beyond_law.items()
            }
            tables = _by_brightness([item.restated(laws[key]) for item in chosen], level, least)
            tables = tables * margin
        else:
            tables, *stretches = _fit(chosen, level, least)
            blur[key], fill[key] = (np.round(s, 4).tolist() for s in stretches)
        lower[key], upper[key] = (np.round(t, 4).tolist() for t in tables)
    return Calibration(
        schema_version=2 if laws else 1,
        model_sha256=model_sha256,
        level=level,
        lower=lower,
        upper=upper,
        blur=blur,
        blur_edges=BLUR_EDGES,
        fill=fill or None,
        law=laws or None,
        left_out=left_out or None,
        regime=_seen(maps, LARGEST_DOUBT if laws else None),
        source=source,
    )


def _law(maps: Sequence[Scores], level: float, most: int = 100) -> SigmaLaw:
    """Return the law of some maps, of whose elements up to `most` pixels are looked at."""
    kinds = [item.kind for item in maps]
    shares = {kind: 1 / kinds.count(kind) for kind in kinds}
    return fit_law([one for item in maps for one in item.judged(shares[item.kind], most)], level)


def _left_out(maps: Sequence[Scores], level: float) -> dict[str, list[np.ndarray]]:
    """Return the sizes of the scores of each kind's maps, restated by the law of the other kinds.

    There are none where all maps are of one kind.
    """
    found: dict[str, list[np.ndarray]] = {}
    for kind in sorted({item.kind for item in maps}):
        others = [item for item in maps if item.kind != kind]
        if others:
            law = _law(others, level, most=40)
            mine = [item for item in maps if item.kind == kind]
            found[kind] = [np.abs(item.restated(law).score) for item in mine]
    return found


def _share_within(scores: Sequence[np.ndarray], width: float) -> float:
    """Return the share of the scores of some maps within a width; each map weighs alike."""
    return float(np.mean([np.mean(score <= width) for score in scores]))


def _margin(kinds: Sequence[Sequence[np.ndarray]], level: float) -> float:
    """Return by how much wider the intervals must be for kinds that were left out.

    It is the width at which kinds that are covered badly lie no further below `level` than those
    covered well lie above it; the worst and best twentieth of the kinds, which may be oddities,
    are left aside. What kinds are covered worst counts, not the mean over kinds.
    """
    if not kinds:
        return 1.0
    for width in WIDTHS:
        shares = [_share_within(scores, width) for scores in kinds]
        if np.quantile(shares, (0.05, 0.95)).mean() >= level:
            return float(width)
    return float(WIDTHS[-1])


def _by_brightness(maps: Sequence[Scores], level: float, least: int) -> np.ndarray:
    """Return the tables (2, *N_GROUPS) of restated scores, equal along all but brightness.

    Each kind enters with as many scores, drawn from its maps alike.
    """
    rng = np.random.default_rng(0)
    kinds = [item.kind for item in maps]
    score, group = [], []
    for item in maps:
        size = max(1, PIXELS_PER_KIND // kinds.count(item.kind))
        keep = rng.integers(item.score.size, size=size)
        score.append(item.score[keep])
        group.append(item.group[keep])
    tables = _tables(np.concatenate(score), np.concatenate(group), level, least)
    return np.broadcast_to(tables[:, :1, :1], tables.shape)


def _fit(
    maps: Sequence[Scores], level: float, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tables of one key and the stretches by blur and by fill."""
    score = np.concatenate([item.score.ravel() for item in maps])
    group = np.concatenate([item.group.ravel() for item in maps])
    blurred = np.concatenate(
        [np.full(item.score.size, item.measurement.sharpening_steps) for item in maps]
    )
    filled = [np.broadcast_to(item.fill, item.score.shape).ravel() for item in maps]
    blurred = np.digitize(blurred, BLUR_EDGES)
    filled = np.digitize(np.concatenate(filled), FILL_EDGES)
    blur, fill = np.ones(len(BLUR_EDGES) + 1), np.ones(len(FILL_EDGES) + 1)
    for _ in range(3):
        for stretch, index in ((blur, blurred), (fill, filled)):
            whole = blur[blurred] * fill[filled]
            tables = _tables(score / whole, group, level, least)
            ends = tables.reshape(2, -1)[(score > 0).astype(int), group] * whole
            beyond = np.abs(score) / np.maximum(ends, 1e-3)
            for k in np.unique(index):
                stretch[k] *= conformal_quantile(beyond[index == k], level)
    return _tables(score / (blur[blurred] * fill[filled]), group, level, least), blur, fill


def _seen(maps: Sequence[Scores], largest_doubt: float | None) -> Regime:
    roughest = max((item.roughness for item in maps), default=0.0)
    return Regime(
        largest_doubt=largest_doubt,
        most_elements=MOST_ELEMENTS,
        largest_roughness=round(roughest, 3) if roughest > 0 else None,
    )


def _tables(score: np.ndarray, group: np.ndarray, level: float, least: int) -> np.ndarray:
    """Return the (lower, upper) tables, (2, *N_GROUPS)."""
    tail = (1 - level) / 2
    tables = np.full((2, math.prod(N_GROUPS)), np.nan)
    for index in range(tables.shape[1]):
        members = score[group == index]
        if members.size >= least:
            tables[:, index] = _ends(members, tail)
    return _fill_groups(tables.reshape(2, *N_GROUPS), _ends(score, tail))


def _ends(scores: np.ndarray, tail: float) -> tuple[float, float]:
    # Never negative: the estimate itself always lies in its interval.
    low = max(0.0, conformal_quantile(-scores, 1 - tail))
    return low, max(0.0, conformal_quantile(scores, 1 - tail))


def _fill_groups(tables: np.ndarray, overall: tuple[float, float]) -> np.ndarray:
    for side, rough, bright in np.ndindex(2, N_GROUPS[0], N_GROUPS[2]):
        column = tables[side, rough, :, bright]
        known = np.flatnonzero(np.isfinite(column))
        for row in np.flatnonzero(~np.isfinite(column)):
            nearest = known[np.argmin(np.abs(known - row))] if known.size else None
            column[row] = overall[side] if nearest is None else column[nearest]
    return tables
