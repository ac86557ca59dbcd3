"""Scan records of the simulated IOC, which fly a whole map and save it as an MDA file.

They have the fields of EPICS's sscan record that a two-dimensional fly scan needs: ``scan1`` is
the outer scan over rows, ``scanH`` the inner one, which flies. ``scan1.EXSC`` starts the map, and
a put to it that asks for completion completes with the map. ``AbortScans.PROC`` ends it early. As
with saveData, the file grows row by row, and ``saveData_fileName`` tells its name. Lengths are in
mm. As at 2-ID, two triggers less than points are sent in each row: the last two columns are empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from caproto.server import PVGroup, pvproperty

from xrf_sr_plans.devices.ioc_mda import MdaPositioner, MdaRow, mda_bytes

EMPTY_COLUMNS = 2
"""How many of the last points of a row get no trigger."""

_POLL_S = 0.01
_RUN_UP_MM = 0.002
_ROW_TIMEOUT_S = 60.0


class _Aborted(Exception):
    """Ends a scan early."""


class ScanRecords(PVGroup):
    """Two scan records and saveData, which fly the motors and the detector of the microprobe."""

    async def _execute(self, instance: Any, value: int) -> int:
        """Fly a map, or end it; the put that starts it completes with it."""
        if not value:
            await self._abort()
        elif not self.busy.value:
            await self.busy.write(1)
            self._aborting = False
            try:
                await self._fly()
            except (_Aborted, TimeoutError):
                await self.message.write("Scan aborted")
            finally:
                await self.busy.write(0)
        return 0

    async def _process_abort(self, instance: Any, value: int) -> int:
        if value:
            await self._abort()
        return 0

    execute = pvproperty(value=0, name="scan1.EXSC", put=_execute, doc="1 flies a map")
    busy = pvproperty(value=0, name="scan1.BUSY", read_only=True)
    done = pvproperty(value=0, name="scan1.CPT", read_only=True, doc="rows flown")
    message = pvproperty(value="", name="scan1.SMSG", dtype=str, read_only=True)
    rows = pvproperty(value=1, name="scan1.NPTS")
    slow_start = pvproperty(value=0.0, name="scan1.P1SP", precision=6, doc="first row, mm")
    slow_step = pvproperty(value=0.001, name="scan1.P1SI", precision=6, doc="mm")
    points = pvproperty(value=1, name="scanH.NPTS")
    fast_start = pvproperty(value=0.0, name="scanH.P1SP", precision=6, doc="first pixel, mm")
    fast_step = pvproperty(value=0.001, name="scanH.P1SI", precision=6, doc="mm")
    dwell_ms = pvproperty(value=10.0, name="scanH_Dwell", precision=6, doc="ms")
    abort = pvproperty(value=0, name="AbortScans.PROC", put=_process_abort, doc="1 ends the map")
    file_name = pvproperty(value="", name="saveData_fileName", dtype=str, read_only=True)
    number = pvproperty(value=1, name="saveData_scanNumber", doc="of the next scan")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder: Path = Path()
        self.fast_motor: Any = None
        self.slow_motor: Any = None
        self.detector: Any = None
        self.elements: Sequence[str] = ()
        self.velocity_mm_s = 0.0
        self._aborting = False

    async def _abort(self) -> None:
        if self.busy.value:
            self._aborting = True
            for motor in (self.fast_motor, self.slow_motor):
                motor.requested = motor.position if motor.requested is not None else None
                motor.stop_requested = True
            await self.detector.acquire.write(0)

    async def _fly(self) -> None:
        """Fly the rows, all of them from low to high positions, and save each."""
        number, num = self.number.value, (self.rows.value, self.points.value)
        path = self.folder / f"xrfsim_{number:04d}.mda"
        await self.number.write(number + 1)
        await self.file_name.write(path.name)
        await self.message.write("Scanning ...")
        await self.done.write(0)
        heights = self.slow_start.value + self.slow_step.value * np.arange(num[0])
        flown: list[MdaRow] = []
        try:
            for index, height in enumerate(heights):
                flown.append(await self._row(float(height)))
                slow = MdaPositioner("m2.VAL", "sample y", "mm", heights[: index + 1])
                path.write_bytes(
                    mda_bytes(number, ("scan1", "scanH"), slow, flown, num, self._labels())
                )
                await self.done.write(index + 1)
        finally:
            await self._set_velocity(self.velocity_mm_s)
        await self.message.write("SCAN Complete")

    def _labels(self) -> dict[str, str]:
        return {f"mca1.R{k}NM": name for k, name in enumerate(self.elements)}

    async def _row(self, height: float) -> MdaRow:
        """Fly one row."""
        points, step = self.points.value, self.fast_step.value
        counted = max(points - EMPTY_COLUMNS, 1)
        detector, first_edge = self.detector, self.fast_start.value - step / 2
        velocity = abs(step) / (self.dwell_ms.value * 1e-3)
        ramp = velocity * self.fast_motor.value.field_inst.seconds_to_velocity.value
        run_up = np.sign(step) * (_RUN_UP_MM + ramp)
        await self._move(self.slow_motor, height)
        await self._move(self.fast_motor, first_edge - run_up)
        for setting, value in (
            (detector.num, counted),
            (detector.dwell, self.dwell_ms.value * 1e-3),
            (detector.start, first_edge),
            (detector.step, step),
        ):
            await setting.write(value)
        await self._set_velocity(velocity)
        acquisition = asyncio.create_task(detector.acquire.write(1))
        await self._until(lambda: bool(detector.busy.value))
        await self._move(self.fast_motor, first_edge + points * step + run_up)
        await asyncio.wait_for(acquisition, _ROW_TIMEOUT_S)
        await self._set_velocity(self.velocity_mm_s)
        nominal = self.fast_start.value + step * np.arange(points)
        nominal[:counted] = detector.fast.value
        counts = {
            f"mca1.R{k}": np.asarray(roi.value, dtype=float) for k, roi in enumerate(detector.rois)
        }
        return MdaRow(MdaPositioner("m1.VAL", "sample x", "mm", nominal), counts)

    async def _set_velocity(self, velocity: float) -> None:
        await self.fast_motor.value.field_inst.velocity.write(velocity)

    async def _move(self, motor: Any, target: float) -> None:
        motor.requested = target
        await self._until(lambda: motor.requested is None and motor.move is None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + _ROW_TIMEOUT_S
        while not condition():
            if self._aborting:
                raise _Aborted
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError
            await asyncio.sleep(_POLL_S)
        if self._aborting:
            raise _Aborted
