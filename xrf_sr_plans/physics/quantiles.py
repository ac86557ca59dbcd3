"""Quantiles of large arrays without sorting them whole.

A sample of the values says between which two a quantile lies; only those between are sorted. The
result is exact: where the sample was wrong, all values are sorted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SAMPLE = 2048
"""About so many values say where a quantile lies."""
SURE = 5.0
"""Standard deviations of the sample's own quantile within which it is looked for."""


def quantiles(values: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return ``numpy.quantile(values, shares)`` of all values, without NaN: (share,) float64."""
    flat = np.asarray(values).reshape(-1)
    return np.array([_quantile(flat, share) for share in shares])


def smallest(values: np.ndarray, rank: int) -> float:
    """Return the value of `rank`, 0 being the smallest, of an array without NaN."""
    return float(_between(np.asarray(values).reshape(-1), rank, rank)[0])


def _quantile(flat: np.ndarray, share: float) -> float:
    place = share * (flat.size - 1)
    low = math.floor(place)
    found = _between(flat, low, min(low + 1, flat.size - 1))
    below, above = float(found[0]), float(found[-1])
    return below + (above - below) * (place - low)


def _between(flat: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the values of the ranks `first` to `last`, sorted."""
    # An odd distance: an even one might stay in a few columns of a map.
    sample = np.sort(flat[:: (flat.size // SAMPLE) | 1])
    share = (first + last + 1) / (2 * flat.size)
    spread = SURE * math.sqrt(share * (1 - share) * sample.size) + 2
    low = math.floor(share * sample.size - spread)
    high = math.ceil(share * sample.size + spread)
    inside, before = flat, 0
    if low > 0:
        kept = inside >= sample[low]
        before = kept.size - int(np.count_nonzero(kept))
        inside = inside[kept]
    if high < sample.size - 1:
        inside = inside[inside <= sample[high]]
    if not before <= first <= last < before + inside.size:
        inside, before = flat, 0
    return np.sort(inside)[first - before : last - before + 1]
