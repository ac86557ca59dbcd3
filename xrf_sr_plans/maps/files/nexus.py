"""NeXus HDF5: the plottable data of NXdata groups, in whatever layout a beamline writes them.

Read are

* a signal of three dimensions, one of whose axes lists the names of elements,
* a signal of two with ``auxiliary_signals``, each a map that is named after its element (PyMca),
* one group for each element, side by side, each with one map,
* the older form, where the data set itself says that it is the ``signal`` and names its ``axes``.

Axes are lists, or a position for each pixel. Groups of uncertainties are never maps, and groups of
concentrations only where nothing else is there. Which group a file means is found as silx finds
it: by the ``default`` attributes from the root down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.hdf5 import Hdf5File, as_text, is_numbers, is_texts
from xrf_sr_plans.maps.files.model import (
    FileAxis,
    LiveTime,
    MapsFile,
    atomic_number,
    build,
    is_element,
)
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.spectra import NOTE, bins_kev, regions
from xrf_sr_plans.maps.units import unit_name
from xrf_sr_plans.maps.value_units import seconds_per_unit

# Names of times that NeXus has, the best first.
_TIMES = ("live_time", "count_time", "dwell_time", "real_time", "exposure_time")
_ERRORS = re.compile(r"(^|_)(uncertaint|error|sigma|stdev|std_?dev|varianc)|_errors?$", re.I)
_AMOUNTS = re.compile(r"fraction|concentration|density", re.I)
_KEV = {"kev": 1.0, "ev": 1e-3}
_RESIDUES = re.compile(r"residual|diagnostic|mask|weight|nfree|chisq", re.I)


@dataclass(frozen=True, eq=False)
class _Maps:
    """Maps that a file may mean.

    Parameters
    ----------
    where
        Name of the group that holds them.
    names
        Name of each channel.
    signals
        The data sets: one for each channel, or one for all of them.
    element_axis
        Which axis of the only data set lists the channels; None: each has one of its own.
    home
        The group in which axes are looked up.
    axes
        Names of the axes of a map, slow and fast; "" where one has none.
    """

    where: str
    names: tuple[str, ...]
    signals: tuple[Any, ...]
    element_axis: int | None
    home: Any
    axes: tuple[str, ...]

    @property
    def rank(self) -> tuple[bool, int]:
        """How much these look like maps of counts: concentrations last, more elements first."""
        return (not _AMOUNTS.search(self.where), sum(map(is_element, self.names)))


def read_nexus(file: Hdf5File, options: ReadOptions | None = None) -> MapsFile | None:
    """Return the maps of an open HDF5 file, or None where no NXdata group holds maps.

    Of several groups with maps, the one on the ``default`` path is read, else the one with the
    most elements, and a note says which others there are.

    Parameters
    ----------
    file
        The open file.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        The arrays of the group don't fit together, an axis has an unknown unit, or the only
        plottable data are spectra.
    """
    groups = [g for g in file.groups() if _text(file.attribute(g, "NX_class")) == "NXdata"]
    groups = [g for g in groups if not _is_no_map(g.name)]
    found = [maps for group in groups if (maps := _maps(file, group)) is not None]
    found = _side_by_side(found)
    if not found:
        return _of_spectra(file, groups, options or ReadOptions())
    chosen = _chosen(file, found)
    others = [maps.where for maps in found if maps is not chosen]
    notes = []
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        notes.append(f"read {chosen.where}; there are also {shown}")
    return _read(file, chosen, options, notes)


def _is_no_map(where: str) -> bool:
    parts = where.split("/")
    return any(_ERRORS.search(part) for part in parts) or bool(_RESIDUES.search(parts[-1]))


def _text(value: Any) -> str:
    return "" if value is None else as_text(value)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (bytes, str)):
        return [as_text(value)]
    return [as_text(part) for part in np.ravel(value)]


def _chosen(file: Hdf5File, found: Sequence[_Maps]) -> _Maps:
    """Return the maps that the file means: those on the default path, else those of most."""
    default = _default(file)
    below = [
        maps
        for maps in found
        if maps.where == default or maps.where.startswith(default.rstrip("/") + "/")
    ]
    return max(below or found, key=lambda maps: maps.rank)


def _default(file: Hdf5File) -> str:
    """Return the name of the group to which the ``default`` attributes lead."""
    group: Any = file.root
    seen: set[str] = set()
    # Each group once: the attributes of a damaged file can lead in a circle.
    while group.name not in seen:
        seen.add(group.name)
        name = file.attribute(group, "default")
        further = None if name is None else file.find(_text(name), group)
        if isinstance(further, h5py.Group):
            group = further
    return group.name


def _signals(file: Hdf5File, group: Any) -> dict[str, Any]:
    """Return the data sets that are the group's signals, by name."""
    names = _texts(file.attribute(group, "signal"))
    names += _texts(file.attribute(group, "auxiliary_signals"))
    if not names:
        names = [
            name
            for name in file.members(group)
            if isinstance(node := file.find(name, group), h5py.Dataset)
            and file.attribute(node, "signal") is not None
        ]
    found = {name: file.find(name, group) for name in names if not _ERRORS.search(name)}
    return {name: node for name, node in found.items() if is_numbers(node)}


