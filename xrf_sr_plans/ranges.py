"""`Range`: which numbers something takes, and the one sentence that refuses all others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`. NaN, infinity, booleans and text are in no range.

    Parameters
    ----------
    low
        The lowest number that is allowed.
    high
        The highest one; infinity: there is no highest one, but infinity itself is not allowed.
    whole
        Whether only whole numbers are allowed.
    above
        Whether `low` itself is not allowed.
    """

    low: float
    high: float = math.inf
    whole: bool = False
    above: bool = False

    def __contains__(self, value: object) -> bool:
        kind = Integral if self.whole else Real
        if not isinstance(value, kind) or isinstance(value, bool) or value in (math.inf, -math.inf):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)  # type: ignore[operator]

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a finite number"
        if self.above:
            upper = "" if self.high == math.inf else f" and at most {self.high:g}"
            return f"{what} above {self.low:g}{upper}"
        return (
            f"{what}, {self.low:g} or more"
            if self.high == math.inf
            else (f"{what} from {self.low:g} to {self.high:g}")
        )

    def flaw(self, name: str, value: object) -> str:
        """Return the sentence that refuses a value, or "" where it is allowed.

        Parameters
        ----------
        name
            What has the value, such as the name of a parameter.
        value
            Whatever was given.
        """
        return "" if value in self else f"{name} is {_as_typed(value):.80}; it must be {self}"

    def pair_flaw(self, name: str, value: Any) -> str:
        """Return the sentence that refuses what is no pair of allowed numbers, or ""."""
        if _is_pair(value) and all(number in self for number in value):
            return ""
        return f"{name} is {value!r:.80}; it must be a pair of numbers, each {self}"


ABOVE_ZERO = Range(0.0, above=True)
"""Finite numbers above 0."""
ZERO_OR_MORE = Range(0.0)
"""Finite numbers that are not negative."""
ANY_NUMBER = Range(-1e12, 1e12)
"""Every number that a position, or anything else of a beamline, can be in its unit."""
SEED = Range(0, 2**63 - 1, whole=True)
"""What seeds numpy's generators, and fits into a document."""
BEAMLINE_RANGES: Mapping[str, Range] = {
    "max_rate_hz": ABOVE_ZERO,
    "max_points": Range(1, 10**9, whole=True),
    "max_velocity_um_s": ABOVE_ZERO,
    "encoder_um": ABOVE_ZERO,
    "readout_ms": ZERO_OR_MORE,
    "run_up_um": ZERO_OR_MORE,
    "probe_fwhm_um": ZERO_OR_MORE,
    "flux_ph_s": ABOVE_ZERO,
}
"""What the numbers of a beamline can be."""
TIME_RANGES: Mapping[str, Range] = {
    "overhead_s": ZERO_OR_MORE,
    "dwell_scale": ABOVE_ZERO,
    "patience": ZERO_OR_MORE,
    "grace_s": ZERO_OR_MORE,
}
"""What the numbers of a time model can be."""


def check(owner: str, *flaws: str) -> None:
    """Refuse what has flaws, all of them at once.

    Parameters
    ----------
    owner
        What has the flaws, for the message.
    flaws
        Sentences; empty ones don't count.

    Raises
    ------
    ConfigError
        There is a flaw.
    """
    found = [flaw for flaw in flaws if flaw]
    if found:
        raise ConfigError(f"{owner}: {'; '.join(found)}")


def range_flaws(values: Mapping[str, Any], ranges: Mapping[str, Range]) -> list[str]:
    """Return a sentence for each value that the range of its name doesn't have.

    None is no flaw: where it isn't allowed, types say so.

    Parameters
    ----------
    values
        Values by name; those without a range are not looked at.
    ranges
        Ranges by name.
    """
    given = {name: values[name] for name in ranges if values.get(name) is not None}
    return [ranges[name].flaw(name, value) for name, value in given.items()]


def box_flaw(name: str, value: Any, *, as_limits: bool = False) -> str:
    """Return the sentence that refuses what is no ((x low, x high), (y low, y high)), or "".

    Parameters
    ----------
    name
        What has the value.
    value
        Whatever was given.
    as_limits
        True: the numbers may be anything that the limits of a device can be, be it equal,
        swapped, infinite or NaN. False: they are finite, and low is below high.
    """
    sides = [tuple(side) for side in value if _is_pair(side)] if _is_pair(value) else []
    sound = _are_numbers if as_limits else _is_interval
    if len(sides) == 2 and all(sound(*side) for side in sides):
        return ""
    order = "" if as_limits else ", finite and low below high"
    return f"{name} is {value!r:.80}; it must be ((x low, x high), (y low, y high)) in um{order}"


def _as_typed(value: object) -> str:
    """Return a value as text, without the ".0" that a conversion to a float adds."""
    return repr(value).removesuffix(".0")


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list, np.ndarray)) and len(value) == 2


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, Real) and not isinstance(value, bool) for value in values)


def _is_interval(low: object, high: object) -> bool:
    return low in ANY_NUMBER and high in ANY_NUMBER and low < high  # type: ignore[operator]
