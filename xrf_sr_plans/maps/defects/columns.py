"""Bad columns at the ends of the rows of a fly scan, and edges of samples, which are none."""

from __future__ import annotations

import math

import numpy as np

from xrf_sr_plans.maps.defects.chance import (
    LEAST_EXPECTED,
    LEAST_PIXELS,
    has_noise,
    is_empty,
    joint,
    may_be_empty,
    no_chance,
    same,
)

MOST_COLUMNS = 3
"""How many columns at an end of the rows may be bad."""
TIMES_AS_MUCH = 5.0
"""How many times the column before a bad column has at least in all elements."""
SPREAD = 0.3
"""By how much that number may differ between elements and quarters, beside counting noise."""
MOST_FALLEN = 0.1
"""Share of the rows in which a column may have less than half of the one before at no edge."""
ENOUGH_TO_SEE = 12.0
"""Photons in which a loss of half of them can be seen."""
NOTHING_LOST = 0.8
"""Photons of a column, as a part of the one before, above which no edge runs through it."""


def bad_columns(counts: np.ndarray, notes: list[str]) -> list[int]:
    """Return the bad columns at both ends of the rows."""
    width = counts.shape[2]
    if width < 4 * MOST_COLUMNS:
        return []
    found = []
    may_end = not _has_such_edges(counts)
    for flipped in (False, True):
        view = counts[:, :, ::-1] if flipped else counts
        number, reason = _bad_last(view, may_end)
        columns = list(range(number)) if flipped else list(range(width - number, width))
        found += columns
        if columns:
            which = ", ".join(map(str, columns))
            notes.append(f"column {which}: {reason}: taken as unmeasured")
    return sorted(found)


def _has_such_edges(counts: np.ndarray) -> bool:
    """Return whether a column far from both ends is empty beside one that counts.

    The sample then has straight edges along the columns, without any background, and may have one
    near an end of the rows too.
    """
    columns = joint(counts[:, :, MOST_COLUMNS:-MOST_COLUMNS]).T
    first, second = columns[:-1], columns[1:]
    places = np.flatnonzero(may_be_empty(first, second) | may_be_empty(second, first))
    return any(is_empty(first[k], second[k]) or is_empty(second[k], first[k]) for k in places)


def _bad_last(counts: np.ndarray, may_end: bool) -> tuple[int, str]:
    """Return how many of the last columns are bad, and why; 0 and "" where none is.

    `may_end`: columns that are empty beside one that counts are bad.
    """
    for number in range(MOST_COLUMNS, 0, -1):
        last = counts[:, :, -number:]
        good, before = counts[:, :, -number - 1], counts[:, :, -number - 2]
        if may_end and _ends_abruptly(last, good, before):
            return number, "nothing in all elements, beside a column that counts"
        if _is_constant(last, good) and has_noise(counts[:, :, :-number]):
            return number, "the same value in all rows"
    for number in range(MOST_COLUMNS, 0, -1):
        copies = counts[:, :, -number:]
        good = counts[:, :, -number - 1]
        alike = all(same(copies[:, :, k], good) for k in range(number))
        if alike and no_chance(good) and has_noise(np.swapaxes(counts[:, :, :-number], 1, 2)):
            return number, "a copy of the column beside it"
        if _is_multiplied(copies, good):
            return number, "many times the column beside it, in all elements and rows alike"
    return 0, ""


def _ends_abruptly(last: np.ndarray, good: np.ndarray, before: np.ndarray) -> bool:
    """Return whether columns are empty where the column beside them shows no edge at all."""
    expected, further = joint(good), joint(before)
    if np.nansum(np.abs(last)) > 0:
        # What was never read out holds nothing at all. A few photons are a background, beyond the
        # edge of a sample that was measured.
        return False
    if not all(is_empty(column, expected) for column in np.moveaxis(joint(last), -1, 0)):
        return False
    # At an edge that isn't parallel to the columns, or not between two of them, the column beside
    # it has already less than the one before that. Rows are taken together until they count enough
    # to see it.
    known = np.isfinite(expected) & np.isfinite(further)
    expected, further = expected[known], further[known]
    mean = float(further[further > 0].mean()) if (further > 0).any() else 0.0
    together = math.ceil(ENOUGH_TO_SEE / mean) if mean > 0 else len(further)
    starts = np.arange(0, len(further), max(1, together))
    expected, further = (np.add.reduceat(line, starts) for line in (expected, further))
    counting = further >= ENOUGH_TO_SEE / 2
    fallen = expected + 2 * np.sqrt(expected + 1) < further / 2
    total, reference = float(expected.sum()), float(further.sum())
    whole = total + 2 * math.sqrt(total + reference) >= NOTHING_LOST * reference
    return whole and int((counting & fallen).sum()) <= MOST_FALLEN * int(counting.sum())


def _is_constant(columns: np.ndarray, good: np.ndarray) -> bool:
    """Return whether columns have one value in all rows, which goes on from no good column."""
    if not np.isfinite(columns).all() or not (columns == columns[:, :1]).all():
        return False
    value, beside = columns[:, 0], np.clip(np.nanmean(good, axis=1), 0, None)[:, None]
    leaps = (value > 2 * beside + 1) | (2 * value < beside - 1)
    return bool(leaps.any(axis=0).all()) and all(
        no_chance(columns[:, :, k]) for k in range(columns.shape[2])
    )


def _is_multiplied(columns: np.ndarray, good: np.ndarray) -> bool:
    """Return whether columns are `good` times one number, in all elements and parts of it."""
    expected = _parts(good)
    # Elements and quarters of the column in which there is enough to compare.
    enough = expected >= LEAST_EXPECTED
    if enough.any(axis=1).sum() < 2 or enough.sum() < LEAST_PIXELS // 2:
        return False
    for column in np.moveaxis(columns, -1, 0):
        found = _parts(column)
        times = found[enough].sum() / expected[enough].sum()
        spread = np.abs(found[enough] / expected[enough] / max(times, 1.0) - 1)
        if times < TIMES_AS_MUCH or (spread > SPREAD + 4 / np.sqrt(expected[enough])).any():
            return False
    return True


def _parts(column: np.ndarray) -> np.ndarray:
    """Return the photons in each quarter of a column (element, y), as (element, quarter)."""
    known = np.clip(np.nan_to_num(column), 0, None)
    return np.stack([part.sum(axis=1) for part in np.array_split(known, 4, axis=1)], axis=1)
