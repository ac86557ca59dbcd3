"""Keeps a pixel that may be a hot one of its element from spoiling the other elements.

The network looks at all elements together, and takes what is bright in one of them for a sign of
what the others do. A pixel that may be hot (`maps.defects.doubtful_pixels`) is no such sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.resample import fill_unmeasured

MOST_TURNS = 3
"""Elements with doubtful pixels that are made once more each; where there are more, such pixels
are what the sample looks like, and keep their say in each other."""

Place = tuple[int, int, int]
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def run_without_doubts(
    made: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    doubtful: Sequence[Place],
    measurement: Measurement,
    reach: int,
    run: Run,
) -> None:
    """Put in place what each element is without the doubtful pixels of the others.

    Parameters
    ----------
    made
        What `run` makes of `counts`: two arrays (element, Y, X) on the fine grid, changed in place
        no further than `reach` from a doubtful pixel.
    counts
        Photons (element, y, x) without gaps.
    doubtful
        (element, row, column) of each doubtful pixel.
    measurement
        How the map was measured.
    reach
        How far, in coarse pixels, a pixel has a say in the result.
    run
        Makes the same of a part of the map (element, y, x).
    """
    if not doubtful or len(counts) < 2:
        return
    factor, pixels = measurement.factor, measurement.fast_pixels
    shape = counts.shape[1], counts.shape[2] // pixels
    coarse = [(row, column // pixels) for _, row, column in doubtful]
    for outer, inner in _windows(shape, coarse, reach):
        rows, columns = outer[0], _times(outer[1], pixels)
        part = counts[:, rows, columns]
        near = [
            (element, row - rows.start, column - columns.start)
            for element, row, column in doubtful
            if rows.start <= row < rows.stop and columns.start <= column < columns.stop
        ]
        fine = tuple(_times(one, factor) for one in inner)
        inside = tuple(
            _times(slice(i.start - o.start, i.stop - o.start), factor)
            for i, o in zip(inner, outer, strict=True)
        )
        for elements, hidden in _turns(len(counts), near):
            for target, values in zip(made, run(_filled(part, hidden)), strict=True):
                for element in elements:
                    target[element, *fine] = values[element, *inside]


def _turns(n_elements: int, near: Sequence[Place]) -> Iterator[tuple[list[int], list[Place]]]:
    """Yield elements, and the doubtful pixels of all others, until each element had its turn.

    Elements with doubtful pixels have none where they are more than `MOST_TURNS`.
    """
    owners = {place[0] for place in near}
    without = [element for element in range(n_elements) if element not in owners]
    single = sorted(owners) if len(owners) <= MOST_TURNS else []
    for elements in (without, *([owner] for owner in single)):
        hidden = [place for place in near if place[0] not in elements]
        if elements and hidden:
            yield elements, hidden


def _filled(part: np.ndarray, hidden: Sequence[Place]) -> np.ndarray:
    """Return a part of the map with neighbours in place of the hidden pixels."""
    part = part.copy()
    for place in hidden:
        part[place] = np.nan
    return fill_unmeasured(part)


def _times(pixels: slice, factor: int) -> slice:
    return slice(pixels.start * factor, pixels.stop * factor)


def _windows(
    shape: tuple[int, int], doubtful: Sequence[tuple[int, int]], reach: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield what is computed, and the inner part of it that is used, around each pixel.

    All of it is in coarse pixels. It is the whole map once where that is less.
    """
    if len(doubtful) * (4 * reach + 1) ** 2 >= np.prod(shape):
        whole = tuple(slice(0, size) for size in shape)
        yield whole, whole
        return
    for place in doubtful:
        inner, outer = (
            tuple(
                slice(max(0, at - far), min(size, at + far + 1))
                for at, size in zip(place, shape, strict=True)
            )
            for far in (reach, 2 * reach)
        )
        yield outer, inner
