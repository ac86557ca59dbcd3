"""`read_maps` reads a file of any known layout; its content decides which one it is."""

from __future__ import annotations

import math
from pathlib import Path

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files.maps_h5 import CANDIDATES, read_maps_h5
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.nexus import read_nexus
from xrf_sr_plans.maps.files.npz import read_npz
from xrf_sr_plans.maps.files.pyxrf_h5 import read_pyxrf_h5

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_maps(path: str | Path, *, step_um: float | None = None) -> MapsFile:
    """Return the elemental maps of an npz, MAPS, PyXRF or NeXus file.

    Nothing is ever unpickled. Values without meaning (NaN, 1.8e308) become NaN.

    Parameters
    ----------
    path
        The file.
    step_um
        Step of the scan that counts instead of what the file says: its axes, and their units, are
        not asked then. None: the file counts.

    Raises
    ------
    FileFormatError
        There is no such file, it is of none of the layouts (the message lists what was looked
        for), or its axes have an unknown unit.
    ConfigError
        `step_um` is not above 0.
    """
    path = Path(path)
    if step_um is not None and not 0 < step_um < math.inf:
        raise ConfigError(f"{path}: step_um is {step_um}; it must be finite and above 0")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    with path.open("rb") as stream:
        start = stream.read(8)
    if start[:2] == b"PK":
        return read_npz(path, step_um)
    if start != _HDF5_SIGNATURE:
        raise FileFormatError(f"{path}: neither npz nor HDF5 (it starts with {start!r})")
    return _read_hdf5(path, step_um)


def _read_hdf5(path: Path, step_um: float | None) -> MapsFile:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for reader in (read_maps_h5, read_pyxrf_h5, read_nexus):
                maps = reader(file, str(path), step_um)
                if maps is not None:
                    return maps
            groups = sorted(file)
    except (OSError, KeyError, RuntimeError) as error:
        raise FileFormatError(f"{path}: damaged HDF5 file ({error})") from error
    looked_for = ", ".join(values for values, _ in CANDIDATES)
    raise FileFormatError(
        f"{path}: HDF5 with {groups} holds no maps in a layout we know; looked for {looked_for}"
        " (MAPS), xrfmap/detsum/xrf_fit (PyXRF), NXdata groups with 'signal' and 'axes' (NeXus)"
    )
