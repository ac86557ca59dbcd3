"""`PairRegistration`: where what a fine map shows lies in a coarse map of the same area."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from xrf_sr_plans.errors import GridError


@dataclass(frozen=True)
class PairRegistration:
    """Where what a fine map shows lies in a coarse map.

    What is at (x, y) in the fine map is, seen from the middle of the coarse map, at
    ``scale_x * x + dx_um + drift_x_um[row]`` and likewise along y, where `row` is the row of the
    coarse map. Lengths are NaN where they can't be told, and `problem` says why.

    Parameters
    ----------
    factor
        How many times larger the step of the coarse map is, along the axis where it is largest.
    dx_um, dy_um
        Displacement of the whole map.
    scale_x, scale_y
        Length in the coarse map of what has length 1 in the fine map.
    drift_x_um, drift_y_um
        What is to be added for each row of the coarse map, in the order of the grid; empty: none.
        Their mean is 0.
    coarse_row_shift_um, fine_row_shift_um
        How far, along the fast axis, what is measured in every second row (rows 1, 3, ...) lies
        from where the other rows would show it.
    row_error_px
        One standard deviation of each coarse row's displacement, the larger of x and y, in fine
        pixels, as expected from the counts; empty: unknown.
    error_px
        The same, as root mean square over the rows that are learnt from
        (`checks.MOST_ROW_ERROR_PX`), or over all where there are none.
    correlation
        Correlation of both maps after all this, of the element where it is highest.
    problem
        Why the pair can't be learnt from; empty where it can.
    """

    factor: int
    dx_um: float
    dy_um: float
    scale_x: float = 1.0
    scale_y: float = 1.0
    drift_x_um: tuple[float, ...] = ()
    drift_y_um: tuple[float, ...] = ()
    coarse_row_shift_um: float = 0.0
    fine_row_shift_um: float = 0.0
    row_error_px: tuple[float, ...] = ()
    error_px: float = math.nan
    correlation: float = math.nan
    problem: str = ""

    def row_displacements_um(self, rows: int) -> np.ndarray:
        """Return the displacement (row, 2), x before y, of each row of the coarse map.

        Raises
        ------
        GridError
            The drift is known of another number of rows.
        """
        drift = np.zeros((rows, 2))
        for axis, known in enumerate((self.drift_x_um, self.drift_y_um)):
            if known and len(known) != rows:
                raise GridError(f"drift of {len(known)} rows; the map has {rows}")
            drift[:, axis] = known or 0.0
        return drift + np.array([self.dx_um, self.dy_um])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        plain = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> PairRegistration:
        """Return the registration that `to_dict` made a dictionary of.

        Raises
        ------
        GridError
            A key is unknown or missing, or a value isn't of its type.
        """
        known = {field.name for field in fields(cls)}
        try:
            if not known >= set(plain):
                raise ValueError(f"unknown: {sorted(set(plain) - known)}")
            given: dict[str, Any] = {
                k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in plain.items()
            }
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise GridError(f"no registration of a pair: {error}") from error
