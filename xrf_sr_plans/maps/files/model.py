"""What every reader returns, and the checks and the cleaning that every file needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.place import Placed, placed
from xrf_sr_plans.maps.units import missing_unit_notes, um_per_unit, unit_name
from xrf_sr_plans.measurement import doubled_names

# MAPS files write 1.8e308 where they have no value.
_ABSURD = 1e30
_MOSTLY = 0.5
"""Proportion of empty frames in a row, below which an empty row beside it was not measured."""

_SYMBOLS_IN_ORDER = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se"
    " Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb"
    " Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu"
)
_NUMBERS = {name: number for number, name in enumerate(_SYMBOLS_IN_ORDER.split(), start=1)}
_CHANNEL = re.compile(r"([A-Z][a-z]?)(?:[ _-]?[KLM][abαβ]?\d?|(\d{1,3}))?")


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
    """Elemental maps as a file or a run holds them, on an even grid whose x and y ascend.

    Parameters
    ----------
    maps
        Counts, rates or concentrations [element, row, column] as floats; NaN where there is no
        usable value.
    elements
        Channel names as in the file, in the order of `maps`.
    pixel_size_um
        Step along x; NaN where the file doesn't say.
    meta
        What else is known: ``reader`` and ``layout`` (who read it, and which arrays), ``path``,
        ``units`` (of the values, by element), ``pixel_size_y_um``, ``skipped`` (channels that are
        no elements) and ``notes`` (what the user should know about how the file was read).
    live_time
        How long each pixel was counted; None where the file doesn't say.
    x_um, y_um
        Pixel centers [column] and [row] on the stage; None where the file doesn't say.
    i0
        Flux monitor [row, column], in any unit; None where the file has none.
    coverage
        Number of frames that were measured in each pixel [row, column], 0 where none was; None:
        one wherever there are counts.
    """

    maps: np.ndarray
    elements: tuple[str, ...]
    pixel_size_um: float
    meta: dict[str, Any] = field(default_factory=dict)
    live_time: LiveTime | None = None
    x_um: np.ndarray | None = None
    y_um: np.ndarray | None = None
    i0: np.ndarray | None = None
    coverage: np.ndarray | None = None

    @property
    def pixel_size_y_um(self) -> float:
        """Step along y; that along x where only that is known, NaN where none is."""
        return float(self.meta.get("pixel_size_y_um", self.pixel_size_um))

    @property
    def notes(self) -> list[str]:
        """What the user should know about how the file was read."""
        return list(self.meta.get("notes", ()))


@dataclass(frozen=True, eq=False)
class FileAxis:
    """The positions along one axis, as a file has them.

    Parameters
    ----------
    centers
        Positions of the columns or rows [pixel], or of each frame [row, column], in the file's
        unit.
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
    if match is None or match.group(1) not in _NUMBERS:
        return ""
    # A number behind the symbol is the mass of an isotope: I127, but not the monitors I0 and I1.
    number, mass = _NUMBERS[match.group(1)], match.group(2)
    return match.group(1) if mass is None or number <= int(mass) <= 3 * number else ""


def atomic_number(name: str) -> int:
    """Return the atomic number of a channel's element; 0 where it is no element's."""
    return _NUMBERS.get(symbol(name), 0)


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
    options: ReadOptions | None = None,
    keep_all: bool = False,
    units: Any = None,
    live_time: LiveTime | None = None,
    i0: np.ndarray | None = None,
    meta: Mapping[str, Any] | None = None,
) -> MapsFile:
    """Return clean, checked and placed maps from the arrays of a file.

    Values that are not finite or absurdly large become NaN. Channels that are no elements
    (scatter peaks, fit residuals) are left out, unless nothing else is there. Rows of nothing but
    zeros beside rows of something are not measured.

    Parameters
    ----------
    maps
        Values [element, row, column]; also [row, column, element], where the number of names tells
        which axis is which.
    elements
        Name of each channel.
    layout
        Which arrays were read, for the user.
    path
        The file, for messages.
    axes
        The positions along ``x`` and ``y``, as far as the file has them. An axis without unit
        counts as one in um, and a note says so.
    options
        What the user knows better: step and unit of the axes.
    keep_all
        Keep channels that are no elements.
    units
        Unit of the values of all channels, or a list with that of each channel.
    live_time
        How long each pixel was counted. It is left out where it doesn't fit to the maps.
    i0
        Flux monitor [row, column]. It is left out where it doesn't fit to the maps.
    meta
        What else to put into `MapsFile.meta`; its ``notes`` come first.

    Raises
    ------
    FileFormatError
        The arrays don't fit together, two channels have the same name, an axis has an unknown
        unit, or the positions are no even grid.
    """
    options = options or ReadOptions()
    names = [str(name) for name in elements]
    maps = elements_first(np.asarray(maps), len(names), f"{path}: {layout} maps")
    chosen = list(range(len(names))) if keep_all else element_channels(names)
    doubled = doubled_names(names[index] for index in chosen)
    if doubled:
        raise FileFormatError(f"{path}: {layout} maps: {doubled}")
    pixels = maps.shape[1:]
    place, notes = _placed(axes or {}, options, pixels, path)
    nothing, said = _nothing_measured(maps, place.unplaced)
    notes = [*(meta or {}).get("notes", ()), *notes, *place.notes, *said]
    clean = maps[chosen].astype(float)
    clean[~(np.abs(clean) < _ABSURD)] = np.nan
    clean[:, nothing] = np.nan
    step_x, step_y = _steps(place, options)
    facts = {
        "layout": layout,
        "path": path,
        "skipped": [name for index, name in enumerate(names) if index not in set(chosen)],
        "units": {names[index]: _unit(units, index) for index in chosen},
        **(meta or {}),
        "pixel_size_y_um": step_y,
        "notes": notes,
    }
    moved = place.move(clean)
    counted = np.where(nothing, 0.0, 1.0)
    frames = np.nan_to_num(place.move(counted)) * place.frames()
    if live_time is not None and live_time.seconds.shape == pixels:
        live_time = LiveTime(place.move(live_time.seconds), live_time.place)
    elif live_time is not None and live_time.seconds.shape != ():
        live_time = None
    return MapsFile(
        moved,
        tuple(names[index] for index in chosen),
        step_x,
        facts,
        live_time,
        *_centers(place, options),
        None if i0 is None or i0.shape != pixels else place.move(i0),
        np.where(np.isfinite(moved).any(axis=0), np.maximum(np.rint(frames), 1), 0).astype(int),
    )


