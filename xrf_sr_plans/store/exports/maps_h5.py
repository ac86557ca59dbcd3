"""MAPS HDF5 (APS), as XRF-Maps lays it out with the names of version 9 and of version 10.

XRF-Maps writes its results once, below ``MAPS/XRF_Analyzed``, ``MAPS/Scan`` and
``MAPS/Scalers``, and links them to the names that older programs know: ``MAPS/XRF_fits``,
``MAPS/channel_names`` and so on (``hdf5_io.cpp`` of
https://github.com/AdvancedPhotonSource/XRF-Maps). So does this.

* Values are counts per second where the dwell is known, as in every MAPS file, and counts where it
  isn't, which ``Channel_Units`` and ``channel_units`` say.
* Axes are in **mm**, since programs for MAPS files take them so; their attribute ``units`` says it.
* The standard deviation of each map and where it is trusted are scalers (``Fe_sigma``,
  ``Fe_trusted``), which such programs show as images. ``ELT1`` is the live time in s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.store.exports.exported_map import ExportedMap
from xrf_sr_plans.store.exports.whole_file import whole_hdf5

if TYPE_CHECKING:
    import h5py

_TEXT = "S256"
_COMMENT = (
    "written by xrf-sr-plans: one set of maps, which has the names of all fits because programs"
    " differ in which of them they open"
)
_MM_PER_UM = 1e-3
_UNIT_ROWS = 4
"""Rows of ``channel_units`` of version 9: by SR current, by US_IC, by DS_IC, not normalized."""


def write_maps_h5(exported: ExportedMap, path: Path | str) -> Path:
    """Save a map in the layout of MAPS; an existing file is replaced.

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
    dwell_s = exported.dwell_s
    unit = "counts" if dwell_s is None else "cts/s"
    per_photon = 1.0 if dwell_s is None else 1 / dwell_s
    with whole_hdf5(path) as file:
        maps = file.create_group("MAPS")
        maps["version"] = np.array([10.0], dtype=np.float32)
        _write_fits(maps, exported, unit, per_photon)
        _write_axes(maps, exported)
        _write_scalers(maps, exported, unit, per_photon)
    return Path(path)


def _write_fits(maps: h5py.Group, exported: ExportedMap, unit: str, per_photon: float) -> None:
    fitted = maps.create_group("XRF_Analyzed/Fitted")
    values = (exported.planes[exported.signal] * per_photon).astype(np.float32)
    stored = _images(fitted, "Counts_Per_Sec", values)
    stored.attrs["comments"] = _COMMENT
    fitted["Channel_Names"] = _texts(exported.elements)
    fitted["Channel_Units"] = _texts([unit] * len(exported.elements))
    for name in ("NNLS", "ROI"):
        maps[f"XRF_Analyzed/{name}"] = fitted
    for name in ("XRF_fits", "XRF_roi", "XRF_roi_plus"):
        maps[name] = stored
    maps["channel_names"] = fitted["Channel_Names"]
    maps["channel_units"] = np.stack([_texts([unit] * len(exported.elements))] * _UNIT_ROWS)


def _write_axes(maps: h5py.Group, exported: ExportedMap) -> None:
    scan = maps.create_group("Scan")
    for name, centers_um in (("x_axis", exported.x_um), ("y_axis", exported.y_um)):
        # In 64 bits: 32 leave 0.01 um of a stage that stands at 100 mm.
        scan.create_dataset(name, data=centers_um * _MM_PER_UM).attrs["units"] = "mm"
        maps[name] = scan[name]
    rows, columns = exported.shape
    scan["requested_rows"] = np.array([rows], dtype=np.int32)
    scan["requested_cols"] = np.array([columns], dtype=np.int32)


def _write_scalers(maps: h5py.Group, exported: ExportedMap, unit: str, per_photon: float) -> None:
    names, units, images = [], [], []
    live_s = exported.shared.get("live_time_s")
    if live_s is None and exported.dwell_s is not None:
        live_s = np.full(exported.shape, exported.dwell_s)
    if live_s is not None:
        names, units, images = ["ELT1"], ["s"], [live_s]
    if "i0" in exported.shared:
        names, units = [*names, "US_IC"], [*units, ""]
        images.append(exported.shared["i0"])
    for index, element in enumerate(exported.elements):
        if exported.error:
            names, units = [*names, f"{element}_sigma"], [*units, unit]
            images.append(exported.planes[exported.error][index] * per_photon)
        if "trusted" in exported.planes:
            names, units = [*names, f"{element}_trusted"], [*units, ""]
            images.append(exported.planes["trusted"][index])
    scalers = maps.create_group("Scalers")
    stack = np.array(images, dtype=np.float32).reshape(len(images), *exported.shape)
    stored = _images(scalers, "Values", stack)
    scalers["Names"] = _texts(names)
    scalers["Units"] = _texts(units)
    maps["scalers"] = stored
    maps["scaler_names"] = scalers["Names"]
    maps["scaler_units"] = scalers["Units"]


def _images(group: h5py.Group, name: str, stack: np.ndarray) -> h5py.Dataset:
    if not stack.size:
        return group.create_dataset(name, data=stack)
    chunks = (1, *stack.shape[1:])
    return group.create_dataset(name, data=stack, chunks=chunks, compression="gzip", shuffle=True)


def _texts(texts: list[str] | tuple[str, ...]) -> np.ndarray:
    return np.array([text.encode() for text in texts], dtype=_TEXT)
