"""What is known about a positioner, whatever library it comes from, in micrometers."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.units import um_per_unit, unit_name

logger = logging.getLogger(__name__)

_DECLARED: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Units that the settings of a beamline give to devices which give none themselves."""


def declare_unit(device: Any, unit: str) -> None:
    """Say which unit the positions of a device are in, where it doesn't say so itself.

    Parameters
    ----------
    device
        The positioner.
    unit
        A unit of length.

    Raises
    ------
    ConfigError
        The unit is no length, or the device itself gives another one.
    """
    name = str(getattr(device, "name", device))
    scale, own = axis_scale(unit, name), _DeviceReader(device).own_unit()
    if unit_name(own):
        if not math.isclose(axis_scale(own, name), scale, rel_tol=1e-9):
            raise ConfigError(f"axis {name!r} is in {own!r}, and the settings say {unit!r}")
        return
    _DECLARED[device] = unit


def axis_scale(unit: Any, axis: str) -> float:
    """Return how many micrometers one unit of an axis is.

    An axis without a unit counts as one in micrometers, the unit of this package.

    Parameters
    ----------
    unit
        What the axis gives as its unit (``egu``); None or "" where it gives none.
    axis
        Name of the axis, for the message.

    Raises
    ------
    ConfigError
        The unit is none of `maps.units.ALLOWED`.
    """
    return um_per_unit(unit, f"axis {axis!r}", error=ConfigError)


@dataclass(frozen=True)
class AxisFacts:
    """What is known about one axis, in um and seconds; None means unknown.

    Parameters
    ----------
    name
        Name of the device.
    position_um
        Where the axis is; NaN where it doesn't say.
    low_um
        Lower limit, as the device says it; None where it sets none. Two equal limits mean that
        neither is set, as in EPICS. Limits that are swapped allow nothing, and NaN is kept.
    high_um
        Upper limit, likewise; one may be set without the other.
    velocity_um_s
        Velocity of ordinary moves.
    max_velocity_um_s
        Highest velocity that can be set.
    acceleration_s
        Time in which the axis reaches its velocity.
    um_per_unit
        How many um one unit of the device is.
    setpoint_um
        Where the axis was last sent, whether it got there or not.
    """

    name: str
    position_um: float
    low_um: float | None
    high_um: float | None
    velocity_um_s: float | None
    max_velocity_um_s: float | None
    acceleration_s: float | None
    um_per_unit: float
    setpoint_um: float | None = None

    def allows(self, target_um: float) -> bool:
        """Return whether a position in um lies within those limits that are set."""
        above = self.low_um is None or target_um >= self.low_um
        return above and (self.high_um is None or target_um <= self.high_um)


def axis_facts(device: Any) -> AxisFacts:
    """Return what an ophyd, ophyd-async or other bluesky positioner says about itself.

    Nothing moves and nothing blocks. Of an ophyd-async device only what it answers at once is
    known, such as signals that are cached or in memory. What would need a round trip to the
    hardware counts as unknown.

    Raises
    ------
    ConfigError
        The axis's unit is no length.
    """
    name, reader = str(getattr(device, "name", device)), _DeviceReader(device)
    scale = axis_scale(reader.unit(), name)

    def length(*names: str) -> float | None:
        value = reader.number(*names)
        return None if value is None else value * scale

    low, high = reader.limits()
    position = length(*_POSITIONS)
    return AxisFacts(
        name=name,
        position_um=math.nan if position is None else position,
        low_um=None if low is None else low * scale,
        high_um=None if high is None else high * scale,
        # A device that doesn't know its velocity says 0.
        velocity_um_s=length("velocity") or None,
        max_velocity_um_s=length("max_velocity") or None,
        acceleration_s=reader.number("acceleration_time", "acceleration"),
        um_per_unit=scale,
        setpoint_um=length("user_setpoint", "setpoint"),
    )


def own_position(device: Any) -> float:
    """Return where a positioner is in its own unit, be it a length or an angle.

    The result is NaN where it doesn't say. Nothing moves and nothing blocks.
    """
    position = _DeviceReader(device).number(*_POSITIONS)
    return math.nan if position is None else position


_POSITIONS = ("position", "user_readback", "readback", "locate")
"""Names under which the libraries give where a positioner is."""


class _DeviceReader:
    """Looks up plain values of a device, under the names that the libraries give them."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def value(self, name: str) -> Any:
        """Return a plain value; None where the device doesn't have it at hand."""
        attribute = getattr(self._device, name, None)
        if name == "locate":
            return _call_without_waiting(attribute) if callable(attribute) else None
        for getter in ("get", "get_value"):
            if callable(getattr(attribute, getter, None)):
                return _call_without_waiting(getattr(attribute, getter))
        return attribute

    def number(self, *names: str) -> float | None:
        """Return the first finite number that is found under several names; None: there is none."""
        for name in names:
            value = self.value(name)
            number = _number(value.get("readback") if isinstance(value, dict) else value)
            if number is not None:
                return number
        return None

    def unit(self) -> Any:
        """Return the unit of positions, as the device or else the settings spell it, or None."""
        own = self.own_unit()
        if unit_name(own):
            return own
        try:
            return _DECLARED.get(self._device)
        except TypeError:  # it can't be referred to weakly, so that nothing was declared
            return None

    def own_unit(self) -> Any:
        """Return the unit of positions as the device spells it; None where it gives none."""
        for name in ("egu", "motor_egu", "units"):
            value = self.value(name)
            if isinstance(value, (str, bytes)) and unit_name(value):
                return value
        # ophyd-async's simulated motor knows its unit only as metadata of its readback.
        describe = getattr(getattr(self._device, "user_readback", None), "describe", None)
        described = _call_without_waiting(describe) if callable(describe) else None
        keys = described.values() if isinstance(described, dict) else ()
        return next((key["units"] for key in keys if key.get("units")), None)

    def limits(self) -> tuple[float | None, float | None]:
        """Return (low, high); None where a limit is unknown or not set."""
        pair = self.value("limits")
        try:
            low, high = pair
        except (TypeError, ValueError):
            low = self.bound("low_limit_travel", "low_limit")
            high = self.bound("high_limit_travel", "high_limit")
        else:
            low, high = _float(low), _float(high)
        if low == high:
            return None, None
        # An infinite limit on its own side of the axis limits nothing.
        return None if low == -math.inf else low, None if high == math.inf else high

    def bound(self, *names: str) -> float | None:
        """Return the first number that is found under several names, be it NaN or infinite."""
        numbers = (_float(self.value(name)) for name in names)
        return next((number for number in numbers if number is not None), None)


def _float(value: Any) -> float | None:
    """Return a value as a number, which may be NaN or infinite; None where it is none."""
    if value is None or isinstance(value, (str, bytes, bool)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    """Return a value as a finite number; None where it is none."""
    number = _float(value)
    return number if number is not None and math.isfinite(number) else None


def _call_without_waiting(method: Callable[[], Any]) -> Any:
    """Return what a method returns; None where it is a coroutine that would have to wait."""
    if not inspect.iscoroutinefunction(method):
        return method()
    # ophyd-async wraps these methods in a timeout, which needs an event loop; the wrapped method
    # needs none as long as it has nothing to wait for.
    bare = inspect.unwrap(method)
    owner = getattr(method, "__self__", None)
    coroutine = method() if bare is method or owner is None else bare(owner)
    try:
        # One step of the coroutine: it either returns here or waits, and then it is given up.
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except Exception as error:  # noqa: BLE001 - not connected, no loop or the like: unknown
        logger.debug("%r has no answer at hand: %r", method, error)
    finally:
        coroutine.close()
    return None
