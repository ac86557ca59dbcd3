"""Counts ↔ stabilised counts, in which counting noise has unit variance everywhere.

F. J. Anscombe, Biometrika 35 (1948) 246, DOI 10.1093/biomet/35.3-4.246.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OFFSET = 0.375
SMALLEST_RANGE = 4.0
"""Range (in standard deviations of the noise) below which a map counts as noise."""


def stabilise(counts: np.ndarray) -> np.ndarray:
    """Return ``2 sqrt(counts + 3/8)``; negative counts as zero."""
    return 2.0 * np.sqrt(np.clip(counts, 0, None) + OFFSET)


def unstabilise(stabilised: np.ndarray) -> np.ndarray:
    """Algebraic inverse of `stabilise`; never below zero."""
    return np.clip(np.square(np.clip(stabilised, 0, None)) / 4.0 - OFFSET, 0, None)


@dataclass(frozen=True)
class Scale:
    """Robust range of each element in stabilised counts, from the coarse map alone."""

    low: np.ndarray
    span: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> Scale:
        """Take it from gap-free counts (..., y, x): the 1 % and 99.5 % quantiles."""
        flat = stabilise(counts).reshape(*counts.shape[:-2], -1)
        low, high = np.quantile(flat, (0.01, 0.995), axis=-1)
        return cls(low, np.maximum(high - low, SMALLEST_RANGE))
