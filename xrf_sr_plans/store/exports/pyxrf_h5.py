"""PyXRF HDF5 (NSLS-II): fitted maps of the summed detector, positions and scalers.

PyXRF opens such a file as one that it has fitted itself (``read_hdf_APS`` in
https://github.com/NSLS2/PyXRF, ``pyxrf/model/fileio.py``). Its names are kept, and its unit: fits
are areas of peaks in counts. Positions are in um, and the metadata say so. Beside the maps, each
element has the scalers ``Fe_sigma`` and ``Fe_trusted``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.store.exports.exported_map import ExportedMap, program_version
from xrf_sr_plans.store.exports.whole_file import whole_hdf5

if TYPE_CHECKING:
    import h5py

_NAME_BYTES = 20
"""Characters that PyXRF itself gives a name; longer ones are kept whole."""

_CHANNELS, _CHUNK = 4096, 5
"""Energy bins of a spectrum, and pixels along a side of the chunks, as in PyXRF's own files."""


def write_pyxrf_h5(exported: ExportedMap, path: Path | str) -> Path:
    """Save a map in the layout of PyXRF; an existing file is replaced.

    There are no spectra of an enhanced map, so those in the file are all zero, and nothing in it
    can be fitted again.

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
        scan = file.create_group("xrfmap")
        detector = scan.create_group("detsum")
        values = exported.planes[exported.signal].astype(np.float32)
        fit = _compressed(detector, "xrf_fit", values)
        fit.attrs.update({"comments": exported.title, "units": "counts"})
        detector["xrf_fit_name"] = _texts(exported.elements)
        _write_positions(scan, exported)
        _write_scalers(scan, exported)
        _write_no_spectra(detector, exported)
        scan.create_group("scan_metadata").attrs.update(_metadata(exported))
    return Path(path)


def _write_no_spectra(detector: h5py.Group, exported: ExportedMap) -> None:
    # PyXRF opens no file without spectra. None of these chunks is ever stored.
    counts = detector.create_dataset(
        "counts",
        (*exported.shape, _CHANNELS),
        dtype=np.uint8,
        chunks=(*(min(side, _CHUNK) for side in exported.shape), _CHANNELS),
        fillvalue=0,
    )
    counts.attrs["comments"] = "no spectra: this file was not made from any, all values are 0"


def _write_positions(scan: h5py.Group, exported: ExportedMap) -> None:
    positions = scan.create_group("positions")
    positions["name"] = _texts(["x_pos", "y_pos"])
    # (axis, y, x): the position of each pixel, as PyXRF has it of encoders.
    stored = _compressed(positions, "pos", np.stack(np.meshgrid(exported.x_um, exported.y_um)))
    stored.attrs["units"] = "um"


def _write_scalers(scan: h5py.Group, exported: ExportedMap) -> None:
    names, images = [], []
    for name, image in exported.shared.items():
        names.append({"live_time_s": "live_time"}.get(name, name))
        images.append(image)
    for index, element in enumerate(exported.elements):
        for what, name in ((exported.error, "sigma"), ("trusted", "trusted")):
            if what in exported.planes:
                names.append(f"{element}_{name}")
                images.append(exported.planes[what][index])
    if not names:
        # PyXRF adds the scalers of a file to its maps, and expects the group to be usable.
        names, images = ["ones"], [np.ones(exported.shape)]
    scalers = scan.create_group("scalers")
    scalers["name"] = _texts(names)
    # (y, x, scaler)
    _compressed(scalers, "val", np.stack(images, axis=-1).astype(np.float32))


def _metadata(exported: ExportedMap) -> dict[str, Any]:
    rows, columns = exported.shape
    dwell_s = exported.dwell_s
    known = {} if dwell_s is None else {"param_dwell": dwell_s}
    x_um, y_um = exported.x_um, exported.y_um
    ends = [x_um[0], x_um[-1], columns, y_um[0], y_um[-1], rows]
    return {
        "file_type": "XRF-MAP",
        "file_format": "NSLS2-XRF-MAP",
        "file_format_version": "1.0",
        "file_software": "xrf-sr-plans",
        "file_software_version": program_version(),
        "scan_uid": str(exported.attributes.get("source_uid") or ""),
        "param_fast_axis_units": "um",
        "param_slow_axis_units": "um",
        # As in SRX's runs: ends and number of pixels of both axes, and the dwell.
        "param_input": np.array([*map(float, ends), dwell_s or 0.0]),
        **known,
    }


def _compressed(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    return group.create_dataset(name, data=array, compression="gzip", shuffle=True)


def _texts(texts: list[str] | tuple[str, ...]) -> np.ndarray:
    width = max(_NAME_BYTES, *(len(text.encode()) for text in texts))
    return np.array([text.encode() for text in texts], dtype=f"S{width}")
