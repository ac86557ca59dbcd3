"""Maps as files that others read: one HDF5 layout, NeXus-style, with everything in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from xrf_sr_plans.maps.elemental import EnhancedMaps


def write_enhanced(enhanced: EnhancedMaps, path: Path | str) -> Path:
    """Save an enhanced map as HDF5 (NXdata group ``enhanced``); replaces an existing file.

    The file appears whole or not at all.
    """
    import h5py

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        group = file.create_group("enhanced")
        group.attrs["NX_class"] = "NXdata"
        group.attrs["signal"] = "estimate"
        group.attrs["axes"] = ["element", "y", "x"]
        for name, array in enhanced.dataset.data_vars.items():
            group.create_dataset(str(name), data=array.values, compression="gzip")
        group.create_dataset("element", data=np.array(enhanced.elements, dtype="S"))
        for axis in ("y", "x"):
            group.create_dataset(axis, data=enhanced.dataset[axis].values).attrs["units"] = "um"
        plain = dict(enhanced.dataset.attrs)
        group.attrs["attributes_json"] = json.dumps(plain, default=str)
    return partial.replace(path)
