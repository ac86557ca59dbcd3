"""MAPS HDF5 (APS): the layout of XRF-Maps ("v10") and the older one ("v9")."""

from __future__ import annotations

from typing import Any

import numpy as np

from xrf_sr_plans.maps.files.model import FileAxis, MapsFile, build, read_array, read_names

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


def read_maps_h5(file: Any, path: str, step_um: float | None = None) -> MapsFile | None:
    """Return the maps of an open HDF5 file, or None where it isn't of this layout.

    Parameters
    ----------
    file
        The open file.
    path
        Its path, for messages.
    step_um
        Step that counts instead of the file's axes; None: the axes count.

    Raises
    ------
    FileFormatError
        The arrays don't fit together, or an axis has an unknown unit.
    """
    for values, names in CANDIDATES:
        if values in file and names in file:
            break
    else:
        return None
    maps = read_array(file[values], path)
    measured = build(
        maps,
        read_names(file[names])[: maps.shape[0] if maps.ndim else 0],
        layout=values,
        path=path,
        axes=_axes(file, path),
        step_um=step_um,
        meta={"units": "counts/s" if values.endswith("Counts_Per_Sec") else "counts"},
    )
    return _without_bad_columns(measured)


def _axes(file: Any, path: str) -> dict[str, FileAxis]:
    axes = {}
    for name in "xy":
        for place in (f"MAPS/Scan/{name}_axis", f"MAPS/{name}_axis"):
            if place in file:
                centers = np.ravel(read_array(file[place], path))
                axes[name] = FileAxis(centers, file[place].attrs.get("units"), place)
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
