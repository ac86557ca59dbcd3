"""The row flyer: moves the stage through a row while the microscope counts."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from ophyd.status import Status

from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.row_device import RowDevice
from xrf_sr_plans.devices.rows import RowFrames, RowPath
from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import FaultPlan, HungFlyer, RowAddress
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.motion import Motion
from xrf_sr_plans.devices.sim.stage import MotorHangs, StageAxis, arrival_s, swept_um
from xrf_sr_plans.errors import LimitsError


class SimRowFlyer(RowDevice):
    """A `RowFlyer` on simulated hardware, in the way of 2-ID: one row, snake, run-up.

    Frames are triggered by the encoder at the edges of the pixels and last exactly the dwell; on
    a run-up too short for full speed the first frames cover less than their pixel.
    """

    def __init__(
        self,
        *,
        name: str,
        microscope: Microscope,
        fast: StageAxis,
        slow: StageAxis,
        clock: Clock,
        faults: FaultPlan | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, elements=microscope.elements, **kwargs)
        self.microscope = microscope
        self._fast, self._slow, self._clock = fast, slow, clock
        self._faults = faults or FaultPlan()
        self._map_index: dict[str, int] = {}
        self._motion: Motion | None = None
        self._flying = False

    def prepare(self, value: RowRequest) -> Status:
        """Go to the start of a row.

        Raises
        ------
        LimitsError
            The row with its run-up, or its velocity, is more than the axes can do.
        """
        self._abandon()
        row = RowPath.from_request(value)
        self._check(row)
        self._map_index.setdefault(value["map_key"], len(self._map_index))
        self._path, self._frames = row, None
        status = Status(self)
        self._motion = Motion(status)
        self._motion.run(self._clock, lambda motion: self._go_to_start(row, motion.interrupt))
        return status

    def kickoff(self) -> Status:
        """Begin the row: one more attempt at it."""
        if self._path is None:
            raise LimitsError(f"flyer {self.name!r}: kickoff without prepare")
        self._abandon()
        self._frames = None
        self._attempt = self._attempts.begin(self._path.request)
        self._motion = Motion(Status(self))
        self._flying = True
        if not self._clock.instant:
            self._motion.run(self._clock, self._fly)
        started = Status(self)
        started.set_finished()
        return started

    def complete(self) -> Status:
        """Return a status that finishes with the row.

        After a pause in mid-row the row is flown once more from its beginning.
        """
        if not self._flying and self._frames is None and self._path is not None:
            self.kickoff()
        if self._motion is None:
            raise LimitsError(f"flyer {self.name!r}: complete without prepare")
        if self._clock.instant and self._flying and not self._motion.over:
            self._motion.run(self._clock, self._fly)
        return self._motion.status

    def stop(self, *, success: bool = False) -> None:
        """Stand still; a row under way is lost, a complete one may still be collected.

        The status of `complete` finishes without error, so that a plan which gave up waiting
        isn't failed by it afterwards; the missing event tells.
        """
        self._abandon()

    def _abandon(self) -> None:
        motion, self._flying = self._motion, False
        if motion is not None and not motion.over:
            motion.stop()

    def _check(self, row: RowPath) -> None:
        request = row.request
        for label in ("first_um", "last_um", "step_um", "dwell_ms", "run_up_um", "slow_um"):
            if not math.isfinite(request[label]):
                raise LimitsError(f"flyer {self.name!r}: {label} is {request[label]}")
        self._fast.check(row.start_um, "row start with run-up")
        self._fast.check(row.end_um, "row end with run-up")
        self._slow.check(request["slow_um"], "row height")
        highest = self._fast.max_velocity_um_s
        if not 0 < row.velocity_um_s <= highest:
            raise LimitsError(
                f"axis {self._fast.name!r}: {row.velocity_um_s:g} um/s is needed for "
                f"{request['step_um']:g} um in {request['dwell_ms']:g} ms; at most {highest:g}"
            )

    def _go_to_start(self, row: RowPath, interrupt: threading.Event) -> bool:
        there = True
        if abs(self._slow.motor_um - row.request["slow_um"]) > 1e-6:
            there = self._slow.travel(row.request["slow_um"], interrupt)
        if abs(self._fast.motor_um - row.start_um) > 1e-6:
            there = self._fast.travel(row.start_um, interrupt) and there
        return there

    def _fly(self, motion: Motion) -> None:
        row = self._path
        assert row is not None
        where = RowAddress(
            self._map_index[row.request["map_key"]],
            row.request["row"],
            self._attempt,
            row.request["direction"],
        )
        faults = self._faults.at(where)
        if not self._go_to_start(row, motion.interrupt):
            return
        began_um = self._fast.motor_um
        if not self._fast.travel(row.end_um, motion.interrupt, row.velocity_um_s):
            return
        if any(isinstance(fault, HungFlyer) for fault in faults):
            raise MotorHangs
        moved = self._fast.motor_um != began_um
        frames: RowFrames | None = self._measure(row, where, faults, moved)
        for fault in faults:
            frames = fault.after(frames, where) if frames is not None else None
        with self._frames_lock:
            if not motion.interrupt.is_set():
                self._frames = frames
                self._flying = False

    def _measure(self, row: RowPath, where: RowAddress, faults: list, moved: bool) -> RowFrames:
        request = row.request
        start, stop = (
            self._paths(row) if moved else (np.full(request["num"], self._fast.motor_um),) * 2
        )
        dwell_s = request["dwell_ms"] * 1e-3
        key = (
            "row",
            *(round(request[k], 4) for k in ("first_um", "step_um", "slow_um", "dwell_ms")),
            request["num"],
            request["direction"],
        )
        if self.microscope.fresh_noise:
            key = (*key, where.map_index)
        drift_x, drift_y = self.microscope.drift_um(self._clock.elapsed_s)
        offset = self._fast.play_um(request["direction"]) - drift_x
        exposure = self.microscope.exposure(
            start + offset, stop + offset, self._slow.sample_um - drift_y, dwell_s, key
        )
        for fault in faults:
            exposure = fault.before(exposure, where)
        readout = self.microscope.expose(exposure)
        noise = self.microscope.rng(("encoder", *key))
        fast_um = (start + stop) / 2 + self._fast.encoder_noise_um * noise.standard_normal(
            len(start)
        )
        slow_um = self._slow.motor_um + self._slow.encoder_noise_um * noise.standard_normal(
            len(start)
        )
        return RowFrames(readout.counts, readout.i0, readout.live_time_s, fast_um, slow_um)

    def _paths(self, row: RowPath) -> tuple[np.ndarray, np.ndarray]:
        """Return where each frame begins and ends on the encoder, given the run-up there was."""
        request, velocity = row.request, row.velocity_um_s
        edges = request["run_up_um"] + request["step_um"] * np.arange(request["num"])
        ramp_s = self._fast.acceleration_s
        began = arrival_s(edges, velocity, ramp_s)
        ended = swept_um(began + request["dwell_ms"] * 1e-3, velocity, ramp_s)
        origin, direction = row.start_um, request["direction"]
        return origin + direction * edges, origin + direction * ended
