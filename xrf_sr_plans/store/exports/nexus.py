"""NeXus HDF5, which silx, nexusformat, PyMca and h5web open as an image.

Where everything is (https://manual.nexusformat.org, NXdata and NXprocess)::

    entry                      NXentry
      maps                     NXdata, the default plot: the map of each element, and its error
      Fe, Zn ...               NXdata, all arrays of one element
      enhanced                 NXdata, the same arrays of all elements as (element, y, x)
      process                  NXprocess: model, settings, source, notes
      verification             NXdata: what fine maps said of the predictions, where there are any

The map of an element is stored once, as an array (y, x) of its own, because viewers open an array
of two dimensions as an image and one of three as they please. All other places only point to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.store.exports.exported_map import (
    ExportedMap,
    is_photons,
    program_version,
)
from xrf_sr_plans.store.exports.nexus_parts import (
    new_entry,
    text_array,
    write_columns,
    write_note,
    write_parameters,
)
from xrf_sr_plans.store.exports.verification import write_table
from xrf_sr_plans.store.exports.whole_file import whole_hdf5

if TYPE_CHECKING:
    import h5py

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]+")
_TAKEN = ("maps", "measured", "enhanced", "composite", "verification", "process", "title", "x", "y")
"""Names in the entry that no element can have."""
SHARED = {"i0": ("i0", ""), "live_time_s": ("live_time", "s"), "coverage": ("coverage", "")}
"""Name in the file, and unit, of arrays (y, x) that belong to no element."""
_LONGEST_LABEL = 100
"""Characters of an axis's label, above which it doesn't list the elements."""
_LARGEST_ATTRIBUTE = 32_000
"""Bytes that an attribute may take; HDF5 stores none above 64 kB."""


def write_nexus(exported: ExportedMap, path: Path | str) -> Path:
    """Save a map as a NeXus file that opens as an image of its first element.

    An existing file is replaced, and no half-written file is ever seen under the name `path`.

    Parameters
    ----------
    exported
        The map.
    path
        File name. The folder must exist.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    OSError
        The file can't be written.
    """
    with whole_hdf5(path) as file:
        entry = new_entry(file, Path(path).name, exported.title, default="maps")
        _write_elements(entry, exported)
        _write_stack(entry, exported)
        _write_process(entry, exported)
        if exported.verification:
            write_table(entry, exported.verification)
        # Scripts for files without an entry find the arrays here. A soft link would do, but for
        # nexusformat, which can't follow one to virtual arrays.
        file[exported.kind] = entry[exported.kind]
    return Path(path)


def group_names(elements: Iterable[str]) -> list[str]:
    """Return names that NeXus allows (letters, digits and _) for elements, all different."""
    names: list[str] = []
    for element in elements:
        name = wanted = _NOT_IN_NAMES.sub("_", element).strip("_") or "element"
        number = 2
        while name in (*names, *_TAKEN, *(shared for shared, _ in SHARED.values())):
            name, number = f"{wanted}_{number}", number + 1
        names.append(name)
    return names


def _write_elements(entry: h5py.Group, exported: ExportedMap) -> None:
    """Write the groups of single elements, and that of the map of all of them."""
    names = group_names(exported.elements)
    maps = entry.create_group("maps")
    # In the order in which viewers should offer them.
    others = [name for name in exported.planes if name not in (exported.signal, exported.error)]
    arrays = {name: exported.in_units(name) for name in exported.planes}
    for index, (element, name) in enumerate(zip(exported.elements, names, strict=True)):
        group = entry.create_group(name)
        unit = exported.units[index]
        for array_name, array in arrays.items():
            stored = _image(group, _in_group(exported, array_name), array[index])
            stored.attrs["long_name"] = _long_name(element, array_name, unit, array)
            if is_photons(array):
                stored.attrs["units"] = unit
        _as_plot(group, exported, exported.signal, others)
        group.attrs["title"] = f"{element}: {exported.title}"
        _link(maps, name, group[exported.signal])
        if exported.error:
            _link(maps, f"{name}_errors", group[f"{exported.signal}_errors"])
    for name, array in exported.shared.items():
        shared_name, unit = SHARED.get(name, (name, ""))
        _image(maps, shared_name, array).attrs["units"] = unit
    _as_plot(maps, exported, names[0], names[1:])
    maps.attrs["title"] = exported.title


def _as_plot(
    group: h5py.Group, exported: ExportedMap, signal: str, others: Sequence[str] = ()
) -> None:
    """Make an NXdata group of images of a group that holds them."""
    group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": ["y", "x"]})
    group.attrs.update({"y_indices": 0, "x_indices": 1})
    if others:
        group.attrs["auxiliary_signals"] = list(others)
    _write_axes(group, exported)


def _write_axes(group: h5py.Group, exported: ExportedMap) -> None:
    first = group.parent["maps"]
    for axis, centers_um in (("y", exported.y_um), ("x", exported.x_um)):
        if axis in first:
            _link(group, axis, first[axis])
            continue
        stored = first.create_dataset(axis, data=centers_um)
        stored.attrs.update({"units": "um", "long_name": f"{axis} (um)"})
        stored.attrs["target"] = stored.name
        if group.name != first.name:
            group[axis] = stored


def _write_stack(entry: h5py.Group, exported: ExportedMap) -> None:
    """Write the arrays (element, y, x), which are views of those of the elements."""
    import h5py

    group = entry.create_group(exported.kind)
    names = group_names(exported.elements)
    group.attrs.update(
        {
            "NX_class": "NXdata",
            "signal": exported.signal,
            # h5web plots along numbers only: names of elements are no axis to it.
            "axes": ["element_index", "y", "x"],
            "element_index_indices": 0,
            "element_indices": 0,
            "y_indices": 1,
            "x_indices": 2,
            "title": exported.title,
        }
    )
    group.create_dataset("element", data=text_array(exported.elements))
    index = group.create_dataset("element_index", data=np.arange(len(names), dtype=np.int32))
    listed = ", ".join(f"{place} {element}" for place, element in enumerate(exported.elements))
    index.attrs["long_name"] = f"element ({listed})" if len(listed) <= _LONGEST_LABEL else "element"
    _write_axes(group, exported)
    different = list(dict.fromkeys(exported.units))
    for name in exported.planes:
        places = [entry[element][_in_group(exported, name)] for element in names]
        layout = h5py.VirtualLayout((len(names), *exported.shape), dtype=places[0].dtype)
        for index, place in enumerate(places):
            layout[index] = h5py.VirtualSource(".", place.name, place.shape, place.dtype)
        stored = group.create_virtual_dataset(name, layout)
        stored.attrs["interpretation"] = "image"
        if is_photons(exported.planes[name]):
            # Of each element, where they differ.
            stored.attrs["units"] = different[0] if len(different) == 1 else list(exported.units)
    if exported.error:
        group[f"{exported.signal}_errors"] = group[exported.error]
    everything = json.dumps(dict(exported.attributes), default=str)
    if len(everything.encode()) <= _LARGEST_ATTRIBUTE:
        group.attrs["attributes_json"] = everything
    if "rescan_uids" in exported.attributes:
        uids = exported.attributes["rescan_uids"] or []
        group.create_dataset("rescan_uids", data=text_array(uids))


def _write_process(entry: h5py.Group, exported: ExportedMap) -> None:
    """Write by what and from what a map was made, as an NXprocess."""
    process = entry.create_group("process")
    process.attrs["NX_class"] = "NXprocess"
    process["program"] = "xrf-sr-plans"
    process["version"] = program_version()
    process["sequence_index"] = 1
    write_parameters(process, "model", exported.model.items())
    write_parameters(process, "settings", exported.settings())
    write_parameters(process, "source", exported.source())
    if exported.attributes.get("placements"):
        write_columns(process, "placements", exported.attributes["placements"])
    write_note(process, "notes", "text/plain", "\n".join(exported.notes))
    everything = json.dumps(dict(exported.attributes), default=str)
    write_note(process, "attributes", "application/json", everything)


def _image(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    stored = group.create_dataset(name, data=array, compression="gzip", shuffle=True)
    stored.attrs["interpretation"] = "image"
    stored.attrs["target"] = stored.name
    return stored


def _link(group: h5py.Group, name: str, place: h5py.Dataset) -> None:
    # A hard link, as NeXus wants it: the attribute `target` of the array says where it belongs.
    if name not in group:
        group[name] = place


def _in_group(exported: ExportedMap, name: str) -> str:
    """Return the name of an array in the group of an element.

    A viewer takes the error of a signal from the array of this name.
    """
    return f"{exported.signal}_errors" if name == exported.error else name


def _long_name(element: str, name: str, unit: str, array: np.ndarray) -> str:
    what = {
        "estimate": "",
        "value": "",
        "counts": "",
        "sigma": " error (1 standard deviation)",
        "lower": " lower end of the 90 % interval",
        "upper": " upper end of the 90 % interval",
        "baseline": " without a network",
        "trusted": " trusted: 1, else 0",
        "doubtful": " likely to be far off: 1, else 0",
        "measured": " measured: 1, estimated: 0",
        "source": " number of the rescan, 0: estimated",
    }.get(name, f" {name}")
    return f"{element}{what} ({unit})" if is_photons(array) else f"{element}{what}"
