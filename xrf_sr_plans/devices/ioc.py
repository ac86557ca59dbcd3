"""An EPICS IOC on loopback with the simulated microscope behind it.

``python -m xrf_sr_plans.devices.ioc --prefix xrfsim:`` serves two motor records, ``m1`` (fast)
and ``m2`` (slow), in mm, and ``xsp:``, a fluorescence detector in the way of an Xspress3 on
position compare: armed, it counts a frame per pixel as the fast motor passes, then serves the
row as waveforms. The physics is that of `devices.sim`; time is real.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.sample import SAMPLES
from xrf_sr_plans.devices.sim.stage import arrival_s, swept_um, travel_s, travelled_um
from xrf_sr_plans.errors import MissingExtraError

try:
    from caproto import SkipWrite
    from caproto.server import PVGroup, SubGroup, pvproperty, run, template_arg_parser
except ImportError as error:
    raise MissingExtraError("the simulated IOC", "epics") from error

MAX_FRAMES = 2048
_UM = 1e3
"""Micrometres in a millimetre, the unit of all PVs."""
_TICK_S = 0.01
_MARGIN_MM = 0.05
_VELOCITY_MM_S = 0.5
_ACCELERATION_S = 0.05


@dataclass(frozen=True)
class Trip:
    """One move of a motor from rest; lengths in mm."""

    start: float
    target: float
    velocity: float
    acceleration_s: float
    began_s: float

    @property
    def direction(self) -> int:
        """+1 or -1."""
        return 1 if self.target >= self.start else -1

    def place(self, now_s: float) -> tuple[float, bool]:
        """Return where the motor is, and whether that is the end."""
        distance, elapsed = abs(self.target - self.start), now_s - self.began_s
        if elapsed >= travel_s(distance, self.velocity, self.acceleration_s):
            return self.target, True
        done = travelled_um(elapsed, distance, self.velocity, self.acceleration_s)
        return self.start + self.direction * done, False

    def paths(self, edges: np.ndarray, dwell_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Return where frames begin and end that are triggered at `edges` and last the dwell."""
        covered = self.direction * (edges - self.start)
        began = arrival_s(covered, self.velocity, self.acceleration_s)
        ended = swept_um(began + dwell_s, self.velocity, self.acceleration_s)
        return edges, self.start + self.direction * ended


async def _stop(fields: Any, instance: Any, value: int) -> int:
    """Stop a motor, of whose record these are the fields."""
    if value:
        motor = fields.parent.group
        # A move that hasn't set off yet becomes one to here: it must end, as any move.
        motor.wanted = motor.position if motor.wanted is not None else None
        motor.halt = True
    return 0


