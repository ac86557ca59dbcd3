"""npz: ``maps`` [element, y, x], ``elements``; where known ``pixel_size_um``, ``units``, times.

``units`` is one text or one for each element. Times are ``live_time_s`` [y, x] or one number, or
``dwell_ms``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.model import (
    FileAxis,
    LiveTime,
    MapsFile,
    build,
    elements_first,
    is_element,
)
from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.maps.files.options import ReadOptions

_TEXTS = ("source", "license")
_TIMES = {"live_time_s": 1.0, "dwell_ms": 1e-3}
_NAMES = {"maps", "elements", "pixel_size_um", "x_um", "y_um", "i0", "units", *_TIMES, *_TEXTS}


def read_npz(path: Path, options: ReadOptions | None = None) -> MapsFile:
    """Return the maps of an npz archive; objects inside are refused, never unpickled.

    Parameters
    ----------
    path
        The archive.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        It is no npz archive, a damaged one, or one without ``maps`` of numbers.
    """
    arrays = read_arrays(path, (), _is_read)
    maps, names = _maps(arrays, path)
    texts = {key: str(arrays[key]) for key in _TEXTS if key in arrays}
    options = options or ReadOptions()
    axes = {} if options.step_um is not None else _axes(arrays, maps.shape[1:], path)
    return build(
        maps,
        names,
        layout="npz",
        path=str(path),
        axes=axes,
        options=options,
        keep_all=True,
        units=_units(arrays),
        live_time=_live_time(arrays),
        i0=_numbers(arrays, "i0"),
        meta={"reader": "npz", "one_size": _is_one_size(arrays), **texts},
    )


def _is_read(name: str) -> bool:
    return name in _NAMES or is_element(name)


def _maps(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, list[str]]:
    """Return the maps [element, row, column] and their names.

    They are ``maps``, or planes of one shape that are named after elements.
    """
    maps, names = arrays.get("maps"), arrays.get("elements")
    if maps is None:
        planes = {name: a for name, a in arrays.items() if is_element(name) and a.ndim == 2}
        if not planes or len({(plane.shape, plane.dtype.kind) for plane in planes.values()}) > 1:
            raise FileFormatError(
                f"{path}: npz has {', '.join(arrays) or 'nothing'}; it needs maps, or planes of"
                " one shape that are named after elements"
            )
        maps, names = np.stack(list(planes.values())), np.array(list(planes))
    if maps.dtype.kind not in "fiu":
        raise FileFormatError(f"{path}: 'maps' has the type {maps.dtype}; numbers are needed")
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim != 3:
        raise FileFormatError(f"{path}: 'maps' has the shape {maps.shape}; (element, y, x) needed")
    if names is None:
        return maps, [f"channel {n}" for n in range(len(maps))]
    if names.size not in (maps.shape[0], maps.shape[2]):
        raise FileFormatError(
            f"{path}: 'elements' has {names.size} names; 'maps' has the shape {maps.shape}"
        )
    listed = [str(name) for name in np.ravel(names)]
    return elements_first(maps, len(listed), f"{path}: 'maps'"), listed


def _axes(arrays: dict[str, np.ndarray], shape: tuple[int, ...], path: Path) -> dict[str, FileAxis]:
    """Return the positions: those that are listed, or pixels from 0 on of a size that is given."""
    axes = {}
    sizes_um = _pixel_sizes_um(arrays["pixel_size_um"], path) if "pixel_size_um" in arrays else {}
    for name, num in zip("yx", shape, strict=True):
        listed = _numbers(arrays, f"{name}_um")
        if listed is not None:
            axes[name] = FileAxis(listed, "um", f"{name}_um")
        elif name in sizes_um and num > 1:
            axes[name] = FileAxis(sizes_um[name] * np.arange(num), "um", "pixel_size_um")
    return axes


def _is_one_size(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether one size was given for both axes, although rows may lie further apart."""
    stored = arrays.get("pixel_size_um")
    return stored is not None and stored.size == 1 and "y_um" not in arrays


def _numbers(arrays: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    found = arrays.get(name)
    return found.astype(float) if found is not None and found.dtype.kind in "fiu" else None


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


def _pixel_sizes_um(stored: np.ndarray, path: Path) -> dict[str, float]:
    """Return the size along y and x; nothing where the archive says that it is not known."""
    try:
        # One size, or those along y and x.
        sizes_um = np.ravel(stored.astype(float))
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: 'pixel_size_um' is no number: {error}") from error
    if not sizes_um.size or np.isnan(sizes_um).any():
        return {}
    if sizes_um.size > 2:
        raise FileFormatError(
            f"{path}: 'pixel_size_um' has {sizes_um.size} values; one size or those along y and x"
            " are needed"
        )
    for size_um in sizes_um:
        if not 0 < size_um < np.inf:
            raise FileFormatError(
                f"{path}: 'pixel_size_um' is {size_um}; it must be finite and above 0"
            )
    return {"y": float(sizes_um[0]), "x": float(sizes_um[-1])}
