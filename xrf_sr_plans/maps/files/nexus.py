"""NeXus HDF5: an NXdata group with ``signal`` and ``axes`` (the classic plottable data).

Two forms are read: a signal [element, y, x] whose first axis lists the element names; and a
2-D signal with ``auxiliary_signals``, each a map called by its element (as PyMca writes them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xrf_sr_plans.maps.files.model import (
    MapsFile,
    build,
    is_element,
    micrometres_per,
    read_array,
    read_names,
    unit_notes,
)

_MAX_GROUPS = 5000


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (bytes, str)):
        return [_text(value)]
    return [_text(part) for part in np.ravel(value)]


def read_nexus(file: Any, path: str) -> MapsFile | None:
    """Read an open HDF5 file; None where no NXdata group holds maps.

    The group on the ``default`` path goes first, then the one with the most elements.
    """
    found = [maps for group in _data_groups(file) if (maps := _from_group(group, path))]
    if not found:
        return None
    wanted = _default(file)
    named = [maps for maps in found if wanted and maps.meta["layout"] == f"NXdata {wanted}"]
    return (named or sorted(found, key=lambda maps: -len(maps.elements)))[0]


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
    group = file
    while "default" in group.attrs:
        name = _text(group.attrs["default"])
        if name not in group or not hasattr(group[name], "keys"):
            break
        group = group[name]
    return group.name


def _from_group(group: Any, path: str) -> MapsFile | None:
    signals = _list(group.attrs.get("signal")) + _list(group.attrs.get("auxiliary_signals"))
    signals = [name for name in signals if name in group and hasattr(group[name], "dtype")]
    if not signals:
        return None
    axes = _list(group.attrs.get("axes"))
    first = group[signals[0]]
    if first.ndim == 3 and axes and axes[0] in group and group[axes[0]].dtype.kind in "SOU":
        names, maps = read_names(group[axes[0]]), read_array(first, path)
        axes = axes[1:]
    elif first.ndim == 2 and any(is_element(name) for name in signals):
        names = [name for name in signals if group[name].shape == first.shape]
        maps = np.stack([read_array(group[name], path) for name in names])
    else:
        return None
    return build(
        maps,
        names,
        layout=f"NXdata {group.name}",
        path=path,
        axes_um=_axes(group, axes, path),
        meta={
            "units": _text(first.attrs.get("units", "")),
            "notes": unit_notes(group[name].attrs.get("units") for name in axes if name in group),
        },
    )


def _axes(group: Any, axes: list[str], path: str) -> dict[str, np.ndarray]:
    found = {}
    for key, name in zip("yx", axes, strict=False):
        if name in group and group[name].ndim == 1 and group[name].dtype.kind in "fiu":
            unit = micrometres_per(group[name].attrs.get("units"))
            found[key] = read_array(group[name], path) * unit
    return found
