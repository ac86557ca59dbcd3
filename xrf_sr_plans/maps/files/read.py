"""One door for all layouts."""

from __future__ import annotations

from pathlib import Path

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.maps_h5 import CANDIDATES, read_maps_h5
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.nexus import read_nexus
from xrf_sr_plans.maps.files.npz import read_npz
from xrf_sr_plans.maps.files.pyxrf_h5 import read_pyxrf_h5

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_maps(path: str | Path) -> MapsFile:
    """Read elemental maps from an npz, MAPS, PyXRF or NeXus file; the content decides which.

    Nothing is ever unpickled. Values without meaning (NaN, 1.8e308) become NaN.

    Raises
    ------
    FileFormatError
        No such file, or none of the layouts; the message lists what was looked for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    with path.open("rb") as stream:
        start = stream.read(8)
    if start[:2] == b"PK":
        return read_npz(path)
    if start != _HDF5_SIGNATURE:
        raise FileFormatError(f"{path}: neither npz nor HDF5 (it starts with {start!r})")
    return _read_hdf5(path)


def _read_hdf5(path: Path) -> MapsFile:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for reader in (read_maps_h5, read_pyxrf_h5, read_nexus):
                found = reader(file, str(path))
                if found is not None:
                    return found
            groups = sorted(file)
    except (OSError, KeyError, RuntimeError) as error:
        raise FileFormatError(f"{path}: damaged HDF5 file ({error})") from error
    looked_for = ", ".join(values for values, _ in CANDIDATES)
    raise FileFormatError(
        f"{path}: HDF5 with {groups} holds no maps in a layout we know; looked for {looked_for}"
        " (MAPS), xrfmap/detsum/xrf_fit (PyXRF), NXdata groups with 'signal' and 'axes' (NeXus)"
    )