def _axis_names(file: Hdf5File, group: Any, first: Any) -> list[str]:
    """Return the names of the axes of a group's signal, one for each dimension where known."""
    names = _texts(file.attribute(group, "axes"))
    if not names:
        names = _texts(file.attribute(first, "axes"))
    if len(names) == 1 and first.ndim > 1:
        # The older form: one text with the names between colons or commas.
        names = [part for part in re.split(r"[:,\s]+", names[0].strip("[] ")) if part]
    return ["" if name == "." else name for name in names]


def _named_beside(file: Hdf5File, group: Any, axes: Sequence[str]) -> list[tuple[int, str]]:
    """Return place and name of what lies along an axis besides the axes of a plot.

    Viewers that plot along numbers only get numbers there, and have names beside them.
    """
    found = []
    for name in file.members(group):
        place = file.attribute(group, f"{name}_indices") if name not in axes else None
        if isinstance(place, int | np.integer) and 0 <= place < 3:
            found.append((int(place), name))
    return found


def _maps(file: Hdf5File, group: Any) -> _Maps | None:
    """Return the maps of a group; None where it holds none."""
    signals = _signals(file, group)
    if not signals:
        return None
    first = next(iter(signals.values()))
    axes = _axis_names(file, group, first)
    if first.ndim == 3:
        for place, name in [*enumerate(axes[:3]), *_named_beside(file, group, axes)]:
            listed = file.find(name, group) if name else None
            if listed is not None and is_texts(listed) and listed.size == first.shape[place]:
                rest = tuple(axes[:place] + axes[place + 1 :])
                return _Maps(group.name, tuple(file.texts(listed)), (first,), place, group, rest)
        return None
    if first.ndim != 2 or min(first.shape) < 1:
        return None
    same = {name: node for name, node in signals.items() if node.shape == first.shape}
    if not any(map(is_element, same)):
        # The group has the name of the element, and its signal any.
        own = group.name.rsplit("/", 1)[-1]
        if not is_element(own):
            return None
        same = {own: first}
    return _Maps(group.name, tuple(same), tuple(same.values()), None, group, tuple(axes))


def _side_by_side(found: Sequence[_Maps]) -> list[_Maps]:
    """Return maps with groups of one element each put together, where they are neighbours."""
    families: dict[tuple[str, tuple[int, ...]], list[_Maps]] = {}
    kept = []
    for maps in found:
        parent, _, own = maps.where.rpartition("/")
        if maps.element_axis is None and maps.names == (own,):
            families.setdefault((parent or "/", maps.signals[0].shape), []).append(maps)
        else:
            kept.append(maps)
    for (parent, _), members in families.items():
        members.sort(key=lambda member: (atomic_number(member.names[0]), member.names))
        names = tuple(member.names[0] for member in members)
        signals = tuple(member.signals[0] for member in members)
        kept.append(_Maps(parent, names, signals, None, members[0].home, members[0].axes))
    return kept


def _of_spectra(file: Hdf5File, groups: Sequence[Any], options: ReadOptions) -> MapsFile | None:
    """Return maps of the elements that are asked for, out of spectra; None where there are none.

    Raises
    ------
    FileFormatError
        No elements are asked for, or no axis of the spectra is one of energies.
    """
    for group in groups:
        for name, node in _signals(file, group).items():
            if node.ndim < 2 or (node.ndim == 2 and is_element(name)):
                continue
            axes = _axis_names(file, group, node)
            place, energies = _energies(file, group, node, axes, options)
            if place is None or not options.elements or node.ndim != 3:
                raise FileFormatError(
                    f"{file.shown}: {group.name}/{name} has the shape {node.shape}, and no axis of"
                    " it lists elements: spectra, or maps without names, are no elemental maps;"
                    " fit the spectra first, or name elements (--elements Fe,Zn) where one axis"
                    " is of energies"
                )
            counts = np.moveaxis(file.numbers(node), place, 0)
            rest = tuple(axes[:place] + axes[place + 1 :])
            maps = _Maps(group.name, options.elements, (node,), None, group, rest)
            return build(
                regions(counts, energies, options, file.shown),
                options.elements,
                layout=f"NXdata {group.name}",
                path=file.shown,
                axes=_axes(file, maps, counts.shape[1:]),
                options=options,
                units=unit_name(file.attribute(node, "units")) or "counts",
                live_time=_live_time(file, group),
                meta={"notes": [NOTE]},
            )
    return None


