"""NeXus HDF5: an NXdata group with ``signal`` and ``axes`` (the classic plottable data).

Two forms are read: a signal [element, y, x] whose first axis lists the element names, and a
2-D signal with ``auxiliary_signals``, each a map that is named after its element (as PyMca writes
them).
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from xrf_sr_plans.maps.files.hdf5 import Hdf5File, as_text, is_numbers, is_texts
from xrf_sr_plans.maps.files.model import (
    FileAxis,
    LiveTime,
    MapsFile,
    build,
    element_channels,
    is_element,
)
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.value_units import seconds_per_unit

# Names of times that NeXus has, the best first.
_TIMES = ("live_time", "count_time", "dwell_time", "real_time", "exposure_time")


def read_nexus(file: Hdf5File, options: ReadOptions | None = None) -> MapsFile | None:
    """Return the maps of an open HDF5 file, or None where no NXdata group holds maps.

    Of several groups with maps, the one on the ``default`` path is read, else the one with the
    most elements.

    Parameters
    ----------
    file
        The open file.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        The arrays of the group don't fit together, or an axis has an unknown unit.
    """
    groups = [g for g in file.groups() if _text(file.attribute(g, "NX_class")) == "NXdata"]
    channels = {group.name: (group, _channels(file, group)) for group in groups}
    readable = {where: found for where, found in channels.items() if found[1]}
    if not readable:
        return None
    chosen = _default(file)
    if chosen not in readable:
        chosen = max(readable, key=lambda where: len(element_channels(readable[where][1])))
    return _read_group(file, *readable[chosen], options)


def _text(value: Any) -> str:
    return "" if value is None else as_text(value)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (bytes, str)):
        return [as_text(value)]
    return [as_text(part) for part in np.ravel(value)]


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
    """Return the data sets that the group names as its signals."""
    names = _texts(file.attribute(group, "signal"))
    names += _texts(file.attribute(group, "auxiliary_signals"))
    found = {name: file.find(name, group) for name in names}
    return {name: node for name, node in found.items() if isinstance(node, h5py.Dataset)}


def _axis_names(file: Hdf5File, group: Any) -> list[str]:
    return _texts(file.attribute(group, "axes"))


def _element_axis(file: Hdf5File, group: Any, first: Any) -> Any:
    """Return the first axis where it lists the elements of a 3-D signal, else None."""
    axes = _axis_names(file, group)
    axis = file.find(axes[0], group) if axes else None
    return axis if is_texts(axis) and first.ndim == 3 else None


def _channels(file: Hdf5File, group: Any) -> list[str]:
    """Return the names of a group's maps; none where it holds no maps."""
    signals = _signals(file, group)
    if not signals:
        return []
    first = next(iter(signals.values()))
    axis = _element_axis(file, group, first)
    if axis is not None:
        return file.texts(axis)
    if first.ndim == 2 and any(is_element(name) for name in signals):
        return [name for name, node in signals.items() if node.shape == first.shape]
    return []


def _read_group(
    file: Hdf5File, group: Any, names: list[str], options: ReadOptions | None
) -> MapsFile:
    signals = _signals(file, group)
    first = next(iter(signals.values()))
    axes = _axis_names(file, group)
    if _element_axis(file, group, first) is not None:
        maps, axes = file.numbers(first), axes[1:]
        units: Any = file.attribute(first, "units")
    else:
        maps = np.stack([file.numbers(signals[name]) for name in names])
        units = [file.attribute(signals[name], "units") for name in names]
    return build(
        maps,
        names,
        layout=f"NXdata {group.name}",
        path=file.shown,
        axes=_axes(file, group, axes),
        options=options,
        units=units,
        live_time=_live_time(file, group),
    )


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


def _axes(file: Hdf5File, group: Any, axes: list[str]) -> dict[str, FileAxis]:
    """Return the axes of (y, x), as far as they are lists of numbers."""
    found = {key: file.find(name, group) for key, name in zip("yx", axes, strict=False)}
    return {
        key: FileAxis(file.numbers(axis), file.attribute(axis, "units"), axis.name)
        for key, axis in found.items()
        if is_numbers(axis) and axis.ndim == 1
    }
