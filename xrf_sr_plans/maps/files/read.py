"""`read_maps` reads a file of any known kind; its content decides which one it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files.hdf5_process import read_apart
from xrf_sr_plans.maps.files.images import is_edf, is_tiff
from xrf_sr_plans.maps.files.mda import is_mda
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.npz import read_npz
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.reader import FileReader, head_of
from xrf_sr_plans.maps.files.spectra import with_lines
from xrf_sr_plans.maps.files.table import is_table

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _is_npz(path: Path, head: bytes) -> bool:
    return head.startswith(b"PK")


def _is_hdf5(path: Path, head: bytes) -> bool:
    return head.startswith(_HDF5_SIGNATURE)


def _apart(name: str) -> Callable[[Path, ReadOptions], MapsFile]:
    def read(path: Path, options: ReadOptions) -> MapsFile:
        return read_apart(path, name, with_lines(options, str(path)))

    return read


FILE_READERS = (
    FileReader("npz", "NumPy archive with 'maps'", _is_npz, read_npz),
    # The layout of an HDF5 file is found out inside, by the process that opens it.
    FileReader("hdf5", "HDF5 of any layout below", _is_hdf5, _apart("hdf5")),
    FileReader("maps", "MAPS HDF5 (APS), v9 and v10", _is_hdf5, _apart("maps")),
    FileReader("pyxrf", "PyXRF HDF5 (NSLS-II)", _is_hdf5, _apart("pyxrf")),
    FileReader("larch", "XRM maps of Larch (GSECARS), HDF5", _is_hdf5, _apart("larch")),
    FileReader("nexus", "NeXus HDF5 with NXdata, PyMca's too", _is_hdf5, _apart("nexus")),
    FileReader("mda", "MDA of EPICS's saveData, spectra beside it", is_mda, _apart("mda")),
    FileReader("tiff", "TIFF and OME-TIFF, JSON beside it", is_tiff, _apart("tiff")),
    FileReader("edf", "EDF images (PyMca)", is_edf, _apart("edf")),
    FileReader("csv", "table with a line for each pixel (PyMca)", is_table, _apart("csv")),
)
"""All kinds of files that are read; the first one that matches a file reads it."""


def read_maps(
    path: str | Path,
    *,
    step_um: float | None = None,
    reader: str | None = None,
    options: ReadOptions | None = None,
) -> MapsFile:
    """Return the elemental maps of a file of any of `FILE_READERS`.

    Nothing is ever unpickled. Values without meaning (NaN, 1.8e308) become NaN. Files that
    libraries read are read in a process of their own, because damaged ones can crash or hang it.

    Parameters
    ----------
    path
        The file.
    step_um
        Step of the scan that counts instead of what the file says: its axes, and their units, are
        not asked then. None: the file counts.
    reader
        Name of the one of `FILE_READERS` to use; None: the one that the file matches.
    options
        What else the user knows better than the file.

    Raises
    ------
    FileFormatError
        There is no such file, it can't be read or is damaged, it is of none of the kinds (the
        message lists what was looked for), its axes have an unknown unit or are no even grid, or
        it refers to other files outside its folder.
    ConfigError
        There is no reader of that name, or `step_um` is not above 0.
    """
    path = Path(path)
    if step_um is not None:
        try:
            options = replace(options or ReadOptions(), step_um=step_um)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    head = head_of(path)
    return file_reader(path, head, reader).read(path, options or ReadOptions())


def file_reader(path: Path, head: bytes, name: str | None = None) -> FileReader:
    """Return the reader of a file.

    Parameters
    ----------
    path
        The file.
    head
        Its first bytes.
    name
        Name of the reader; None: the first one that matches.

    Raises
    ------
    ConfigError
        There is no reader of that name.
    FileFormatError
        No reader matches, or the one that is asked for doesn't.
    """
    for reader in FILE_READERS:
        if name == reader.name and not reader.matches(path, head):
            raise FileFormatError(
                f"{path}: not for the reader {name!r} ({reader.what}): it starts with {head[:8]!r}"
            )
        if name in (None, reader.name) and reader.matches(path, head):
            return reader
    if name is not None:
        raise ConfigError(
            f"{path}: reader is {name!r}; there are {', '.join(r.name for r in FILE_READERS)}"
        )
    raise FileFormatError(
        f"{path}: no kind of file that is read (it starts with {head[:8]!r}); there are readers"
        f" for {', '.join(f'{r.name} ({r.what})' for r in FILE_READERS)}"
    )
