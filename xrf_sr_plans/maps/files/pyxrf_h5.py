"""PyXRF HDF5 (NSLS-II): ``xrfmap/detsum/{xrf_fit, xrf_fit_name}``, ``xrfmap/positions``."""

from __future__ import annotations

from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.model import (
    MapsFile,
    build,
    micrometres_per,
    read_array,
    read_names,
    unit_notes,
)


def read_pyxrf_h5(file: Any, path: str) -> MapsFile | None:
    """Read an open HDF5 file; None where it isn't of this layout.

    The sum of the detectors where it was fitted, else the sum of the fits of each detector.

    Raises
    ------
    FileFormatError
        A PyXRF file that holds spectra but no fitted maps.
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
        axes_um=_axes(file, path),
        meta={"units": "counts", "notes": _notes(file)},
    )


def _axes(file: Any, path: str) -> dict[str, np.ndarray]:
    if "xrfmap/positions/pos" not in file:
        return {}
    positions = file["xrfmap/positions/pos"]
    names = read_names(file["xrfmap/positions/name"]) if "xrfmap/positions/name" in file else []
    unit = micrometres_per(positions.attrs.get("units"))
    values = read_array(positions, path)
    if values.ndim != 3 or values.shape[0] < 2:
        return {}
    # By name, since the order of x and y differs between beamlines.
    y_first = bool(names) and "y" in names[0].lower()
    x, y = (values[1], values[0]) if y_first else (values[0], values[1])
    return {"x": np.median(x, axis=0) * unit, "y": np.median(y, axis=1) * unit}


def _notes(file: Any) -> list[str]:
    place = "xrfmap/positions/pos"
    return unit_notes([file[place].attrs.get("units")]) if place in file else []
