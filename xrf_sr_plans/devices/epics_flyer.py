"""A row flyer over EPICS: motor records, and a detector that serves each row as waveforms."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import ophyd
from ophyd.device import create_device_from_components
from ophyd.status import Status
from ophyd.utils import DisconnectedError

from xrf_sr_plans.devices.axes import AxisFacts, axis_facts
from xrf_sr_plans.devices.jobs import Job
from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.row_device import RowDevice
from xrf_sr_plans.devices.row_pvs import RowPVs
from xrf_sr_plans.devices.row_status import RowStatus
from xrf_sr_plans.devices.rows import RowFrames, RowPath
from xrf_sr_plans.errors import ConfigError, FlightError, LimitsError, MissingExtraError
from xrf_sr_plans.ranges import ABOVE_ZERO, check

logger = logging.getLogger(__name__)

_PLACE_TOLERANCE_STEPS = 0.1
"""How far from its target an axis may end up, in steps of the row, and still count as there."""


class EpicsRowFlyer(RowDevice):
    """A `RowFlyer` over Channel Access.

    `prepare` writes the row's settings and goes to where the run-up begins. `kickoff` arms the
    detector, and sets the axis in motion once it is armed. `complete` ends when axis and
    detector are done and the waveforms are read. All waiting is done in a thread, with a timeout,
    and ends at once when an IOC goes away. Between rows the fast axis has the velocity that it
    was staged with.

    Parameters
    ----------
    pvs
        The detector's PVs.
    name
        Prefix of the event keys.
    fast
        The fast axis, an `ophyd.EpicsMotor` or the like, whose `velocity` is a signal.
    slow
        The slow axis, an `ophyd.EpicsMotor` or the like.
    timeout_s
        Longest wait for a PV, and for a move or a row beyond what it should take, in seconds.

    Raises
    ------
    ConfigError
        `pvs` names no elements, or `timeout_s` is not a finite number above 0.
    MissingExtraError
        Neither pyepics nor caproto is installed.
    """

    def __init__(
        self,
        pvs: RowPVs,
        *,
        name: str,
        fast: Any,
        slow: Any,
        timeout_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        if not pvs.counts:
            raise ConfigError(f"flyer {name!r}: counts names no element")
        check(f"flyer {name!r}", ABOVE_ZERO.flaw("timeout_s", timeout_s))
        if ophyd.get_cl().name == "dummy":
            raise MissingExtraError(f"flyer {name!r}", "epics")
        super().__init__(name=name, elements=list(pvs.counts), **kwargs)
        self.pvs = pvs
        detector_class = create_device_from_components("RowDetector", **pvs.components())
        self.detector: Any = detector_class(name=f"{name}_detector")
        self._fast, self._slow = fast, slow
        self._timeout_s = timeout_s
        self._facts: dict[str, AxisFacts] = {}
        self._staged_velocity: float | None = None  # in units of the axis
        self._job: Job | None = None
        self._row_status: RowStatus | None = None

    @property
    def connected(self) -> bool:
        """Whether all PVs of the detector and of the axes answer."""
        return all(part.connected for part in (self.detector, self._fast, self._slow))

    def wait_for_connection(self, all_signals: bool = False, timeout: float | None = None) -> None:
        """Wait for all PVs of the detector and of the axes.

        Parameters
        ----------
        all_signals
            True: wait for signals that are connected lazily as well.
        timeout
            Longest wait for each of the three devices, in s; None: the flyer's own timeout.

        Raises
        ------
        TimeoutError
            Some PVs don't answer; the message names them.
        """
        timeout = self._timeout_s if timeout is None else timeout
        for part in (self.detector, self._fast, self._slow):
            part.wait_for_connection(all_signals=all_signals, timeout=timeout)

    def stage(self) -> list[Any]:
        """Forget all attempts, and remember the velocity to return to between rows."""
        staged = super().stage()
        self._row_status, self._staged_velocity = None, self._fast.velocity.get()
        return staged

    def prepare(self, value: RowRequest) -> Status:
        """Set up a row and go to where its run-up begins.

        Raises
        ------
        LimitsError
            The row with its run-up goes beyond the axes' limits.
        """
        self.stop()
        path = RowPath.from_request(value)
        self._facts = {"fast": axis_facts(self._fast), "slow": axis_facts(self._slow)}
        _check_limits(self._facts["fast"], path.start_um, "row start with run-up")
        _check_limits(self._facts["fast"], path.end_um, "row end with run-up")
        _check_limits(self._facts["slow"], value["slow_um"], "row height")
        self._path, self._row_status, self._frames = path, None, None
        status = self._status_of(value)
        self._start_job(lambda job: self._go_to_start(job, path), status)
        return status

    def kickoff(self) -> Status:
        """Begin one more attempt at the row; the status finishes once the axis is in motion.

        Raises
        ------
        LimitsError
            No row was prepared.
        """
        path = self._path
        if path is None:
            raise LimitsError(f"flyer {self.name!r}: kickoff without prepare")
        self.stop()
        self._attempt, self._frames = self._attempts.begin(path.request), None
        started, flown = Status(self), self._status_of(path.request)
        self._row_status = flown
        self._start_job(lambda job: self._fly(job, path, started, flown), started, flown)
        return started

    def complete(self) -> Status:
        """Return a status that finishes with the row.

        Raises
        ------
        LimitsError
            No row was begun.
        """
        if self._row_status is None:
            raise LimitsError(f"flyer {self.name!r}: complete without kickoff")
        return self._row_status

    def stop(self, *, success: bool = False) -> None:
        """Stop axes and detector. A row under way is lost, a complete one can still be collected.

        The status of `complete` finishes without error, so that a plan which has given up waiting
        isn't failed by it afterwards. That the row is lost shows in its missing event.
        """
        if self._job is not None and not self._job.done:
            self._job.stop()
            self._halt()

    def _start_job(self, steps: Callable[[Job], None], *statuses: Status) -> None:
        """Do steps in a thread, after those of the job before have come to their end."""
        assert self._path is not None
        name = f"{self.name}, row {self._path.request['row']}"
        job_before = self._job
        self._job = Job(
            name, steps, statuses, connected=lambda: self.connected, clean_up=self._halt
        )
        self._job.start(job_before, self._timeout_s)

    def _halt(self) -> None:
        """Tell axes and detector to stop, without waiting until they have."""
        actions = {
            self._fast.name: lambda: self._fast.stop(success=True),
            self._slow.name: lambda: self._slow.stop(success=True),
            self.detector.arm.name: lambda: self.detector.arm.put(0, use_complete=False),
        }
        for name, act in actions.items():
            try:
                if self.connected:
                    act()
            except (DisconnectedError, TimeoutError) as error:
                logger.warning("%s: can't stop %s: %r", self.name, name, error)

    def _go_to_start(self, job: Job, path: RowPath) -> None:
        """Write the settings of a row, and move both axes to where its run-up begins."""
        job.wait_until(self._at_rest, self._timeout_s, "earlier moves")
        request, fast = path.request, self._facts["fast"]
        for k, value in enumerate(self.pvs.before_row.values()):
            self._write(job, f"before_{k}", value)
        self._write(job, "num", request["num"])
        self._write(job, "dwell", request["dwell_ms"] * 1e-3)
        self._write(job, "start", path.first_edge_um / fast.um_per_unit)
        self._write(job, "step", request["direction"] * request["step_um"] / fast.um_per_unit)
        if self._staged_velocity:
            self._set_velocity(job, self._staged_velocity)
        tolerance_um = request["step_um"] * _PLACE_TOLERANCE_STEPS
        self._move(job, "fast", path.start_um, tolerance_um)
        self._move(job, "slow", request["slow_um"], tolerance_um)

    def _fly(self, job: Job, path: RowPath, started: Status, flown: RowStatus) -> None:
        """Fly the row and read its frames; finish `started` once the detector is armed."""
        fast = self._facts["fast"]
        row_s = abs(path.end_um - path.start_um) / path.velocity_um_s
        try:
            self._set_velocity(job, path.velocity_um_s / fast.um_per_unit)
            # Put-completion: this status finishes when the detector has counted the row.
            acquisition = self.detector.arm.set(1)
            job.wait_until(lambda: self._value("busy") != 0, self._timeout_s, "arming")
            job.finish(started)
            motion = self._fast.set(path.end_um / fast.um_per_unit)
            job.wait(motion, self._timeout_s + 2 * row_s, f"flying {fast.name}")
            job.wait(acquisition, self._timeout_s, "the detector's end of the row")
            job.wait_until(lambda: self._value("busy") == 0, self._timeout_s, "the row's waveforms")
        finally:
            if self._staged_velocity and self.connected:
                self._fast.velocity.put(self._staged_velocity)
        frames = self._read(job, path.request)
        with self._frames_lock:
            self._frames = frames
        flown.row_measured()

    def _read(self, job: Job, request: RowRequest) -> RowFrames:
        """Return the frames of the row from the detector's waveforms, in um, s and counts/s."""
        num = request["num"]
        if self.pvs.taken is not None and (taken := int(self._value("taken"))) != num:
            raise FlightError(f"{job.name}: {taken} of {num} frames were taken")

        def column(role: str) -> np.ndarray:
            values = np.atleast_1d(np.asarray(self._value(role), dtype=float))
            if len(values) < num:
                pv = getattr(self.detector, role).pvname
                raise FlightError(f"{job.name}: {pv} has {len(values)} of {num} frames")
            return values[:num]

        def optional(role: str, scale: float, default: float) -> np.ndarray:
            has_pv = getattr(self.pvs, role) is not None
            return column(role) * scale if has_pv else np.full(num, default)

        dwell_s = request["dwell_ms"] * 1e-3
        counts = [
            np.sum([column(role) for role in self.pvs.waveforms(element)], axis=0)
            for element in self.elements
        ]
        return RowFrames(
            np.stack(counts),
            optional("i0", 1 / dwell_s, np.nan),
            optional("live_time", 1.0, dwell_s),
            optional("fast", self._facts["fast"].um_per_unit, np.nan),
            optional("slow", self._facts["slow"].um_per_unit, np.nan),
        )

    def _move(self, job: Job, role: str, target_um: float, tolerance_um: float) -> None:
        """Move an axis, and make sure that it has arrived."""
        axis, facts = {"fast": self._fast, "slow": self._slow}[role], self._facts[role]
        distance_um = abs(axis.position * facts.um_per_unit - target_um)
        if role == "slow" and distance_um <= tolerance_um:
            return
        move_s = distance_um / facts.velocity_um_s if facts.velocity_um_s else 0.0
        what = f"moving {facts.name} to {target_um:g} um"
        job.wait(axis.set(target_um / facts.um_per_unit), self._timeout_s + 2 * move_s, what)
        position_um = axis.position * facts.um_per_unit
        if abs(position_um - target_um) > tolerance_um:
            raise FlightError(f"{job.name}: {what}: it is at {position_um:g} um")

    def _set_velocity(self, job: Job, velocity: float) -> None:
        """Set the velocity of the fast axis, in its own units per second."""
        if self._fast.velocity.get() != velocity:
            status = self._fast.velocity.set(velocity)
            job.wait(status, self._timeout_s, f"setting the velocity of {self._fast.name}")

    def _at_rest(self) -> bool:
        return not (self._fast.moving or self._slow.moving)

    def _write(self, job: Job, role: str, value: Any) -> None:
        """Write a detector's PV; do nothing where the detector lacks it."""
        signal = getattr(self.detector, role, None)
        if signal is not None:
            job.wait(signal.set(value), self._timeout_s, f"writing {signal.pvname}")

    def _value(self, role: str) -> Any:
        return getattr(self.detector, role).get(timeout=self._timeout_s, use_monitor=False)


def _check_limits(facts: AxisFacts, target_um: float, what: str) -> None:
    if not facts.allows(target_um):
        low, high = (
            "any" if limit is None else f"{limit:g}" for limit in (facts.low_um, facts.high_um)
        )
        raise LimitsError(
            f"axis {facts.name!r}: {what} {target_um:g} um is outside {low}..{high} um"
        )
