"""What is known about a positioner, whatever library it comes from, in micrometres."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.units import um_per_unit, unit_name

logger = logging.getLogger(__name__)


def axis_scale(unit: Any, axis: str) -> float:
    """Return how many micrometres one unit of an axis is.

    An axis without a unit counts as one in micrometres, the unit of this package.

    Parameters
    ----------
    unit
        What the axis gives as its unit (``egu``); None or "" where it gives none.
    axis
        Name of the axis, for the message.

    Raises
    ------
    ConfigError
        A unit that is not in `units.ALLOWED`.
    """
    return um_per_unit(unit, f"axis {axis!r}", error=ConfigError)


@dataclass(frozen=True)
class AxisFacts:
    """One axis in um and seconds; None: unknown.

    `low_um` and `high_um` are both None where the axis has no limits (low == high means that
    none are set). `setpoint_um` is where it was sent last, if it got there or not.
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


def axis_facts(device: Any) -> AxisFacts:
    """Return what an ophyd, ophyd-async or other bluesky positioner says about itself.

    Nothing moves and nothing blocks: of an ophyd-async device only what is answered at once
    (signals in memory, or cached ones) is known; what would need a round trip counts as unknown.
    A position that can't be had is NaN. In a plan `read_axis_facts` knows more.

    Raises
    ------
    ConfigError
        The axis's unit is no length.
    """
    return _facts(str(getattr(device, "name", device)), _Probe(device))


def read_axis_facts(device: Any, timeout_s: float = 10.0) -> MsgGenerator[AxisFacts]:
    """Like `axis_facts`, as a plan stub: an ophyd-async device is asked over its network.

    Raises
    ------
    ConfigError
        The axis's unit is no length.
    """
    answers: dict[str, Any] = {}

    async def ask() -> None:
        for name in _ASKED:
            get_value = getattr(getattr(device, name, None), "get_value", None)
            if get_value is not None and inspect.iscoroutinefunction(get_value):
                answers[name] = await get_value()
        describe = getattr(getattr(device, "user_readback", None), "describe", None)
        if describe is not None and inspect.iscoroutinefunction(describe):
            answers["described"] = await describe()

    tasks = yield from bps.wait_for([ask], timeout=timeout_s)
    for task in tasks or ():
        if task.exception() is not None:
            logger.warning("axis %r answers only in part: %r", device.name, task.exception())
    return _facts(str(getattr(device, "name", device)), _Probe(device, answers))


_ASKED = (
    "user_readback",
    "user_setpoint",
    "velocity",
    "max_velocity",
    "acceleration_time",
    "low_limit_travel",
    "high_limit_travel",
    "motor_egu",
)


def _facts(name: str, probe: _Probe) -> AxisFacts:
    scale = axis_scale(probe.unit(), name)

    def length(*names: str) -> float | None:
        value = probe.number(*names)
        return None if value is None else value * scale

    low, high = probe.limits()
    position = length("position", "user_readback", "readback", "locate")
    return AxisFacts(
        name=name,
        position_um=math.nan if position is None else position,
        low_um=None if low is None else low * scale,
        high_um=None if high is None else high * scale,
        velocity_um_s=length("velocity") or None,
        max_velocity_um_s=length("max_velocity") or None,
        acceleration_s=probe.number("acceleration_time", "acceleration"),
        um_per_unit=scale,
        setpoint_um=length("user_setpoint", "setpoint"),
    )


class _Probe:
    """Asks a device for plain values under the names that the libraries use."""

    def __init__(self, device: Any, answers: Mapping[str, Any] | None = None) -> None:
        self._device = device
        self._answers = answers or {}

    def value(self, name: str) -> Any:
        """Return a plain value; None where the device doesn't have it at hand."""
        if name in self._answers:
            return self._answers[name]
        attribute = getattr(self._device, name, None)
        if name == "locate":
            return _called(attribute) if callable(attribute) else None
        for getter in ("get", "get_value"):
            if callable(getattr(attribute, getter, None)):
                return _called(getattr(attribute, getter))
        return attribute

    def number(self, *names: str) -> float | None:
        """Return the first finite number among several names."""
        for name in names:
            value = self.value(name)
            number = _number(value.get("readback") if isinstance(value, dict) else value)
            if number is not None:
                return number
        return None

    def unit(self) -> Any:
        """Return the unit of positions as the device spells it; None where it gives none."""
        for name in ("egu", "motor_egu", "units"):
            value = self.value(name)
            if isinstance(value, (str, bytes)) and unit_name(value):
                return value
        # ophyd-async's simulated motor knows its unit only as metadata of its readback.
        described = self._answers.get("described")
        readback = getattr(self._device, "user_readback", None)
        if described is None and callable(getattr(readback, "describe", None)):
            described = _called(readback.describe)  # type: ignore[union-attr]
        keys = described.values() if isinstance(described, dict) else ()
        return next((key["units"] for key in keys if key.get("units")), None)

    def limits(self) -> tuple[float | None, float | None]:
        """Return (low, high); None, None where they are unknown or not set."""
        pair = self.value("limits")
        if isinstance(pair, Sequence) and len(pair) == 2:
            low, high = (_number(value) for value in pair)
        else:
            low = self.number("low_limit_travel", "low_limit")
            high = self.number("high_limit_travel", "high_limit")
        if low is None or high is None or not low < high:
            return None, None
        return low, high


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, (str, bool)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _called(method: Callable[[], Any]) -> Any:
    """Call a method; of a coroutine, return the result only if it needn't wait for anything."""
    if not inspect.iscoroutinefunction(method):
        return method()
    # ophyd-async wraps these in a timeout that needs an event loop; what it wraps doesn't.
    bare = inspect.unwrap(method)
    owner = getattr(method, "__self__", None)
    coroutine = method() if bare is method or owner is None else bare(owner)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except Exception as error:  # noqa: BLE001 - not connected, no loop, ...: it isn't known then
        logger.debug("%r has no answer at hand: %r", method, error)
    finally:
        coroutine.close()
    return None
