"""The simulated row flyer, which moves the stage through a row while the microscope counts."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ophyd.status import Status

from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.row_device import RowDevice
from xrf_sr_plans.devices.row_status import RowStatus
from xrf_sr_plans.devices.rows import RowFrames, RowPath
from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import Fault, FaultPlan, HungFlyer, RowAddress
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.motion import Motion
from xrf_sr_plans.devices.sim.ride import Ride
from xrf_sr_plans.devices.sim.stage import MotorHangs, StageAxis
from xrf_sr_plans.devices.sim.trapezoid import distance_reached, time_to_reach_s
from xrf_sr_plans.errors import LimitsError
from xrf_sr_plans.ranges import ABOVE_ZERO, ZERO_OR_MORE, check


@dataclass(frozen=True)
class FrameTiming:
    """How the simulated detector takes frames.

    Parameters
    ----------
    readout_ms
        Time at the end of each pixel in ms in which the detector is read out and counts nothing.
    max_rate_hz
        Highest rate at which it takes frames.

    Raises
    ------
    ConfigError
        The readout time is negative, the rate is not above 0, or one of them is not finite.
    """

    readout_ms: float = 0.0
    max_rate_hz: float = 1e5

    def __post_init__(self) -> None:
        check(
            "detector",
            ZERO_OR_MORE.flaw("readout_ms", self.readout_ms),
            ABOVE_ZERO.flaw("max_rate_hz", self.max_rate_hz),
        )

    def counting_s(self, dwell_ms: float) -> float:
        """Return the time in s in which a frame of `dwell_ms` counts."""
        return (dwell_ms - self.readout_ms) * 1e-3

    def flaw(self, dwell_ms: float) -> str:
        """Return in words why frames of `dwell_ms` can't be taken, or "" where they can."""
        if 1e3 / dwell_ms <= self.max_rate_hz * (1 + 1e-6) and dwell_ms > self.readout_ms:
            return ""
        return (
            f"a frame each {dwell_ms:g} ms; at most {self.max_rate_hz:g} frames/s are taken, and"
            f" reading one out takes {self.readout_ms:g} ms"
        )


