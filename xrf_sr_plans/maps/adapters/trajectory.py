"""The trajectory of a grid scan, from what its start document says and where its motors were.

``extents`` alone don't tell it: relative scans write them relative to where they began, list scans
write the lowest and the highest position whatever the order, and neither says whether the points
between are equally spaced. The readings of the motors are absolute and tell all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.adapted_map import axis_between
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid

_NEAR_STEPS = 0.25
"""Distance in steps within which readings confirm the extents: then the extents' lattice counts."""
_FAR_STEPS = 0.5
"""Distance in steps beyond which a reading is of no point of the lattice."""
_MOST_FAR = 0.1
"""Share of such readings beyond which the points are not equally spaced."""


@dataclass(frozen=True)
class Trajectory:
    """How a grid scan ran.

    Parameters
    ----------
    grid
        Its pixels.
    fast_up, slow_up
        Whether the first row, and the rows one after the other, ran from low to high.
    """

    grid: ScanGrid
    fast_up: bool
    slow_up: bool

    def row_of(self, line: int) -> int:
        """Return the index of the row that is flown as number `line`, from 0."""
        return line if self.slow_up else self.grid.slow.num - 1 - line

    def forward(self, line: int) -> bool:
        """Return whether that row runs from low to high."""
        return self.fast_up != (self.grid.snake and line % 2 == 1)


def trajectory(
    extents_um: Sequence[tuple[float, float]],
    shape: Sequence[int],
    motors: Sequence[str],
    snake: bool,
    seq_nums: np.ndarray,
    positions_um: np.ndarray,
    owner: str,
) -> Trajectory:
    """Return the trajectory on which the readings of a grid scan lie.

    Parameters
    ----------
    extents_um
        First and last position of the slow and of the fast motor, absolute or relative.
    shape
        Number of rows and of pixels in a row.
    motors
        Names of the slow and of the fast motor.
    snake
        Whether every other row is said to run the other way.
    seq_nums
        Number of each event [event], from 1.
    positions_um
        Readings of the slow and the fast motor [event, motor].
    owner
        Whose trajectory it is, for the message.

    Raises
    ------
    AssemblyError
        The readings don't lie on a lattice of this shape and these steps.
    GridError
        The extents are not finite.
    """
    slow, fast = (
        axis_between(motor, first, last, num)
        for motor, (first, last), num in zip(motors, extents_um, shape, strict=True)
    )
    line, place = np.divmod(seq_nums - 1, fast.num)
    inside = (line >= 0) & (line < slow.num)
    line, place, positions_um = line[inside], place[inside], positions_um[inside]
    ways = [extents[0] <= extents[1] for extents in extents_um]
    slow, slow_up = _fitted(slow, line, np.zeros(line.size, dtype=int), positions_um[:, 0], ways[0],
                            (False,), owner)[:2]  # fmt: skip
    fast, fast_up, snake = _fitted(
        fast, place, line, positions_um[:, 1], ways[1], (snake, not snake), owner
    )
    return Trajectory(ScanGrid(fast, slow, snake), fast_up, slow_up)


def _fitted(
    axis: AxisGrid,
    order: np.ndarray,
    line: np.ndarray,
    readings_um: np.ndarray,
    said_up: bool,
    snakes: Sequence[bool],
    owner: str,
) -> tuple[AxisGrid, bool, bool]:
    """Return the axis at the place of its readings, its direction, and whether it snakes.

    What the start document says comes first, and counts where nothing fits better.
    """
    known = np.isfinite(readings_um)
    if not known.any():
        return axis, said_up, snakes[0]
    best: tuple[float, float, np.ndarray, bool, bool] | None = None
    for up in (said_up, not said_up):
        for snake in snakes:
            forward = up != (snake & (line % 2 == 1))
            index = np.where(forward, order, axis.num - 1 - order)
            away_um = (readings_um - axis.centers_um[index])[known]
            offset_um = float(np.median(away_um))
            off = np.abs(away_um - offset_um) / axis.step_um
            if best is None or off.mean() < best[0] - 1e-6:
                best = (float(off.mean()), offset_um, off, up, snake)
    assert best is not None
    _, offset_um, off, up, snake = best
    # A single row or column has no step of its own.
    if axis.num > 1 and (off > _FAR_STEPS).mean() > _MOST_FAR:
        raise AssemblyError(
            f"{owner}: the positions of {axis.name!r} are not {axis.num} equally spaced ones,"
            f" {axis.step_um:.4g} um apart; {int((off > _FAR_STEPS).sum())} of {off.size} are"
            f" further than {_FAR_STEPS:g} steps from where they belong"
        )
    if abs(offset_um) <= _NEAR_STEPS * axis.step_um:
        return axis, up, snake
    return AxisGrid(axis.name, axis.start_um + offset_um, axis.step_um, axis.num), up, snake
