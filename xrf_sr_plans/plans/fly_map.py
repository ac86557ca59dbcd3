"""`fly_map`: one map as one run, a row at a time, so that a pause costs at most one row."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus, MsgGenerator, RunEngineControlException, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import AxisFacts, axis_facts
from xrf_sr_plans.devices.protocols import Beamline, HasRowPlan, RowRequest
from xrf_sr_plans.errors import FlightError, LeftUnsafeError, in_words
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import design_map
from xrf_sr_plans.plans.plan_record import PlanRecord, record_event
from xrf_sr_plans.plans.request import GridRequest
from xrf_sr_plans.plans.safeguard import Safeguard, all_in_turn, stop_all, velocity_signal
from xrf_sr_plans.plans.single_run import Ending, ended_by, single_run
from xrf_sr_plans.plans.start_document import map_start

logger = logging.getLogger(__name__)

ROW_ATTEMPTS = 3
"""How often a failing row is flown, unless the user says otherwise."""
LOST_IN_SUCCESSION = 3
"""Number of lost rows in succession that ends a map, because then the hardware is broken."""
ROW_FAILURES = (FailedStatus, TimeoutError)
"""The exceptions that a failing or hung device raises in a plan."""
_SETTLE_S = 1.0
"""Time in seconds to wait for late failures of a row that was given up, per group of messages."""


@dataclass
class FlightProgress:
    """How far a map has come; `fly` fills it in.

    Attributes
    ----------
    run_uid
        Uid of the map's run; empty before it is opened.
    rows
        Rows that are measured.
    """

    run_uid: str = ""
    rows: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class FlownMap:
    """What came of one map run: rows that were lost, and seconds that each other row took."""

    uid: str
    lost_rows: tuple[int, ...]
    rows_s: tuple[float, ...]


@dataclass(frozen=True)
class MapRun:
    """One map that is to be flown as one run, and what its start document says about why.

    Attributes
    ----------
    grid
        The pixels, in um of the stage.
    dwell_ms
        Time at each pixel in ms.
    purpose, survey_uid, parent_uid, region, tile, analysis
        As in `schema.MapMetadata`.
    user_input
        What the user asked, by parameter.
    derived_input
        What the plan made of it. Time, dose, velocity and run-up are added.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        The user's metadata, which may replace the `plan_name`.
    """

    beamline: Beamline
    grid: ScanGrid
    dwell_ms: float
    purpose: schema.Purpose = "map"
    survey_uid: str | None = None
    parent_uid: str | None = None
    region: Region | None = None
    tile: schema.TileIndex | None = None
    analysis: schema.AnalysisRequest | None = None
    user_input: Mapping[str, Any] = field(default_factory=dict)
    derived_input: Mapping[str, Any] = field(default_factory=dict)
    row_attempts: int = ROW_ATTEMPTS
    md: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> schema.MapMetadata:
        """Return the `xrf_sr` part of the start document."""
        cost = preflight.map_cost(self.beamline, self.grid, self.dwell_ms)
        derived = {
            "time_s": cost.time_s,
            "row_s": cost.row_s,
            "dose": cost.dose,
            "dose_unit": cost.dose_unit,
            "velocity_um_s": cost.velocity_um_s,
            "run_up_um": self.grid.run_up_um,
        }
        return schema.MapMetadata(
            purpose=self.purpose,
            survey_uid=self.survey_uid,
            parent_uid=self.parent_uid,
            region=None if self.region is None else self.region.to_dict(),
            tile=self.tile,
            grid=self.grid.to_dict(),
            elements=list(self.beamline.flyer.elements),
            step_um=self.grid.fast.step_um,
            probe_fwhm_um=self.beamline.probe_fwhm_um,
            dwell_ms=self.dwell_ms,
            sampling="point" if preflight.is_stepping(self.beamline) else "fly",
            beamline=self.beamline.name,
            analysis=self.analysis,
            user_input=dict(self.user_input),
            derived_input={**derived, **self.derived_input},
        )


@plan
def fly_map(
    beamline: Beamline,
    grid: ScanGrid,
    *,
    dwell_ms: float,
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
        purpose=request.purpose,
        analysis=request.analysis,
        row_attempts=request.row_attempts,
        md=request.md or {},
    )
    return (yield from fly(run)).uid


def fly(run: MapRun, progress: FlightProgress | None = None) -> MsgGenerator[FlownMap]:
    """Check a map once more and fly it: every plan of this package measures through here.

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
            *preflight.attempt_problems(run.row_attempts),
            *preflight.map_problems(beamline, run.grid, run.dwell_ms, facts=facts),
        ]
    )
    flight = _Flight(run, slow=facts[1], progress=progress or FlightProgress())
    plan_args = {
        "grid": run.grid.to_dict(),
        "dwell_ms": run.dwell_ms,
        "purpose": run.purpose,
        "row_attempts": run.row_attempts,
    }
    start = map_start(beamline, run.grid, run.metadata(), plan_args=plan_args)

    @bpp.stage_decorator([flight.guard, *beamline.staged_devices])
    def inner() -> MsgGenerator[None]:
        yield from single_run(
            {**start, **run.md}, flight.measure(), opened=flight.opened, ending=flight.ending
        )

    yield from inner()
    return FlownMap(str(flight.progress.run_uid), tuple(flight.lost), tuple(flight.rows_s))


