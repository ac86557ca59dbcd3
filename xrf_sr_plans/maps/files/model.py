"""What every reader returns, and the checks and the cleaning that every file needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.units import missing_unit_notes, um_per_unit, unit_name
from xrf_sr_plans.measurement import doubled_names

# MAPS files write 1.8e308 where they have no value.
_ABSURD = 1e30
_SYMBOLS_IN_ORDER = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se"
    " Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb"
    " Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu"
)
_SYMBOLS = frozenset(_SYMBOLS_IN_ORDER.split())
_CHANNEL = re.compile(r"([A-Z][a-z]?)(?:[ _-]?[KLM][abαβ]?\d?|\d{1,3})?")


@dataclass(frozen=True, eq=False)
class LiveTime:
    """How long each pixel was counted, as a file has it.

    Parameters
    ----------
    seconds
        Of each pixel [row, column], or one number for all of them; they may make no sense.
    place
        Name of the array in the file, for messages.
    """

    seconds: np.ndarray
    place: str


@dataclass(frozen=True, eq=False)
class MapsFile:
    """Elemental maps as a file holds them.

    Parameters
    ----------
    maps
        Counts or concentrations [element, row, column] as floats; NaN where the file has no
        usable value.
    elements
        Channel names as in the file, in the order of `maps`.
    pixel_size_um
        Step along the fast axis; NaN where the file doesn't say.
    meta
        What else is known: ``layout`` (which arrays were read), ``path``, ``units`` (of the
        values, by element), ``pixel_size_y_um``, ``skipped`` (channels that are no elements) and
        ``notes`` (what the user should know about how the file was read).
    live_time
        How long each pixel was counted; None where the file doesn't say.
    """

    maps: np.ndarray
    elements: tuple[str, ...]
    pixel_size_um: float
    meta: dict[str, Any] = field(default_factory=dict)
    live_time: LiveTime | None = None


@dataclass(frozen=True, eq=False)
class FileAxis:
    """The pixel centers along one axis, as a file has them.

    Parameters
    ----------
    centers
        Positions [pixel] in the file's unit.
    unit
        The ``units`` attribute; None where there is none.
    place
        Name of the array in the file, for messages.
    """

    centers: np.ndarray
    unit: Any
    place: str


def is_element(name: str) -> bool:
    """Return whether a channel is an element's: Fe, Fe_K, Pb_L, Fe57; not COMPTON or TFY."""
    return bool(symbol(name))


def symbol(name: str) -> str:
    """Return the chemical symbol of a channel (Fe of Fe_K or Fe57); "" where it is no element's."""
    match = _CHANNEL.fullmatch(name)
    return match.group(1) if match is not None and match.group(1) in _SYMBOLS else ""


def element_channels(names: Sequence[str]) -> list[int]:
    """Return the indices of the channels that are elements', or of all where none is."""
    return [index for index, name in enumerate(names) if is_element(name)] or list(
        range(len(names))
    )


def build(
    maps: np.ndarray,
    elements: Sequence[str],
    *,
    layout: str,
    path: str,
    axes: Mapping[str, FileAxis] | None = None,
    step_um: float | None = None,
    keep_all: bool = False,
    units: Any = None,
    live_time: LiveTime | None = None,
    meta: Mapping[str, Any] | None = None,
) -> MapsFile:
    """Return clean and checked maps from the arrays of a file.

    Values that are not finite or absurdly large become NaN. Channels that are no elements
    (scatter peaks, fit residuals) are left out, unless nothing else is there.

    Parameters
    ----------
    maps
        Values [element, row, column].
    elements
        Name of each channel.
    layout
        Which arrays were read, for the user.
    path
        The file, for messages.
    axes
        The pixel centers along ``x`` and ``y``, as far as the file has them. An axis without
        unit counts as one in um, and a note says so.
    step_um
        Step along both axes that counts instead of the axes; None: none is known.
    keep_all
        Keep channels that are no elements.
    units
        Unit of the values of all channels, or a list with that of each channel.
    live_time
        How long each pixel was counted. It is left out where it doesn't fit to the maps.
    meta
        What else to put into `MapsFile.meta`.

    Raises
    ------
    FileFormatError
        The arrays don't fit together, two channels have the same name, or an axis has an unknown
        unit.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or len(elements) != maps.shape[0] or min(maps.shape) < 1:
        raise FileFormatError(
            f"{path}: {layout} maps have the shape {maps.shape} for {len(elements)} channel"
            " names; (element, y, x) is needed"
        )
    names = [str(name) for name in elements]
    chosen = list(range(len(names))) if keep_all else element_channels(names)
    doubled = doubled_names(names[index] for index in chosen)
    if doubled:
        raise FileFormatError(f"{path}: {layout} maps: {doubled}")
    clean = maps[chosen].astype(float)
    clean[~(np.abs(clean) < _ABSURD)] = np.nan
    otherwise = float("nan") if step_um is None else step_um
    axes = (axes or {}) if step_um is None else {}
    step_x = _step_um(axes.get("x"), path, otherwise)
    facts = {
        "layout": layout,
        "path": path,
        "pixel_size_y_um": _step_um(axes.get("y"), path, step_x),
        "skipped": [name for index, name in enumerate(names) if index not in set(chosen)],
        "notes": missing_unit_notes(axis.unit for axis in axes.values()),
        "units": {names[index]: _unit(units, index) for index in chosen},
        **(meta or {}),
    }
    if live_time is not None and live_time.seconds.shape not in ((), maps.shape[1:]):
        live_time = None
    return MapsFile(clean, tuple(names[index] for index in chosen), step_x, facts, live_time)


def _unit(units: Any, index: int) -> str:
    """Return the unit of a channel; "" where there is none."""
    if isinstance(units, Sequence) and not isinstance(units, str | bytes):
        return unit_name(units[index]) if index < len(units) else ""
    return unit_name(units)


def _step_um(axis: FileAxis | None, path: str, otherwise: float) -> float:
    """Return the median step of an axis, and `otherwise` where no two positions differ."""
    if axis is None:
        return otherwise
    scale = um_per_unit(axis.unit, f"{path}: axis {axis.place!r}", error=FileFormatError)
    steps_um = np.abs(np.diff(np.asarray(axis.centers * scale, dtype=float)))
    steps_um = steps_um[np.isfinite(steps_um) & (steps_um > 0) & (steps_um < _ABSURD)]
    return float(np.median(steps_um)) if steps_um.size else otherwise
