"""`read_maps` reads a file of any known layout; its content decides which one it is."""

from __future__ import annotations

import math
from pathlib import Path

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files.hdf5_process import read_hdf5
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.npz import read_npz

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_maps(path: str | Path, *, step_um: float | None = None) -> MapsFile:
    """Return the elemental maps of an npz, MAPS, PyXRF or NeXus file.

    Nothing is ever unpickled. Values without meaning (NaN, 1.8e308) become NaN. HDF5 files are
    read in a process of their own, because damaged ones can crash or hang it.

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
        There is no such file, it can't be read or is damaged, it is of none of the layouts (the
        message lists what was looked for), its axes have an unknown unit, or it refers to other
        files outside its folder.
    ConfigError
        `step_um` is not above 0.
    """
    path = Path(path)
    if step_um is not None and not 0 < step_um < math.inf:
        raise ConfigError(f"{path}: step_um is {step_um}; it must be finite and above 0")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise FileFormatError(f"{path}: can't be read: {error.strerror}") from error
    if start[:2] == b"PK":
        return read_npz(path, step_um)
    if start != _HDF5_SIGNATURE:
        raise FileFormatError(f"{path}: neither npz nor HDF5 (it starts with {start!r})")
    return read_hdf5(path, step_um)
