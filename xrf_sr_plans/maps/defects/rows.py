"""Rows that the detector left empty, or wrote twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xrf_sr_plans.maps.defects.chance import (
    has_noise,
    is_empty,
    joint,
    may_be_empty,
    no_chance,
    same,
)
from xrf_sr_plans.physics.counting import stabilise

FITS_BETTER = 0.5
"""Distance of the second of two like rows from the next row, as a part of that of the first one
from the row before, below which the first one may be the copy."""


def dead_rows(counts: np.ndarray, notes: list[str]) -> list[int]:
    """Return the rows without counts between rows that count."""
    photons = joint(counts)
    found = []
    # What is expected at least, pixel by pixel, of all rows but the first and the last.
    beside = np.minimum(photons[:-2], photons[2:])
    for row in np.flatnonzero(may_be_empty(photons[1:-1], beside)).tolist():
        row, expected = row + 1, beside[row]
        if is_empty(photons[row], expected):
            found.append(row)
            notes.append(
                f"row {row}: dead: {np.nansum(photons[row]):g} photons in all elements together,"
                f" the rows beside it have {np.nansum(photons[row - 1]):g} and"
                f" {np.nansum(photons[row + 1]):g}: taken as unmeasured"
            )
    return found


def doubled_rows(counts: np.ndarray, dead: Sequence[int], notes: list[str]) -> list[int]:
    """Return the rows that are copies of a neighbour."""
    rows = counts.shape[1]
    pairs = []
    # Rows with different sums are different, which is quicker to see.
    sums = np.nansum(counts, axis=2)
    for row in np.flatnonzero(np.isclose(sums[:, 1:], sums[:, :-1]).all(axis=0)) + 1:
        first, second = counts[:, row - 1], counts[:, row]
        alike = same(first, second) or same(first[:, ::-1], second)
        if alike and not {row - 1, row} & set(dead) and no_chance(second):
            pairs.append(int(row))
    if not pairs or len(pairs) > rows / 4 or not has_noise(counts, pairs):
        return []
    found: list[int] = []
    for row in pairs:
        copies = {row}
        if 1 < row < rows - 1:
            # At its own place a row fits to the row beyond it. Stored from high to low, the first
            # of the two is the copy; where it looks like that, both are left out.
            before = _distance(counts[:, row - 1], counts[:, row - 2])
            after = _distance(counts[:, row], counts[:, row + 1])
            if after < FITS_BETTER * before:
                copies.add(row - 1)
        found += sorted(copies - set(found))
        which = " and ".join(f"row {one}" for one in sorted(copies))
        notes.append(
            f"{which}: rows {row - 1} and {row} are alike to each of their"
            f" {np.nansum(counts[:, row]):g} photons: taken as unmeasured"
        )
    return sorted(found)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return how far two lines are apart, in the noise of their counts."""
    return float(np.nansum(np.square(stabilise(first) - stabilise(second))))
