"""`Flight`: one map in flight, a row at a time, so that a pause costs at most one row."""

from __future__ import annotations

import logging
import time
import uuid

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus, MsgGenerator, RunEngineControlException

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import AxisFacts
from xrf_sr_plans.devices.map_protocols import HasMapPlan
from xrf_sr_plans.devices.protocols import HasRowPlan, RowRequest
from xrf_sr_plans.errors import FlightError, LeftUnsafeError, in_words
from xrf_sr_plans.plans.map_run import FlightProgress, MapRun
from xrf_sr_plans.plans.plan_record import PlanRecord, record_event
from xrf_sr_plans.plans.safeguard import Safeguard, all_in_turn, stop_all, velocity_signal
from xrf_sr_plans.plans.single_run import Ending, ended_by
from xrf_sr_plans.plans.whole_map import fly_whole

logger = logging.getLogger(__name__)

LOST_IN_SUCCESSION = 3
"""Number of lost rows in succession that ends a map, because then the hardware is broken."""
ROW_FAILURES = (FailedStatus, TimeoutError)
"""The exceptions that a failing or hung device raises in a plan."""
_SETTLE_S = 1.0
"""Time in seconds to wait for late failures of a row that was given up, per group of messages."""


class Flight:
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
        self.groups: list[str] = []
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
        if isinstance(self.beamline.flyer, HasMapPlan):
            yield from fly_whole(self, self.beamline.flyer, LOST_IN_SUCCESSION)
            return
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
                yield from self.recover()
            else:
                self.rows_s.append(time.monotonic() - started)
                return ""
        yield from self.lose_row(row, len(failures), failures[-1])
        return failures[-1]

    def lose_row(self, row: int, attempts: int, reason: str) -> MsgGenerator[None]:
        """Note that a row is left missing."""
        self.lost.append(row)
        logger.error("row %d is left missing after %d attempts", row, attempts)
        values = {"row": row, "attempts": attempts, "reason": reason}
        yield from record_event(self._lost_row, schema.STREAM_LOST_ROWS, values)

    def check_carriers(self) -> None:
        """Make sure that the axes which carry the stage are where they were.

        Raises
        ------
        FlightError
            Somebody has moved one of them.
        """
        moved = [flaw for carrier in self.run.carriers if (flaw := carrier.flaw())]
        if moved:
            raise FlightError("; ".join(moved))

    def _attempt(self, row: int) -> MsgGenerator[None]:
        """Fly a row once, from one checkpoint to the next: a pause repeats this row only."""
        flyer, request = self.beamline.flyer, self.row_request(row)
        patience = self.beamline.time_model.timeout_s
        row_s = self.beamline.time_model.row_s(request["num"], request["dwell_ms"])
        group = f"row-{uuid.uuid4().hex[:8]}"
        preparing, starting, flying = self.groups = [f"{group}-{step}" for step in range(3)]
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
        # Here and not before the row: after a pause only messages are repeated, not this code.
        self.check_carriers()
        collected = yield from bps.collect(self.beamline.flyer)
        empty = collected is not None and not list(collected)
        if not empty:
            self.progress.rows.add(row)
        yield from bps.checkpoint()
        if empty:
            raise TimeoutError(
                f"{self.beamline.flyer.name} completed row {row} but has nothing to collect"
            )

    def row_request(self, row: int) -> RowRequest:
        """Return where a row is to be, in um of the axes that fly it."""
        grid, placement = self.run.grid, self.run.placement
        direction = grid.direction(row)
        ends = grid.fast.start_um, grid.fast.stop_um
        first_um, last_um = ends if direction > 0 else ends[::-1]
        slow_um = float(grid.slow.centers_um[row])
        if placement is not None:
            first_um, last_um = map(placement.fast.to_axis_um, (first_um, last_um))
            direction *= placement.fast.sign
            slow_um = placement.slow.to_axis_um(slow_um)
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
            slow_um=slow_um,
            rows=grid.slow.num,
        )

    def _travel_s(self) -> float:
        """Return the seconds that the longest move of the slow axis to a row takes."""
        slow = self.run.flown.slow
        velocity = self._slow.velocity_um_s
        if not velocity:
            return 0.0
        first_um = max(abs(edge - self._slow.position_um) for edge in (slow.low_um, slow.high_um))
        return max(first_um, slow.high_um - slow.low_um) / velocity

    def recover(self) -> MsgGenerator[None]:
        """Bring a hung flyer and the axes to rest, and let late failures pass."""
        yield from stop_all(self.beamline.flyer, self.beamline.slow)
        timeout = min(_SETTLE_S, self.beamline.time_model.grace_s)
        waits = [
            lambda group=group: bps.wait(group, timeout=timeout, error_on_timeout=False)
            for group in self.groups
        ]
        yield from all_in_turn(*waits, bps.checkpoint)

    def stop_motion(self, error: Exception) -> MsgGenerator[None]:
        """Stop everything that may be moving, after a failure."""
        # Who has ended it by hand knows.
        by_hand = isinstance(error, RunEngineControlException)
        logger.log(logging.DEBUG if by_hand else logging.WARNING, "map ended early: %r", error)
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
