"""`read_apart`: a run whose files are read in a process of its own.

The libraries that read what documents refer to can crash on damaged files, search them for ever or
take all memory. That must cost the user an error message, not the session. The process is kept for
the next run, since starting it takes longer than most files do.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

from xrf_sr_plans import errors
from xrf_sr_plans.errors import AssemblyError, XrfSrError
from xrf_sr_plans.maps.adapters.adapted_map import AdaptedMap
from xrf_sr_plans.maps.adapters.handed_over import (
    map_of_fields,
    options_as_fields,
    packed,
    run_as_fields,
    unpacked,
)
from xrf_sr_plans.maps.adapters.options import RunOptions
from xrf_sr_plans.maps.adapters.runs import ForeignRun
from xrf_sr_plans.maps.files.child_process import START_S, ChildError, ChildProcess

STEP_S = 60.0
"""How long the process may take for one step: some frames of one file, or the row of an event."""
READING, ANSWER = b"reading ", b"answer "
"""How the lines begin that the process writes: before it reads of a file, and before the bytes of
its answer, the number of which follows."""
_WORKER = "xrf_sr_plans.maps.adapters.read_worker"


def read_apart(run: ForeignRun, reader: str | None, options: RunOptions) -> AdaptedMap:
    """Return the map of a run, which a process of its own reads.

    Parameters
    ----------
    run
        The run.
    reader
        Name of the reader; None: the first one that recognises it.
    options
        What the documents don't say. It may have no handlers, which belong to this process.

    Raises
    ------
    AssemblyError
        The run can't be read, which includes that a library crashes or hangs on one of its files.
    MissingExtraError
        A library that reads its files is not installed.
    """
    with errors.in_our_words(run.owner, AssemblyError):
        job = packed(
            {
                "reader": reader,
                "options": options_as_fields(options),
                "run": run_as_fields(run),
            }
        )
    step = f"{run.owner}: its documents"
    process = None
    try:
        process = _SPARE.take()
        process.allow(START_S + STEP_S)
        process.send(len(job).to_bytes(8, "big") + job)
        while not (line := process.line()).startswith(ANSWER):
            step = line.removeprefix(READING).decode("utf-8", "replace")
            process.allow(STEP_S)
        process.allow(STEP_S)
        answer = unpacked(process.exactly(int(line.removeprefix(ANSWER))))
    except ChildError as error:
        # It may hang, and would keep its memory for as long as it does.
        if process is not None:
            process.kill()
        raise AssemblyError(f"{step}: can't be read, it {error}") from error
    except BaseException:
        if process is not None:
            process.kill()
        raise
    _SPARE.give_back(process)
    if "error" in answer:
        raise _as_error(answer["kind"], answer["error"])
    return map_of_fields(answer["map"], run.start)


def _as_error(kind: str, message: str) -> XrfSrError:
    """Return the error that the process met."""
    known: type[XrfSrError] = next(
        (one for one in vars(errors).values()
         if isinstance(one, type) and issubclass(one, XrfSrError) and one.__name__ == kind),
        AssemblyError,
    )  # fmt: skip
    # The message is whole already, also where a class makes its own of other arguments.
    made = known.__new__(known)
    BaseException.__init__(made, message)
    return made


class _Spare:
    """The process that waits for the next run, at most one."""

    def __init__(self, start: Callable[[], ChildProcess]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._owner = os.getpid()

    def take(self) -> ChildProcess:
        """Return the process that waits, or a new one."""
        with self._lock:
            process, self._process = self._process, None
            # A process that was forked has its parent's, which isn't its own.
            if process is not None and self._owner == os.getpid():
                if process.is_alive:
                    return process
                process.kill()
        return self._start()

    def give_back(self, process: ChildProcess) -> None:
        """Keep a process for the next run, or end it where one waits already."""
        with self._lock:
            if self._process is None or self._owner != os.getpid():
                self._process, self._owner = process, os.getpid()
                return
        process.kill()

    def end(self) -> None:
        """End the process that waits."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()


_SPARE = _Spare(lambda: ChildProcess(_WORKER, takes_input=True))
atexit.register(_SPARE.end)