def _energies(
    file: Hdf5File, group: Any, node: Any, axes: Sequence[str], options: ReadOptions
) -> tuple[int | None, np.ndarray]:
    """Return which axis of spectra is that of energies, and these in keV."""
    for place, name in enumerate(axes[: node.ndim]):
        listed = file.find(name, group) if name else None
        if listed is None or not is_numbers(listed) or listed.shape != (node.shape[place],):
            continue
        scale = _KEV.get(unit_name(file.attribute(listed, "units")).lower())
        if scale is not None:
            return place, scale * file.numbers(listed)
    if options.energy_kev is not None and node.ndim == 3:
        # Spectra have more bins than maps rows, and are stored last.
        return 2, bins_kev(node.shape[2], options.energy_kev)
    return None, np.zeros(0)


def _read(
    file: Hdf5File, chosen: _Maps, options: ReadOptions | None, notes: Sequence[str]
) -> MapsFile:
    first = chosen.signals[0]
    if chosen.element_axis is not None:
        maps = np.moveaxis(file.numbers(first), chosen.element_axis, 0)
        units: Any = file.attribute(first, "units")
    else:
        maps = np.stack([file.numbers(signal) for signal in chosen.signals])
        units = [file.attribute(signal, "units") for signal in chosen.signals]
    return build(
        maps,
        chosen.names,
        layout=f"NXdata {chosen.where}",
        path=file.shown,
        axes=_axes(file, chosen, maps.shape[1:]),
        options=options,
        units=_said(units, chosen.where),
        live_time=_live_time(file, chosen.home),
        meta={"notes": list(notes)},
    )


def _said(units: Any, where: str) -> Any:
    """Return the units of the values; by the group's name, where they have none themselves."""
    given = any(map(unit_name, units)) if isinstance(units, list) else bool(unit_name(units))
    if given:
        return units
    if where.endswith("/results/parameters"):
        # PyMca writes the areas of peaks, in counts, and no unit.
        return "counts"
    own = where.rsplit("/", 1)[-1]
    return own if _AMOUNTS.search(own) else units


def _live_time(file: Hdf5File, group: Any) -> LiveTime | None:
    """Return how long the pixels were counted, where the group or its parent says so."""
    for home in (group, group.parent):
        for name in _TIMES:
            found = file.find(name, home)
            if is_numbers(found):
                scale = seconds_per_unit(file.attribute(found, "units"), missing_s=1.0)
                if scale is not None:
                    return LiveTime(np.squeeze(file.numbers(found) * scale), found.name)
    return None


def _axes(file: Hdf5File, chosen: _Maps, shape: tuple[int, ...]) -> dict[str, FileAxis]:
    """Return the positions of the columns and rows, or of each pixel, as far as there are any."""
    names = [*chosen.axes, "", ""][:2]
    nodes = [file.find(name, chosen.home) if name else None for name in names]
    # By order slow and fast; by name where both names say that x is the slow one.
    letters = [_letter(name) for name in names]
    x_first = letters == ["x", "y"]
    found = {}
    for place, node in enumerate(nodes):
        if node is None or not is_numbers(node) or node.ndim not in (1, 2):
            continue
        positions = file.numbers(node)
        if positions.ndim == 1 and positions.size < shape[place]:
            continue
        if positions.ndim == 1 and x_first:
            line = positions[: shape[place]]
            positions = np.broadcast_to(line[:, None] if place == 0 else line[None], shape)
        key = "yx"[place] if not x_first else "xy"[place]
        found[key] = FileAxis(positions, file.attribute(node, "units"), node.name)
    return found


def _letter(name: str) -> str:
    """Return x or y where the name of an axis says which one it is; else ""."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in ("x", "y")]
    return words[0] if len(set(words)) == 1 else ""
