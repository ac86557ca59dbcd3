"""Where a coarse map is so regular that it may be the alias of something finer.

A pattern with a period between one and two steps is measured as one of a longer period (1.5
steps: 3), which no method can tell from the real thing. But little else that is mapped is
regular. Where a few spatial frequencies hold most of the local structure, nothing is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

from xrf_sr_plans.physics.counting import stabilise

WINDOW = 32
"""Side of the windows in coarse pixels. Along a shorter side of a map they are as long as it."""
LEAST_SIDE = 24
"""Shortest side of a map, in coarse pixels, of which anything can be said.

In a narrower map an edge looks as regular as a grating.
"""
SLOWEST = 2.5
"""Lowest frequency of a pattern, in periods per `WINDOW`.

What varies more slowly is an edge or a slope.
"""
STRONGEST = 18
"""Number of the strongest bins of the spectrum that count as "a few frequencies".

They hold at least two frequencies, each spread over several bins by the window.
"""
LEAST_POWER = 150.0
"""Smallest power of the strongest bins together, in units of the mean power of counting noise.

Noise alone reaches about half of it.
"""
_WINDOWS = 64
"""About so many windows are looked at together."""
_NOISE_MEDIAN = 0.69
"""Median of an exponential distribution of mean 1, which is that of the power of noise."""


def regular(counts: np.ndarray, limit: float) -> np.ndarray:
    """Return where a coarse map is so regular that it may be an alias.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.
    limit
        Largest share of the local structure, 0 to 1, that a few frequencies may hold.

    Returns
    -------
    np.ndarray
        True where the map is regular, bool (element, y, x).
    """
    is_regular = np.zeros(counts.shape, dtype=bool)
    for rows, columns, shares in regularity(counts):
        found = shares > limit
        if found.any():
            is_regular[:, rows, columns] |= found[:, None, None]
    return is_regular


def regularity(counts: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield which share of the structure a few frequencies hold, for one window after the other.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.

    Yields
    ------
    tuple[slice, slice, np.ndarray]
        Rows and columns of the pixels that the window answers for, and the share (element,) from
        0 to 1. In a window smaller than `WINDOW` the share is scaled down in proportion. For a
        map with a side below `LEAST_SIDE` nothing is yielded.
    """
    sides = [min(WINDOW, side) for side in counts.shape[1:]]
    if min(sides) < LEAST_SIDE:
        return
    height, width = sides
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in sides)).astype(np.float32)
    stabilised = stabilise(counts.astype(np.float32))
    rows, columns = (
        list(_places(length, side)) for length, side in zip(counts.shape[1:], sides, strict=True)
    )
    lefts = np.array([left for _, left in columns])
    views = sliding_window_view(stabilised, (height, width), axis=(1, 2))
    # As many strips of windows together as stay in the processor's cache.
    some = max(1, _WINDOWS // (len(counts) * len(columns)))
    for first in range(0, len(rows), some):
        tops = np.array([top for _, top in rows[first : first + some]])
        # (element, strip, window, y, x)
        shares = _shares(views[:, tops[:, None], lefts], window)
        for strip, (down, _) in enumerate(rows[first : first + some]):
            for index, (along, _) in enumerate(columns):
                yield down, along, shares[:, strip, index]


def _places(side: int, window: int) -> Iterator[tuple[slice, int]]:
    """Yield the pixels along one side that each window answers for, and the window's first pixel.

    Windows overlap by half. Each answers for its central half, and at the rim of the map for all
    that lies between this half and the rim.
    """
    hop, last = window // 2, side - window
    starts = [*range(0, last, hop), last]
    for start in starts:
        low = 0 if start == 0 else start + window // 4
        high = side if start == last else start + window - window // 4
        yield slice(low, high), start


def _shares(blocks: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return which share few frequencies hold of blocks (..., y, x) of stabilized counts."""
    height, width = window.shape
    weighted = blocks * window
    mean = weighted.sum(axis=(-2, -1), keepdims=True) / window.sum()
    weighted -= mean * window
    # Power (..., y frequency, x frequency). White noise of variance 1 has the mean power 1.
    power = _power(weighted) / np.float32(np.square(window).sum())
    flat = power.reshape(*power.shape[:-2], -1)
    # Below about one count the noise of stabilized counts is smaller than 1.
    noise = _medians(flat) / np.float32(_NOISE_MEDIAN)
    flat -= np.minimum(noise, 1.0)[..., None]
    slow, below = _slow_bins(height, width)
    # What has less than one period in the window is its mean and slope.
    flat[..., slow] = 0.0
    total = flat.sum(axis=-1)
    # No pattern: taken for less than any other bin.
    flat[..., below] = -np.inf
    strong = np.sort(flat, axis=-1)[..., -STRONGEST:].sum(axis=-1)
    # What the noise alone adds up to by chance. Half of the bins of a real block are independent.
    spread = np.sqrt(2 * 3.78 * height * width)
    whole = np.maximum(total, strong) + spread
    return np.where(strong > LEAST_POWER, strong / whole, 0.0) * min(height, width) / WINDOW


def _power(blocks: np.ndarray) -> np.ndarray:
    """Return the square of the Fourier transform of blocks (..., y, x), bins in any order.

    That of a bin and of the opposite one are the same, so that half of them are computed.
    """
    width = blocks.shape[-1]
    half = np.asarray(fft.rfft2(blocks, axes=(-2, -1)))
    power = np.empty(blocks.shape, dtype=blocks.dtype)
    first = power[..., : half.shape[-1]]
    np.square(np.real(half), out=first)
    first += np.square(np.imag(half))
    # Their frequency along x is above 0 and has an opposite.
    power[..., half.shape[-1] :] = first[..., 1 : (width + 1) // 2]
    return power


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the medians along the last axis: a whole sort is quicker than looking for them."""
    number = values.shape[-1]
    return np.sort(values, axis=-1)[..., (number - 1) // 2 : number // 2 + 1].mean(axis=-1)


@lru_cache(maxsize=16)
def _slow_bins(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins of `_power` that are mean and slope, and those below `SLOWEST`."""
    along_x = np.arange(width // 2 + 1)
    along_x = np.concatenate([along_x, along_x[1 : (width + 1) // 2]]) / width
    # Frequency of each bin in periods per `WINDOW`.
    speed = np.hypot(fft.fftfreq(height)[:, None], along_x).ravel() * WINDOW
    slow = np.flatnonzero(speed * min(height, width) < WINDOW)
    return slow, np.flatnonzero(speed < SLOWEST)
