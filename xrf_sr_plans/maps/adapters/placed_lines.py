"""The shared step *place*: every frame of a map by its readings on both axes.

The frames of a fly scan belong together in lines, and a line lies where the median of its slow
readings is; the frames of a step scan are placed one by one. Without readings the order decides,
as far as it can: which line is missing is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.adapted_map import FlownRow
from xrf_sr_plans.maps.adapters.lattice import (
    Lattice,
    SaidAxis,
    lattice_of,
    line_lattice,
    line_slope,
    step_between,
    unit_by_places,
    unit_by_step,
)
from xrf_sr_plans.maps.adapters.scan_lines import Line, PlacedMap, SaidScan
from xrf_sr_plans.maps.adapters.turned_map import is_upright, sampling_of, turned
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid, check_size


@dataclass
class _Work:
    """What `placed` knows so far."""

    said: SaidScan
    lines: list[Line]
    owner: str
    notes: list[str] = field(default_factory=list)


def placed(said: SaidScan, lines: Sequence[Line], n_elements: int, owner: str) -> PlacedMap:
    """Return the map of some lines.

    Parameters
    ----------
    said
        The scan as announced.
    lines
        Its lines in the order of acquisition, with readings in um where the unit is known.
    n_elements
        Number of elements.
    owner
        Whose map it is, for messages.

    Raises
    ------
    AssemblyError
        The readings lie on no lattice, or nothing says which line is missing.
    GridError
        The map has more counts than are held in memory.
    """
    check_size(ScanGrid(said.fast.grid, said.slow.grid), n_elements)
    work = _Work(said, [replace(line) for line in lines], owner)
    _settle_units(work)
    map_of = _flown if said.is_flown else _stepped
    grid, rows = map_of(work)
    if is_upright(said):
        return turned(said, grid, rows, work.notes)
    sampling, fast_pixels = sampling_of(said, grid)
    return PlacedMap(grid, rows, sampling, fast_pixels, tuple(work.notes))


def _settle_units(work: _Work) -> None:
    """Bring readings of unknown units into um, or leave them out where they are in no such unit."""
    said = work.said
    if not said.has_units[0]:
        slopes = [line_slope(line.order, line.fast) for line in work.lines]
        steps = [abs(slope) for slope in slopes if slope]
        # What stands still has no step. Whoever assembles the map judges that.
        moves = bool(steps) and said.fast.num > 1
        unit_um = unit_by_step(float(np.median(steps)), said.fast.step_um) if moves else 1.0
        _scale(work, "fast", said.fast, unit_um)
    if not said.has_units[1]:
        medians = np.array([_median(line.slow) for line in work.lines])
        moves = said.slow.num > 1 and step_between(medians) is not None
        _scale(work, "slow", said.slow, unit_by_places(medians, said.slow) if moves else 1.0)


def _scale(work: _Work, role: str, axis: SaidAxis, unit_um: float | None) -> None:
    values = np.concatenate([getattr(line, role) for line in work.lines] or [np.empty(0)])
    if not np.isfinite(values).any():
        return
    if unit_um is None:
        work.notes.append(
            f"the readings of {axis.name} are in no unit of length that fits the announced step of"
            f" {abs(axis.step_um):.4g} um: left out"
        )
    for line in work.lines:
        scaled = getattr(line, role) * (np.nan if unit_um is None else unit_um)
        setattr(line, role, scaled)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan


def _flown(work: _Work) -> tuple[ScanGrid, dict[int, FlownRow]]:
    """Place whole lines, and leave the places of their frames to their readings."""
    said, lines = work.said, work.lines
    slow, row_of = _slow_axis(work)
    # Whatever the number of an event: the way of a row changes with the row.
    turns = [at if said.slow.is_up else said.slow.num - 1 - at for at in row_of]
    fast, ups = _fast_axis(work, [said.snake and turn % 2 == 1 for turn in turns])
    width = max([int(line.order.max(initial=-1)) + 1 for line in lines] + [fast.num])
    rows: dict[int, FlownRow] = {}
    for line, index, is_up in zip(lines, row_of, ups, strict=True):
        if not 0 <= index < slow.num:
            continue
        before = rows.get(index)
        rows[index] = FlownRow(
            counts=_filled(line.counts, line.order, width),
            i0=_filled(line.i0, line.order, width),
            live_time=_filled(line.live_time, line.order, width),
            fast_um=_filled(line.fast, line.order, width),
            slow_um=_filled(line.slow, line.order, width),
            direction=1 if is_up else -1,
            attempt=0 if before is None else before.attempt + 1,
            time=line.time,
        )
    if len({index for index in row_of if index >= 0}) < sum(index >= 0 for index in row_of):
        work.notes.append("rows were flown more than once: the latest counts")
    return ScanGrid(fast, slow, said.snake), rows


def _fast_axis(work: _Work, backward: Sequence[bool]) -> tuple[AxisGrid, list[bool]]:
    """Return the fast axis, and whether each line ran from low to high."""
    said, lines = work.said, work.lines
    announced = [said.fast.is_up != is_backward for is_backward in backward]
    found = line_lattice(
        said.fast,
        [(line.order, line.fast, is_up) for line, is_up in zip(lines, announced, strict=True)],
    )
    if found is None:
        return said.fast.grid, announced
    lattice, ups = found
    return _checked_origin(work, "fast", said.fast, lattice, said.has_units[0]), ups


def _slow_axis(work: _Work) -> tuple[AxisGrid, list[int]]:
    """Return the slow axis, and the row of each line; -1 where it is none."""
    said, lines = work.said, work.lines
    medians = np.array([_median(line.slow) for line in lines])
    numbers = np.array([line.number for line in lines], dtype=int)
    lattice = lattice_of(said.slow, medians, numbers) if lines else None
    by_number = said.slow.index(numbers, said.slow.is_up)
    stands_still = lattice is not None and len(lines) > 2 and np.ptp(lattice.index) == 0
    if lattice is not None and not stands_still:
        grid = _checked_origin(work, "slow", said.slow, lattice, said.has_units[1])
        # A line without readings is where the lines around it leave room for it.
        shift = int(np.median((lattice.index - by_number)[lattice.index >= 0]))
        row_of = np.where(np.isfinite(medians), lattice.index, by_number + shift)
        return grid, row_of.tolist()
    if np.isfinite(medians).any() and not said.has_units[1] and not stands_still:
        work.notes.append(f"the readings of {said.slow.name} lie on no lattice: left out")
        for line in lines:
            line.slow = np.full(line.slow.size, np.nan)
    if lines and said.is_finished and not said.lines_are_numbered:
        raise AssemblyError(
            f"{work.owner}: {len(lines)} rows came and {said.slow.num} were announced, and no"
            f" readings of {said.slow.name!r} say which is which; give slow_key"
        )
    return said.slow.grid, by_number.tolist()


def _checked_origin(
    work: _Work, role: str, axis: SaidAxis, lattice: Lattice, has_unit: bool
) -> AxisGrid:
    """Return the axis by its readings, or as announced where encoders count from elsewhere.

    Encoders of unknown unit may have an origin of their own. If they put the map where none of it
    was announced, they count for where frames are within it, not for where it is.
    """
    said = axis.grid
    away_um = lattice.grid.start_um - said.start_um
    if has_unit or abs(away_um) < said.step_um * said.num:
        if lattice.note:
            work.notes.append(lattice.note)
        return lattice.grid
    for line in work.lines:
        setattr(line, role, getattr(line, role) - away_um)
    work.notes.append(
        f"{axis.name}: the readings are {away_um:+.6g} um from where the map was announced, as of"
        " an encoder with another origin: the announced place is taken"
    )
    return replace(lattice.grid, start_um=said.start_um)


def _stepped(work: _Work) -> tuple[ScanGrid, dict[int, FlownRow]]:
    """Place the frames of a step scan one by one."""
    said, lines = work.said, work.lines
    number = np.concatenate([np.full(line.order.size, line.number) for line in lines])
    order = np.concatenate([line.order for line in lines])
    backward = (number % 2 == 1) & said.snake
    # The announced way of each frame along its line.
    nominal = np.where(backward, said.fast.num - 1 - order, order)
    fast = _step_axis(work, "fast", said.fast, nominal)
    slow = _step_axis(work, "slow", said.slow, number)
    is_up = said.fast.is_up != (said.snake & (np.arange(said.slow.num) % 2 == 1))
    rows: dict[int, FlownRow] = {}
    places = np.cumsum([0, *[line.order.size for line in lines]])
    for place, line in enumerate(lines):
        part = slice(places[place], places[place + 1])
        forward = bool(is_up[line.number % said.slow.num])
        for frame, (x, y) in enumerate(
            zip(fast.index[part].tolist(), slow.index[part].tolist(), strict=True)
        ):
            if x < 0 or y < 0:
                continue
            row = rows.get(y)
            if row is None:
                direction = 1 if forward else -1
                row = rows[y] = FlownRow.empty(len(line.counts), said.fast.num, direction)
            at = x if row.direction > 0 else said.fast.num - 1 - x
            row.counts[:, at] = line.counts[:, frame]
            for role, values in _channels(line).items():
                getattr(row, role)[at] = values[frame]
            row.time = line.time
    return ScanGrid(fast.grid, slow.grid, said.snake), rows


def _step_axis(work: _Work, role: str, axis: SaidAxis, order: np.ndarray) -> Lattice:
    readings = np.concatenate([getattr(line, role) for line in work.lines])
    by_order = axis.index(order, axis.is_up)
    on_grid = np.where((by_order >= 0) & (by_order < axis.num), by_order, -1)
    if not np.isfinite(readings).any():
        return Lattice(axis.grid, on_grid)
    lattice = lattice_of(axis, readings, order)
    if lattice is None:
        raise AssemblyError(
            f"{work.owner}: the positions of {axis.name!r} are not {axis.num} equally spaced ones,"
            f" {abs(axis.step_um):.4g} um apart"
        )
    if lattice.note:
        work.notes.append(lattice.note)
    index = np.where(np.isfinite(readings), lattice.index, on_grid)
    return replace(lattice, index=index)


def _channels(line: Line) -> dict[str, np.ndarray]:
    return {"fast_um": line.fast, "slow_um": line.slow, "i0": line.i0, "live_time": line.live_time}


def _filled(values: np.ndarray, order: np.ndarray, width: int) -> np.ndarray:
    """Return values [..., frame] at their place in a line of `width` frames, NaN elsewhere."""
    out = np.full((*values.shape[:-1], width), np.nan)
    out[..., order] = values
    return out
