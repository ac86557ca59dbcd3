"""`gross_counts`: net counts, which may be negative, on top of a background again.

A program that subtracts a background leaves the *net* photons of a line. Where there is none of the
element they scatter around zero. What to do with those below zero:

* Left out, or cut off at 0, they take the mean of what is left above the truth: photons that nobody
  counted, most of them where the element isn't.
* Taken for photons they have no counting noise at all, and the network would take their scatter
  for structure.

The scatter itself tells how much was subtracted. Where there is none of the element, the net counts
of a background of b photons have the variance b, and wherever there is, theirs is the net counts
plus b: the noise of photons in a map that is higher by b everywhere. So b is estimated from the
values below zero, put under the whole map, and taken off from the result again. The mean stays what
it was, and the noise is as large as it really is. The background counts as the same everywhere.
Where it varies, b is nearer to its larger values, which makes intervals wider, not narrower.

Not every negative value is one of net counts. Values that lie further below the pixels around them
than `DEEPEST` standard deviations of the scatter are none, nor are areas of one and the same value
(the -1 that stands for "no data"): they count as not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEEPEST = 6.0
"""How many standard deviations net counts may lie below those around them."""
MOST_TOGETHER = 0.75
"""Share of the neighbours of negative pixels that are negative too, above which like values are an
area without data. In an empty area with a background of 1 photon, 0.37 are."""
_HALF_NORMAL_MEDIAN = 0.6745


@dataclass(frozen=True, eq=False)
class GrossCounts:
    """Counts that are nowhere negative.

    Parameters
    ----------
    counts
        Photons (element, y, x) with the background; NaN where nothing was measured.
    background
        Photons a pixel that were put under each element (element,); 0 where none was subtracted.
    notes
        What was done, in words.
    """

    counts: np.ndarray
    background: np.ndarray
    notes: tuple[str, ...] = ()


def gross_counts(counts: np.ndarray, elements: Sequence[str]) -> GrossCounts:
    """Return counts with the background that was subtracted from them.

    Parameters
    ----------
    counts
        Photons (element, y, x), net or not; NaN where nothing was measured.
    elements
        Element names, for the notes.
    """
    counts = np.array(counts, dtype=float)
    background = np.zeros(len(counts))
    notes: list[str] = []
    for index, (name, plane) in enumerate(zip(elements, counts, strict=True)):
        # A NaN is not below 0.
        negative = plane < 0
        if not negative.any():
            continue
        lost = _no_counts(plane, negative)
        if lost.any():
            values = plane[lost]
            notes.append(
                f"{name}: {int(lost.sum())} pixels have negative values that are no net counts"
                f" ({values.min():g} to {values.max():g}): taken as unmeasured"
            )
            plane[lost] = np.nan
        net = plane[negative & ~lost]
        if net.size:
            # As many photons as the noise has variance, and no fewer than were taken off.
            background[index] = max(float(np.mean(net**2)), -float(net.min()))
            share = 100 * net.size / max(1, np.isfinite(plane).sum())
            notes.append(
                f"{name}: net counts ({share:.1f} % below 0, down to {net.min():.3g}): enhanced on"
                f" a background of {background[index]:.3g} photons a pixel, which their scatter"
                " shows and which is taken off again"
            )
            plane += background[index]
    return GrossCounts(counts, background, tuple(notes))


def _no_counts(plane: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return which of the negative pixels (y, x) hold something else than net counts."""
    from scipy import ndimage

    values = -plane[negative]
    alike = bool((values == values[0]).all())
    if alike and _together(negative):
        return negative
    # The median, because it doesn't ask how far off the few are that are none. Of like values
    # nothing is known but that at least as much was subtracted.
    variance = 0.0 if alike else float(np.median(values) / _HALF_NORMAL_MEDIAN) ** 2
    # The lowest neighbour, because the pixel may lie just off an edge.
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    lowest = ndimage.minimum_filter(np.nan_to_num(plane), footprint=ring, mode="nearest")
    around = np.clip(lowest, 0, None)[negative]
    sigma = np.sqrt(around + np.maximum(variance, values if alike else 0.0))
    lost = np.zeros_like(negative)
    lost[negative] = values + around > DEEPEST * sigma
    return lost


def _together(negative: np.ndarray) -> bool:
    pairs = [
        (negative[1:], negative[:-1]),
        (negative[:, 1:], negative[:, :-1]),
    ]
    both = sum(int((one & other).sum()) for one, other in pairs)
    either = sum(int(one.sum()) + int(other.sum()) for one, other in pairs)
    return 2 * both > MOST_TOGETHER * either
