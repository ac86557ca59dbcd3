"""The stage axis as a bluesky device."""

from __future__ import annotations

import time
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import MoveStatus, Status

from xrf_sr_plans.devices.axes import axis_scale
from xrf_sr_plans.devices.sim.motion import Motion
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.errors import LimitsError


class _Readback(Signal):
    """What the encoder reads now, in the axis's units."""

    def get(self, **kwargs: Any) -> float:
        return self.parent.position

    @property
    def timestamp(self) -> float:
        return time.time()

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        described[self.name]["units"] = self.parent.egu
        return described


class _Setting(Signal):
    """A number of the physical axis, scaled to the device's units."""

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
    """A simulated stage axis: Movable, Stoppable, Locatable, Readable, Checkable.

    Parameters
    ----------
    axis
        The physical axis.
    egu
        Unit of all positions of this device, such as "um" or "mm".
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
        """Encoder position."""
        return self.axis.encoder_um / self.um_per_unit

    @property
    def limits(self) -> tuple[float, float]:
        """(low, high); equal where none are set."""
        low, high = self.axis.limits_um
        return low / self.um_per_unit, high / self.um_per_unit

    @property
    def max_velocity(self) -> float:
        """Highest velocity."""
        return self.axis.max_velocity_um_s / self.um_per_unit

    @property
    def moving(self) -> bool:
        """Something moves the axis now."""
        return self.axis.moving

    def check_value(self, value: float) -> None:
        """Refuse a target outside the limits.

        Raises
        ------
        LimitsError
            Not finite, or outside limits that are set.
        """
        self.axis.check(float(value) * self.um_per_unit)

    def locate(self) -> dict[str, float]:
        """Return where the axis was sent and where it is."""
        return {"setpoint": self.setpoint.get(), "readback": self.position}

    def set(self, value: float) -> MoveStatus:
        """Move; the status fails when the motor is stuck or is stopped as a failure."""
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
        """Stand still, here and now."""
        if self._motion is not None and not self._motion.over:
            error = None if success else RuntimeError(f"{self.name} was stopped")
            self._motion.stop(error)

    def _announce(self) -> None:
        self._run_subs(
            sub_type=self.SUB_READBACK, value=self.position, timestamp=time.time(), old_value=None
        )