class Motor(PVGroup):
    """A motor record that moves in trapezoids, with soft limits where clients look for them.

    caproto's own fake motor has neither a ramp nor these limits, and it forgets a stop that comes
    just as it sets off.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = (0.0, 0.0)
        self.position = 0.0
        self.trip: Trip | None = None
        self.on_move: Callable[[Motor], Awaitable[None]] | None = None
        self.wanted: float | None = None
        self.halt = False

    async def _put(self, instance: Any, value: float) -> float:
        low, high = self.limits
        await instance.field_inst.limit_violation.write(int(not low <= value <= high))
        if not low <= value <= high:
            raise SkipWrite(f"{instance.pvname}: {value} is outside {low}..{high}")
        self.wanted = value
        return value

    async def _run(self, instance: Any, async_lib: Any) -> None:
        fields, (low, high) = instance.field_inst, self.limits
        await instance.write_metadata(units="mm", lower_ctrl_limit=low, upper_ctrl_limit=high)
        await fields.user_readback_value.write_metadata(units="mm", precision=6)
        for field, setting in (
            (fields.engineering_units, "mm"),
            (fields.velocity, _VELOCITY_MM_S),
            (fields.seconds_to_velocity, _ACCELERATION_S),
            (fields.user_low_limit, low),
            (fields.user_high_limit, high),
        ):
            await field.write(setting)
        while True:
            await self._tick(instance)
            await asyncio.sleep(_TICK_S)

    value = pvproperty(value=0.0, name="", record="motor", precision=6, put=_put, startup=_run)
    value.fields.stop.putter(_stop)

    async def _tick(self, instance: Any) -> None:
        """Everything that a move consists of happens here, so that nothing overtakes anything."""
        fields = instance.field_inst
        (halt, self.halt), (wanted, self.wanted) = (self.halt, False), (self.wanted, None)
        if wanted is not None:
            velocity, ramp_s = fields.velocity.value, max(fields.seconds_to_velocity.value, 1e-3)
            self.trip = Trip(self.position, wanted, velocity, ramp_s, time.monotonic())
            await fields.direction_of_travel.write(int(self.trip.direction > 0))
            await fields.done_moving_to_value.write(0)
            await fields.motor_is_moving.write(1)
        elif self.trip is not None:
            self.position, there = self.trip.place(time.monotonic())
            await fields.user_readback_value.write(self.position)
            if self.on_move is not None:
                await self.on_move(self)
            if there or halt:
                self.trip = None
                await instance.write(self.position, verify_value=False)
                await fields.motor_is_moving.write(0)
                await fields.done_moving_to_value.write(1)


def _waveform(name: str) -> Any:
    return pvproperty(
        value=[0.0], name=name, dtype=float, max_length=MAX_FRAMES, read_only=True, precision=6
    )


class RowDetector(PVGroup):
    """Counts rows: a frame is triggered at ``Start`` and at every ``Step`` from there."""

    async def _acquire(self, instance: Any, value: int) -> int:
        if self._ended is not None:
            self._ended.set()
            self._ended = None
            await self.busy.write(0)
        if value:
            ended = self._ended = asyncio.Event()
            await self.taken.write(0)
            await self.busy.write(1)
            await ended.wait()
        return 0

    async def _erase(self, instance: Any, value: int) -> int:
        await self.taken.write(0)
        for waveform in (*self.rois, self.i0, self.live, self.fast, self.slow):
            await waveform.write([0.0])
        return 0

    acquire = pvproperty(
        value=0, name="Acquire", put=_acquire, doc="1 arms, 0 disarms; done when the row is"
    )
    busy = pvproperty(value=0, name="Busy_RBV", read_only=True, doc="1 while armed")
    erase = pvproperty(value=0, name="ERASE", put=_erase, doc="1 forgets the last row")
    num = pvproperty(value=1, name="NumImages")
    taken = pvproperty(value=0, name="ArrayCounter_RBV", read_only=True, doc="frames taken")
    dwell = pvproperty(value=0.01, name="AcquireTime", precision=6, doc="s")
    start = pvproperty(value=0.0, name="Start", precision=6, doc="first edge of the row, mm")
    step = pvproperty(value=0.001, name="Step", precision=6, doc="mm, negative for a row back")
    i0 = _waveform("I0:TSTotal")
    live = _waveform("LiveTime:TSTotal")
    fast = _waveform("Fast:TSTotal")
    slow = _waveform("Slow:TSTotal")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.microscope: Microscope | None = None
        self.slow_motor: Motor | None = None
        self.rois: Sequence[Any] = ()
        self._ended: asyncio.Event | None = None

    async def moved(self, motor: Motor) -> None:
        """Count what the fast motor has passed since the last time."""
        trip, step, ended = motor.trip, self.step.value, self._ended
        if ended is None or trip is None or step * trip.direction <= 0:
            return
        if (self.start.value - trip.start) * trip.direction < -1e-9:
            return  # The first trigger was missed.
        passed = int((motor.position - self.start.value) / step)
        taken = min(max(passed, 0), self.num.value, MAX_FRAMES)
        if taken != self.taken.value:
            await self.taken.write(taken)
        if taken == self.num.value:
            await self._measure(trip)
            self._ended = None
            await self.busy.write(0)
            ended.set()

    async def _measure(self, trip: Trip) -> None:
        assert self.microscope is not None
        assert self.slow_motor is not None
        num, dwell_s, slow = self.num.value, self.dwell.value, self.slow_motor.position
        begins, ends = trip.paths(self.start.value + self.step.value * np.arange(num), dwell_s)
        # The noise belongs to the row and not to the attempt: a row flown again is the same row.
        key = ("row", num, *(round(v, 7) for v in (begins[0], begins[-1], slow, dwell_s)))
        readout = self.microscope.expose(
            self.microscope.exposure(begins * _UM, ends * _UM, slow * _UM, dwell_s, key)
        )
        for waveform, counts in zip(self.rois, readout.counts, strict=True):
            await waveform.write(counts.astype(float))
        await self.i0.write(readout.i0 * dwell_s)
        await self.live.write(readout.live_time_s)
        await self.fast.write((begins + ends) / 2)
        await self.slow.write(np.full(num, slow))


class Microprobe(PVGroup):
    """Two motors and a detector."""

    m1 = SubGroup(Motor, prefix="m1")
    m2 = SubGroup(Motor, prefix="m2")
    xsp = SubGroup(RowDetector, prefix="xsp:")


def microprobe(prefix: str, microscope: Microscope) -> dict[str, Any]:
    """Return the PVs of an IOC, by name; a region of interest per element of the sample.

    The motors' limits are the sample and 50 um around it.
    """
    elements = microscope.elements
    rois = {
        f"roi{k}": _waveform(f"xsp:MCA1ROI:{k}:TSTotal") for k in range(1, len(elements) + 1)
    } | {
        f"name{k}": pvproperty(value=name, name=f"xsp:MCA1ROI:{k}:Name", read_only=True)
        for k, name in enumerate(elements, 1)
    }
    ioc = type("MicroprobeWithElements", (Microprobe,), rois)(prefix=prefix)
    for motor, (low, high) in zip((ioc.m1, ioc.m2), microscope.sample.box_um, strict=True):
        motor.limits = (low / _UM - _MARGIN_MM, high / _UM + _MARGIN_MM)
    ioc.xsp.microscope, ioc.xsp.slow_motor = microscope, ioc.m2
    ioc.xsp.rois = [getattr(ioc, f"roi{k}") for k in range(1, len(elements) + 1)]
    ioc.m1.on_move = ioc.xsp.moved
    return ioc.pvdb


def main() -> None:
    """Serve until interrupted."""
    loopback = {
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
    }
    for name, value in loopback.items():
        os.environ.setdefault(name, value)
    # Beacons tell a repeater that a server is there; on loopback there is seldom one to listen.
    logging.getLogger("caproto.ctx").addFilter(lambda record: "beacon" not in str(record.msg))
    parser, split_args = template_arg_parser(
        desc="A simulated X-ray microprobe.",
        default_prefix="xrfsim:",
        supported_async_libs=["asyncio"],
    )
    parser.add_argument("--sample", choices=SAMPLES, default="zagami")
    parser.add_argument("--seed", type=int, default=0, help="of all noise")
    args = parser.parse_args()
    ioc_options, run_options = split_args(args)
    microscope = Microscope(SAMPLES[args.sample](), probe_fwhm_um=0.5, seed=args.seed)
    run(microprobe(ioc_options["prefix"], microscope), **run_options)


if __name__ == "__main__":
    main()
