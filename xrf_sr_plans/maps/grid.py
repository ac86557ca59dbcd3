"""`ScanGrid`: where the pixels of a map are, as intervals, in micrometres."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.errors import GridError


@dataclass(frozen=True)
class AxisGrid:
    """One axis of a map: `num` pixels of `step_um`, the first one centred on `start_um`.

    A pixel is an interval: it reaches half a step to both sides of its centre.
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
        """Centre of the last pixel."""
        return self.start_um + (self.num - 1) * self.step_um

    @property
    def low_um(self) -> float:
        """Lower edge of the first pixel."""
        return self.start_um - self.step_um / 2

    @property
    def high_um(self) -> float:
        """Upper edge of the last pixel."""
        return self.stop_um + self.step_um / 2

    @property
    def centers_um(self) -> np.ndarray:
        """Pixel centres, shape (num,)."""
        return self.start_um + self.step_um * np.arange(self.num)

    @property
    def edges_um(self) -> np.ndarray:
        """Pixel edges, shape (num + 1,)."""
        return self.low_um + self.step_um * np.arange(self.num + 1)

    def refined(self, factor: int) -> AxisGrid:
        """Return the grid whose pixels split each of ours into `factor` equal parts.

        The outer edges stay; fine pixel j of coarse pixel k is centred on
        ``centre_k + (j - (factor - 1) / 2) * step / factor``.
        """
        step = self.step_um / factor
        return AxisGrid(self.name, self.low_um + step / 2, step, self.num * factor)

    def index_of(self, position_um: np.ndarray | float) -> np.ndarray:
        """Return the pixel index of positions (may lie outside 0..num-1); NaN gives -1."""
        position = np.asarray(position_um, dtype=float)
        # An encoder that stops a rounding error short of an edge still means that pixel.
        scaled = np.floor((position - self.low_um) / self.step_um + 1e-9)
        return np.where(np.isfinite(scaled), scaled, -1).astype(int)


@dataclass(frozen=True)
class ScanGrid:
    """The pixels of a map: a fast and a slow axis, row direction and run-up.

    Arrays on this grid are ordered (slow, fast) = (y, x).

    Parameters
    ----------
    fast, slow
        The two axes. Row r lies at ``slow.centers_um[r]``.
    snake
        Every second row runs from high to low.
    run_up_um
        Distance for accelerating before, and braking after, a row.
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
        """Build from centre, size and step (the vocabulary of 2-ID).

        The number of pixels is size / step rounded *up*, so that the area asked for is covered;
        the grid stays centred.

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
        """Build from the *centres* of the first and last pixels (the vocabulary of `grid_scan`).

        `single_step_um` is the pixel size along an axis that has only one pixel.
        """
        return cls(
            _from_span(fast, x_start_um, x_stop_um, x_num, single_step_um),
            _from_span(slow, y_start_um, y_stop_um, y_num, single_step_um),
            snake,
            run_up_um,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) = (slow, fast)."""
        return self.slow.num, self.fast.num

    @property
    def extents_um(self) -> list[list[float]]:
        """Edges as bluesky orders them: [[slow low, high], [fast low, high]]."""
        return [[self.slow.low_um, self.slow.high_um], [self.fast.low_um, self.fast.high_um]]

    def direction(self, row: int) -> int:
        """Return +1 where row `row` runs from low to high, else -1."""
        return -1 if self.snake and row % 2 else 1

    def refined(self, factor: int) -> ScanGrid:
        """Return the grid `factor` times finer along both axes, with the same outer edges."""
        return replace(self, fast=self.fast.refined(factor), slow=self.slow.refined(factor))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, with the explicit centres that readers should use."""
        plain = asdict(self)
        for axis in ("fast", "slow"):
            plain[axis]["centers_um"] = getattr(self, axis).centers_um.tolist()
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ScanGrid:
        """Inverse of `to_dict`.

        Raises
        ------
        GridError
            A missing or ill-typed field.
        """
        try:
            axes = {
                key: AxisGrid(
                    str(plain[key]["name"]),
                    float(plain[key]["start_um"]),
                    float(plain[key]["step_um"]),
                    int(plain[key]["num"]),
                )
                for key in ("fast", "slow")
            }
            return cls(**axes, snake=bool(plain["snake"]), run_up_um=float(plain["run_up_um"]))
        except (KeyError, TypeError) as error:
            raise GridError(f"not a ScanGrid: {error!r} in {plain!r:.200}") from error


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
