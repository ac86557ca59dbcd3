"""The layouts of HDF5 files that are read, tried one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.files.hdf5 import Hdf5File
from xrf_sr_plans.maps.files.maps_h5 import CANDIDATES, read_maps_h5
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.nexus import read_nexus
from xrf_sr_plans.maps.files.pyxrf_h5 import read_pyxrf_h5


def read_layouts(
    path: Path,
    shown: str,
    step_um: float | None = None,
    before: Callable[[int], None] = lambda values: None,
) -> MapsFile:
    """Return the maps of an HDF5 file, read in this process.

    A damaged file can make libhdf5 crash or hang; `hdf5_process.read_hdf5` survives that.

    Parameters
    ----------
    path
        The file. The working directory must be its folder, because that is where libhdf5 looks for
        some of the files that it refers to.
    shown
        Its name in messages.
    step_um
        Step that counts instead of the file's axes; None: the axes count.
    before
        Called before each step, with the number of values that it is going to read.

    Raises
    ------
    FileFormatError
        The file is damaged, or it holds no maps in a layout that is known.
    """
    try:
        with Hdf5File(path, shown, before) as file:
            for reader in (read_maps_h5, read_pyxrf_h5, read_nexus):
                maps = reader(file, step_um)
                if maps is not None:
                    return maps
            groups = sorted(file.members(file.root))
    except FileFormatError:
        raise
    except MemoryError as error:
        raise FileFormatError(
            f"{shown}: damaged HDF5 file (it takes more memory than the sizes that it declares)"
        ) from error
    except Exception as error:  # h5py raises a dozen kinds for damaged bytes
        raise FileFormatError(f"{shown}: damaged HDF5 file ({in_words(error)})") from error
    looked_for = ", ".join(values for values, _ in CANDIDATES)
    raise FileFormatError(
        f"{shown}: HDF5 with {groups} holds no maps in a layout we know; looked for {looked_for}"
        " (MAPS), xrfmap/detsum/xrf_fit (PyXRF), NXdata groups with 'signal' and 'axes' (NeXus)"
    )
