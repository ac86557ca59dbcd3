"""An EPICS IOC on loopback with the simulated microscope behind it.

``python -m xrf_sr_plans.devices.ioc --prefix xrfsim:`` serves two motor records, ``m1`` (fast)
and ``m2`` (slow), and a fluorescence detector, ``xsp:``. All lengths are in mm. The detector works
like an Xspress3 on position compare: once armed, it counts one frame for each pixel as the fast
motor passes, and then it serves the row as waveforms. The physics is that of `devices.sim`, and
time is real. With ``--scan-folder FOLDER`` there are scan records, too, which fly whole maps and
save them as MDA files in the folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.samples import SAMPLES
from xrf_sr_plans.devices.sim.trapezoid import (
    distance_moved,
    distance_reached,
    move_duration_s,
    time_to_reach_s,
)
from xrf_sr_plans.errors import MissingExtraError

try:
    from caproto import SkipWrite
    from caproto.server import PVGroup, SubGroup, pvproperty, run, template_arg_parser

    from xrf_sr_plans.devices.ioc_scan_record import ScanRecords
except ImportError as error:
    raise MissingExtraError("the simulated IOC", "epics") from error

MAX_FRAMES = 2048
"""Length of the waveforms, which is the highest number of frames in a row."""

_UM_PER_MM = 1e3
"""PVs are in mm, the simulated microscope is in um."""

_TICK_S = 0.01
"""Time between two updates of a motor."""

_MARGIN_MM = 0.05
"""How far the motors' limits lie outside the sample."""

_VELOCITY_MM_S = 0.5
_ACCELERATION_S = 0.05


@dataclass(frozen=True)
class Move:
    """One move of a motor, from rest to rest.

    Parameters
    ----------
    start
        Where the move begins, in mm.
    target
        Where it ends, in mm.
    velocity
        Velocity in mm/s, once the motor has sped up.
    acceleration_s
        Time to reach the velocity.
    began_s
        When the move began, by the monotonic clock.
    """

    start: float
    target: float
    velocity: float
    acceleration_s: float
    began_s: float

    @property
    def direction(self) -> int:
        """+1 for a move to higher positions, -1 for a move to lower ones."""
        return 1 if self.target >= self.start else -1

    def position_at(self, now_s: float) -> tuple[float, bool]:
        """Return where the motor is at a time, in mm, and whether it has arrived."""
        distance, elapsed_s = abs(self.target - self.start), now_s - self.began_s
        if elapsed_s >= move_duration_s(distance, self.velocity, self.acceleration_s):
            return self.target, True
        done = distance_moved(elapsed_s, distance, self.velocity, self.acceleration_s)
        return self.start + self.direction * done, False

    def frame_ends(self, edges: np.ndarray, dwell_s: float) -> np.ndarray:
        """Return where frames end that are triggered at `edges` and last the dwell.

        Both are positions in mm, shape (frame,).
        """
        distances = self.direction * (edges - self.start)
        began_s = time_to_reach_s(distances, self.velocity, self.acceleration_s)
        ends = distance_reached(began_s + dwell_s, self.velocity, self.acceleration_s)
        return self.start + self.direction * ends


async def _stop(fields: Any, instance: Any, value: int) -> int:
    """Stop the motor whose record has these fields, when 1 is written to its field STOP."""
    if value:
        motor = fields.parent.group
        # A move that hasn't begun yet becomes a move to here, because clients wait for its end.
        motor.requested = motor.position if motor.requested is not None else None
        motor.stop_requested = True
    return 0


