"""One map of a pair in an HDF5 file that is named by the sha256 of its bytes.

The name is checked before libhdf5 sees a file, because a damaged one can crash it. The dimensions
have scales, so xarray opens the files as well, by the engine ``h5netcdf``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid, check_size

FOLDER = "maps"
_ARRAYS = ("counts", "i0", "live_time_s", "coverage")
_FORMAT = "xrf-sr-plans pair map 1"
_BLOCK = 2**20


def content_of(maps: ElementalMaps) -> str:
    """Return a sha256 of what was measured: elements, steps and counts.

    Where the map lies, what its run or file is called and the order of its elements don't count,
    so the same measurement has the same hash however it is handed over.
    """
    order = np.argsort(np.array(maps.elements, dtype=object), kind="stable")
    counts = np.ascontiguousarray(maps.counts.values[order], dtype="<f8")
    # One NaN and one zero, whatever their bits were.
    counts = np.where(np.isnan(counts), np.nan, counts) + 0.0
    grid = maps.grid
    facts = [
        [maps.elements[index] for index in order],
        [f"{axis.step_um:.9g}" for axis in (grid.slow, grid.fast)],
        list(grid.shape),
    ]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(counts.tobytes())
    return digest.hexdigest()


def write_map(folder: Path, maps: ElementalMaps) -> str:
    """Write a map into a store, unless it is there, and return the name of its file.

    It is on the disk, as a whole, when this returns.

    Raises
    ------
    OSError
        The disk is full, or writing is not permitted.
    """
    content = map_to_bytes(maps)
    name = f"{hashlib.sha256(content).hexdigest()}.h5"
    path = folder / FOLDER / name
    if path.exists() and path.stat().st_size == len(content):
        return name
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the number of this process, which one on another host may have as well.
    part = path.with_name(f".{name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
    return name


def read_map(folder: Path, name: str) -> ElementalMaps:
    """Return the map in a file of a store.

    Raises
    ------
    FileFormatError
        The file is damaged, missing, or holds no map. The message names it.
    """
    return map_in(folder / FOLDER / name, name.removesuffix(".h5"))


def map_in(path: Path, sha256: str) -> ElementalMaps:
    """Return the map in a file whose bytes have that checksum.

    Raises
    ------
    FileFormatError
        The file is damaged, missing, or holds no map. The message names it.
    """
    from xrf_sr_plans.maps.files.hdf5 import Hdf5File

    try:
        if _checksum(path) != sha256:
            raise FileFormatError(f"{path}: damaged, its bytes are not those that were written")
        with Hdf5File(path, str(path)) as file:
            facts = json.loads(str(file.attribute(file.root, "facts")))
            grid, elements = ScanGrid.from_dict(facts["grid"]), [*map(str, facts["elements"])]
            check_size(grid, len(elements))
            arrays = {key: file.numbers(file.find(key)) for key in _ARRAYS}
        return ElementalMaps.from_arrays(
            grid=grid, elements=elements, **arrays, **dict(facts["attrs"])
        )
    except FileFormatError:
        raise
    except Exception as error:  # libhdf5 and damaged facts can raise anything
        raise FileFormatError(f"{path}: no map of a pair: {in_words(error)}") from error


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk.

    Raises
    ------
    OSError
        The disk doesn't take it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_to_bytes(maps: ElementalMaps, compression: str | None = "gzip") -> bytes:
    """Return the HDF5 file of a map."""
    import h5py

    grid = {key: value for key, value in maps.grid.to_dict().items() if key not in ("fast", "slow")}
    for axis in ("fast", "slow"):
        pixels = getattr(maps.grid, axis)
        grid[axis] = {key: getattr(pixels, key) for key in ("name", "start_um", "step_um", "num")}
    facts = {"grid": grid, "elements": maps.elements, "attrs": _plain(maps.attrs)}
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["facts"] = json.dumps(facts)
        file["element"] = np.array(maps.elements, dtype=h5py.string_dtype())
        file["y"], file["x"] = maps.grid.slow.centers_um, maps.grid.fast.centers_um
        for name in ("element", "y", "x"):
            file[name].make_scale(name)
        for name in ("y", "x"):
            file[name].attrs["units"] = "um"
        for name in _ARRAYS:
            values = maps.dataset[name]
            data = file.create_dataset(
                name,
                data=values.values,
                compression=compression,
                shuffle=compression is not None,
            )
            for index, dimension in enumerate(values.dims):
                data.dims[index].attach_scale(file[str(dimension)])
    return memory.getvalue()


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON types; what has no such type is told as text."""

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)

    return json.loads(json.dumps(attrs, default=plain))


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
