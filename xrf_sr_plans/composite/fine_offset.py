"""`fine_offset`: how far from where it was expected a fine map was flown, in words and numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from xrf_sr_plans.composite.displacement import Displacement, displacement
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.metrics.common_pixels import fine_count_scale

SIGNIFICANT = 3.0
"""Number of standard deviations from which an offset is told."""
LEAST_PX = 0.25
"""Part of a fine pixel from which an offset is told: below it, nothing would be compared better."""


@dataclass(frozen=True)
class FineOffset:
    """Offset of a fine map from the map around it; `dx_um` and `dy_um` are 0 unless significant."""

    measured: Displacement
    """What was measured, significant or not."""
    dx_um: float = 0.0
    """How far the beam was from where it was expected, along x."""
    dy_um: float = 0.0
    """The same along y."""

    @property
    def is_significant(self) -> bool:
        """Whether the map was flown elsewhere than expected, along either axis."""
        return bool(self.dx_um or self.dy_um)

    def corrected(self, fine: ElementalMaps) -> ElementalMaps:
        """Return a fine map with the positions at which it was really flown."""
        if not self.is_significant:
            return fine
        grid = fine.grid
        moved = replace(
            grid,
            fast=replace(grid.fast, start_um=grid.fast.start_um + self.dx_um),
            slow=replace(grid.slow, start_um=grid.slow.start_um + self.dy_um),
        )
        coordinates = {"x": moved.fast.centers_um, "y": moved.slow.centers_um}
        return ElementalMaps(fine.dataset.assign_coords(coordinates), moved)

    def in_words(self, who: str, x_name: str, y_name: str) -> str:
        """Return the offset in words, or "" where it isn't significant.

        Parameters
        ----------
        who
            What was elsewhere, such as "the fine stage".
        x_name, y_name
            Names of the fast and the slow axis.
        """
        parts = [
            f"{abs(offset_um):.2f} um (+- {error_um:.2f}) towards"
            f" {'higher' if offset_um > 0 else 'lower'} {name}"
            for offset_um, error_um, name in (
                (self.dx_um, self.measured.error_x_um, x_name),
                (self.dy_um, self.measured.error_y_um, y_name),
            )
            if offset_um
        ]
        return f"{who} was {' and '.join(parts)} of where it was expected" if parts else ""

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured as JSON types; what is unknown (NaN) is left out."""
        measured = {
            name: value
            for name, value in asdict(self.measured).items()
            if isinstance(value, str) or math.isfinite(value)
        }
        return {**measured, "corrected_x_um": self.dx_um, "corrected_y_um": self.dy_um}


def fine_offset(predicted: EnhancedMaps, fine: ElementalMaps) -> FineOffset:
    """Return how far from where it was expected a fine map was flown.

    It is searched within three coarse pixels, and 1.5 um at least (see `displacement`).

    Parameters
    ----------
    predicted
        The prediction of the area around the fine map.
    fine
        The fine map.
    """
    if not set(predicted.elements) & set(fine.elements):
        nan = float("nan")
        return FineOffset(Displacement(nan, nan, nan, nan, nan, "no element in common"))
    scale = fine_count_scale(predicted, fine)
    found = displacement(predicted, fine, usable_counts_of(fine), scale)
    if found.problem:
        return FineOffset(found)

    def told(offset_um: float, error_um: float, step_um: float) -> float:
        least_um = max(SIGNIFICANT * error_um, LEAST_PX * step_um)
        return offset_um if abs(offset_um) > least_um else 0.0

    return FineOffset(
        found,
        told(found.dx_um, found.error_x_um, fine.grid.fast.step_um),
        told(found.dy_um, found.error_y_um, fine.grid.slow.step_um),
    )
