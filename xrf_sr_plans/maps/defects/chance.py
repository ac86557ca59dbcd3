"""What counting noise can do: lines of pixels that are empty, or alike, by chance or not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

CHANCE = 1e-9
"""Probability below which something is no coincidence; a map has up to a million pixels."""
NEXT_TO_NOTHING = 0.005
"""Photons of a dead row or an empty column, as a part of what is expected there."""
LEAST_EXPECTED = 50.0
"""Photons that are expected at least where nothing was counted."""
LEAST_PIXELS = 8
"""Pixels of a row or column at least that are expected to count."""
LEAST_NOISE = 0.3
"""Squared differences between two rows over their photons, which are 1 where nothing but counting
makes them differ, below which they have no counting noise."""
MOST_STILL = 0.05
"""Share of such rows that a map with counting noise has at most."""
MOST_ALIKE = 2.0
"""How many times as many equal neighbours as chance makes a map with counting noise has at most."""
_SIGMAS = 4.0


def joint(counts: np.ndarray) -> np.ndarray:
    """Return the photons of all elements together (y, x), NaN where no element has a value."""
    # fmax takes the 0 beside a NaN.
    photons = np.fmax(counts, 0).sum(axis=0)
    known = np.zeros(counts.shape[1:], dtype=bool)
    for plane in counts:
        known |= np.isfinite(plane)
        if known.all():
            return photons
    photons[~known] = np.nan
    return photons


def is_empty(line: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether a line of pixels counts nothing where so many photons are expected."""
    known = np.isfinite(line) & np.isfinite(expected)
    total = float(expected[known].sum())
    return (
        total >= LEAST_EXPECTED
        and int((expected[known] > 0).sum()) >= LEAST_PIXELS
        and float(line[known].sum()) <= NEXT_TO_NOTHING * total
    )


def may_be_empty(lines: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return which lines (line, pixel) `is_empty` has to look at, bool (line,).

    It asks of all lines at once what each of them has to fulfil in any case.
    """
    known = np.isfinite(lines) & np.isfinite(expected)
    counted = np.where(known, lines, 0).sum(axis=1)
    total = np.where(known, expected, 0).sum(axis=1)
    # Whatever the order in which they are summed.
    return counted <= 1.01 * NEXT_TO_NOTHING * total


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two lines have the same values, gaps included."""
    return bool(np.array_equal(first, second, equal_nan=True))


def no_chance(line: np.ndarray) -> bool:
    """Return whether independent counts can't be the same as those of a line by chance.

    Of two counts with the expectation m, ``exp(-2 m) I0(2 m)`` are equal. Each pixel's own count
    stands for m, which makes chance larger than it is.
    """
    mean = np.clip(line[np.isfinite(line)], 0, None)

    return float(np.log(special.i0e(2 * mean)).sum()) < math.log(CHANCE)


def has_noise(counts: np.ndarray, left_out: Sequence[int] = ()) -> bool:
    """Return whether no more neighbours along y have the same value than counting makes alike.

    In a map without counting noise a homogeneous area is the same to the last digit, and rows in it
    are copies of each other. `left_out` are rows that are not compared with the ones before.
    """
    values = np.clip(counts, 0, None)
    compared = np.ones(counts.shape[1] - 1, dtype=bool)
    compared[np.asarray(left_out, dtype=int) - 1] = False
    first, second = values[:, :-1][:, compared], values[:, 1:][:, compared]
    with np.errstate(invalid="ignore"):
        alike = int(((first == second) & (first > 0)).sum())
    counting = second[np.isfinite(second) & (second > 0)]
    expected = float(special.i0e(2 * counting).sum())
    if alike > MOST_ALIKE * expected + _SIGMAS * math.sqrt(expected + 1):
        return False
    # Rows that differ by less than counting makes them differ.
    squares = np.nansum(np.square(first - second), axis=(0, 2))
    photons = np.nansum(first + second, axis=(0, 2))
    still = (photons >= LEAST_EXPECTED) & (squares < LEAST_NOISE * photons)
    return int(still.sum()) <= MOST_STILL * len(still)
