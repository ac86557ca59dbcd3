"""Single maps as a user types them: center, width and step, or start, stop and number."""

from __future__ import annotations

from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.measurement import Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import Design, design_map
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS, MapRun
from xrf_sr_plans.plans.request import MapRequest, SingleMapRequest, StartStopRequest
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
    factor: Factor = 2,
    sampling: schema.PixelChoice | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Fly one map around a center.

    The stage is brought back along each axis without a center once the map is complete, but not
    after an abort, a stop, a halt or a failure.

    Parameters
    ----------
    width_um
        Width of the area along the fast axis in um, rounded up to whole steps.
    height_um
        Height of the area along the slow axis in um, rounded up to whole steps.
    step_um
        Distance between the rows in um.
    dwell_ms
        Time at each step of a row in ms, which is as long as the rows are apart.
    x_center_um
        Center along the fast axis in um. None means where the stage is now.
    y_center_um
        Center along the slow axis in um. None means where the stage is now.
    factor
        Pixels per step of a row: 1, 2 or 4, or as many of these as the hardware takes.
    sampling
        How the rows are read out, at the same time and dose: "rows" in `factor` pixels per step,
        "squares" in one. None means rows where the hardware takes more than one.
    budget_s
        Beam time in seconds that the map may take. None means no limit.
    max_dose
        Dose that the map may give: incoming photons per um^2 where the beamline knows its flux,
        else seconds of beam per um^2. None means no limit.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start document, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    RefusedError
        If anything is wrong with the request. Nothing has moved, and the message lists all of it.
    FlightError
        If too many rows in succession can't be measured, or if the stage doesn't come back.
    """
    request = MapRequest.from_arguments(locals())
    flight = _flown(beamline, request, design_map(beamline, request))
    return (yield from returning_to_start(beamline, request.area, flight))


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
    """Fly one map between the centers of its first and last pixels, as `grid_scan` counts.

    Parameters
    ----------
    x_start_um
        Center of the first pixel of a row in um.
    x_stop_um
        Center of the last pixel of a row in um.
    x_num
        Number of pixels in a row.
    y_start_um
        Center of the first row in um.
    y_stop_um
        Center of the last row in um.
    y_num
        Number of rows.
    dwell_ms
        Time at each pixel in ms.
    budget_s
        Beam time in seconds that the map may take. None means no limit.
    max_dose
        Dose that the map may give: incoming photons per um^2 where the beamline knows its flux,
        else seconds of beam per um^2. None means no limit.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start document, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    RefusedError
        If anything is wrong with the request. Nothing has moved, and the message lists all of it.
    FlightError
        If too many rows in succession can't be measured.
    """
    request = StartStopRequest.from_arguments(locals())
    return (yield from _flown(beamline, request, design_map(beamline, request)))


def _flown(beamline: Beamline, request: SingleMapRequest, design: Design) -> MsgGenerator[str]:
    """Refuse the map, or fly it and return the uid of its run."""
    preflight.refuse(design.problems)
    run = MapRun(
        beamline,
        design.maps[0].grid,
        design.maps[0].dwell_ms,
        fast_pixels=design.maps[0].fast_pixels,
        user_input=request.user_input(),
        row_attempts=request.row_attempts,
        md=request.md or {},
    )
    return (yield from fly(run)).uid
