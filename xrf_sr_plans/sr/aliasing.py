"""Where a coarse map is so regular that it may be the alias of something finer.

A pattern with a period between one and two steps is measured as one of a longer period (1.5
steps: 3), which no method can tell from the real thing. But little else that is mapped is
regular. Where a few spatial frequencies hold most of the local structure, nothing is believed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
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
        is_regular[:, rows, columns] |= (shares > limit)[:, None, None]
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
    stabilised = stabilise(counts).astype(np.float32)
    columns = list(_places(counts.shape[2], width))
    for rows, top in _places(counts.shape[1], height):
        strip = stabilised[:, top : top + height]
        # The windows of this strip, (element, window, y, x).
        blocks = np.stack([strip[..., left : left + width] for _, left in columns], axis=1)
        shares = _shares(blocks, window)
        for index, (inside, _) in enumerate(columns):
            yield rows, inside, shares[:, index]


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
    mean = (blocks * window).sum(axis=(-2, -1), keepdims=True) / window.sum()
    spectrum = np.asarray(fft.fft2((blocks - mean) * window, axes=(-2, -1)))
    # Power (..., y frequency, x frequency). White noise of variance 1 has the mean power 1.
    power = np.square(np.abs(spectrum)) / np.square(window).sum()
    # Below about one count the noise of stabilized counts is smaller than 1.
    noise = np.median(power, axis=(-2, -1), keepdims=True) / _NOISE_MEDIAN
    power -= np.minimum(noise, 1.0)
    # Frequency of each bin in periods per `WINDOW`.
    speed = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width)) * WINDOW
    # What has less than one period in the window is its mean and slope.
    power[..., speed * min(height, width) < WINDOW] = 0.0
    fast = power[..., speed >= SLOWEST]
    strong = np.partition(fast, -STRONGEST, axis=-1)[..., -STRONGEST:].sum(axis=-1)
    # What the noise alone adds up to by chance. Half of the bins of a real block are independent.
    spread = np.sqrt(2 * 3.78 * height * width)
    whole = np.maximum(power.sum(axis=(-2, -1)), strong) + spread
    return np.where(strong > LEAST_POWER, strong / whole, 0.0) * min(height, width) / WINDOW
