"""Single maps as a user types them: centre, width and step, or start, stop and number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import Area, design_map
from xrf_sr_plans.plans.fly_map import ROW_ATTEMPTS, MapOrder, fly
from xrf_sr_plans.plans.return_to_start import returning_to_start


@plan
def xrf_map(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    step_um: float,
    dwell_ms: float,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Fly one map around a centre.

    Parameters
    ----------
    width_um, height_um, step_um
        Area and pixel size; the number of pixels is rounded up.
    dwell_ms
        Time at each pixel.
    x_center_um, y_center_um
        None: where the stage is, and where it is brought back to once the map is complete (not
        after an abort, a stop, a halt or a failure).
    budget_s, max_dose
        Refuse a map that needs more beam time (s) or dose.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Goes into the start document, last.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    RefusedError
        Before anything moves; the message lists all that is wrong.
    FlightError
        The hardware failed on too many rows in succession, or the stage doesn't come back.
    """
    area = Area(width_um, height_um, step_um, x_center_um, y_center_um)
    costs = {"dwell_ms": dwell_ms, "budget_s": budget_s, "max_dose": max_dose}
    grid = area.grid(beamline, dwell_ms)
    flight = _fly(beamline, grid, vars(area), costs, row_attempts, md)
    return (yield from returning_to_start(beamline, area, flight))


@plan
def xrf_map_start_stop(
    beamline: Beamline,
    *,
    x_start_um: float,
    x_stop_um: float,
    x_num: int,
    y_start_um: float,
    y_stop_um: float,
    y_num: int,
    dwell_ms: float,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Fly one map between the centres of its first and last pixels, as `grid_scan` counts.

    Parameters
    ----------
    x_start_um, x_stop_um, x_num
        Centres of the first and last pixel of a row, and how many there are.
    y_start_um, y_stop_um, y_num
        The same for the rows.
    dwell_ms
        Time at each pixel.
    budget_s, max_dose
        Refuse a map that needs more beam time (s) or dose.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Goes into the start document, last.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    RefusedError
        Before anything moves; the message lists all that is wrong.
    FlightError
        The hardware failed on too many rows in succession.
    """
    spans = {
        "x_start_um": x_start_um,
        "x_stop_um": x_stop_um,
        "x_num": x_num,
        "y_start_um": y_start_um,
        "y_stop_um": y_stop_um,
        "y_num": y_num,
    }
    costs = {"dwell_ms": dwell_ms, "budget_s": budget_s, "max_dose": max_dose}
    grid = grid_start_stop(beamline, spans, dwell_ms)
    return (yield from _fly(beamline, grid, spans, costs, row_attempts, md))


def grid_start_stop(beamline: Beamline, spans: Mapping[str, Any], dwell_ms: float) -> ScanGrid:
    """Return the pixels of `xrf_map_start_stop`, with the run-up that the axis needs.

    Raises
    ------
    RefusedError
        Ends and numbers of pixels that make no grid.
    """
    preflight.refuse(preflight.number_problems({"dwell_ms": dwell_ms}))
    fast, slow = axis_facts(beamline.fast), axis_facts(beamline.slow)
    grid = ScanGrid.from_start_stop(*spans.values(), fast=fast.name, slow=slow.name)
    run_up = preflight.run_up_um(beamline, fast, grid.fast.step_um, dwell_ms)
    return replace(grid, run_up_um=run_up)


def _fly(
    beamline: Beamline,
    grid: ScanGrid,
    where: Mapping[str, Any],
    costs: Mapping[str, Any],
    row_attempts: int,
    md: Mapping[str, Any] | None,
) -> MsgGenerator[str]:
    """Fly `grid`; `where` and `costs` are what the user said of it."""
    preflight.refuse(design_map(beamline, grid, **costs).problems)
    order = MapOrder(
        beamline,
        grid,
        costs["dwell_ms"],
        user_input={**where, **costs},
        row_attempts=row_attempts,
        md=dict(md or {}),
    )
    return (yield from fly(order)).uid
