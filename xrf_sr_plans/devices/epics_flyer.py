"""A row flyer over EPICS: a motor record's axis, and a detector that serves rows as waveforms."""

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
from xrf_sr_plans.devices.rows import RowFrames, RowPath
from xrf_sr_plans.errors import ConfigError, FlightError, LimitsError, MissingExtraError

logger = logging.getLogger(__name__)

_PLACE_TOLERANCE = 0.1
"""In steps: an axis farther than that from where it was sent didn't get there."""


class EpicsRowFlyer(RowDevice):
    """A `RowFlyer` over Channel Access.

    `prepare` writes the row's settings and goes to where the run-up begins; `kickoff` arms the
    detector and flies once it is armed; `complete` ends when axis and detector are done and the
    waveforms are read. What waits does so in a thread, with a timeout, and fails at once when an
    IOC goes away. Between rows the fast axis has the velocity that it was staged with.

    Parameters
    ----------
    pvs
        The detector's PVs.
    fast, slow
        The axes: `ophyd.EpicsMotor` or alike. `velocity` of the fast one is a signal.
    timeout_s
        Longest wait for a PV, and for a move or a row beyond what it should take.

    Raises
    ------
    ConfigError
        No elements.
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
        if ophyd.get_cl().name == "dummy":
            raise MissingExtraError(f"flyer {name!r}", "epics")
        super().__init__(name=name, elements=list(pvs.counts), **kwargs)
        self.pvs = pvs
        detector_class = create_device_from_components("RowDetector", **pvs.components())
        self.detector: Any = detector_class(name=f"{name}_detector")
        self._fast, self._slow = fast, slow
        self._timeout_s = timeout_s
        self._facts: dict[str, AxisFacts] = {}
        self._cruise: float | None = None
        self._job: Job | None = None
        self._flown: Status | None = None

    @property
    def connected(self) -> bool:
        """Whether all PVs answer, the axes' too."""
        return all(part.connected for part in (self.detector, self._fast, self._slow))

    def wait_for_connection(self, all_signals: bool = False, timeout: float | None = None) -> None:
        """Wait for all PVs, the axes' too.

        Raises
        ------
        TimeoutError
            Names those that don't answer; `timeout` is in s, None the flyer's own.
        """
        timeout = self._timeout_s if timeout is None else timeout
        for part in (self.detector, self._fast, self._slow):
            part.wait_for_connection(all_signals=all_signals, timeout=timeout)

    def stage(self) -> list[Any]:
        """Forget all attempts."""
        staged = super().stage()
        self._flown, self._cruise = None, self._fast.velocity.get()
        return staged

    def prepare(self, value: RowRequest) -> Status:
        """Set up a row and go to where its run-up begins.

        Raises
        ------
        LimitsError
            The row with its run-up is beyond the axes' limits.
        """
        self.stop()
        path = RowPath.from_request(value)
        self._facts = {"fast": axis_facts(self._fast), "slow": axis_facts(self._slow)}
        _check(self._facts["fast"], path.start_um, "row start with run-up")
        _check(self._facts["fast"], path.end_um, "row end with run-up")
        _check(self._facts["slow"], value["slow_um"], "row height")
        self._path, self._flown, self._frames = path, None, None
        status = Status(self)
        self._begin(lambda job: self._go_to_start(job, path), status)
        return status

    def kickoff(self) -> Status:
        """Begin the row, one more attempt at it; done once it flies."""
        path = self._path
        if path is None:
            raise LimitsError(f"flyer {self.name!r}: kickoff without prepare")
        self.stop()
        self._attempt, self._frames = self._attempts.begin(path.request), None
        flying, flown = Status(self), Status(self)
        self._flown = flown
        self._begin(lambda job: self._fly(job, path, flying), flying, flown)
        return flying

    def complete(self) -> Status:
        """Return a status that finishes with the row."""
        if self._flown is None:
            raise LimitsError(f"flyer {self.name!r}: complete without kickoff")
        return self._flown

    def stop(self, *, success: bool = False) -> None:
        """Stand still; a row under way is lost, a complete one may still be collected.

        The status of `complete` finishes without error, so that a plan which gave up waiting
        isn't failed by it afterwards; the missing event tells.
        """
        if self._job is not None and not self._job.over:
            self._job.stop()
            self._halt()

    def _begin(self, steps: Callable[[Job], None], *statuses: Status) -> None:
        assert self._path is not None
        name = f"{self.name}, row {self._path.request['row']}"
        before, self._job = (
            self._job,
            Job(name, steps, statuses, connected=lambda: self.connected, clean_up=self._halt),
        )
        self._job.start(before, self._timeout_s)

    def _halt(self) -> None:
        """Stop axes and detector without waiting for it."""
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
        job.until(self._at_rest, self._timeout_s, "earlier moves")
        request, fast = path.request, self._facts["fast"]
        for k, value in enumerate(self.pvs.before_row.values()):
            self._write(job, f"before_{k}", value)
        self._write(job, "num", request["num"])
        self._write(job, "dwell", request["dwell_ms"] * 1e-3)
        self._write(job, "start", path.first_edge_um / fast.um_per_unit)
        self._write(job, "step", request["direction"] * request["step_um"] / fast.um_per_unit)
        if self._cruise:
            self._go_at(job, self._cruise)
        tolerance_um = request["step_um"] * _PLACE_TOLERANCE
        self._move(job, "fast", path.start_um, tolerance_um)
        self._move(job, "slow", request["slow_um"], tolerance_um)

    def _fly(self, job: Job, path: RowPath, flying: Status) -> None:
        fast = self._facts["fast"]
        row_s = abs(path.end_um - path.start_um) / path.velocity_um_s
        try:
            self._go_at(job, path.velocity_um_s / fast.um_per_unit)
            done = self.detector.arm.set(1)
            job.until(lambda: self._reads("busy") != 0, self._timeout_s, "arming")
            job.finish(flying)
            reached = self._fast.set(path.end_um / fast.um_per_unit)
            job.wait(reached, self._timeout_s + 2 * row_s, f"flying {fast.name}")
            job.wait(done, self._timeout_s, "the detector's end of the row")
            job.until(lambda: self._reads("busy") == 0, self._timeout_s, "the row's waveforms")
        finally:
            if self._cruise and self.connected:
                self._fast.velocity.put(self._cruise)
        frames = self._read(job, path.request)
        with self._frames_lock:
            self._frames = frames

    def _read(self, job: Job, request: RowRequest) -> RowFrames:
        num = request["num"]
        if self.pvs.taken is not None and (taken := int(self._reads("taken"))) != num:
            raise FlightError(f"{job.name}: {taken} of {num} frames were taken")

        def column(role: str) -> np.ndarray:
            values = np.atleast_1d(np.asarray(self._reads(role), dtype=float))
            if len(values) < num:
                pv = getattr(self.detector, role).pvname
                raise FlightError(f"{job.name}: {pv} has {len(values)} of {num} frames")
            return values[:num]

        def optional(role: str, scale: float, otherwise: float) -> np.ndarray:
            known = getattr(self.pvs, role) is not None
            return column(role) * scale if known else np.full(num, otherwise)

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
        """Move an axis, and make sure that it is there."""
        axis, facts = {"fast": self._fast, "slow": self._slow}[role], self._facts[role]
        way_um = abs(axis.position * facts.um_per_unit - target_um)
        if role == "slow" and way_um <= tolerance_um:
            return
        way_s = way_um / facts.velocity_um_s if facts.velocity_um_s else 0.0
        what = f"moving {facts.name} to {target_um:g} um"
        job.wait(axis.set(target_um / facts.um_per_unit), self._timeout_s + 2 * way_s, what)
        place_um = axis.position * facts.um_per_unit
        if abs(place_um - target_um) > tolerance_um:
            raise FlightError(f"{job.name}: {what}: it is at {place_um:g} um")

    def _go_at(self, job: Job, velocity: float) -> None:
        if self._fast.velocity.get() != velocity:
            status = self._fast.velocity.set(velocity)
            job.wait(status, self._timeout_s, f"setting the velocity of {self._fast.name}")

    def _at_rest(self) -> bool:
        return not (self._fast.moving or self._slow.moving)

    def _write(self, job: Job, role: str, value: Any) -> None:
        signal = getattr(self.detector, role, None)
        if signal is not None:
            job.wait(signal.set(value), self._timeout_s, f"writing {signal.pvname}")

    def _reads(self, role: str) -> Any:
        return getattr(self.detector, role).get(timeout=self._timeout_s, use_monitor=False)


def _check(facts: AxisFacts, target_um: float, what: str) -> None:
    low, high = facts.low_um, facts.high_um
    if low is not None and high is not None and not low <= target_um <= high:
        raise LimitsError(
            f"axis {facts.name!r}: {what} {target_um:g} um is outside {low:g}..{high:g} um"
        )