def elements_first(maps: np.ndarray, number: int, owner: str) -> np.ndarray:
    """Return maps as [element, row, column], by the number of their channels.

    Raises
    ------
    FileFormatError
        They are not three-dimensional, or neither the first nor the last axis has that length.
    """
    if maps.ndim == 3 and min(maps.shape) > 0:
        if maps.shape[0] == number:
            return maps
        if maps.shape[2] == number:
            return np.moveaxis(maps, 2, 0)
    raise FileFormatError(
        f"{owner} have the shape {maps.shape} for {number} channel names; (element, y, x) is needed"
    )


def _placed(
    axes: Mapping[str, FileAxis], options: ReadOptions, shape: tuple[int, int], path: str
) -> tuple[Placed, list[str]]:
    """Return where the frames lie, and what was guessed of it."""
    if options.step_um is not None:
        # The step is given: the positions say only which way the axes run.
        raw = {name: np.asarray(axis.centers, dtype=float) for name, axis in axes.items()}
        try:
            return placed(raw.get("x"), raw.get("y"), shape, path), []
        except FileFormatError:
            return placed(None, None, shape, path), []
    notes: list[str] = []
    unit_um = None if options.axis_unit is None else um_per_unit(options.axis_unit, "axis_unit")
    if unit_um is None:
        notes += missing_unit_notes(axis.unit for axis in axes.values())
    positions = {}
    for name, axis in axes.items():
        scale = unit_um or um_per_unit(
            axis.unit, f"{path}: axis {axis.place!r}", error=FileFormatError
        )
        positions[name] = np.asarray(axis.centers * scale, dtype=float)
    return placed(positions.get("x"), positions.get("y"), shape, path), notes


def _steps(place: Placed, options: ReadOptions) -> tuple[float, float]:
    """Return the steps along x and y in um; that along y is x's where it is unknown."""
    if options.step_um is not None:
        return options.step_um, options.step_y_um or options.step_um
    step_x, step_y = place.step_x_um, place.step_y_um
    return step_x, step_x if np.isnan(step_y) else step_y


def _centers(place: Placed, options: ReadOptions) -> tuple[np.ndarray | None, np.ndarray | None]:
    if options.step_um is None:
        return place.x_um, place.y_um
    step_x, step_y = _steps(place, options)
    return step_x * np.arange(place.shape[1]), step_y * np.arange(place.shape[0])


def _nothing_measured(maps: np.ndarray, unplaced: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the frames that only fill the arrays up [row, column], and the notes on them.

    Lost rows, and those that a scan never reached, are zeros in all channels. They are told from
    rows without an element by the rows beside them, most frames of which have something.
    """
    empty: np.ndarray = ~np.any(np.abs(np.nan_to_num(maps)) > 0, axis=0)
    without = empty.all(axis=1)
    filled_up = np.zeros_like(empty)
    some = np.flatnonzero(~without)
    for row in np.flatnonzero(without) if some.size else ():
        beside = [*some[some < row][-1:], *some[some > row][:1]]
        filled_up[row] = empty[beside].mean() < _MOSTLY
    nothing = filled_up | (unplaced & empty)
    lost = int(np.count_nonzero(nothing.all(axis=1)))
    return nothing, [f"{lost} rows of zeros: not measured"] if lost else []


def _unit(units: Any, index: int) -> str:
    """Return the unit of a channel; "" where there is none."""
    if isinstance(units, Sequence) and not isinstance(units, str | bytes):
        return unit_name(units[index]) if index < len(units) else ""
    return unit_name(units)
