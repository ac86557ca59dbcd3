"""The simulated stage axis as a bluesky device."""

from __future__ import annotations

import time
from typing import Any

from bluesky.protocols import Location
from event_model import DataKey
from ophyd import Component, Device, Signal
from ophyd.status import MoveStatus, Status

from xrf_sr_plans.devices.axes import axis_scale
from xrf_sr_plans.devices.sim.motion import Motion
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.errors import LimitsError


class _Readback(Signal):
    """A signal that reads the encoder, in the device's unit."""

    def get(self, **kwargs: Any) -> float:
        return self.parent.position

    @property
    def timestamp(self) -> float:
        return time.time()

    def describe(self) -> dict[str, DataKey]:
        described = super().describe()
        described[self.name]["units"] = self.parent.egu
        return described


class _Setting(Signal):
    """A signal for a number of the physical axis, scaled to the device's unit.

    Parameters
    ----------
    attribute
        Name of the number in `StageAxis`.
    length
        Whether the number is a velocity, which has the device's unit of length in it and must not
        exceed the highest velocity.
    """

    def __init__(self, *args: Any, attribute: str, length: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attribute = attribute
        self._length = length

    @property
    def _scale(self) -> float:
        return self.parent.um_per_unit if self._length else 1.0

    def get(self, **kwargs: Any) -> float:
        return getattr(self.parent.axis, self._attribute) / self._scale

    def check_value(self, value: float, **kwargs: Any) -> None:
        highest = self.parent.max_velocity if self._length else float("inf")
        if not 0 < value <= highest:
            raise LimitsError(
                f"{self.name} is set to {value}; it must be above 0 and at most {highest:g}"
            )

    def put(self, value: float, **kwargs: Any) -> None:
        self.check_value(value)
        setattr(self.parent.axis, self._attribute, float(value) * self._scale)
        super().put(float(value), **kwargs)

    def set(self, value: float, **kwargs: Any) -> Status:
        self.put(value)
        status = Status(self)
        status.set_finished()
        return status


class SimAxis(Device):
    """A simulated stage axis, which is Movable, Stoppable, Locatable, Readable and Checkable.

    Parameters
    ----------
    name
        Name of the device.
    axis
        The physical axis.
    egu
        Unit of length of this device, such as "um" or "mm".
    """

    readback = Component(_Readback, value=0.0, kind="hinted")
    setpoint = Component(Signal, value=0.0, kind="normal")
    velocity = Component(_Setting, attribute="velocity_um_s", length=True, kind="config")
    acceleration = Component(_Setting, attribute="acceleration_s", length=False, kind="config")

    SUB_READBACK = "readback"
    _default_sub = SUB_READBACK

    def __init__(self, *, name: str, axis: StageAxis, egu: str = "um", **kwargs: Any) -> None:
        self.axis = axis
        self.egu = egu
        self.um_per_unit = axis_scale(egu, name)
        self._motion: Motion | None = None
        super().__init__(name=name, **kwargs)
        self.readback.name = name
        self.setpoint.put(self.axis.motor_um / self.um_per_unit)
        axis.on_move.append(self._announce)

    @property
    def position(self) -> float:
        """What the encoder reads, in the device's unit."""
        return self.axis.encoder_um / self.um_per_unit

    @property
    def limits(self) -> tuple[float, float]:
        """(low, high) in the device's unit, which are equal where no limits are set."""
        low, high = self.axis.limits_um
        return low / self.um_per_unit, high / self.um_per_unit

    @property
    def max_velocity(self) -> float:
        """The highest velocity, in the device's unit per second."""
        return self.axis.max_velocity_um_s / self.um_per_unit

    @property
    def moving(self) -> bool:
        """Whether the axis moves now."""
        return self.axis.moving

    def check_value(self, value: float) -> None:
        """Refuse a target outside the limits.

        Raises
        ------
        LimitsError
            The target is not finite, or it lies outside limits that are set.
        """
        self.axis.check_limits(float(value) * self.um_per_unit)

    def locate(self) -> Location[float]:
        """Return where the axis was sent and where it is."""
        return {"setpoint": self.setpoint.get(), "readback": self.position}

    def set(self, value: float) -> MoveStatus:
        """Move to a position in the device's unit.

        The status fails when the motor is stuck, and when it is stopped with ``success=False``.

        Raises
        ------
        LimitsError
            The position is not finite, or it lies outside limits that are set.
        """
        self.check_value(value)
        self.stop(success=True)
        self.setpoint.put(float(value))
        status = MoveStatus(self, float(value))
        self._motion = Motion(status)
        target_um = float(value) * self.um_per_unit
        self._motion.run(
            self.axis.clock, lambda motion: self.axis.travel(target_um, motion.interrupt)
        )
        return status

    def stop(self, *, success: bool = False) -> None:
        """Stop the axis where it is."""
        if self._motion is not None and not self._motion.done:
            error = None if success else RuntimeError(f"{self.name} was stopped")
            self._motion.stop(error)

    def _announce(self) -> None:
        self._run_subs(
            sub_type=self.SUB_READBACK, value=self.position, timestamp=time.time(), old_value=None
        )
