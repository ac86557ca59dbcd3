"""Lone bright pixels of one element that may be particles, and may be hot pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xrf_sr_plans.maps.defects.hot_pixels import (
    LEAST_HOT,
    MOST_HOT,
    has_tail,
    has_trace,
    highest_neighbours,
)

BRIGHTER = 3.0
"""How many times the photons of each of its eight neighbours a doubtful pixel has at least."""
LEAST_MEASURED = 3
"""Measured neighbours without which nothing is said of a pixel; one in a corner has as many."""
MOST_DOUBTFUL = 0.01
"""Share of a map's pixels above which lone bright ones are what the sample looks like."""

Place = tuple[int, int, int]


def doubtful_pixels(counts: np.ndarray) -> list[Place]:
    """Return (element, row, column) of pixels that are particles or hot, which can't be told.

    They stand out of all their neighbours, are brighter than whatever doesn't, show nothing in any
    other element and have no tail, so the map holds no sign that the sample made them. Whether a
    probe can be so sharp is asked by `hot_pixels`, whose places are NaN in `counts`.

    Parameters
    ----------
    counts
        Photons (element, y, x), NaN for what is unmeasured or a defect.
    """
    found: list[Place] = []
    for index, plane in enumerate(counts):
        filled = np.where(np.isfinite(plane), plane, -np.inf)
        if filled.max() < LEAST_HOT:
            continue
        highest = np.clip(highest_neighbours(filled), 1.0, None)
        far = filled >= np.maximum(LEAST_HOT, BRIGHTER * highest)
        places = [(int(row), int(column)) for row, column in np.argwhere(far)]
        if not places or len(places) > MOST_DOUBTFUL * plane.size:
            continue
        others = np.where(far, np.nan, plane)
        cap = float(np.nanmax(others)) if np.isfinite(others).any() else 0.0
        found += [
            (index, *place)
            for place in places
            if plane[place] > cap
            and _is_surrounded(plane, *place)
            and not has_tail(others, float(plane[place]), *place)
            and not has_trace(counts, index, *place)
        ]
    return found


def doubts(
    places: Sequence[Place],
    counts: np.ndarray,
    names: Sequence[str],
    probe_steps: tuple[float, float],
) -> list[str]:
    """Return what can't be told: a line a pixel, or one an element where there are many."""
    reason = (
        "which a probe of that size can't tell"
        if min(probe_steps) > 0
        else "which can't be told without the size of the probe"
    )
    what = f"{reason}: kept, and other elements are enhanced as if it were not there"
    lines = []
    for index, name in enumerate(names):
        own = [place[1:] for place in places if place[0] == index]
        if len(own) > 1 and len(places) > MOST_HOT:
            lines.append(
                f"{name}: {len(own)} pixels are {BRIGHTER:g} or more times as bright as all"
                f" around them, and nothing else shows them: particles or hot pixels, {what}"
            )
            continue
        for row, column in own:
            times = counts[index, row, column] / _highest_around(counts[index], row, column)
            lines.append(
                f"{name}: the pixel at row {row}, column {column} is {times:.3g} times as bright as"
                f" all around it, and nothing else shows it: a particle or a hot pixel, {what}"
            )
    return lines


def _is_surrounded(plane: np.ndarray, row: int, column: int) -> bool:
    """Return whether enough neighbours of a pixel were measured."""
    window = plane[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    return int(np.isfinite(window).sum()) - 1 >= LEAST_MEASURED


def _highest_around(plane: np.ndarray, row: int, column: int) -> float:
    """Return the photons of the brightest neighbour, 1 at least."""
    window = plane[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].copy()
    window[min(row, 1), min(column, 1)] = np.nan
    return max(1.0, float(np.nanmax(window)))
