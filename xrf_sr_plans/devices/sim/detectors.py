"""The simulated fluorescence detector, beam monitor and shutter as bluesky devices."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bluesky.protocols import Hints, Reading
from event_model import DataKey
from ophyd import Component, Device, Signal
from ophyd.status import Status

from xrf_sr_plans.devices.rows import describe_elements, read_elements
from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import FaultPlan, RowAddress
from xrf_sr_plans.devices.sim.microscope import Microscope, Readout
from xrf_sr_plans.devices.sim.motion import Motion
from xrf_sr_plans.devices.sim.ride import Ride
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.errors import ConfigError


class SimShutter(Device):
    """A Movable that takes "open" and "close". While it is closed, nothing is counted.

    Parameters
    ----------
    name
        Name of the device, under which it reads.
    microscope
        The microscope whose beam it lets through.
    """

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
        """Refuse a value that is neither "open" nor "close".

        Raises
        ------
        ConfigError
            It is another value.
        """
        if value not in ("open", "close"):
            raise ConfigError(f"shutter {self.name!r}: {value!r}; 'open' or 'close' is needed")

    def set(self, value: str) -> Status:
        """Open or close the shutter at once.

        Raises
        ------
        ConfigError
            `value` is neither "open" nor "close".
        """
        self.check_value(value)
        self._microscope.shutter_open = value == "open"
        self.state.put(value)
        status = Status(self)
        status.set_finished()
        return status


class _PointDevice(Device):
    """A detector that is triggered at a standstill, and reads what the microscope counted there.

    Parameters
    ----------
    name
        Name of the device, with which its keys begin.
    microscope
        What counts.
    fast
        The physical axis along x.
    slow
        The physical axis along y.
    clock
        The clock of the hardware.
    faults
        What goes wrong; None: nothing.
    ride
        Where the axes are on the sample; None: their positions are its coordinates.
    """

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
        ride: Ride | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.microscope = microscope
        self._fast, self._slow, self._clock = fast, slow, clock
        self._faults = faults or FaultPlan()
        self._ride = ride or Ride()
        self._readout: Readout | None = None
        self._time = time.time()
        self._motion: Motion | None = None
        self._noise_key: tuple[object, ...] = ()

    def stage(self) -> list[Any]:
        """Draw noise of one's own from now on, together with what is staged besides."""
        staged = super().stage()
        self._noise_key = self.microscope.stage(self.name)
        return staged

    def unstage(self) -> list[Any]:
        """End what `stage` began."""
        self.microscope.unstage(self.name)
        return super().unstage()

    def trigger(self) -> Status:
        """Expose the point under the beam.

        All detectors of a microscope that are triggered at a point see the same beam.
        """
        status = Status(self)
        self._motion = Motion(status)
        self._motion.run(self._clock, self._expose)
        return status

    def stop(self, *, success: bool = False) -> None:
        """Give up the exposure under way."""
        if self._motion is not None:
            self._motion.stop()

    def _expose(self, motion: Motion) -> None:
        seconds = float(self.exposure_s.get())
        drift_x, drift_y = self.microscope.drift_um(self._clock.elapsed_s)
        x = float(self._ride.x_um(np.asarray(self._fast.sample_um))) - drift_x
        y = self._ride.y_um(self._slow.sample_um) - drift_y
        # The noise depends on the place and on the run alone, so that detectors which are
        # triggered one after the other at a point see the same beam.
        key = ("point", round(x, 4), round(y, 4), seconds, *self._noise_key)
        exposure = self.microscope.ideal_exposure(np.array([x]), np.array([x]), y, seconds, key)
        outside_maps = RowAddress(map_index=-1, row=-1, attempt=0, direction=1)
        for fault in self._faults.faults_at(outside_maps):
            exposure = fault.change_exposure(exposure, outside_maps)
        if self._clock.spend(seconds, motion.interrupt):
            self._readout = self.microscope.expose(exposure)
            self._time = time.time()

    def _values(self) -> dict[str, float]:
        """Return what is read, by key; zeros before the first exposure."""
        raise NotImplementedError

    def describe(self) -> dict[str, DataKey]:
        """Return the data keys of `read`."""
        return {
            key: DataKey(source=f"SIM:{self.name}", dtype="number", shape=[])
            for key in self._values()
        }

    def read(self) -> dict[str, Reading[float]]:
        """Return the values of the last exposure; zeros before the first one."""
        return {
            key: {"value": value, "timestamp": self._time} for key, value in self._values().items()
        }

    @property
    def hints(self) -> Hints:
        """Everything that is read."""
        return {"fields": list(self._values())}


class SimFluorescence(_PointDevice):
    """A fluorescence detector.

    It reads the photons of each elemental line, summed over detector elements, under
    ``<name>_<element>``, and the live time in seconds under ``<name>_live_time``.
    """

    @property
    def elements(self) -> list[str]:
        """The element names."""
        return list(self.microscope.elements)

    def _values(self) -> dict[str, float]:
        readout = self._readout
        counts = [0.0] * len(self.elements) if readout is None else readout.counts[:, 0].tolist()
        values = {f"{self.name}_{e}": c for e, c in zip(self.elements, counts, strict=True)}
        values[f"{self.name}_live_time"] = 0.0 if readout is None else float(readout.live_time_s[0])
        return values

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return the data keys of exposure time and element names."""
        return {
            **super().describe_configuration(),
            **describe_elements(self.name, self.elements),
        }

    def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return exposure time and element names."""
        return {**super().read_configuration(), **read_elements(self.name, self.elements)}


class SimI0(_PointDevice):
    """A beam monitor, which reads the incoming flux in counts/s under its own name."""

    def _values(self) -> dict[str, float]:
        return {self.name: 0.0 if self._readout is None else float(self._readout.i0[0])}
