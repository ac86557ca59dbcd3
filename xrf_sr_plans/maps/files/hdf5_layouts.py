"""The layouts of HDF5 files that are read, tried one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from xrf_sr_plans.errors import FileFormatError, MissingExtraError, in_words
from xrf_sr_plans.maps.files.hdf5 import Hdf5File
from xrf_sr_plans.maps.files.larch_h5 import read_larch_h5
from xrf_sr_plans.maps.files.maps_h5 import CANDIDATES, read_maps_h5
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.nexus import read_nexus
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.pyxrf_h5 import read_pyxrf_h5


def _refuse_raw(file: Hdf5File, options: ReadOptions) -> None:
    """Refuse the raw spectra of 2-ID, whose regions of interest are in the MDA file."""
    if file.find("MAPS_RAW") is not None:
        raise FileFormatError(
            f"{file.shown}: raw spectra (MAPS_RAW) without positions: give the MDA file of the"
            " scan, beside which this one has to lie"
        )


LAYOUTS: dict[str, Callable[[Hdf5File, ReadOptions], MapsFile | None]] = {
    "maps": read_maps_h5,
    "pyxrf": read_pyxrf_h5,
    "larch": read_larch_h5,
    "nexus": read_nexus,
    "raw": _refuse_raw,
}
"""Reader of each layout, by name, in the order in which they are tried."""


def read_layouts(
    path: Path,
    shown: str,
    options: ReadOptions | None = None,
    before: Callable[[int], None] = lambda values: None,
    layout: str | None = None,
) -> MapsFile:
    """Return the maps of an HDF5 file, read in this process.

    A damaged file can make libhdf5 crash or hang; `hdf5_process.read_apart` survives that.

    Parameters
    ----------
    path
        The file. The working directory must be its folder, because that is where libhdf5 looks for
        some of the files that it refers to.
    shown
        Its name in messages.
    options
        What the user knows better than the file.
    before
        Called before each step, with the number of values that it is going to read.
    layout
        The one of `LAYOUTS` to read; None: the first one that the file has.

    Raises
    ------
    FileFormatError
        The file is damaged, or it holds no maps in a layout that is known.
    """
    tried = LAYOUTS if layout is None else {layout: LAYOUTS[layout]}
    try:
        with Hdf5File(path, shown, before) as file:
            for name, reader in tried.items():
                maps = reader(file, options or ReadOptions())
                if maps is not None:
                    return replace(maps, meta={"reader": name, **maps.meta})
            groups = sorted(file.members(file.root))
    except (FileFormatError, MissingExtraError):
        raise
    except MemoryError as error:
        raise FileFormatError(
            f"{shown}: damaged HDF5 file (it takes more memory than the sizes that it declares)"
        ) from error
    except Exception as error:  # h5py raises a dozen kinds for damaged bytes
        raise FileFormatError(f"{shown}: damaged HDF5 file ({in_words(error)})") from error
    looked_for = "; ".join(LOOKED_FOR[name] for name in tried)
    raise FileFormatError(
        f"{shown}: HDF5 with {groups} holds no maps in a layout we know; looked for {looked_for}"
    )


LOOKED_FOR = {
    "maps": f"{', '.join(values for values, _ in CANDIDATES)} (MAPS)",
    "pyxrf": "xrfmap/detsum/xrf_fit, xrf_roi (PyXRF)",
    "larch": "xrmmap/roimap/mcasum (Larch)",
    "nexus": "NXdata groups with maps that are named after elements (NeXus, PyMca)",
    "raw": "MAPS_RAW (2-ID)",
}
"""What each layout is recognised by, for the message that nothing was found."""
