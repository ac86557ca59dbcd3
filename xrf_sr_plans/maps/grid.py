"""`ScanGrid` says where the pixels of a map are, as intervals, in micrometers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.errors import GridError

MAX_VALUES = 2**29
"""Largest number of counts in a map, over all elements: 4 GiB as floats."""


def check_size(grid: ScanGrid, n_elements: int) -> None:
    """Refuse a map that takes too much memory, before any is taken.

    Raises
    ------
    GridError
        It has more than `MAX_VALUES` counts.
    """
    if n_elements * math.prod(grid.shape) > MAX_VALUES:
        raise GridError(
            f"a map of {n_elements} elements and {grid.shape} pixels; at most {MAX_VALUES} counts"
            " are held in memory"
        )


@dataclass(frozen=True)
class AxisGrid:
    """The pixels along one axis of a map.

    A pixel is an interval, which reaches half a step to both sides of its center.

    Parameters
    ----------
    name
        Name of the axis.
    start_um
        Center of the first pixel.
    step_um
        Width of a pixel, which is also the distance between the centers of two neighbors.
    num
        Number of pixels.

    Raises
    ------
    GridError
        A value that is not finite, a step that is not above 0, or less than one pixel.
    """

    name: str
    start_um: float
    step_um: float
    num: int

    def __post_init__(self) -> None:
        for field in ("start_um", "step_um"):
            value = getattr(self, field)
            if not math.isfinite(value):
                raise GridError(f"axis {self.name!r}: {field} is {value}; it must be finite")
        if self.step_um <= 0:
            raise GridError(f"axis {self.name!r}: step_um is {self.step_um}; it must be above 0")
        if self.num < 1 or self.num != int(self.num):
            raise GridError(
                f"axis {self.name!r}: {self.num} pixels; a whole number above 0 is needed"
            )

    @property
    def stop_um(self) -> float:
        """Center of the last pixel, in um."""
        return self.start_um + (self.num - 1) * self.step_um

    @property
    def low_um(self) -> float:
        """Lower edge of the first pixel, in um."""
        return self.start_um - self.step_um / 2

    @property
    def high_um(self) -> float:
        """Upper edge of the last pixel, in um."""
        return self.stop_um + self.step_um / 2

    @property
    def centers_um(self) -> np.ndarray:
        """Pixel centers in um, shape (num,)."""
        return self.start_um + self.step_um * np.arange(self.num)

    @property
    def edges_um(self) -> np.ndarray:
        """Pixel edges in um, shape (num + 1,)."""
        return self.low_um + self.step_um * np.arange(self.num + 1)

    def refined(self, factor: int) -> AxisGrid:
        """Return the axis whose pixels split each pixel of this one into `factor` equal parts.

        The outer edges stay. Fine pixel j of coarse pixel k is centered on
        ``center_k + (j - (factor - 1) / 2) * step / factor``.
        """
        step = self.step_um / factor
        return AxisGrid(self.name, self.low_um + step / 2, step, self.num * factor)

    def index_of(self, position_um: np.ndarray | float) -> np.ndarray:
        """Return the indices of the pixels that positions lie in.

        They may lie outside 0..num-1. A position that is not finite has the index -1.
        """
        position = np.asarray(position_um, dtype=float)
        # An encoder that stops a rounding error short of an edge still means that pixel.
        scaled = np.floor((position - self.low_um) / self.step_um + 1e-9)
        return np.where(np.isfinite(scaled), scaled, -1).astype(int)


@dataclass(frozen=True)
class ScanGrid:
    """The pixels of a map, and how its rows are flown.

    Arrays on this grid are ordered (slow, fast) = (y, x).

    Parameters
    ----------
    fast
        The axis along a row.
    slow
        The axis across the rows. Row r lies at ``slow.centers_um[r]``.
    snake
        True: every second row runs from high to low. False: all rows run from low to high.
    run_up_um
        Distance for accelerating before a row, and for braking after it.

    Raises
    ------
    GridError
        A run-up that is negative or not finite, or two axes with the same name.
    """

    fast: AxisGrid
    slow: AxisGrid
    snake: bool = True
    run_up_um: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.run_up_um) and self.run_up_um >= 0):
            raise GridError(f"run_up_um is {self.run_up_um}; it must be 0 or more")
        if self.fast.name == self.slow.name:
            raise GridError(f"fast and slow axis are both {self.fast.name!r}")

    @classmethod
    def from_center(
        cls,
        *,
        x_center_um: float,
        y_center_um: float,
        width_um: float,
        height_um: float,
        step_um: float,
        step_y_um: float | None = None,
        fast: str = "x",
        slow: str = "y",
        snake: bool = True,
        run_up_um: float = 0.0,
    ) -> ScanGrid:
        """Build from center, size and step (the vocabulary of 2-ID).

        The number of pixels is size / step rounded *up*, so that the area asked for is covered.
        The grid stays centered.

        Parameters
        ----------
        x_center_um
            Center of the area along the fast axis.
        y_center_um
            Center of the area along the slow axis.
        width_um
            Size of the area along the fast axis.
        height_um
            Size of the area along the slow axis.
        step_um
            Pixel size along the fast axis.
        step_y_um
            Pixel size along the slow axis; None: the same as along the fast one.
        fast
            Name of the fast axis.
        slow
            Name of the slow axis.
        snake
            Whether every second row runs from high to low.
        run_up_um
            Distance for accelerating before a row, and for braking after it.

        Raises
        ------
        GridError
            A size or step that is not finite and positive.
        """
        step_y = step_um if step_y_um is None else step_y_um
        return cls(
            _centered(fast, x_center_um, width_um, step_um),
            _centered(slow, y_center_um, height_um, step_y),
            snake,
            run_up_um,
        )

    @classmethod
    def from_start_stop(
        cls,
        x_start_um: float,
        x_stop_um: float,
        x_num: int,
        y_start_um: float,
        y_stop_um: float,
        y_num: int,
        *,
        fast: str = "x",
        slow: str = "y",
        snake: bool = True,
        run_up_um: float = 0.0,
        single_step_um: float = 1.0,
    ) -> ScanGrid:
        """Build from the *centers* of the first and last pixels (the vocabulary of `grid_scan`).

        Parameters
        ----------
        x_start_um
            Center of the first pixel of a row.
        x_stop_um
            Center of the last pixel of a row; it may lie below the first one.
        x_num
            Number of pixels in a row.
        y_start_um
            Center of the first row.
        y_stop_um
            Center of the last row; it may lie below the first one.
        y_num
            Number of rows.
        fast
            Name of the fast axis.
        slow
            Name of the slow axis.
        snake
            Whether every second row runs from high to low.
        run_up_um
            Distance for accelerating before a row, and for braking after it.
        single_step_um
            Pixel size along an axis that has only one pixel.

        Raises
        ------
        GridError
            Less than one pixel, or several pixels between equal or infinite ends.
        """
        return cls(
            _from_span(fast, x_start_um, x_stop_um, x_num, single_step_um),
            _from_span(slow, y_start_um, y_stop_um, y_num, single_step_um),
            snake,
            run_up_um,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of pixels in a row: (slow, fast) = (ny, nx)."""
        return self.slow.num, self.fast.num

    @property
    def extents_um(self) -> list[list[float]]:
        """Outer edges in um, as bluesky orders them: [[slow low, high], [fast low, high]]."""
        return [[self.slow.low_um, self.slow.high_um], [self.fast.low_um, self.fast.high_um]]

    @property
    def end_centers_um(self) -> list[list[float]]:
        """Centers of the first and last pixels, which bluesky calls extents: [slow, fast]."""
        return [[axis.start_um, axis.stop_um] for axis in (self.slow, self.fast)]

    def direction(self, row: int) -> int:
        """Return +1 where the row with the index `row` runs from low to high, else -1."""
        return -1 if self.snake and row % 2 else 1

    def refined(self, factor: int | tuple[int, int]) -> ScanGrid:
        """Return the grid `factor` times finer, with the same outer edges.

        A pair of factors is for the (slow, fast) axis, as `Measurement.refinement`.
        """
        slow, fast = (factor, factor) if isinstance(factor, int) else factor
        return replace(self, fast=self.fast.refined(fast), slow=self.slow.refined(slow))

    def to_dict(self) -> dict[str, Any]:
        """Return the grid as JSON types, with the explicit centers that readers should use."""
        fields = asdict(self)
        for axis in ("fast", "slow"):
            fields[axis]["centers_um"] = getattr(self, axis).centers_um.tolist()
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ScanGrid:
        """Return the grid that `to_dict` made these fields of.

        Raises
        ------
        GridError
            A field is missing or of the wrong type.
        """
        try:
            axes = {
                key: AxisGrid(
                    str(fields[key]["name"]),
                    float(fields[key]["start_um"]),
                    float(fields[key]["step_um"]),
                    int(fields[key]["num"]),
                )
                for key in ("fast", "slow")
            }
            return cls(**axes, snake=bool(fields["snake"]), run_up_um=float(fields["run_up_um"]))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, GridError):
                raise
            raise GridError(f"not a ScanGrid: {error!r} in {fields!r:.200}") from error


def _centered(name: str, center_um: float, size_um: float, step_um: float) -> AxisGrid:
    for label, value in (("size", size_um), ("step", step_um)):
        if not (math.isfinite(value) and value > 0):
            raise GridError(f"axis {name!r}: {label} is {value} um; it must be above 0")
    # 200 / 0.1 is 2000.0000000000002 in floats: without the slack it would become 2001 pixels.
    num = max(1, math.ceil(size_um / step_um - 1e-6))
    return AxisGrid(name, center_um - (num - 1) * step_um / 2, step_um, num)


def _from_span(name: str, start: float, stop: float, num: int, single_step: float) -> AxisGrid:
    if num < 1:
        raise GridError(f"axis {name!r}: {num} pixels; at least 1 is needed")
    if num == 1:
        return AxisGrid(name, (start + stop) / 2, single_step, 1)
    if start == stop:
        raise GridError(f"axis {name!r}: start and stop are both {start} um for {num} pixels")
    return AxisGrid(name, min(start, stop), abs(stop - start) / (num - 1), num)
