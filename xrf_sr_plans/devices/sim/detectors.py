"""Fluorescence detector, I0 monitor and shutter as bluesky devices."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ophyd import Component, Device, Signal
from ophyd.status import Status

from xrf_sr_plans.devices.rows import describe_elements, read_elements
from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import FaultPlan, RowAddress
from xrf_sr_plans.devices.sim.microscope import Microscope, Readout
from xrf_sr_plans.devices.sim.motion import Motion
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.errors import ConfigError


class SimShutter(Device):
    """Movable that takes "open" and "close"; while it is closed nothing is counted."""

    state = Component(Signal, value="open", kind="hinted")

    def __init__(self, *, name: str, microscope: Microscope, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._microscope = microscope
        self.state.name = name
        self.state.put("open" if microscope.shutter_open else "close")

    @property
    def position(self) -> str:
        """Whether the shutter is "open" or "close"."""
        return self.state.get()

    def check_value(self, value: str) -> None:
        """Refuse anything but "open" and "close"."""
        if value not in ("open", "close"):
            raise ConfigError(f"shutter {self.name!r}: {value!r}; 'open' or 'close' is needed")

    def set(self, value: str) -> Status:
        """Open or close."""
        self.check_value(value)
        self._microscope.shutter_open = value == "open"
        self.state.put(value)
        status = Status(self)
        status.set_finished()
        return status


class _PointDevice(Device):
    """Something that is triggered at a standstill and reads what the microscope saw there."""

    exposure_s = Component(Signal, value=0.01, kind="config")

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
        super().__init__(name=name, **kwargs)
        self.microscope = microscope
        self._fast, self._slow, self._clock = fast, slow, clock
        self._faults = faults or FaultPlan()
        self._readout: Readout | None = None
        self._time = time.time()
        self._motion: Motion | None = None

    def trigger(self) -> Status:
        """Expose one point here; all point devices of a microscope see the same beam."""
        status = Status(self)
        self._motion = Motion(status)
        self._motion.run(self._clock, self._expose)
        return status

    def stop(self, *, success: bool = False) -> None:
        """Give up the exposure."""
        if self._motion is not None:
            self._motion.stop()

    def _expose(self, motion: Motion) -> None:
        seconds = float(self.exposure_s.get())
        drift_x, drift_y = self.microscope.drift_um(self._clock.elapsed_s)
        x, y = self._fast.sample_um - drift_x, self._slow.sample_um - drift_y
        key = ("point", round(x, 4), round(y, 4), seconds)
        exposure = self.microscope.exposure(np.array([x]), np.array([x]), y, seconds, key)
        nowhere = RowAddress(map_index=-1, row=-1, attempt=0, direction=1)
        for fault in self._faults.at(nowhere):
            exposure = fault.before(exposure, nowhere)
        if self._clock.spend(seconds, motion.interrupt):
            self._readout = self.microscope.expose(exposure)
            self._time = time.time()

    def _values(self) -> dict[str, float]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Describe the numbers that `read` returns."""
        number = {"source": f"SIM:{self.name}", "dtype": "number", "shape": []}
        return {key: dict(number) for key in self._values()}

    def read(self) -> dict[str, Any]:
        """Return the last exposure; zeros before the first."""
        return {
            key: {"value": value, "timestamp": self._time} for key, value in self._values().items()
        }

    @property
    def hints(self) -> dict[str, Any]:
        """Everything that is read."""
        return {"fields": list(self._values())}


class SimFluorescence(_PointDevice):
    """Multi-element fluorescence detector: photons per elemental line, `<name>_<element>`."""

    @property
    def elements(self) -> list[str]:
        """Element names."""
        return list(self.microscope.elements)

    def _values(self) -> dict[str, float]:
        readout = self._readout
        counts = [0.0] * len(self.elements) if readout is None else readout.counts[:, 0].tolist()
        values = {f"{self.name}_{e}": c for e, c in zip(self.elements, counts, strict=True)}
        values[f"{self.name}_live_time"] = 0.0 if readout is None else float(readout.live_time_s[0])
        return values

    def describe_configuration(self) -> dict[str, Any]:
        """Describe exposure time and element names."""
        return {
            **super().describe_configuration(),
            **describe_elements(self.name, self.elements),
        }

    def read_configuration(self) -> dict[str, Any]:
        """Return exposure time and element names."""
        return {**super().read_configuration(), **read_elements(self.name, self.elements)}


class SimI0(_PointDevice):
    """Monitor of the incoming flux, in counts/s."""

    def _values(self) -> dict[str, float]:
        return {self.name: 0.0 if self._readout is None else float(self._readout.i0[0])}
