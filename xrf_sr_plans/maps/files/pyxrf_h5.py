"""PyXRF HDF5 (NSLS-II): ``xrfmap/detsum/{xrf_fit, xrf_fit_name}``, ``xrfmap/positions``."""

from __future__ import annotations

from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.model import FileAxis, MapsFile, build, read_array, read_names


def read_pyxrf_h5(file: Any, path: str, step_um: float | None = None) -> MapsFile | None:
    """Return the fitted maps of an open HDF5 file, or None where it isn't of this layout.

    The fits of the summed spectra are read where they are there, else the fits of each detector,
    added up.

    Parameters
    ----------
    file
        The open file.
    path
        Its path, for messages.
    step_um
        Step that counts instead of the file's positions; None: the positions count.

    Raises
    ------
    FileFormatError
        The file holds spectra but no fitted maps, its arrays don't fit together, or its positions
        have an unknown unit.
    """
    if "xrfmap" not in file:
        return None
    fitted = [
        name
        for name, group in file["xrfmap"].items()
        if name.startswith("det") and "xrf_fit" in group and "xrf_fit_name" in group
    ]
    if not fitted:
        raise FileFormatError(
            f"{path}: PyXRF file without fitted maps: looked for xrfmap/detsum/xrf_fit and"
            " xrf_fit_name; fit the spectra in PyXRF first"
        )
    chosen = ["detsum"] if "detsum" in fitted else fitted
    groups = [file[f"xrfmap/{name}"] for name in chosen]
    maps = sum(read_array(group["xrf_fit"], path) for group in groups)
    return build(
        np.asarray(maps),
        read_names(groups[0]["xrf_fit_name"]),
        layout=f"xrfmap/{'+'.join(chosen)}/xrf_fit",
        path=path,
        axes=_axes(file, path),
        step_um=step_um,
        meta={"units": "counts"},
    )


def _axes(file: Any, path: str) -> dict[str, FileAxis]:
    place = "xrfmap/positions/pos"
    if place not in file:
        return {}
    names = read_names(file["xrfmap/positions/name"]) if "xrfmap/positions/name" in file else []
    # One plane [row, column] of measured positions for each axis.
    positions = read_array(file[place], path)
    if positions.ndim != 3 or positions.shape[0] < 2:
        return {}
    # By name, since the order of x and y differs between beamlines.
    y_first = bool(names) and "y" in names[0].lower()
    x, y = (positions[1], positions[0]) if y_first else (positions[0], positions[1])
    unit = file[place].attrs.get("units")
    return {
        "x": FileAxis(np.median(x, axis=0), unit, place),
        "y": FileAxis(np.median(y, axis=1), unit, place),
    }
