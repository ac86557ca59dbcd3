"""Hot pixels of one element: brighter than any sample can be in one pixel alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, special

from xrf_sr_plans.maps.defects.chance import CHANCE

SHARPEST = 0.85
"""How much sharper than stated a probe may be."""
FAR_ABOVE = 30.0
"""How many times the photons of any other pixel a lone pixel needs to be no particle."""
FAR_ABOVE_ALONE = 100.0
"""The same where there is no other element that could show a trace."""
LEAST_HOT = 100.0
"""Photons below which no pixel is hot."""
MOST_HOT = 3
"""Lone bright pixels in the map of an element above which they may be particles."""
USUAL_PROBE_STEPS = 0.3
"""Width of the probe, in steps, that is assumed at least where none is stated. Of particles much
smaller than a step, such a probe shows a tail in a neighbour for three of four: more than
`MOST_HOT` of them without any tail are none."""
TRACE_SIGMAS = 4.0
"""Excess over all neighbours, in standard deviations, that is a trace in another element."""
TAIL = 0.02
"""Share of a pixel's photons in its four neighbours that shows that a probe passed it."""
_AROUND = 5
"""Side of the square whose median is what surrounds a pixel."""
_FEW = 0.05
"""Share of a map's pixels up to which medians are quicker taken one by one."""


def hot_pixels(
    counts: np.ndarray, index: int, probe_steps: tuple[float, float]
) -> list[tuple[int, int]]:
    """Return the places (row, column) of an element's hot pixels."""
    plane = counts[index]
    filled = np.where(np.isfinite(plane), plane, -np.inf)
    if filled.max() < LEAST_HOT:
        return []
    peaks = _may_be_sharp(filled, probe_steps)
    if peaks.any():
        peaks &= filled >= np.maximum(LEAST_HOT, 2 * highest_neighbours(filled))
    impossible = [
        (int(row), int(column))
        for row, column in np.argwhere(peaks)
        if _too_sharp(plane, row, column, probe_steps)
    ]
    places = _lonely(filled)
    if places:
        others = plane.copy()
        for row, column in (*places, *impossible):
            others[row, column] = np.nan
        cap = max(1.0, float(np.nanmax(others))) if np.isfinite(others).any() else 1.0
        times = FAR_ABOVE if len(counts) > 1 else FAR_ABOVE_ALONE
        alone = [
            place
            for place in places
            if place not in impossible
            and plane[place] >= times * cap
            and not has_tail(others, float(plane[place]), *place)
            and not has_trace(counts, index, *place)
        ]
        usual = all(not width or width >= USUAL_PROBE_STEPS for width in probe_steps)
        if len(places) <= MOST_HOT or (usual and len({*alone, *impossible}) >= len(places)):
            impossible += alone
    return sorted(impossible)


