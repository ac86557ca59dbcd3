"""Units of length: what one of them is in micrometers, for axes, documents and files alike.

The package works in micrometers. Lengths enter it at three places, each with a unit that somebody
else spelled: positioners (``EGU`` of EPICS, ``egu`` of ophyd), documents (``units`` of a data key)
and files (the ``units`` attribute of an axis). All three ask `um_per_unit`.

* Names, plurals, British and American spelling, and the numbers behind them, are pint's.
* Only the lengths in `ALLOWED` pass. To pint the ``px`` of a style sheet is a length too (265 um),
  and so is the megameter.
* Capitals stand for small letters where a unit is written in capitals throughout (``MM``,
  ``MICRONS``), or where it is unknown as it stands (``Microns``, ``Um``). Otherwise they keep
  their meaning: ``Mm`` is a megameter, ``Nm`` a newton meter, ``mM`` and ``M`` are concentrations,
  ``A`` is an ampere. All of these are refused.
* A missing unit (None, empty or blank) is not an unknown one: each caller says what it counts as.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.errors import ConfigError, XrfSrError

if TYPE_CHECKING:
    import pint

ALLOWED = {
    "picometer": "pm",
    "angstrom": "angstrom",
    "nanometer": "nm",
    "micrometer": "um",
    "micron": "micron",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "inch": "inch",
}
"""Pint's name of each unit of length that an axis may have, with its usual symbol."""

_NAME = re.compile(r"[^\W\d_]{1,40}")
"""Letters only: the unit of an axis has no number, power or fraction in it."""


def um_per_unit(
    unit: Any,
    owner: str,
    *,
    missing_um: float | None = 1.0,
    error: type[XrfSrError] = ConfigError,
    otherwise: str = "",
) -> float:
    """Return how many micrometers one `unit` of length is.

    Parameters
    ----------
    unit
        The unit as it was found: text, bytes, or an HDF5 attribute that holds either.
    owner
        What has the unit, for the message, such as "axis 'samx'".
    missing_um
        What a missing unit counts as, in um; None: a missing unit is refused too.
    error
        Class of the error to raise, one of `xrf_sr_plans.errors`.
    otherwise
        What else the user can do, for the end of the message, such as "or give um_per_unit".

    Raises
    ------
    XrfSrError
        The unit is none of `ALLOWED`, or it is missing where that is refused. The error is of the
        class `error`.
    """
    name = unit_name(unit)
    if not name and missing_um is not None:
        return missing_um
    # The package's own unit: not worth the second that it takes to load pint.
    length_um = 1.0 if name == "um" else _length_um(name)
    if length_um is None:
        shown = f"unit is {name[:40]!r}" if name else "the unit is missing"
        needed = f"one of {', '.join(ALLOWED.values())} is needed"
        raise error(f"{owner}: {'; '.join(part for part in (shown, needed, otherwise) if part)}")
    return length_um


def unit_name(unit: Any) -> str:
    """Return a unit as text without blanks around it; "" where there is none.

    Units come as text or bytes, in UTF-8 or Latin-1, with blanks or NULs for padding, and from
    HDF5 also as an array of one text or as an attribute without a value.
    """
    if isinstance(unit, np.ndarray) and unit.size <= 1:
        unit = unit.item() if unit.size else None
    # h5py's Empty is an attribute that has a type but no value: its shape is None.
    if unit is None or getattr(unit, "shape", ()) is None:
        return ""
    text = _decoded(unit) if isinstance(unit, bytes) else _decoded_again(str(unit))
    return text.strip("\0 \t\r\n")


def missing_unit_notes(units: Iterable[Any]) -> list[str]:
    """Return what to tell the user where some of the axes of a file have no unit."""
    missing = any(not unit_name(unit) for unit in units)
    return ["axes without unit: taken as um"] if missing else []


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _decoded_again(text: str) -> str:
    """Return text that was decoded as Latin-1 but is UTF-8, as some EPICS clients hand it out."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


@cache
def unit_registry() -> pint.UnitRegistry:
    """Return pint's default units, made when the first unit is looked up.

    Importing pint and reading its definitions take about a second; plans and the command line
    start without them.
    """
    import pint

    return pint.UnitRegistry()


@lru_cache(maxsize=256)
def _length_um(name: str) -> float | None:
    """Return the micrometers in a unit; None where it is none of the allowed ones."""
    # One code point for the micro sign and the Greek mu, one for both signs of the angstrom.
    name = unicodedata.normalize("NFKC", name)
    if not _NAME.fullmatch(name):
        return None
    if name.isupper() and len(name) > 1:
        name = name.lower()
    registry = unit_registry()
    for spelling in (name, name.lower()):
        if spelling in registry:
            unit = registry.parse_units(spelling)
            if str(unit) not in ALLOWED:
                return None
            return float(registry.Quantity(1, unit).to("micrometer").magnitude)
    return None