class SimRowFlyer(RowDevice):
    """A `RowFlyer` on simulated hardware.

    As at a real beamline, the encoder triggers frames at the edges of the pixels, and each frame
    lasts exactly the dwell less the readout time. After a run-up that is too short for full speed,
    the first frames therefore cover less than their pixels.

    Parameters
    ----------
    name
        Prefix of the event keys.
    microscope
        What counts.
    fast
        The physical axis that moves along a row.
    slow
        The physical axis that moves from row to row.
    clock
        The clock of the hardware.
    faults
        What goes wrong; None: nothing.
    ride
        Where the axes are on the sample; None: their positions are its coordinates.
    timing
        How the detector takes frames; None: as fast as any, without readout time.
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
        ride: Ride | None = None,
        timing: FrameTiming | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, elements=microscope.elements, **kwargs)
        self.microscope = microscope
        self._fast, self._slow, self._clock = fast, slow, clock
        self._faults = faults or FaultPlan()
        self._ride = ride or Ride()
        self._timing = timing or FrameTiming()
        self._map_index: dict[str, int] = {}
        self._motion: Motion | None = None
        self._row_status: RowStatus | None = None
        self._flying = False

    def prepare(self, value: RowRequest) -> Status:
        """Go to where the run-up of a row begins.

        Raises
        ------
        LimitsError
            The row with its run-up, or its velocity, is more than the axes can do, or its frames
            come faster than the detector takes them.
        """
        self._abandon()
        row = RowPath.from_request(value)
        self._check_limits(row)
        self._map_index.setdefault(value["map_key"], len(self._map_index))
        self._path, self._frames = row, None
        status = self._status_of(value)
        self._motion = Motion(status)
        self._motion.run(self._clock, lambda motion: self._go_to_start(row, motion.interrupt))
        return status

    def kickoff(self) -> Status:
        """Begin one more attempt at the row.

        Raises
        ------
        LimitsError
            No row was prepared.
        """
        if self._path is None:
            raise LimitsError(f"flyer {self.name!r}: kickoff without prepare")
        self._abandon()
        self._frames = None
        self._attempt = self._attempts.begin(self._path.request)
        self._row_status = self._status_of(self._path.request)
        self._motion = Motion(self._row_status)
        self._flying = True
        if not self._clock.instant:
            self._motion.run(self._clock, self._fly)
        started = Status(self)
        started.set_finished()
        return started

    def complete(self) -> Status:
        """Return a status that finishes with the row.

        After a pause in the middle of a row, the row is flown once more from its beginning.

        Raises
        ------
        LimitsError
            No row was prepared.
        """
        if not self._flying and self._frames is None and self._path is not None:
            self.kickoff()
        if self._motion is None:
            raise LimitsError(f"flyer {self.name!r}: complete without prepare")
        # With an instant clock there is no thread: the row is flown here.
        if self._clock.instant and self._flying and not self._motion.done:
            self._motion.run(self._clock, self._fly)
        return self._motion.status

    def stop(self, *, success: bool = False) -> None:
        """Stop the axes. A row under way is lost, a complete one can still be collected.

        The status of `complete` finishes without error, so that a plan which has given up waiting
        isn't failed by it afterwards. That the row is lost shows in its missing event.
        """
        self._abandon()

    def _abandon(self) -> None:
        motion, self._flying = self._motion, False
        if motion is not None and not motion.done:
            motion.stop()

    def _check_limits(self, row: RowPath) -> None:
        request = row.request
        for label in ("first_um", "last_um", "step_um", "dwell_ms", "run_up_um", "slow_um"):
            if not math.isfinite(request[label]):
                raise LimitsError(f"flyer {self.name!r}: {label} is {request[label]}")
        self._fast.check_limits(row.start_um, "row start with run-up")
        self._fast.check_limits(row.end_um, "row end with run-up")
        self._slow.check_limits(request["slow_um"], "row height")
        highest = self._fast.max_velocity_um_s
        if not 0 < row.velocity_um_s <= highest:
            raise LimitsError(
                f"axis {self._fast.name!r}: {row.velocity_um_s:g} um/s is needed for "
                f"{request['step_um']:g} um in {request['dwell_ms']:g} ms; at most {highest:g}"
            )
        too_fast = self._timing.flaw(request["dwell_ms"])
        if too_fast:
            raise LimitsError(f"flyer {self.name!r}: {too_fast}")

    def _go_to_start(self, row: RowPath, interrupt: threading.Event) -> bool:
        """Move both axes where they aren't there yet; return whether they have arrived."""
        arrived = True
        if abs(self._slow.motor_um - row.request["slow_um"]) > 1e-6:
            arrived = self._slow.travel(row.request["slow_um"], interrupt)
        if abs(self._fast.motor_um - row.start_um) > 1e-6:
            arrived = self._fast.travel(row.start_um, interrupt) and arrived
        return arrived

    def _fly(self, motion: Motion) -> None:
        """Fly the prepared row, with the faults that hit it, and keep its frames."""
        row = self._path
        assert row is not None
        address = RowAddress(
            map_index=self._map_index[row.request["map_key"]],
            row=row.request["row"],
            attempt=self._attempt,
            direction=row.request["direction"],
        )
        faults = self._faults.faults_at(address)
        if not self._go_to_start(row, motion.interrupt):
            return
        began_um = self._fast.motor_um
        if not self._fast.travel(row.end_um, motion.interrupt, row.velocity_um_s):
            return
        if any(isinstance(fault, HungFlyer) for fault in faults):
            raise MotorHangs
        # A motor that is stuck silently claims to have arrived.
        moved = self._fast.motor_um != began_um
        frames: RowFrames | None = self._measure(row, address, faults, moved)
        for fault in faults:
            frames = fault.change_frames(frames, address) if frames is not None else None
        with self._frames_lock:
            if not motion.interrupt.is_set():
                self._frames = frames
                self._flying = False
                if frames is not None and self._row_status is not None:
                    self._row_status.row_measured()

    def _measure(
        self, row: RowPath, address: RowAddress, faults: Sequence[Fault], moved: bool
    ) -> RowFrames:
        """Return what the microscope counts along the row, and what the encoders read."""
        request = row.request
        # Where each frame begins and ends on the encoder, shape (frame,); where the axis didn't
        # move, all frames are taken at the same place.
        if moved:
            start, stop = self._frame_ends(row)
        else:
            start = stop = np.full(request["num"], self._fast.motor_um)
        counting_s = self._timing.counting_s(request["dwell_ms"])
        key = (
            "row",
            *(round(request[k], 4) for k in ("first_um", "step_um", "slow_um", "dwell_ms")),
            request["num"],
            request["direction"],
            *self._ride.noise_key,
        )
        if self.microscope.fresh_noise:
            key = (*key, address.map_index)
        drift_x, drift_y = self.microscope.drift_um(self._clock.elapsed_s)
        # From encoder positions to positions on the sample.
        play, ride = self._fast.backlash_offset_um(request["direction"]), self._ride
        exposure = self.microscope.ideal_exposure(
            ride.x_um(start + play) - drift_x,
            ride.x_um(stop + play) - drift_x,
            ride.y_um(self._slow.sample_um) - drift_y,
            counting_s,
            key,
        )
        for fault in faults:
            exposure = fault.change_exposure(exposure, address)
        readout = self.microscope.expose(exposure)
        noise = self.microscope.rng(("encoder", *key))
        num = request["num"]
        fast_noise = self._fast.encoder_noise_um * noise.standard_normal(num)
        slow_noise = self._slow.encoder_noise_um * noise.standard_normal(num)
        return RowFrames(
            counts=readout.counts,
            i0=readout.i0,
            live_time_s=readout.live_time_s,
            fast_um=(start + stop) / 2 + fast_noise,
            slow_um=self._slow.motor_um + slow_noise,
        )

    def _frame_ends(self, row: RowPath) -> tuple[np.ndarray, np.ndarray]:
        """Return where each frame begins and ends on the encoder, in um, shape (frame,)."""
        request, velocity = row.request, row.velocity_um_s
        # Distances from where the axis starts to the edges of the pixels that trigger frames.
        edges = request["run_up_um"] + request["step_um"] * np.arange(request["num"])
        ramp_s = self._fast.acceleration_s
        began_s = time_to_reach_s(edges, velocity, ramp_s)
        ends = distance_reached(
            began_s + self._timing.counting_s(request["dwell_ms"]), velocity, ramp_s
        )
        origin, direction = row.start_um, request["direction"]
        return origin + direction * edges, origin + direction * ends
