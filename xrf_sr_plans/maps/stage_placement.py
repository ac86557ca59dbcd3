"""`StagePlacement`: where the axes that fly a map are on the sample.

Grids, regions and documents are in sample coordinates, which are those of the coarse stage while a
fine stage on top of it is at its center. The encoders of a fine stage read its own coordinates.
They are recorded as they were read, and the placement in the start document tells where that is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid

Sign = Literal[1, -1]
"""+1 where an axis runs with a coordinate, -1 where it runs against it."""


@dataclass(frozen=True)
class AxisPlacement:
    """Where one axis is on the sample: ``sample = origin_um + sign * reading``.

    Parameters
    ----------
    name
        Name of the axis that is flown.
    sign
        Whether it runs with (+1) or against (-1) the coordinate of the sample.
    origin_um
        Coordinate of the sample where the axis reads 0, in um.

    Raises
    ------
    GridError
        The sign is neither 1 nor -1, or the origin is not finite.
    """

    name: str
    sign: Sign
    origin_um: float

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise GridError(f"axis {self.name!r}: sign is {self.sign!r:.80}; it must be 1 or -1")
        if not math.isfinite(self.origin_um):
            raise GridError(f"axis {self.name!r}: origin_um is {self.origin_um}; it must be finite")

    def to_sample_um(self, reading_um: float) -> float:
        """Return the coordinate of the sample for a position of the axis, both in um."""
        return self.origin_um + self.sign * reading_um

    def to_axis_um(self, sample_um: float) -> float:
        """Return the position of the axis for a coordinate of the sample, both in um."""
        return self.sign * (sample_um - self.origin_um)

    def pixels_of_axis(self, pixels: AxisGrid) -> AxisGrid:
        """Return pixels on the sample as positions of the axis, in ascending order."""
        ends = self.to_axis_um(pixels.start_um), self.to_axis_um(pixels.stop_um)
        return AxisGrid(self.name, min(ends), pixels.step_um, pixels.num)


@dataclass(frozen=True)
class StagePlacement:
    """Where the fast and the slow axis that fly a map are on the sample."""

    fast: AxisPlacement
    slow: AxisPlacement

    def grid_of_axes(self, grid: ScanGrid) -> ScanGrid:
        """Return a grid on the sample as positions of the axes, in ascending order."""
        return replace(
            grid,
            fast=self.fast.pixels_of_axis(grid.fast),
            slow=self.slow.pixels_of_axis(grid.slow),
        )

    def grid_without_origin(self, grid: ScanGrid) -> ScanGrid:
        """Return the grid that readings are compared with, once those have their signs.

        An encoder may turn out to read another unit of length, which can be told only from
        readings that nothing was added to.
        """
        fast, slow = (
            replace(axis, start_um=axis.start_um - placed.origin_um)
            for axis, placed in ((grid.fast, self.fast), (grid.slow, self.slow))
        )
        return replace(grid, fast=fast, slow=slow)

    def to_dict(self) -> dict[str, Any]:
        """Return the placement as JSON types; the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StagePlacement:
        """Return the placement that `to_dict` made these fields of.

        Raises
        ------
        GridError
            A field is missing or of the wrong type.
        """
        try:
            fast, slow = (
                AxisPlacement(
                    str(fields[key]["name"]),
                    fields[key]["sign"],
                    float(fields[key]["origin_um"]),
                )
                for key in ("fast", "slow")
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, GridError):
                raise
            raise GridError(f"not a StagePlacement: {error!r} in {fields!r:.200}") from error
        return cls(fast, slow)
