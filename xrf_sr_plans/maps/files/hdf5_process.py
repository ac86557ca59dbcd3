"""`read_apart`: a file read in a process of its own.

libhdf5 can crash on damaged bytes, or search them for ever, and other libraries take all memory
for sizes that are only declared. That must cost the user an error message, not the session in
which the file was opened.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import FileFormatError, MissingExtraError
from xrf_sr_plans.maps.files.child_process import ChildError, ChildProcess
from xrf_sr_plans.maps.files.model import LiveTime, MapsFile
from xrf_sr_plans.maps.files.options import ReadOptions

SILENCE_S = 8.0
"""How long libhdf5 may take for one step before the file counts as damaged."""

SLOWEST_VALUES_PER_S = 2e6
"""How many values a second are read at least, from a slow disk; large arrays get more time."""

OTHER_READERS = ("mda", "edf", "tiff", "csv")
"""Readers of files that are no HDF5."""

EXTRA = "files"
"""The extra that installs what reads files of other kinds than npz and plain HDF5."""

_WORKER = "xrf_sr_plans.maps.files.hdf5_worker"


def patience_s(values: int) -> float:
    """Return how long a step may take that reads so many values."""
    return SILENCE_S + values / SLOWEST_VALUES_PER_S


def read_apart(path: Path, reader: str, options: ReadOptions) -> MapsFile:
    """Return the maps of a file, which a process of its own reads.

    Parameters
    ----------
    path
        The file.
    reader
        Name of the reader among `hdf5_worker.WORK`.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        The file is damaged, which includes that a library crashes or hangs on it; it holds no maps
        in a layout that is known; or it refers to files outside its folder.
    MissingExtraError
        A library that the reader needs is not installed.
    """
    job = json.dumps({"reader": reader, "options": options.to_dict()})
    try:
        with ChildProcess(_WORKER, str(path.resolve()), str(path), job) as process:
            return _answer(process, path)
    except ChildError as error:
        # The words with which messages begin.
        of_others = reader in OTHER_READERS
        what = f"damaged {reader} file (it" if of_others else "damaged HDF5 file (libhdf5"
        raise FileFormatError(f"{path}: {what} {error})") from error


def _answer(process: ChildProcess, path: Path) -> MapsFile:
    while not (line := process.line()).startswith(b"{"):
        process.allow(patience_s(int(line)))
    head = json.loads(line)
    if "error" in head:
        if head["kind"] == MissingExtraError.__name__:
            raise MissingExtraError(f"reading {path}", EXTRA)
        raise FileFormatError(head["error"])
    arrays = {name: _array(process, shape) for name, shape in head["arrays"].items()}
    seconds = arrays.pop("live_time", None)
    coverage = arrays.pop("coverage", None)
    return MapsFile(
        elements=tuple(head["elements"]),
        pixel_size_um=head["pixel_size_um"],
        meta=head["meta"],
        live_time=None if seconds is None else LiveTime(seconds, head["live_time"]),
        coverage=None if coverage is None else coverage.astype(int),
        **arrays,
    )


def _array(process: ChildProcess, shape: list[int]) -> np.ndarray:
    size = math.prod(shape)
    process.allow(patience_s(size))
    return np.frombuffer(process.exactly(8 * size), dtype="<f8").reshape(shape)
