"""`read_apart`: a file read in a process of its own.

libhdf5 can crash on damaged bytes, or search them for ever, and other libraries take all memory
for sizes that are only declared. That must cost the user an error message, not the session in
which the file was opened.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import FileFormatError, MissingExtraError
from xrf_sr_plans.maps.files.model import LiveTime, MapsFile
from xrf_sr_plans.maps.files.options import ReadOptions

SILENCE_S = 8.0
"""How long libhdf5 may take for one step before the file counts as damaged."""

SLOWEST_VALUES_PER_S = 2e6
"""How many values a second are read at least, from a slow disk; large arrays get more time."""

BUSY = 6.0
"""How many times longer a step may take by the clock, where others have the processor."""

START_S = 60.0
"""How long the process may take to start on a busy machine."""

OTHER_READERS = ("mda", "edf", "tiff", "csv")
"""Readers of files that are no HDF5."""

EXTRA = "files"
"""The extra that installs what reads files of other kinds than npz and plain HDF5."""

_COMMAND = (sys.executable, "-P", "-m", "xrf_sr_plans.maps.files.hdf5_worker")
# With these a user's environment leads libhdf5 to other places than those that are checked.
_PREFIXES = ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")
_MAX_LINE_BYTES = 2**24


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
    environment = {key: value for key, value in os.environ.items() if key not in _PREFIXES}
    # One thread: more of them take longer to start than they save.
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    job = json.dumps({"reader": reader, "options": options.to_dict()})
    try:
        process = subprocess.Popen(
            [*_COMMAND, str(path.resolve()), str(path), job],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: no process to read it can be started: {error}") from error
    with process:
        try:
            return _Answer(process, path, reader).read()
        finally:
            process.kill()


def _processor_s(process: int) -> float:
    """Return how much processor time a process has taken; infinite where nothing says so."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return math.inf


class _Answer:
    """What the process says, with a limit on how long it may say nothing."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, reader: str) -> None:
        assert process.stdout is not None
        self._process = process
        self._path = path
        # The words with which messages begin.
        of_others = reader in OTHER_READERS
        self._damaged = f"damaged {reader} file (it" if of_others else "damaged HDF5 file (libhdf5"
        self._fd = process.stdout.fileno()
        self._waiting = bytearray()
        self._allow(START_S)

    def _allow(self, seconds: float) -> None:
        """Give the process so long for its next word."""
        self._patience_s = seconds
        self._deadline = time.monotonic() + seconds
        self._latest = time.monotonic() + BUSY * seconds
        self._spent_s = _processor_s(self._process.pid)

    def read(self) -> MapsFile:
        while not (line := self._line()).startswith(b"{"):
            self._allow(patience_s(int(line)))
        head = json.loads(line)
        if "error" in head:
            if head["kind"] == MissingExtraError.__name__:
                raise MissingExtraError(f"reading {self._path}", EXTRA)
            raise FileFormatError(head["error"])
        arrays = {name: self._array(shape) for name, shape in head["arrays"].items()}
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

    def _array(self, shape: list[int]) -> np.ndarray:
        size = math.prod(shape)
        self._allow(patience_s(size))
        return np.frombuffer(self._exactly(8 * size), dtype="<f8").reshape(shape)

    def _line(self) -> bytes:
        while (end := self._waiting.find(b"\n")) < 0:
            if len(self._waiting) > _MAX_LINE_BYTES:
                raise FileFormatError(f"{self._path}: damaged file (endless names)")
            self._wait()
            self._waiting += os.read(self._fd, 2**16) or self._ended()
        line = bytes(self._waiting[:end])
        del self._waiting[: end + 1]
        return line

    def _exactly(self, size: int) -> bytearray:
        """Return the next so many bytes, in a buffer that is made once."""
        content = bytearray(size)
        got = min(size, len(self._waiting))
        content[:got] = self._waiting[:got]
        del self._waiting[:got]
        with memoryview(content) as view:
            while got < size:
                self._wait()
                got += os.readv(self._fd, [view[got:]]) or len(self._ended())
        return content

    def _wait(self) -> None:
        while not select.select([self._fd], [], [], max(self._deadline - time.monotonic(), 0))[0]:
            # On a busy machine a process gets little of the processor: what counts is that.
            spent_s = _processor_s(self._process.pid) - self._spent_s
            left_s = min(self._patience_s - spent_s, self._latest - time.monotonic())
            if not left_s > 0:
                raise FileFormatError(
                    f"{self._path}: {self._damaged} has no answer within {SILENCE_S:g} s)"
                )
            self._deadline = time.monotonic() + max(left_s, 0.01)

    def _ended(self) -> bytes:
        code = self._process.wait(START_S)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise FileFormatError(
            f"{self._path}: {self._damaged} ended the process that read it: {how})"
        )
