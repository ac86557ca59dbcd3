"""Larch's XRM maps (GSECARS): ``xrmmap/roimap/mcasum/NAME/raw``, ``xrmmap/positions``.

Larch keeps a map of each region of interest for the sum of all detector elements and for each of
them, as counted (``raw``) and corrected for dead time (``cor``). Files of its first version have
one array of all regions instead, ``xrmmap/roimap/sum_raw`` with ``sum_name``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.hdf5 import Hdf5File, as_text, is_numbers, is_texts
from xrf_sr_plans.maps.files.model import FileAxis, MapsFile, build
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.spectra import NOTE

_KIND = re.compile(r"XRM \dD Map")
_SUM = "mcasum"
_DETECTOR = re.compile(r"mca\d+")
_MONITORS = ("i0", "I0", "i0_raw", "I0_raw", "sclr_i0")


def read_larch_h5(file: Hdf5File, options: ReadOptions) -> MapsFile | None:
    """Return the maps of a file of Larch, or None where it isn't one.

    Counts are those that were detected, not corrected for dead time.

    Parameters
    ----------
    file
        The open file.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        It has no map of a region of interest, or its arrays don't fit together.
    """
    root = _root(file)
    if root is None:
        return None
    maps = _of_regions(file, root)
    layout = f"{root.name}/roimap/{_SUM}/*/raw"
    if not maps:
        maps, layout = _of_one_array(file, root), f"{root.name}/roimap/sum_raw"
    if not maps:
        raise FileFormatError(
            f"{file.shown}: map of Larch ({root.name}) without maps of regions of interest: looked"
            f" for roimap/{_SUM}/NAME/raw and roimap/sum_raw; define regions in Larch's Map Viewer"
        )
    shapes = {name: values.shape for name, values in maps.items()}
    if len(set(shapes.values())) > 1:
        raise FileFormatError(f"{file.shown}: maps of Larch of different shapes: {shapes}")
    return build(
        np.stack(list(maps.values())),
        list(maps),
        layout=layout,
        path=file.shown,
        axes=_axes(file, root),
        options=options,
        units="counts",
        i0=_i0(file, root),
        meta={"notes": [NOTE, "counts as detected, not corrected for dead time"]},
    )


def _root(file: Hdf5File) -> Any:
    """Return the group of the map, which is known by its attribute ``Type``, or None."""
    for name in file.members(file.root):
        group = file.find(name)
        if hasattr(group, "keys"):
            kind = file.attribute(group, "Type")
            named = kind is not None and _KIND.match(as_text(kind)) is not None
            if named or (name == "xrmmap" and file.find("roimap", group) is not None):
                return group
    return None


def _of_regions(file: Hdf5File, root: Any) -> dict[str, np.ndarray]:
    """Return the map of each region [row, column], of the sum or added up over the detector."""
    regions = file.find("roimap", root)
    if not hasattr(regions, "keys"):
        return {}
    there = file.members(regions)
    chosen = [_SUM] if _SUM in there else [name for name in there if _DETECTOR.fullmatch(name)]
    maps: dict[str, np.ndarray] = {}
    for detector in chosen:
        of = file.find(detector, regions)
        for name in file.members(of) if hasattr(of, "keys") else ():
            raw = file.find(f"{name}/raw", of)
            if not is_numbers(raw) or raw.ndim != 2:
                continue
            values = file.numbers(raw).astype(float)
            before = maps.get(name)
            if before is not None and before.shape != values.shape:
                raise FileFormatError(
                    f"{file.shown}: {raw.name} has the shape {values.shape}; the elements before"
                    f" it have {before.shape}"
                )
            maps[name] = values if before is None else before + values
    return maps


def _of_one_array(file: Hdf5File, root: Any) -> dict[str, np.ndarray]:
    """Return the map of each region [row, column] of a file of Larch's first version."""
    values, named = file.find("roimap/sum_raw", root), file.find("roimap/sum_name", root)
    if not is_numbers(values) or not is_texts(named) or values.ndim != 3:
        return {}
    names = file.texts(named)
    if len(names) != values.shape[2]:
        raise FileFormatError(
            f"{file.shown}: {values.name} has the shape {values.shape}; {named.name} names"
            f" {len(names)} regions"
        )
    counts = file.numbers(values).astype(float)
    return {name: counts[:, :, place] for place, name in enumerate(names)}


def _axes(file: Hdf5File, root: Any) -> dict[str, FileAxis]:
    """Return the measured positions [row, column] of x and y."""
    stored = file.find("positions/pos", root)
    if not is_numbers(stored) or stored.ndim != 3 or stored.shape[2] < 2:
        return {}
    positions = file.numbers(stored)
    names, units = (_texts(file, root, f"positions/{what}") for what in ("name", "units"))
    # The positioner of the rows' points comes first, that of the rows second.
    places = {"x": 0, "y": 1}
    if len(names) > 1 and (_letter(names[0]), _letter(names[1])) == ("y", "x"):
        places = {"x": 1, "y": 0}
    return {
        axis: FileAxis(
            positions[:, :, place],
            (units[place] or None) if place < len(units) else None,
            f"{stored.name} {names[place] if place < len(names) else place}",
        )
        for axis, place in places.items()
    }


def _letter(name: str) -> str:
    """Return x or y where the name of a positioner ends in it as a word, else ""."""
    words = re.findall(r"[a-z]+", name.lower())
    return words[-1][-1] if words and words[-1][-1] in "xy" else ""


def _texts(file: Hdf5File, root: Any, where: str) -> list[str]:
    stored = file.find(where, root)
    return file.texts(stored) if is_texts(stored) else []


def _i0(file: Hdf5File, root: Any) -> np.ndarray | None:
    """Return the flux monitor among the scalars [row, column]; None where there is none."""
    for name in _MONITORS:
        stored = file.find(f"scalars/{name}", root)
        if is_numbers(stored) and stored.ndim == 2:
            return file.numbers(stored)
    return None
