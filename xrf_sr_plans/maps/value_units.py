"""Units of a map's values: photons, photons per time, or something that is neither.

The counting noise of a map follows from its photons. A rate of 1000 counts/s holds 10 photons at
10 ms and 1000 at 1 s, so taking the one for the other makes structure of noise or noise of
structure. Files and documents spell their units in many ways; all of them are read here.

* Words for a photon (count, cts, photon, event ...) are matched here, because pint takes ``cts``
  for carats and ``ph`` for picohours. Units of time are pint's.
* A missing unit (None, empty or blank) is not an unknown one: each caller says what it counts as.
* Whatever is neither a number of photons nor one per time (``ug/cm2``, ``ppm``, ``a.u.``) has the
  kind ``other``. No dwell time makes photons of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from xrf_sr_plans.maps.units import unit_name, unit_registry

_PHOTON = r"(?:(?:raw|detected|x-?ray|fluorescence)?\s*(?:counts?|cts?|photons?|phs?|events?))"
_PHOTONS = re.compile(_PHOTON, re.IGNORECASE)
_PER_TIME = re.compile(
    rf"(?:{_PHOTON}|1)\s*(?:/|\bper\b|\s)\s*(?P<time>[^\W\d]+)\.?", re.IGNORECASE
)
_INVERSE_TIME = re.compile(
    rf"(?:{_PHOTON}\s*[*· ]?\s*)?(?P<time>[^\W\d]+)\s*(?:\^|\*\*)?\s*[-−⁻]\s*[1¹]", re.IGNORECASE
)
_FREQUENCIES = {"cps": 1.0, "hz": 1.0, "kcps": 1e3, "khz": 1e3, "mcps": 1e6, "mhz": 1e6}
# XRF-Maps writes the names of arrays where others write units.
_TIME_NAMES = {"sec": "second", "secs": "second", "msec": "millisecond", "usec": "microsecond"}


@dataclass(frozen=True)
class ValueUnit:
    """What one unit of a map's values is.

    Parameters
    ----------
    name
        The unit as it was found, without blanks around it; "" where there is none.
    kind
        ``photons``, ``rate`` (photons per time), ``missing`` or ``other``.
    per_s
        Photons per second of a value of 1, where the kind is ``rate``; else NaN.
    """

    name: str
    kind: Literal["photons", "rate", "missing", "other"]
    per_s: float = float("nan")


def value_unit(unit: Any) -> ValueUnit:
    """Return what a unit of values is.

    Parameters
    ----------
    unit
        The unit as it was found: text, bytes, or an HDF5 attribute that holds either.
    """
    name = unit_name(unit)
    if not name:
        return ValueUnit("", "missing")
    # Counts_Per_Sec, the name that MAPS files have for it.
    words = name.replace("_", " ").strip()
    if _PHOTONS.fullmatch(words):
        return ValueUnit(name, "photons")
    frequency = _FREQUENCIES.get(words.lower())
    if frequency is not None:
        return ValueUnit(name, "rate", frequency)
    for pattern in (_PER_TIME, _INVERSE_TIME):
        match = pattern.fullmatch(words)
        seconds = None if match is None else seconds_per_unit(match["time"])
        if seconds:
            return ValueUnit(name, "rate", 1 / seconds)
    return ValueUnit(name, "other")


def seconds_per_unit(unit: Any, missing_s: float | None = None) -> float | None:
    """Return how many seconds one unit of time is; None where it is no unit of time.

    Parameters
    ----------
    unit
        The unit as it was found.
    missing_s
        What a missing unit counts as.
    """
    name = unit_name(unit)
    return _seconds(name) if name else missing_s


@lru_cache(maxsize=64)
def _seconds(name: str) -> float | None:
    # Units that nearly every file has: not worth the second that it takes to load pint.
    known = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3}.get(name.lower())
    if known is not None:
        return known
    registry = unit_registry()
    spelled = _TIME_NAMES.get(name.lower(), name)
    if spelled not in registry:
        return None
    unit = registry.parse_units(spelled)
    if unit.dimensionality != registry.second.dimensionality:
        return None
    return float(registry.Quantity(1, unit).to("second").magnitude)
