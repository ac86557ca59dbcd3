"""What NeXus files of all kinds have in common: the root, the entry, notes and parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.store.exports.exported_map import program_version

if TYPE_CHECKING:
    import h5py

_UNITS = {"um": "um", "ms": "ms", "s": "s"}
"""Unit of a number by the end of its name."""


def new_entry(file: h5py.File, name: str, title: str, *, default: str) -> h5py.Group:
    """Return the NXentry of a new file, whose `default` group is what viewers plot."""
    import h5py

    file.attrs.update(
        {
            "NX_class": "NXroot",
            "default": "entry",
            "file_name": name,
            "creator": "xrf-sr-plans",
            "creator_version": program_version(),
            "HDF5_Version": h5py.version.hdf5_version,
            "h5py_version": h5py.version.version,
        }
    )
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": default})
    entry["title"] = title
    return entry


def write_note(parent: h5py.Group, name: str, kind: str, text: str) -> None:
    """Write a text of any length as an NXnote, where an attribute holds 64 kB at most."""
    note = parent.create_group(name)
    note.attrs["NX_class"] = "NXnote"
    note["type"] = kind
    note["data"] = text


def write_parameters(parent: h5py.Group, name: str, values: Iterable[tuple[str, Any]]) -> None:
    """Write values by name as an NXparameters group, lengths and times with their unit."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = "NXparameters"
    for key, value in values:
        stored = group.create_dataset(str(key), data=_as_hdf5(value))
        unit = _UNITS.get(str(key).rpartition("_")[2])
        if unit and stored.dtype.kind in "fiu":
            stored.attrs["units"] = unit


def write_columns(parent: h5py.Group, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys as an NXcollection with one array for each key."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = "NXcollection"
    for key in rows[0]:
        column = [row.get(key) for row in rows]
        if any(isinstance(value, str) for value in column):
            group[key] = text_array(column)
            continue
        stored = group.create_dataset(
            key, data=np.array([np.nan if value is None else value for value in column])
        )
        if key.endswith("_um"):
            stored.attrs["units"] = "um"


def text_array(texts: Iterable[Any]) -> np.ndarray:
    """Return texts as HDF5 holds them, of one length; None as an empty one."""
    return np.array(["" if text is None else str(text).encode() for text in texts], dtype="S")


def _as_hdf5(value: Any) -> Any:
    """Return a value as HDF5 can hold it: a number, a text, a list of either, else as JSON."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str | int | float | np.number):
        return value
    if isinstance(value, list | tuple):
        if value and all(isinstance(part, str) for part in value):
            return text_array(value)
        if value and all(isinstance(part, int | float | np.number) for part in value):
            return np.array(value)
    return json.dumps(value, default=str)
