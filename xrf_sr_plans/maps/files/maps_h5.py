"""MAPS HDF5 (APS): the layout of XRF-Maps ("v10") and the older one ("v9")."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.maps.files.hdf5 import Hdf5File
from xrf_sr_plans.maps.files.model import FileAxis, MapsFile, build

CANDIDATES = (
    ("MAPS/XRF_Analyzed/NNLS/Counts_Per_Sec", "MAPS/XRF_Analyzed/NNLS/Channel_Names"),
    ("MAPS/XRF_Analyzed/Fitted/Counts_Per_Sec", "MAPS/XRF_Analyzed/Fitted/Channel_Names"),
    ("MAPS/XRF_Analyzed/ROI/Counts_Per_Sec", "MAPS/XRF_Analyzed/ROI/Channel_Names"),
    ("MAPS/XRF_fits", "MAPS/channel_names"),
    ("MAPS/XRF_roi", "MAPS/channel_names"),
)
"""Where maps and their channel names may be, the best first.

A fit separates overlapping lines, which regions of interest don't.
"""

# How many columns at the end of a row a fly scan may leave empty or doubled.
_BAD_COLUMNS = 2


def read_maps_h5(file: Hdf5File, step_um: float | None = None) -> MapsFile | None:
    """Return the maps of an open HDF5 file, or None where it isn't of this layout.

    Parameters
    ----------
    file
        The open file.
    step_um
        Step that counts instead of the file's axes; None: the axes count.

    Raises
    ------
    FileFormatError
        The arrays don't fit together, or an axis has an unknown unit.
    """
    for values, names in CANDIDATES:
        found, named = file.find(values), file.find(names)
        if found is not None and named is not None:
            break
    else:
        return None
    maps = file.numbers(found)
    measured = build(
        maps,
        file.texts(named)[: maps.shape[0] if maps.ndim else 0],
        layout=values,
        path=file.shown,
        axes=_axes(file),
        step_um=step_um,
        meta={"units": "counts/s" if values.endswith("Counts_Per_Sec") else "counts"},
    )
    return _without_bad_columns(measured)


def _axes(file: Hdf5File) -> dict[str, FileAxis]:
    axes = {}
    for name in "xy":
        for place in (f"MAPS/Scan/{name}_axis", f"MAPS/{name}_axis"):
            axis = file.find(place)
            if axis is not None:
                centers = np.ravel(file.numbers(axis))
                axes[name] = FileAxis(centers, file.attribute(axis, "units"), place)
                break
    return axes


def _without_bad_columns(measured: MapsFile) -> MapsFile:
    """Blank the last two columns where a fly scan left them empty or doubled."""
    maps = measured.maps
    if maps.shape[-1] <= 4 * _BAD_COLUMNS:
        return measured
    # Sum of each column over all elements and rows.
    total = np.nansum(maps, axis=(0, 1))
    typical = float(np.median(total[:-_BAD_COLUMNS]))
    for column in range(maps.shape[-1] - _BAD_COLUMNS, maps.shape[-1]):
        if not 0.3 * typical < total[column] < 3 * typical:
            maps[..., column] = np.nan
            measured.meta["notes"].append(f"column {column} blanked: bad in fly scans")
    return measured