class Motor(PVGroup):
    """A motor record that moves in trapezoids, with soft limits where clients look for them.

    caproto's own fake motor has neither ramps nor such limits, and it forgets a stop that comes
    just as a move begins.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = (0.0, 0.0)  # in mm, as all positions
        self.position = 0.0
        self.move: Move | None = None
        self.on_move: Callable[[Motor], Awaitable[None]] | None = None
        self.requested: float | None = None
        self.stop_requested = False

    async def _put(self, instance: Any, value: float) -> float:
        low, high = self.limits
        await instance.field_inst.limit_violation.write(int(not low <= value <= high))
        if not low <= value <= high:
            raise SkipWrite(f"{instance.pvname}: {value} is outside {low}..{high}")
        self.requested = value
        return value

    async def _run(self, instance: Any, async_lib: Any) -> None:
        """Set up the record, and then move the motor for as long as the server runs."""
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
        """Begin, continue or end a move.

        Requests are only noted when they come. Everything else that belongs to a move happens
        here, in one task, so that no two changes of the record can overtake each other.
        """
        fields = instance.field_inst
        stop_requested, self.stop_requested = self.stop_requested, False
        requested, self.requested = self.requested, None
        if requested is not None:
            velocity, ramp_s = fields.velocity.value, max(fields.seconds_to_velocity.value, 1e-3)
            self.move = Move(self.position, requested, velocity, ramp_s, time.monotonic())
            await fields.direction_of_travel.write(int(self.move.direction > 0))
            await fields.done_moving_to_value.write(0)
            await fields.motor_is_moving.write(1)
        elif self.move is not None:
            self.position, arrived = self.move.position_at(time.monotonic())
            await fields.user_readback_value.write(self.position)
            if self.on_move is not None:
                await self.on_move(self)
            if arrived or stop_requested:
                self.move = None
                await instance.write(self.position, verify_value=False)
                await fields.motor_is_moving.write(0)
                await fields.done_moving_to_value.write(1)


def _waveform(name: str) -> Any:
    return pvproperty(
        value=[0.0], name=name, dtype=float, max_length=MAX_FRAMES, read_only=True, precision=6
    )


class RowDetector(PVGroup):
    """A detector that counts rows, triggered at ``Start`` and at every ``Step`` from there."""

    async def _acquire(self, instance: Any, value: int) -> int:
        """Arm or disarm; the put that arms completes when the row is counted or given up."""
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

    acquire = pvproperty(value=0, name="Acquire", put=_acquire, doc="1 arms, 0 disarms")
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
        self._last_row: tuple[object, ...] = ()
        self._visits: dict[tuple[object, ...], int] = {}

    async def moved(self, motor: Motor) -> None:
        """Count the triggers that the fast motor has passed; read out the row after the last."""
        move, step, ended = motor.move, self.step.value, self._ended
        if ended is None or move is None or step * move.direction <= 0:
            return
        if (self.start.value - move.start) * move.direction < -1e-9:
            return  # The move begins behind the first trigger, so that nothing starts the row.
        passed = int((motor.position - self.start.value) / step)
        taken = min(max(passed, 0), self.num.value, MAX_FRAMES)
        if taken != self.taken.value:
            await self.taken.write(taken)
        if taken == self.num.value:
            await self._measure(move)
            self._ended = None
            await self.busy.write(0)
            ended.set()

    def _noise_key(self, row: tuple[object, ...]) -> tuple[object, ...]:
        """Return the key of the noise of a row: where it is, and in how many-th a map.

        The detector knows nothing of maps. The row that was counted last, counted again, is a
        row flown again, with the same noise; any earlier row is that of another map.
        """
        if self.microscope is not None and not self.microscope.fresh_noise:
            return row
        if row != self._last_row:
            self._last_row = row
            self._visits[row] = self._visits.get(row, 0) + 1
        return (*row, self._visits[row])

    async def _measure(self, move: Move) -> None:
        """Fill the waveforms with what the microscope counts along a move."""
        assert self.microscope is not None
        assert self.slow_motor is not None
        num, dwell_s, slow = self.num.value, self.dwell.value, self.slow_motor.position
        begins = self.start.value + self.step.value * np.arange(num)
        ends = move.frame_ends(begins, dwell_s)
        key = ("row", num, *(round(v, 7) for v in (begins[0], begins[-1], slow, dwell_s)))
        readout = self.microscope.expose(
            self.microscope.ideal_exposure(
                begins * _UM_PER_MM,
                ends * _UM_PER_MM,
                slow * _UM_PER_MM,
                dwell_s,
                self._noise_key(key),
            )
        )
        for waveform, counts in zip(self.rois, readout.counts, strict=True):
            await waveform.write(counts.astype(float))
        await self.i0.write(readout.i0 * dwell_s)
        await self.live.write(readout.live_time_s)
        await self.fast.write((begins + ends) / 2)
        await self.slow.write(np.full(num, slow))


class Microprobe(PVGroup):
    """The PVs that don't depend on the sample: two motors and a detector."""

    m1 = SubGroup(Motor, prefix="m1")
    m2 = SubGroup(Motor, prefix="m2")
    xsp = SubGroup(RowDetector, prefix="xsp:")


def microprobe(
    prefix: str, microscope: Microscope, scan_folder: Path | None = None
) -> dict[str, Any]:
    """Return the PVs of an IOC by name.

    The detector has a region of interest for each element of the sample. The motors' limits are
    the sample and 50 um around it. Where there is a `scan_folder`, scan records fly maps and save
    them there.
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
        motor.limits = (low / _UM_PER_MM - _MARGIN_MM, high / _UM_PER_MM + _MARGIN_MM)
    ioc.xsp.microscope, ioc.xsp.slow_motor = microscope, ioc.m2
    ioc.xsp.rois = [getattr(ioc, f"roi{k}") for k in range(1, len(elements) + 1)]
    ioc.m1.on_move = ioc.xsp.moved
    if scan_folder is None:
        return ioc.pvdb
    records = ScanRecords(prefix=prefix)
    records.folder, records.elements = scan_folder, elements
    records.fast_motor, records.slow_motor, records.detector = ioc.m1, ioc.m2, ioc.xsp
    records.velocity_mm_s = _VELOCITY_MM_S
    return {**ioc.pvdb, **records.pvdb}


def main() -> None:
    """Serve until interrupted, with the options of the command line."""
    loopback = {
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
    }
    for name, value in loopback.items():
        os.environ.setdefault(name, value)
    # Beacons tell a repeater that a server is there. On loopback there seldom is a repeater, and
    # caproto would warn about each beacon that it can't send.
    logging.getLogger("caproto.ctx").addFilter(lambda record: "beacon" not in str(record.msg))
    parser, split_args = template_arg_parser(
        desc="A simulated X-ray microprobe.",
        default_prefix="xrfsim:",
        supported_async_libs=["asyncio"],
    )
    parser.add_argument("--sample", choices=SAMPLES, default="zagami")
    parser.add_argument("--seed", type=int, default=0, help="seed of all noise")
    parser.add_argument(
        "--same-noise", action="store_true", help="a row has the same photons in each map"
    )
    parser.add_argument(
        "--scan-folder", type=Path, help="folder of the scan records' files; none: no scan records"
    )
    args = parser.parse_args()
    if args.scan_folder is not None and not args.scan_folder.is_dir():
        parser.error(f"--scan-folder: {args.scan_folder} is no folder")
    ioc_options, run_options = split_args(args)
    microscope = Microscope(
        SAMPLES[args.sample](),
        probe_fwhm_um=0.5,
        seed=args.seed,
        fresh_noise=not args.same_noise,
    )
    run(microprobe(ioc_options["prefix"], microscope, args.scan_folder), **run_options)


if __name__ == "__main__":
    main()
