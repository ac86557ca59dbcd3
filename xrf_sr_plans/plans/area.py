"""`Area`: a rectangle of the stage as a user gives it, and the pixels that cover it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.preflight import Problem

_POSITION_DIGITS = 3
"""The stage's own position is rounded to a nanometre: smaller differences are encoder noise."""
_SLACK = 1e-9
"""Relative rounding error that a step may have and still count as no larger than the area."""


@dataclass(frozen=True)
class Area:
    """A rectangle in the vocabulary of APS 2-ID: width, height, step and center, all in um.

    A center of None means the place where the stage is when the plan starts.
    """

    width_um: float
    height_um: float
    step_um: float
    x_center_um: float | None = None
    y_center_um: float | None = None

    def grid(self, beamline: Beamline, dwell_ms: float) -> ScanGrid:
        """Return the pixels that cover the area, with the run-up that the fast axis needs.

        Parameters
        ----------
        beamline
            Its axes give their names and, where no center is given, their positions.
        dwell_ms
            Time at each pixel in ms. With the step it gives the velocity, hence the run-up.

        Raises
        ------
        RefusedError
            If the step is larger than the area, or an axis without a center doesn't say where it
            is.
        """
        fast, slow = axis_facts(beamline.fast), axis_facts(beamline.slow)
        x_center_um, y_center_um = (
            round(facts.position_um, _POSITION_DIGITS) if given_um is None else given_um
            for facts, given_um in ((fast, self.x_center_um), (slow, self.y_center_um))
        )
        problems = []
        for facts, center_um, name in ((fast, x_center_um, "x"), (slow, y_center_um, "y")):
            if not math.isfinite(center_um):
                text = f"axis {facts.name!r} doesn't say where it is; give {name}_center_um"
                problems.append(Problem(GridError, text))
        for name in ("width_um", "height_um"):
            size_um = getattr(self, name)
            if self.step_um > size_um * (1 + _SLACK):
                text = f"step_um {self.step_um:g} is larger than {name} {size_um:g}"
                problems.append(Problem(GridError, text))
        preflight.refuse(problems)
        return ScanGrid.from_center(
            x_center_um=x_center_um,
            y_center_um=y_center_um,
            width_um=self.width_um,
            height_um=self.height_um,
            step_um=self.step_um,
            fast=fast.name,
            slow=slow.name,
            run_up_um=preflight.run_up_um(beamline, fast, self.step_um, dwell_ms),
        )
