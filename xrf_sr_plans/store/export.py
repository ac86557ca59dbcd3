"""Enhanced and composite maps as HDF5 files, for programs that know nothing of this package."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.maps.elemental import EnhancedMaps

if TYPE_CHECKING:
    import h5py


def write_enhanced(
    enhanced: EnhancedMaps,
    path: Path | str,
    *,
    units: Sequence[str] = (),
    photons: np.ndarray | None = None,
) -> Path:
    """Save an enhanced map as an HDF5 file with the NXdata group ``enhanced``.

    The group holds each variable of the map as a data set with the axes (element, y, x), in photons
    per coarse pixel or another unit, which the attribute ``units`` has, except for ``trusted``; and
    the axes in um. An existing file is replaced, and
    no half-written file is ever seen under the name `path`.

    Parameters
    ----------
    enhanced
        The map.
    path
        File name, usually with the suffix ``.h5``. The folder must exist.
    units
        Unit of the values of each element in the file; none: photons.
    photons
        Photons that a value of 1 is in that unit (element,); None: one.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    OSError
        The file can't be written.
    """
    with _new_file(Path(path)) as file:
        group = _data_group(file, "enhanced", "estimate", enhanced)
        different = list(dict.fromkeys(units or ["photons"]))
        for name, array in enhanced.dataset.data_vars.items():
            values = array.values
            if photons is not None and values.dtype != bool:
                values = (values / photons[:, None, None]).astype(values.dtype)
            stored = group.create_dataset(str(name), data=values, compression="gzip")
            if values.dtype != bool:
                # Of each element, where they differ.
                stored.attrs["units"] = different[0] if len(different) == 1 else list(units)
    return Path(path)


def write_composite(composite: CompositeMap, path: Path | str) -> Path:
    """Save the composite map of a survey as an HDF5 file that NeXus viewers plot at once.

    The NXdata group ``entry/composite`` holds ``value`` (element, y, x) in photons per coarse
    pixel, ``value_errors`` (one standard deviation), ``measured``, ``trusted``, ``source`` (0 for
    an estimate, k for the k-th of ``rescan_uids``) and the axes in um. An existing file is
    replaced, and no half-written file is ever seen under the name `path`.

    Parameters
    ----------
    composite
        The map.
    path
        File name, usually with the suffix ``.h5`` or ``.nxs``. The folder must exist.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    OSError
        The file can't be written.
    """
    with _new_file(Path(path)) as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "composite"})
        group = _data_group(entry, "composite", "value", composite)
        for name, array in composite.dataset.data_vars.items():
            # A viewer takes the errors of a signal from the array of this name.
            stored = group.create_dataset(
                "value_errors" if name == "sigma" else str(name),
                data=array.values,
                compression="gzip",
            )
            if name in ("value", "sigma"):
                stored.attrs["units"] = "photons"
        group.create_dataset("rescan_uids", data=np.array(composite.rescan_uids, dtype="S"))
    return Path(path)


def _data_group(
    parent: h5py.Group, name: str, signal: str, maps: EnhancedMaps | CompositeMap
) -> h5py.Group:
    """Return a new NXdata group with the axes and the attributes of a map."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = "NXdata"
    group.attrs["signal"] = signal
    group.attrs["axes"] = ["element", "y", "x"]
    group.create_dataset("element", data=np.array(maps.elements, dtype="S"))
    for axis in ("y", "x"):
        group.create_dataset(axis, data=maps.dataset[axis].values).attrs["units"] = "um"
    group.attrs["attributes_json"] = json.dumps(dict(maps.dataset.attrs), default=str)
    return group


@contextmanager
def _new_file(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file in memory, which replaces `path` if all went well."""
    import h5py

    # HDF5 can crash the interpreter when the disk fills up while it writes. Here it writes to
    # memory, so that a full disk is an ordinary OSError.
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(memory.getbuffer())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
