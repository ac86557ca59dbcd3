"""What the rows of a map are worth: the pixel of every frame, and which channels to believe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.encoders import (
    UNITS_UM,
    Fault,
    RowPlaces,
    nominal_um,
    other_unit,
    place_row,
)
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.monitors import judge_i0, judge_live_time

SLOW_TOLERANCE_STEPS = 0.75
"""Distance from its row, in steps, beyond which a frame is left out (a stuck slow motor)."""

_MOST_STRETCHES = 6
"""Stretches of rows that a note names."""


@dataclass(frozen=True, eq=False)
class RawRow:
    """One attempt at one row, as its event has it.

    Parameters
    ----------
    attempt
        Number of the attempt, from 0.
    direction
        -1 where the row was flown from high to low.
    counts
        Detected photons [element, frame]; NaN where there is none.
    i0
        Flux monitor [frame].
    live_time_s
        Live time of the detector [frame].
    fast, slow
        Readings of the encoders [frame], in um if they are what they should be.
    places
        The pixels of the frames, if the fast encoder reads um.
    channels
        The channels that the event has: "i0", "live_time", "fast_um", "slow_um". One that isn't
        there at all is not named.
    """

    attempt: int
    direction: int
    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray
    fast: np.ndarray
    slow: np.ndarray
    places: RowPlaces
    channels: frozenset[str]

    def is_in_place(self, index: int, grid: ScanGrid) -> bool:
        """Return whether the slow encoder saw the row where row `index` is, or says nothing."""
        known = self.slow[np.isfinite(self.slow)]
        if not known.size:
            return True
        away_um = abs(float(np.median(known)) - float(grid.slow.centers_um[index]))
        return away_um <= SLOW_TOLERANCE_STEPS * grid.slow.step_um

    def is_same_as(self, other: RawRow) -> bool:
        """Return whether another event says the same of the row."""
        return self.attempt == other.attempt and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True)
            for name in ("counts", "i0", "live_time_s", "fast", "slow")
        )


@dataclass(frozen=True, eq=False)
class JudgedRow:
    """The frames of one row that lie on the grid, in arrays [..., frame].

    Parameters
    ----------
    x
        Index of each frame's pixel along the fast axis [frame].
    counts
        Detected photons [element, frame].
    i0, live_time_s
        Readings [frame]; NaN where the channel says nothing.
    nothing
        Frames [frame] in which nothing was measured, for want of beam or live time.
    """

    x: np.ndarray
    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray
    nothing: np.ndarray


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """All rows of a map by index, ascending, and notes that name what is odd about them."""

    rows: Mapping[int, JudgedRow]
    notes: tuple[str, ...]


def judge_rows(raw: Mapping[int, RawRow], grid: ScanGrid) -> JudgedRows:
    """Place the frames of all rows and tell what their channels are worth.

    Parameters
    ----------
    raw
        The rows so far, by index along the slow axis.
    grid
        Pixels of the map.
    """
    indices = sorted(raw)
    rows = [raw[index] for index in indices]
    if not rows:
        return JudgedRows({}, ())
    fast_unit = other_unit(
        [row.fast for row in rows],
        [nominal_um(row.fast.size, grid.fast, row.direction) for row in rows],
        grid.fast.step_um,
    )
    places = [_placed(row, grid, fast_unit) for row in rows]
    fast_notes = [*_unit_note("fast", fast_unit), *_fast_notes(indices, places)]
    away_steps, slow_notes = _away_from_row(indices, rows, grid)
    counted = [np.isfinite(row.counts).any(axis=0) for row in rows]
    kept = [
        (place.x >= 0) & is_counted & ~(away > SLOW_TOLERANCE_STEPS)
        for place, is_counted, away in zip(places, counted, away_steps, strict=True)
    ]
    # Of all rows one behind the other, [frame]: readings, photons of all elements, row indices.
    sizes = [row.i0.size for row in rows]
    # Frames that the detector padded tell nothing about the monitors.
    real = np.concatenate(counted)
    photons = np.concatenate([np.nansum(row.counts, axis=0) for row in rows])
    of_row = np.repeat(indices, sizes)
    where = _where(of_row[real])
    i0, live = np.full(real.size, np.nan), np.full(real.size, np.nan)
    nothing = np.zeros(real.size, dtype=bool)
    beam = judge_i0(np.concatenate([row.i0 for row in rows])[real], photons[real], where)
    alive = judge_live_time(
        np.concatenate([row.live_time_s for row in rows])[real], photons[real], where
    )
    i0[real], live[real] = beam.values, alive.values
    nothing[real] = beam.nothing | alive.nothing
    bounds = np.cumsum([0, *sizes])
    judged = {}
    for place, index in enumerate(indices):
        keep, part = kept[place], slice(bounds[place], bounds[place + 1])
        judged[index] = JudgedRow(
            places[place].x[keep],
            rows[place].counts[:, keep],
            i0[part][keep],
            live[part][keep],
            nothing[part][keep],
        )
    notes = {
        "fast_um": fast_notes,
        "slow_um": slow_notes,
        "i0": beam.notes,
        "live_time": alive.notes,
    }
    channels = frozenset[str]().union(*(row.channels for row in rows))
    return JudgedRows(
        judged, tuple(note for name, some in notes.items() if name in channels for note in some)
    )


def rows_in_words(indices: Iterable[int]) -> str:
    """Return row numbers in words, such as "row 3" or "rows 0-4, 7"."""
    numbers = sorted(set(indices))
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][1] + 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    shown = [f"{low}" if low == high else f"{low}-{high}" for low, high in stretches]
    more = ["..."] if len(shown) > _MOST_STRETCHES else []
    return f"row{'s' * (len(numbers) > 1)} {', '.join([*shown[:_MOST_STRETCHES], *more])}"


def _placed(row: RawRow, grid: ScanGrid, unit: str) -> RowPlaces:
    if not unit:
        return row.places
    return place_row(row.fast * UNITS_UM[unit], grid.fast, row.direction)


def _unit_note(axis: str, unit: str) -> list[str]:
    return [f"the {axis} encoder reads {unit}: taken as such"] if unit else []


def _fast_notes(indices: list[int], places: list[RowPlaces]) -> list[str]:
    """Return a note for each kind of fault of the fast encoder, with the rows concerned."""

    def having(fault: Fault) -> list[int]:
        return [at for at, place in enumerate(places) if place.fault == fault]

    def rows(found: list[int]) -> str:
        return rows_in_words(indices[at] for at in found)

    notes = []
    if found := having("silent"):
        notes.append(
            f"the fast encoder says nothing in {rows(found)}: frames are placed by their order"
        )
    if found := having("standing"):
        notes.append(f"the fast encoder stands still in {rows(found)}: unmeasured")
    if found := having("jumping"):
        notes.append(f"the fast encoder jumps about in {rows(found)}: unmeasured")
    if found := having("elsewhere"):
        away_um = float(np.median([places[at].offset_um for at in found]))
        notes.append(
            f"the fast encoder is {away_um:+.4g} um from where the frames of {rows(found)} belong,"
            " outside the map: unmeasured"
        )
    for name, words in (
        ("wild", "with a wild reading of the fast encoder: left out"),
        ("still", "while the fast encoder stood still: left out"),
        ("outside", "outside the map by the fast encoder: left out"),
    ):
        if found := [at for at, place in enumerate(places) if getattr(place, name)]:
            number = sum(getattr(places[at], name) for at in found)
            notes.append(f"{number} frame{'s' * (number > 1)} of {rows(found)} {words}")
    return notes


def _away_from_row(
    indices: list[int], rows: list[RawRow], grid: ScanGrid
) -> tuple[list[np.ndarray], list[str]]:
    """Return how far each frame is from its row in steps, NaN where unknown; and notes."""
    centers = [float(grid.slow.centers_um[index]) for index in indices]
    belongs = [np.full(row.slow.size, center) for row, center in zip(rows, centers, strict=True)]
    unit = other_unit([row.slow for row in rows], belongs, grid.slow.step_um)
    scale = UNITS_UM.get(unit, 1.0)
    away_um = [scale * row.slow - place for row, place in zip(rows, belongs, strict=True)]
    away = [np.abs(um) / grid.slow.step_um for um in away_um]
    notes = _unit_note("slow", unit)
    silent = [at for at, steps in enumerate(away) if not np.isfinite(steps).any()]
    if silent:
        notes.append(
            f"the slow encoder says nothing in {rows_in_words(indices[at] for at in silent)}:"
            " rows are placed by their number"
        )
    strayed = [steps > SLOW_TOLERANCE_STEPS for steps in away]
    found = [at for at, mask in enumerate(strayed) if mask.any()]
    if not found:
        return away, notes
    number = sum(int(mask.sum()) for mask in strayed)
    median_um = np.median(np.concatenate([away_um[at][strayed[at]] for at in found]))
    readings = np.concatenate([rows[at].slow[strayed[at]] for at in found])
    still = len(found) > 2 and np.ptp(readings) * scale < SLOW_TOLERANCE_STEPS * grid.slow.step_um
    how = "stands still" if still else f"is {median_um:+.4g} um from where they belong"
    notes.append(
        f"{rows_in_words(indices[at] for at in found)}: {number} frames were taken in another"
        f" row's place, the slow encoder {how}: unmeasured"
    )
    return away, notes


def _where(of_row: np.ndarray) -> Callable[[np.ndarray], str]:
    """Return what says in words where the frames of a mask are, given each frame's row [frame]."""

    def in_words(mask: np.ndarray) -> str:
        number = int(mask.sum())
        return f"{number} of {mask.size} frames ({rows_in_words(of_row[mask].tolist())})"

    return in_words
