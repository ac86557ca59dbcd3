"""PyXRF HDF5 (NSLS-II): ``xrfmap/detsum/{xrf_fit, xrf_fit_name}``, ``xrfmap/positions``."""

from __future__ import annotations

from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.hdf5 import Hdf5File
from xrf_sr_plans.maps.files.model import FileAxis, LiveTime, MapsFile, build
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.units import unit_name

_AXES = ("fast", "slow")


def read_pyxrf_h5(file: Hdf5File, options: ReadOptions | None = None) -> MapsFile | None:
    """Return the fitted maps of an open HDF5 file, or None where it isn't of this layout.

    The fits of the summed spectra are read where they are there, else the fits of each detector,
    added up.

    Parameters
    ----------
    file
        The open file.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        The file holds spectra but no fitted maps, its arrays don't fit together, or its positions
        have an unknown unit.
    """
    scan = file.find("xrfmap")
    if scan is None:
        return None
    fits = {}
    for name in file.members(scan) if hasattr(scan, "keys") else ():
        if name.startswith("det"):
            fit, named = file.find(f"{name}/xrf_fit", scan), file.find(f"{name}/xrf_fit_name", scan)
            if fit is not None and named is not None:
                fits[name] = fit, named
    if not fits:
        raise FileFormatError(
            f"{file.shown}: PyXRF file without fitted maps: looked for xrfmap/detsum/xrf_fit and"
            " xrf_fit_name; fit the spectra in PyXRF first"
        )
    chosen = ["detsum"] if "detsum" in fits else list(fits)
    maps = file.numbers(fits[chosen[0]][0])
    for name in chosen[1:]:
        more = file.numbers(fits[name][0])
        if more.shape != maps.shape:
            raise FileFormatError(
                f"{file.shown}: xrfmap/{name}/xrf_fit has the shape {more.shape}; that of"
                f" {chosen[0]} is {maps.shape}"
            )
        maps = maps + more
    return build(
        maps,
        file.texts(fits[chosen[0]][1]),
        layout=f"xrfmap/{'+'.join(chosen)}/xrf_fit",
        path=file.shown,
        axes=_axes(file),
        options=options,
        # PyXRF itself writes no unit: its fits are areas of peaks, in counts.
        units=unit_name(file.attribute(fits[chosen[0]][0], "units")) or "counts",
        live_time=_dwell(file),
    )


def _dwell(file: Hdf5File) -> LiveTime | None:
    """Return the dwell time in the scan's metadata; None where they have none."""
    metadata = file.find("xrfmap/scan_metadata")
    dwell_s = None if metadata is None else file.attribute(metadata, "param_dwell")
    if isinstance(dwell_s, int | float | np.number):
        return LiveTime(np.array(float(dwell_s)), "xrfmap/scan_metadata, param_dwell")
    return None


def _axes(file: Hdf5File) -> dict[str, FileAxis]:
    place = "xrfmap/positions/pos"
    measured, named = file.find(place), file.find("xrfmap/positions/name")
    if measured is None:
        return {}
    names = [] if named is None else file.texts(named)
    # One plane [row, column] of measured positions for each axis.
    positions = file.numbers(measured)
    if positions.ndim != 3 or positions.shape[0] < 2:
        return {}
    # By name, since the order of x and y differs between beamlines.
    y_first = bool(names) and "y" in names[0].lower()
    x, y = (positions[1], positions[0]) if y_first else (positions[0], positions[1])
    stored = file.attribute(measured, "units")
    units = dict.fromkeys("xy", stored) if stored is not None else _axis_units(file)
    return {"x": FileAxis(x, units["x"], place), "y": FileAxis(y, units["y"], place)}


def _axis_units(file: Hdf5File) -> dict[str, Any]:
    """Return the units of x and y in the scan's metadata, None where they have none."""
    metadata = file.find("xrfmap/scan_metadata")
    if metadata is None:
        return {"x": None, "y": None}
    fast, slow = (file.attribute(metadata, f"param_{axis}_axis_units") for axis in _AXES)
    fast = slow if fast is None else fast
    slow = fast if slow is None else slow
    if unit_name(fast) != unit_name(slow) and "y" in unit_name(
        file.attribute(metadata, "param_fast_axis")
    ):
        fast, slow = slow, fast
    return {"x": fast, "y": slow}
