"""npz: ``maps`` [element, y, x], ``elements``; where known ``pixel_size_um``, ``units``, times.

``units`` is one text or one for each element. Times are ``live_time_s`` [y, x] or one number, or
``dwell_ms``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.model import LiveTime, MapsFile, build
from xrf_sr_plans.maps.files.npz_archive import read_arrays

_TEXTS = ("source", "license")
_TIMES = {"live_time_s": 1.0, "dwell_ms": 1e-3}


def read_npz(path: Path, step_um: float | None = None) -> MapsFile:
    """Return the maps of an npz archive; objects inside are refused, never unpickled.

    Parameters
    ----------
    path
        The archive.
    step_um
        Step that counts instead of the archive's ``pixel_size_um``; None: that counts.

    Raises
    ------
    FileFormatError
        It is no npz archive, a damaged one, or one without ``maps`` of numbers.
    """
    arrays = read_arrays(path, ["maps"], ("elements", "pixel_size_um", "units", *_TIMES, *_TEXTS))
    maps, names = arrays["maps"], arrays.get("elements")
    texts = {key: str(arrays[key]) for key in _TEXTS if key in arrays}
    if maps.dtype.kind not in "fiu":
        raise FileFormatError(f"{path}: 'maps' has the type {maps.dtype}; numbers are needed")
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim != 3:
        raise FileFormatError(f"{path}: 'maps' has the shape {maps.shape}; (element, y, x) needed")
    if names is not None and names.size != len(maps):
        raise FileFormatError(
            f"{path}: 'elements' has {names.size} names; 'maps' has the shape {maps.shape}"
        )
    elements = [f"channel {n}" for n in range(len(maps))]
    if names is not None:
        elements = [str(name) for name in np.ravel(names)]
    if step_um is None and "pixel_size_um" in arrays:
        step_um = _pixel_size_um(arrays["pixel_size_um"], path)
    return build(
        maps,
        elements,
        layout="npz",
        path=str(path),
        step_um=step_um,
        keep_all=True,
        units=_units(arrays),
        live_time=_live_time(arrays),
        meta=texts,
    )


def _units(arrays: dict[str, np.ndarray]) -> Any:
    """Return the unit of all values or a list with those of each element; None: none is there."""
    if "units" not in arrays:
        return None
    units = [str(unit) for unit in np.ravel(arrays["units"])]
    return units[0] if len(units) == 1 else units


def _live_time(arrays: dict[str, np.ndarray]) -> LiveTime | None:
    """Return how long the pixels were counted, where the archive says so."""
    for name, scale in _TIMES.items():
        found = arrays.get(name)
        if found is not None and found.dtype.kind in "fiu":
            return LiveTime(np.squeeze(found.astype(float) * scale), name)
    return None


def _pixel_size_um(stored: np.ndarray, path: Path) -> float | None:
    """Return the size along x; None where the archive says that it is not known."""
    try:
        # One size, or those along y and x.
        sizes_um = np.ravel(stored.astype(float))
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: 'pixel_size_um' is no number: {error}") from error
    if not sizes_um.size or np.isnan(sizes_um[-1]):
        return None
    if not 0 < sizes_um[-1] < np.inf:
        raise FileFormatError(
            f"{path}: 'pixel_size_um' is {sizes_um[-1]}; it must be finite and above 0"
        )
    return float(sizes_um[-1])
