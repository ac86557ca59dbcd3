"""Whether one model is worse than another, guard by guard: pure, on paired figures.

Each guard compares figures of the same maps made by two models. A model is worse in one where its
mean falls by more than a margin that matters and the interval of the fall, from a bootstrap over
independent groups (samples, phantoms, fields), excludes no change. The interval is a simultaneous
one: all guards together raise a false alarm in one comparison of twenty (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DRAWS = 4000
"""Resamples of a bootstrap."""
LEVEL = 0.95
"""Confidence of all intervals together."""


@dataclass(frozen=True)
class Figures:
    """One figure of many maps, of two models; larger is better.

    Parameters
    ----------
    name
        What it is, such as "dB".
    where
        On which maps, such as "phantoms".
    candidate, in_use
        The figure of each map (map,); NaN where it has none.
    groups
        Names of the groups (map,) within which maps aren't independent.
    margin
        Fall of the mean that doesn't matter yet.
    """

    name: str
    where: str
    candidate: np.ndarray
    in_use: np.ndarray
    groups: Sequence[str]
    margin: float


@dataclass(frozen=True)
class Guard:
    """One figure of two models side by side.

    Parameters
    ----------
    name, where
        As in `Figures`.
    candidate, in_use
        Means.
    difference, low, high
        Candidate minus the one in use, and its interval; NaN where no map has the figure.
    maps, groups
        How many it rests on.
    margin
        As in `Figures`.
    """

    name: str
    where: str
    candidate: float
    in_use: float
    difference: float
    low: float
    high: float
    maps: int
    groups: int
    margin: float

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse, beyond margin and interval."""
        return self.difference < -self.margin and self.high < 0

    @property
    def better(self) -> bool:
        """Whether the candidate is better, beyond the interval."""
        return self.low > 0

    def in_words(self) -> str:
        """Return the guard in a line."""
        return (
            f"{self.name} on {self.where}: {self.in_use:.4g} -> {self.candidate:.4g}"
            f" ({self.difference:+.3g}, {self.low:+.3g} to {self.high:+.3g};"
            f" {self.maps} maps, {self.groups} groups)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types; None for NaN."""
        plain = {k: _plain(v) for k, v in asdict(self).items()}
        return plain | {"worse": self.worse, "better": self.better}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def judge(figures: Sequence[Figures], *, seed: int = 0) -> list[Guard]:
    """Return a guard of each figure, with simultaneous intervals."""
    tail = (1 - LEVEL) / 2 / max(1, len(figures))
    return [_guard(each, tail, np.random.default_rng([seed, i])) for i, each in enumerate(figures)]


def _guard(figures: Figures, tail: float, rng: np.random.Generator) -> Guard:
    candidate, in_use = (np.asarray(v, float) for v in (figures.candidate, figures.in_use))
    known = np.isfinite(candidate) & np.isfinite(in_use)
    difference = (candidate - in_use)[known]
    names = [group for group, one in zip(figures.groups, known, strict=True) if one]
    mean, low, high = paired_bootstrap(difference, names, tail, rng)
    return Guard(
        figures.name,
        figures.where,
        float(candidate[known].mean()) if known.any() else float("nan"),
        float(in_use[known].mean()) if known.any() else float("nan"),
        mean,
        low,
        high,
        int(known.sum()),
        len(set(names)),
        figures.margin,
    )


def paired_bootstrap(
    difference: np.ndarray, groups: Sequence[str], tail: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return the mean of differences and the ends of its interval.

    Groups are drawn, with all that is in them (B. Efron and R. Tibshirani, An Introduction to the
    Bootstrap, 1993, ch. 8). A single group tells nothing of how groups differ; its members are
    then drawn instead. With few groups the bootstrap's intervals are too narrow; they are widened
    by the square root of n / (n - 1).

    Parameters
    ----------
    difference
        Differences (map,), finite.
    groups
        Group of each.
    tail
        Probability beyond each end of the interval.
    """
    if not len(difference):
        return float("nan"), float("nan"), float("nan")
    names = np.asarray(groups)
    if len(set(groups)) < 2:
        names = np.arange(len(difference)).astype(str)
    kinds, index = np.unique(names, return_inverse=True)
    total = np.bincount(index, weights=difference)
    number = np.bincount(index)
    mean = float(difference.mean())
    n = len(kinds)
    if n < 2:
        return mean, float("-inf"), float("inf")
    drawn = rng.integers(n, size=(DRAWS, n))
    means = total[drawn].sum(axis=1) / number[drawn].sum(axis=1)
    ends = np.quantile(means, [tail, 1 - tail])
    low, high = mean + (ends - mean) * np.sqrt(n / (n - 1))
    return mean, float(low), float(high)
