"""MAPS HDF5 (APS): the layout of XRF-Maps ("v10") and the older one ("v9")."""

from __future__ import annotations

from typing import Any

import numpy as np

from xrf_sr_plans.maps.files.model import (
    MapsFile,
    build,
    micrometres_per,
    read_array,
    read_names,
    unit_notes,
)

# In order of preference: a fit separates overlapping lines, regions of interest don't.
CANDIDATES = (
    ("MAPS/XRF_Analyzed/NNLS/Counts_Per_Sec", "MAPS/XRF_Analyzed/NNLS/Channel_Names"),
    ("MAPS/XRF_Analyzed/Fitted/Counts_Per_Sec", "MAPS/XRF_Analyzed/Fitted/Channel_Names"),
    ("MAPS/XRF_Analyzed/ROI/Counts_Per_Sec", "MAPS/XRF_Analyzed/ROI/Channel_Names"),
    ("MAPS/XRF_fits", "MAPS/channel_names"),
    ("MAPS/XRF_roi", "MAPS/channel_names"),
)
_BAD_COLUMNS = 2


def read_maps_h5(file: Any, path: str) -> MapsFile | None:
    """Read an open HDF5 file; None where it isn't of this layout."""
    for values, names in CANDIDATES:
        if values in file and names in file:
            break
    else:
        return None
    maps = read_array(file[values], path)
    axes, units = {}, []
    for axis in "xy":
        for place in (f"MAPS/Scan/{axis}_axis", f"MAPS/{axis}_axis"):
            if place in file:
                units.append(file[place].attrs.get("units"))
                axes[axis] = np.ravel(read_array(file[place], path)) * micrometres_per(units[-1])
                break
    found = build(
        maps,
        read_names(file[names])[: maps.shape[0] if maps.ndim else 0],
        layout=values,
        path=path,
        axes_um=axes,
        meta={
            "units": "counts/s" if values.endswith("Counts_Per_Sec") else "counts",
            "notes": unit_notes(units),
        },
    )
    return _without_bad_columns(found)


def _without_bad_columns(found: MapsFile) -> MapsFile:
    """Blank the last two columns where a fly scan left them empty or doubled."""
    maps = found.maps
    if maps.shape[-1] <= 4 * _BAD_COLUMNS:
        return found
    total = np.nansum(maps, axis=(0, 1))
    typical = float(np.median(total[:-_BAD_COLUMNS]))
    for column in range(maps.shape[-1] - _BAD_COLUMNS, maps.shape[-1]):
        if not 0.3 * typical < total[column] < 3 * typical:
            maps[..., column] = np.nan
            found.meta.setdefault("notes", []).append(f"column {column} blanked: bad in fly scans")
    return found
