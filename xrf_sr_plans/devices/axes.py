"""What is known about a positioner, whatever library it comes from, in micrometres."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.errors import ConfigError

_UM_PER_UNIT = {
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "m": 1e6,
}


def um_per_unit(unit: str | None, axis: str) -> float:
    """Return the micrometres in a unit of length.

    No unit at all ("" or None) counts as micrometres, which is what this package speaks.

    Raises
    ------
    ConfigError
        A unit that is no known length.
    """
    name = (unit or "um").strip()
    for spelling in (name, name.lower()):
        if spelling in _UM_PER_UNIT:
            return _UM_PER_UNIT[spelling]
    known = ", ".join(sorted(set(_UM_PER_UNIT)))
    raise ConfigError(f"axis {axis!r}: unit is {unit!r}; one of {known} is needed")


@dataclass(frozen=True)
class AxisFacts:
    """One axis in um and seconds; None: unknown.

    `low_um` and `high_um` are both None where the axis has no limits (low == high means that
    none are set).
    """

    name: str
    position_um: float
    low_um: float | None
    high_um: float | None
    velocity_um_s: float | None
    max_velocity_um_s: float | None
    acceleration_s: float | None
    um_per_unit: float


def axis_facts(device: Any) -> AxisFacts:
    """Return what an ophyd, ophyd-async or other bluesky positioner says about itself.

    Nothing moves and nothing blocks: of an ophyd-async device only what is answered at once
    (signals in memory, or cached ones) is known; what would need a round trip counts as unknown.
    A position that can't be had is NaN.

    Raises
    ------
    ConfigError
        The axis's unit is no length.
    """
    name = str(getattr(device, "name", device))
    scale = um_per_unit(_unit(device), name)

    def length(*names: str) -> float | None:
        value = _first_number(device, names)
        return None if value is None else value * scale

    low, high = _limits(device)
    position = length("position", "user_readback", "readback", "locate")
    velocity = length("velocity")
    return AxisFacts(
        name=name,
        position_um=math.nan if position is None else position,
        low_um=None if low is None else low * scale,
        high_um=None if high is None else high * scale,
        velocity_um_s=velocity or None,
        max_velocity_um_s=length("max_velocity", "velocity_max") or None,
        acceleration_s=_first_number(device, ("acceleration_time", "acceleration")),
        um_per_unit=scale,
    )


def _unit(device: Any) -> str | None:
    for name in ("egu", "motor_egu", "units"):
        value = _now(getattr(device, name, None))
        if isinstance(value, str):
            return value
    # ophyd-async's simulated motor knows its unit only as metadata of its readback.
    described = _now(_call(getattr(device, "describe", None)))
    if isinstance(described, dict):
        units = {key.get("units") for key in described.values() if isinstance(key, dict)} - {None}
        if len(units) == 1:
            return units.pop()
    return None


def _limits(device: Any) -> tuple[float | None, float | None]:
    pair = _now(getattr(device, "limits", None))
    if isinstance(pair, Sequence) and len(pair) == 2:
        low, high = (_number(value) for value in pair)
    else:
        low = _first_number(device, ("low_limit_travel", "low_limit"))
        high = _first_number(device, ("high_limit_travel", "high_limit"))
    if low is None or high is None or not low < high:
        return None, None
    return low, high


def _first_number(device: Any, names: Sequence[str]) -> float | None:
    for name in names:
        attribute = getattr(device, name, None)
        value = _now(_call(attribute) if name == "locate" else attribute)
        if isinstance(value, dict):
            value = value.get("readback")
        number = _number(value)
        if number is not None:
            return number
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _call(method: Any) -> Any:
    return method() if callable(method) else None


def _now(value: Any) -> Any:
    """Return a plain value from a value, an ophyd signal or an ophyd-async signal."""
    if value is None or isinstance(value, (str, int, float, dict, Sequence)):
        return value
    for getter in ("get", "get_value"):
        method = getattr(value, getter, None)
        if callable(method):
            value = method()
            break
    return _at_once(value) if inspect.isawaitable(value) else value


def _at_once(awaitable: Awaitable[Any]) -> Any:
    """Return the result of a coroutine that needs no event loop; None where it would wait."""
    coroutine = awaitable.__await__()
    try:
        next(coroutine)
    except StopIteration as done:
        return done.value
    except Exception:  # noqa: BLE001 - not connected, no loop, ...: then it isn't known
        return None
    finally:
        close = getattr(coroutine, "close", None)
        if close is not None:
            close()
    return None
