"""Enhanced maps as NeXus-style HDF5 files, for programs that know nothing of this package."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xrf_sr_plans.maps.elemental import EnhancedMaps


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
    import h5py

    path = Path(path)
    # HDF5 can crash the interpreter when the disk fills up while it writes. Here it writes to
    # memory, so that a full disk is an ordinary OSError.
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        group = file.create_group("enhanced")
        group.attrs["NX_class"] = "NXdata"
        group.attrs["signal"] = "estimate"
        group.attrs["axes"] = ["element", "y", "x"]
        different = list(dict.fromkeys(units or ["photons"]))
        for name, array in enhanced.dataset.data_vars.items():
            values = array.values
            if photons is not None and values.dtype != bool:
                values = (values / photons[:, None, None]).astype(values.dtype)
            stored = group.create_dataset(str(name), data=values, compression="gzip")
            if values.dtype != bool:
                # Of each element, where they differ.
                stored.attrs["units"] = different[0] if len(different) == 1 else list(units)
        group.create_dataset("element", data=np.array(enhanced.elements, dtype="S"))
        for axis in ("y", "x"):
            group.create_dataset(axis, data=enhanced.dataset[axis].values).attrs["units"] = "um"
        attributes = dict(enhanced.dataset.attrs)
        group.attrs["attributes_json"] = json.dumps(attributes, default=str)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(memory.getbuffer())
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
