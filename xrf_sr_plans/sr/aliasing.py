"""Where a coarse map is so regular that it may be the alias of something finer.

A pattern with a period between one and two steps is measured as one of a longer period (1.5
steps: 3), which no method can tell from the real thing. But little else that is mapped is
regular: where a few frequencies hold most of the local structure, nothing is believed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import fft

from xrf_sr_plans.physics.counting import stabilise

WINDOW = 32
"""Side of the windows in coarse steps; smaller where the map is."""
LEAST_SIDE = 24
"""Narrowest map, in coarse steps, of which anything can be said.

In a narrower one an edge looks as regular as a grating.
"""
SLOWEST = 2.5
"""Fewest periods in a `WINDOW`. What varies more slowly is an edge or a slope."""
STRONGEST = 18
"""Bins of the spectrum: those of two frequencies at least, spread by the window."""
LEAST_POWER = 150.0
"""Least power of the strongest bins in units of the counting noise.

Noise alone reaches about half of it.
"""
_NOISE_MEDIAN = 0.69
"""Median of exponentially distributed power of mean 1."""


def regular(counts: np.ndarray, limit: float) -> np.ndarray:
    """Return where gap-free counts (element, y, x) are regular (bool, same shape).

    `limit` is the share of the local structure that a few frequencies may hold.
    """
    found = np.zeros(counts.shape, dtype=bool)
    for rows, columns, shares in regularity(counts):
        found[:, rows, columns] |= (shares > limit)[:, None, None]
    return found


def regularity(counts: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield rows, columns and the share of the structure there that few frequencies hold.

    Shares are (element,), scaled to a window of `WINDOW`; nothing for maps below `LEAST_SIDE`.
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
        blocks = np.stack([strip[..., left : left + width] for _, left in columns], axis=1)
        shares = _shares(blocks, window)
        for index, (inside, _) in enumerate(columns):
            yield rows, inside, shares[:, index]


def _places(side: int, window: int) -> Iterator[tuple[slice, int]]:
    """Yield what a window answers for, its central half (at the rim all of it), and its start."""
    hop, last = window // 2, side - window
    starts = [*range(0, last, hop), last]
    for start in starts:
        low = 0 if start == 0 else start + window // 4
        high = side if start == last else start + window - window // 4
        yield slice(low, high), start


def _shares(blocks: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the shares of blocks (..., y, x) of stabilised counts."""
    height, width = window.shape
    mean = (blocks * window).sum(axis=(-2, -1), keepdims=True) / window.sum()
    spectrum = np.asarray(fft.fft2((blocks - mean) * window, axes=(-2, -1)))
    power = np.square(np.abs(spectrum)) / np.square(window).sum()
    # Below about one count the noise of stabilised counts is smaller than 1.
    noise = np.median(power, axis=(-2, -1), keepdims=True) / _NOISE_MEDIAN
    power -= np.minimum(noise, 1.0)
    speed = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width)) * WINDOW
    power[..., speed * min(height, width) < WINDOW] = 0.0
    fast = power[..., speed >= SLOWEST]
    strong = np.partition(fast, -STRONGEST, axis=-1)[..., -STRONGEST:].sum(axis=-1)
    # What the noise alone adds up to by chance: half a window's independent bins count.
    spread = np.sqrt(2 * 3.78 * height * width)
    whole = np.maximum(power.sum(axis=(-2, -1)), strong) + spread
    return np.where(strong > LEAST_POWER, strong / whole, 0.0) * min(height, width) / WINDOW
