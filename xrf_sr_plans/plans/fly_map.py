"""`fly_map`: one map as one run."""

from __future__ import annotations

from typing import Any

from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline, HasCheckPlan
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import design_map
from xrf_sr_plans.plans.flight import Flight
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS, FlightProgress, FlownMap, MapRun
from xrf_sr_plans.plans.request import GridRequest
from xrf_sr_plans.plans.single_run import single_run
from xrf_sr_plans.plans.start_document import map_start
from xrf_sr_plans.plans.two_stages import center_fine_stage, center_problems


@plan
def fly_map(
    beamline: Beamline,
    grid: ScanGrid,
    *,
    dwell_ms: float,
    fast_pixels: Factor = 1,
    purpose: schema.Purpose = "map",
    analysis: schema.AnalysisRequest | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Fly one map as one run.

    A row that fails or hangs is flown again, up to `row_attempts` times. Then it is left missing
    and noted in the stream ``lost_rows``, and the map goes on.

    Parameters
    ----------
    grid
        The pixels, in um of the stage.
    dwell_ms
        Time at each pixel in ms.
    fast_pixels
        Pixels per step along the fast axis, in the start document: more than 1 where the rows are
        further apart than the pixels of `grid` are long.
    purpose
        What the map is for, in the start document.
    analysis
        What the analysis shall do with the map. None means that it leaves the map alone.
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
        If three rows in succession can't be measured.
    """
    request = GridRequest.from_arguments(locals())
    preflight.refuse(design_map(beamline, request).problems)
    run = MapRun(
        beamline,
        request.grid,
        request.dwell_ms,
        fast_pixels=request.fast_pixels,
        purpose=request.purpose,
        analysis=request.analysis,
        row_attempts=request.row_attempts,
        md=request.md or {},
    )
    return (yield from fly(run)).uid


def fly(run: MapRun, progress: FlightProgress | None = None) -> MsgGenerator[FlownMap]:
    """Check a map once more and fly it: every plan of this package measures through here.

    A fine stage that doesn't fly the map goes to its center first, where the coordinates of the
    coarse stage are those of the sample.

    Parameters
    ----------
    run
        The map.
    progress
        Filled in while the map is flown, so that the caller of a map that is interrupted knows
        how far it came.

    Raises
    ------
    RefusedError
        If the map can't be flown as things stand now. Nothing has moved.
    FlightError
        If too many rows in succession can't be measured.
    LeftUnsafeError
        If the shutter can't be closed or the fast axis doesn't take its velocity back.
    """
    beamline = run.beamline
    facts = axis_facts(beamline.fast), axis_facts(beamline.slow)
    preflight.refuse(
        [
            *preflight.element_problems(beamline),
            *preflight.number_problems({"row_attempts": run.row_attempts}),
            *preflight.map_problems(beamline, run.flown, run.dwell_ms, facts=facts),
            *center_problems(beamline),
        ]
    )
    flight = Flight(run, slow=facts[1], progress=progress or FlightProgress())
    plan_args = {
        "grid": run.grid.to_dict(),
        "dwell_ms": run.dwell_ms,
        "fast_pixels": run.fast_pixels,
        "purpose": run.purpose,
        "row_attempts": run.row_attempts,
    }
    start = map_start(beamline, run.grid, run.metadata(), plan_args=plan_args)

    yield from center_fine_stage(beamline)
    if isinstance(beamline.flyer, HasCheckPlan):
        yield from beamline.flyer.check_plan()

    @bpp.stage_decorator([flight.guard, *beamline.staged_devices])
    def inner() -> MsgGenerator[None]:
        yield from single_run(
            {**start, **run.md}, flight.measure(), opened=flight.opened, ending=flight.ending
        )

    yield from inner()
    return FlownMap(str(flight.progress.run_uid), tuple(flight.lost), tuple(flight.rows_s))