def _lonely(filled: np.ndarray) -> list[tuple[int, int]]:
    """Return pixels (row, column) that are far above all around them.

    They are single ones, and pairs where there are more than `MOST_HOT` single ones: a lone pair
    is what a point between two pixels looks like.
    """
    far = _far_above(filled)
    if not far.any():
        return []
    labels, number = ndimage.label(far, structure=np.ones((3, 3)))  # type: ignore[misc]
    single: list[tuple[int, int]] = []
    paired: list[tuple[int, int]] = []
    for index in range(1, number + 1 if number <= filled.size // 100 else 1):
        found = np.argwhere(labels == index)
        if len(found) > 2:
            continue
        (low, left), (high, right) = found.min(axis=0), found.max(axis=0)
        window = filled[max(0, low - 1) : high + 2, max(0, left - 1) : right + 2]
        inside = labels[max(0, low - 1) : high + 2, max(0, left - 1) : right + 2] == index
        if filled[labels == index].min() >= FAR_ABOVE * max(1.0, float(window[~inside].max())):
            places = single if len(found) == 1 else paired
            places += [(int(row), int(column)) for row, column in found]
    return single + paired if len(single) > MOST_HOT else single


def _far_above(filled: np.ndarray) -> np.ndarray:
    """Return which pixels are `FAR_ABOVE` times the median of the square around them (y, x)."""
    values = np.where(np.isneginf(filled), 0.0, filled)
    far = values >= LEAST_HOT
    # The median of a square is nowhere below its smallest value, which is found sooner.
    lowest = ndimage.minimum_filter(values, _AROUND)
    far &= values >= FAR_ABOVE * np.clip(lowest, 1.0, None)
    rows, columns = np.nonzero(far)
    if rows.size > _FEW * values.size:
        around = ndimage.median_filter(values, _AROUND)
        return far & (values >= FAR_ABOVE * np.clip(around, 1.0, None))
    # Like the filter: beyond its border a map is mirrored.
    padded = np.pad(values, _AROUND // 2, mode="symmetric")
    squares = sliding_window_view(padded, (_AROUND, _AROUND))[rows, columns]
    around = np.median(squares.reshape(-1, _AROUND**2), axis=1)
    far[rows, columns] = values[rows, columns] >= FAR_ABOVE * np.clip(around, 1.0, None)
    return far


def highest_neighbours(filled: np.ndarray) -> np.ndarray:
    """Return the largest of the eight neighbours of each pixel (y, x), -inf where it has none."""
    padded = np.pad(filled, 1, constant_values=-np.inf)
    # Of each pixel and those above and below it, (y, x + 2).
    tall = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    highest = np.maximum(tall[:, :-2], tall[:, 2:])
    np.maximum(highest, padded[:-2, 1:-1], out=highest)
    return np.maximum(highest, padded[2:, 1:-1], out=highest)


def _may_be_sharp(filled: np.ndarray, probe_steps: tuple[float, float]) -> np.ndarray:
    """Return which pixels have fewer photons beside them than expected of a probe (y, x).

    It is quick, and `_too_sharp` looks at those pixels only.
    """
    fewer = np.zeros(filled.shape, dtype=bool)
    for axis, width in enumerate(probe_steps):
        inner = (slice(None),) * axis + (slice(1, -1),)
        low, high = (
            filled[(slice(None),) * axis + (part,)] for part in (slice(-2), slice(2, None))
        )
        share = 2 * _least_share(SHARPEST * width)
        if share > 0:
            fewer[inner] |= low + high < share * filled[inner]
    return fewer


def _too_sharp(plane: np.ndarray, row: int, column: int, probe_steps: tuple[float, float]) -> bool:
    """Return whether no probe of that width gives such neighbours along any axis."""
    struck = False
    for axis, width in enumerate(probe_steps):
        least = 2 * _least_share(SHARPEST * width)
        if least * plane[row, column] < -math.log(CHANCE):
            # Nothing need be there: this axis can't tell.
            continue
        step = (1, 0) if axis == 0 else (0, 1)
        near = [
            plane[row + sign * step[0], column + sign * step[1]]
            for sign in (-1, 1)
            if 0 <= row + sign * step[0] < plane.shape[0]
            and 0 <= column + sign * step[1] < plane.shape[1]
        ]
        if len(near) < 2 or not np.isfinite(near).all():
            return False
        # Of all photons in the three pixels at least this share lies in the outer ones.
        outer = max(0.0, float(np.sum(near)))
        share = least / (1 + least)
        # The binomial distribution, in its form for counts that were scaled and are not whole.
        if special.betainc(plane[row, column], outer + 1, 1 - share) > CHANCE:
            return False
        struck = True
    return struck


def _least_share(width_steps: float) -> float:
    """Return the least share of a pixel's photons that a neighbour has, on average of the two."""
    return math.exp(-4 * math.log(2) / width_steps**2) if width_steps > 0 else 0.0


def has_tail(plane: np.ndarray, value: float, row: int, column: int) -> bool:
    """Return whether the four neighbours of a pixel hold more than what surrounds them.

    Parameters
    ----------
    plane
        Photons (y, x) with NaN for this and other hot pixels.
    value
        Photons of the pixel.
    row, column
        Its place.
    """
    around = plane[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
    near = [
        plane[row + down, column + right]
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
        if 0 <= row + down < plane.shape[0] and 0 <= column + right < plane.shape[1]
    ]
    near = np.array([value for value in near if np.isfinite(value)])
    level = max(0.0, float(np.nanmedian(around)))
    excess = float(near.sum() - level * near.size)
    noise = TRACE_SIGMAS * math.sqrt(level * near.size + 1)
    return excess > max(noise, TAIL * value)


def has_trace(counts: np.ndarray, index: int, row: int, column: int) -> bool:
    """Return whether another element stands out of all its neighbours there."""
    around = counts[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].copy()
    value = counts[:, row, column]
    place = (slice(None), min(row, 1), min(column, 1))
    around[place] = -np.inf
    highest = np.clip(np.where(np.isfinite(around), around, 0.0).max(axis=(1, 2)), 0, None)
    stands_out = value > highest + TRACE_SIGMAS * np.sqrt(highest + 1)
    stands_out[index] = False
    return bool(stands_out.any())