class _Flight:
    """One map in flight: it measures the rows and leaves the beamline safe."""

    def __init__(self, run: MapRun, *, slow: AxisFacts, progress: FlightProgress) -> None:
        self.run = run
        self.beamline = run.beamline
        self.guard = Safeguard(run.beamline)
        self.lost: list[int] = []
        self.rows_s: list[float] = []
        self.progress = progress
        self._unsafe = ""
        self._slow = slow
        self._map_key = uuid.uuid4().hex
        self._groups: list[str] = []
        self._lost_row = PlanRecord(
            f"{run.beamline.flyer.name}_lost", {"row": 0, "attempts": 0, "reason": ""}
        )

    def measure(self) -> MsgGenerator[None]:
        """Measure all rows and leave the beamline safe.

        Raises
        ------
        LeftUnsafeError
            If it could not be left safe, although the rows may all be there.
        """
        try:
            yield from bpp.contingency_wrapper(
                self.rows(), except_plan=self.stop_motion, final_plan=self.leave_safe
            )
        except (RunEngineControlException, GeneratorExit):
            raise
        except Exception as error:
            if self._unsafe:
                raise LeftUnsafeError(f"{error}; {self._unsafe}") from error
            raise
        if self._unsafe:
            raise LeftUnsafeError(self._unsafe)

    def opened(self, run_uid: str) -> None:
        """Remember the uid of the run."""
        self.progress.run_uid = run_uid

    def ending(self, error: Exception) -> Ending:
        """Say in the stop document what ended the map, and what could not be left safe."""
        status, reason = ended_by(error)
        if self._unsafe and not isinstance(error, LeftUnsafeError):
            return "fail", "; ".join(filter(None, [reason, self._unsafe]))
        return status, reason

    def rows(self) -> MsgGenerator[None]:
        """Measure all rows."""
        yield from bps.checkpoint()
        velocity = velocity_signal(self.beamline.fast)
        if velocity is not None:
            self.guard.velocity = yield from bps.rd(velocity, default_value=None)
        in_succession = 0
        for row in range(self.run.grid.slow.num):
            reason = yield from self._row(row)
            in_succession = in_succession + 1 if reason else 0
            if in_succession >= min(LOST_IN_SUCCESSION, self.run.grid.slow.num):
                raise FlightError(
                    f"{self.beamline.flyer.name}: rows {self.lost[-in_succession:]} could not be"
                    f" measured in {self.run.row_attempts} attempts each; the last one: {reason}"
                )

    def _row(self, row: int) -> MsgGenerator[str]:
        """Measure a row, again where it fails. Return why it was lost, or "" where it wasn't."""
        failures: list[str] = []
        while len(failures) < self.run.row_attempts:
            interruptions = self.guard.interruptions
            started = time.monotonic()
            try:
                yield from self._attempt(row)
            except ROW_FAILURES as error:
                reason = in_words(error)
                logger.warning("row %d failed: %s", row, reason)
                # What broke because of a pause was not the row's fault.
                if interruptions == self.guard.interruptions:
                    failures.append(reason)
                yield from self._recover()
            else:
                self.rows_s.append(time.monotonic() - started)
                return ""
        self.lost.append(row)
        logger.error("row %d is left missing after %d attempts", row, len(failures))
        values = {"row": row, "attempts": len(failures), "reason": failures[-1]}
        yield from record_event(self._lost_row, schema.STREAM_LOST_ROWS, values)
        return failures[-1]

    def _attempt(self, row: int) -> MsgGenerator[None]:
        """Fly a row once, from one checkpoint to the next: a pause repeats this row only."""
        flyer, request = self.beamline.flyer, self._row_request(row)
        patience = self.beamline.time_model.timeout_s
        row_s = self.beamline.time_model.row_s(request["num"], request["dwell_ms"])
        group = f"row-{uuid.uuid4().hex[:8]}"
        preparing, starting, flying = self._groups = [f"{group}-{step}" for step in range(3)]
        yield from bps.checkpoint()
        yield from bps.mv(
            self.beamline.slow,
            request["slow_um"] / self._slow.um_per_unit,
            timeout=patience(self._travel_s()),
        )
        yield from bps.prepare(flyer, request, group=preparing)
        # The shutter opens only when the slow axis is at the row: the way there gives no dose.
        yield from bps.abs_set(self.guard, "open", group=preparing)
        yield from bps.wait(preparing, timeout=patience(row_s))
        if isinstance(flyer, HasRowPlan):
            yield from flyer.row_plan(request)
        else:
            yield from bps.kickoff(flyer, group=starting)
            yield from bps.wait(starting, timeout=patience(row_s))
            yield from bps.complete(flyer, group=flying)
            yield from bps.wait(flying, timeout=patience(row_s))
        collected = yield from bps.collect(self.beamline.flyer)
        empty = collected is not None and not list(collected)
        if not empty:
            self.progress.rows.add(row)
        yield from bps.checkpoint()
        if empty:
            raise TimeoutError(
                f"{self.beamline.flyer.name} completed row {row} but has nothing to collect"
            )

    def _row_request(self, row: int) -> RowRequest:
        grid = self.run.grid
        direction = grid.direction(row)
        ends = grid.fast.start_um, grid.fast.stop_um
        first_um, last_um = ends if direction > 0 else ends[::-1]
        return RowRequest(
            map_key=self._map_key,
            row=row,
            direction=direction,
            first_um=first_um,
            last_um=last_um,
            step_um=grid.fast.step_um,
            num=grid.fast.num,
            dwell_ms=self.run.dwell_ms,
            run_up_um=grid.run_up_um,
            slow_um=float(grid.slow.centers_um[row]),
            rows=grid.slow.num,
        )

    def _travel_s(self) -> float:
        """Return the seconds that the longest move of the slow axis to a row takes."""
        slow = self.run.grid.slow
        velocity = self._slow.velocity_um_s
        if not velocity:
            return 0.0
        first_um = max(abs(edge - self._slow.position_um) for edge in (slow.low_um, slow.high_um))
        return max(first_um, slow.high_um - slow.low_um) / velocity

    def _recover(self) -> MsgGenerator[None]:
        """Bring a hung flyer and the axes to rest, and let late failures pass."""
        yield from stop_all(self.beamline.flyer, self.beamline.slow)
        timeout = min(_SETTLE_S, self.beamline.time_model.grace_s)
        waits = [
            lambda group=group: bps.wait(group, timeout=timeout, error_on_timeout=False)
            for group in self._groups
        ]
        yield from all_in_turn(*waits, bps.checkpoint)

    def stop_motion(self, error: Exception) -> MsgGenerator[None]:
        """Stop everything that may be moving, after a failure."""
        logger.warning("map ended early: %r", error)
        yield from stop_all(self.beamline.flyer, self.beamline.fast, self.beamline.slow)

    def leave_safe(self) -> MsgGenerator[None]:
        """Close the shutter and restore the fast axis's velocity, however the map ended."""
        timeout = self.beamline.time_model.timeout_s(0.0)
        errors = yield from all_in_turn(
            bps.checkpoint, lambda: bps.mv(self.guard, "close", timeout=timeout)
        )
        unsafe = [] if errors[1] is None else [f"the shutter may be open: {in_words(errors[1])}"]
        fast, velocity = self.beamline.fast, self.guard.velocity
        signal = velocity_signal(fast)
        if signal is not None and velocity is not None:
            errors = yield from all_in_turn(lambda: bps.mv(signal, velocity, timeout=timeout))
            if errors[0] is not None:
                unsafe.append(
                    f"axis {fast.name!r} may not have its velocity of {velocity:g} back:"
                    f" {in_words(errors[0])}"
                )
        yield from all_in_turn(bps.checkpoint)
        self._unsafe = "; ".join(unsafe)
        if unsafe:
            logger.critical("%s", self._unsafe)
        self.guard.stand_down()
