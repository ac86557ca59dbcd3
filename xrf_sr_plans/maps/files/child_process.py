"""`ChildProcess`: a process of its own that reads what may crash, hang or take all memory.

It is given limits by the clock of the processor rather than by that of the wall, since a busy
machine makes no file damaged.
"""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

BUSY = 6.0
"""How many times longer a step may take by the clock, where others have the processor."""

START_S = 60.0
"""How long the process may take to start on a busy machine."""

_KILLED_S = 5.0
"""Longest wait for a process that was killed."""
_COMMAND = (sys.executable, "-P", "-m")
# With these a user's environment leads libhdf5 to other places than those that are checked.
_PREFIXES = ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")
_MAX_LINE_BYTES = 2**24


class ChildError(Exception):
    """The process ended or doesn't answer; the message says how, and goes on behind "it"."""


class ChildProcess:
    """A process that answers with lines and bytes, with a limit on how long it may say nothing.

    Parameters
    ----------
    module
        Module that is run (``python -m``).
    arguments
        Its arguments.
    takes_input
        Whether something is sent to it (`send`).

    Raises
    ------
    ChildError
        It can't be started.
    """

    def __init__(self, module: str, *arguments: str, takes_input: bool = False) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in _PREFIXES}
        # One thread: more of them take longer to start than they save.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                [*_COMMAND, module, *arguments],
                stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                bufsize=0,
            )
        except (OSError, ValueError, TypeError) as error:
            raise ChildError(f"can't be started: {error}") from error
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        self._waiting = bytearray()
        self.allow(START_S)

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def is_alive(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process, and close what leads to it.

        One that hangs in a disk can't be killed before the disk answers, and is not waited for.
        """
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            # What it didn't take any more is lost, which is no error.
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)

    def allow(self, seconds: float) -> None:
        """Give the process so long for its next word."""
        self._patience_s = seconds
        self._deadline = time.monotonic() + seconds
        self._latest = time.monotonic() + BUSY * seconds
        self._spent_s = _processor_s(self._process.pid)

    def send(self, content: bytes) -> None:
        """Send something to the process.

        Raises
        ------
        ChildError
            It ended, or doesn't take it in the time that it was allowed.
        """
        assert self._process.stdin is not None
        into = self._process.stdin.fileno()
        os.set_blocking(into, False)
        left = memoryview(content)
        while left:
            self._wait([], [into])
            try:
                left = left[os.write(into, left) :]
            except BlockingIOError:
                continue
            except OSError:
                self._ended()

    def line(self) -> bytes:
        """Return the next line, without its end.

        Raises
        ------
        ChildError
            The process ended, or doesn't answer in the time that it was allowed.
        """
        while (end := self._waiting.find(b"\n")) < 0:
            if len(self._waiting) > _MAX_LINE_BYTES:
                raise ChildError("sends an endless line")
            self._wait([self._out], [])
            self._waiting += os.read(self._out, 2**16) or self._ended()
        line = bytes(self._waiting[:end])
        del self._waiting[: end + 1]
        return line

    def exactly(self, size: int) -> bytearray:
        """Return the next so many bytes, in a buffer that is made once.

        Raises
        ------
        ChildError
            The process ended, or doesn't answer in the time that it was allowed.
        """
        content = bytearray(size)
        got = min(size, len(self._waiting))
        content[:got] = self._waiting[:got]
        del self._waiting[:got]
        with memoryview(content) as view:
            while got < size:
                self._wait([self._out], [])
                got += os.readv(self._out, [view[got:]]) or len(self._ended())
        return content

    def _wait(self, to_read: list[int], to_write: list[int]) -> None:
        while True:
            left_s = max(self._deadline - time.monotonic(), 0)
            if any(select.select(to_read, to_write, [], left_s)):
                return
            # On a busy machine a process gets little of the processor: what counts is that.
            spent_s = _processor_s(self._process.pid) - self._spent_s
            left_s = min(self._patience_s - spent_s, self._latest - time.monotonic())
            if not left_s > 0:
                raise ChildError(f"has no answer within {self._patience_s:g} s")
            self._deadline = time.monotonic() + max(left_s, 0.01)

    def _ended(self) -> bytes:
        try:
            code = self._process.wait(START_S)
        except subprocess.TimeoutExpired as error:
            raise ChildError("says nothing any more") from error
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise ChildError(f"ended the process that read it: {how}")


def _processor_s(process: int) -> float:
    """Return how much processor time a process has taken; infinite where nothing says so."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return math.inf


def set_limit(kind: int, value: int) -> None:
    """Set a limit of this process (``resource.RLIMIT_...``), as far as it may be raised."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def address_space_bytes() -> int:
    """Return the size of this process's address space."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**31
