"""NeXus HDF5: an NXdata group with ``signal`` and ``axes`` (the classic plottable data).

Two forms are read: a signal [element, y, x] whose first axis lists the element names, and a
2-D signal with ``auxiliary_signals``, each a map that is named after its element (as PyMca writes
them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xrf_sr_plans.maps.files.model import (
    FileAxis,
    MapsFile,
    build,
    element_channels,
    is_element,
    read_array,
    read_names,
)

# A file with more groups than these is searched only so far.
_MAX_GROUPS = 5000


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (bytes, str)):
        return [_text(value)]
    return [_text(part) for part in np.ravel(value)]


def read_nexus(file: Any, path: str, step_um: float | None = None) -> MapsFile | None:
    """Return the maps of an open HDF5 file, or None where no NXdata group holds maps.

    Of several groups with maps, the one on the ``default`` path is read, else the one with the
    most elements.

    Parameters
    ----------
    file
        The open file.
    path
        Its path, for messages.
    step_um
        Step that counts instead of the group's axes; None: the axes count.

    Raises
    ------
    FileFormatError
        The arrays of the group don't fit together, or an axis has an unknown unit.
    """
    channels = {group.name: _channels(group) for group in _data_groups(file)}
    readable = {where: names for where, names in channels.items() if names}
    if not readable:
        return None
    chosen = _default(file)
    if chosen not in readable:
        chosen = max(readable, key=lambda where: len(element_channels(readable[where])))
    return _read_group(file[chosen], readable[chosen], path, step_um)


def _data_groups(file: Any) -> Iterator[Any]:
    stack, seen = [file], 0
    while stack and seen < _MAX_GROUPS:
        group, seen = stack.pop(), seen + 1
        if _text(group.attrs.get("NX_class", "")) == "NXdata":
            yield group
        for name in group:
            # Groups only, and no links: a link can make a loop or lead out of the file.
            if group.get(name, getclass=True, getlink=True).__name__ == "HardLink":
                child = group[name]
                if hasattr(child, "keys"):
                    stack.append(child)


def _default(file: Any) -> str:
    """Return the name of the group to which the ``default`` attributes lead."""
    group = file
    while "default" in group.attrs:
        name = _text(group.attrs["default"])
        if name not in group or not hasattr(group[name], "keys"):
            break
        group = group[name]
    return group.name


def _signals(group: Any) -> list[str]:
    names = _texts(group.attrs.get("signal")) + _texts(group.attrs.get("auxiliary_signals"))
    return [name for name in names if name in group and hasattr(group[name], "dtype")]


def _element_axis(group: Any) -> str | None:
    """Return the name of the first axis where it lists the elements of a 3-D signal."""
    axes = _texts(group.attrs.get("axes"))
    lists_names = bool(axes) and axes[0] in group and _kind(group[axes[0]]) in ("S", "O", "U")
    return axes[0] if lists_names and group[_signals(group)[0]].ndim == 3 else None


def _kind(dataset: Any) -> str:
    """Return the kind of numpy type of a dataset; "" of a group."""
    return dataset.dtype.kind if hasattr(dataset, "dtype") else ""


def _channels(group: Any) -> list[str]:
    """Return the names of a group's maps; none where it holds no maps."""
    signals = _signals(group)
    if not signals:
        return []
    element_axis = _element_axis(group)
    if element_axis is not None:
        return read_names(group[element_axis])
    first = group[signals[0]]
    if first.ndim == 2 and any(is_element(name) for name in signals):
        return [name for name in signals if group[name].shape == first.shape]
    return []


def _read_group(group: Any, names: list[str], path: str, step_um: float | None) -> MapsFile:
    first = group[_signals(group)[0]]
    axes = _texts(group.attrs.get("axes"))
    if _element_axis(group) is not None:
        maps, axes = read_array(first, path), axes[1:]
    else:
        maps = np.stack([read_array(group[name], path) for name in names])
    return build(
        maps,
        names,
        layout=f"NXdata {group.name}",
        path=path,
        axes=_axes(group, axes, path),
        step_um=step_um,
        meta={"units": _text(first.attrs.get("units", ""))},
    )


def _axes(group: Any, axes: list[str], path: str) -> dict[str, FileAxis]:
    """Return the axes of (y, x), as far as they are lists of numbers."""
    return {
        key: FileAxis(
            read_array(group[name], path), group[name].attrs.get("units"), group[name].name
        )
        for key, name in zip("yx", axes, strict=False)
        if name in group and _kind(group[name]) in ("f", "i", "u") and group[name].ndim == 1
    }
