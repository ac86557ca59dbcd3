"""`WorkerProcess`: one life of the analysis process, seen from the RunEngine's side."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO

from xrf_sr_plans.callbacks.service.frames import read_frame
from xrf_sr_plans.callbacks.service.greeting import (
    OWN,
    Greeting,
    mismatch,
    read_greeting,
    session_line,
)
from xrf_sr_plans.callbacks.service.messages import FROM_WORKER, FromWorker
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.config.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, message_of
from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.sr.process_environment import process_environment

logger = logging.getLogger(__name__)

_F_SETPIPE_SZ = 1031
"""Linux's command to `fcntl` that sets how much a pipe holds; Python 3.11 has no name for it."""
_PIPE_BYTES = 2**20
COMMAND = [sys.executable, "-P", "-m", "xrf_sr_plans.callbacks.service"]


class WorkerProcess:
    """Start the process, write frames to it without blocking, and hand on what it says.

    Parameters
    ----------
    settings
        The settings of the analysis, of which the number of threads and the log file matter here.
    heard
        Called with ``(self, message)`` in a thread of its own for every message, and with
        ``(self, None)`` once when the process has closed its side, or can't be worked with.
    command
        What to start instead of the ``worker_command`` of the settings, or of `COMMAND` where
        there is none.

    Attributes
    ----------
    greeting : Greeting | None
        Who the worker is; None until it has said so.
    refusal : str
        Why the worker must not be used, and no other that the same command starts; empty: it may.

    Raises
    ------
    WorkerError
        The process can't be started.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        heard: Callable[[WorkerProcess, FromWorker | None], None],
        command: list[str] | None = None,
    ) -> None:
        self._heard = heard
        self._outgoing: deque[tuple[str, memoryview]] = deque()
        self._begun = False
        self._misunderstood = ""
        self.greeting: Greeting | None = None
        self.refusal = ""
        self._log = _open_log(settings.log_file)
        try:
            # A session of its own: Ctrl-C in the terminal is for the plan, not for the analysis.
            self._process = subprocess.Popen(
                command or settings.worker_command or COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
                bufsize=0,
                env=_environment(settings, os.environ),
            )
        except (OSError, ValueError) as error:
            self._close_log()
            raise WorkerError(f"the analysis process can't be started: {error}") from error
        assert self._process.stdin is not None
        self._input = self._process.stdin.fileno()
        os.set_blocking(self._input, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._input, _F_SETPIPE_SZ, _PIPE_BYTES)
        self.queue(session_line(_environment(settings, {})))
        self._reader = threading.Thread(target=self._listen, name="xrf-sr-results", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of what was started, such as ssh; see `greeting` for that of the worker."""
        return self._process.pid

    @property
    def name(self) -> str:
        """Process and host of the worker in words, as far as it is known."""
        if self.greeting is None:
            return f"process {self.pid}"
        return f"process {self.greeting.pid} on {self.greeting.host}"

    @property
    def unsent(self) -> int:
        """Number of frames that are not, or only partly, written."""
        return len(self._outgoing)

    def queue(self, frame: bytes, run: str = "") -> None:
        """Queue a frame for `pump`; `run` is the uid of the run that it belongs to, if any."""
        self._outgoing.append((run, memoryview(frame)))

    def drop(self, run: str) -> None:
        """Take the frames of a run back, except one that is partly written."""
        first = [self._outgoing.popleft()] if self._begun else []
        self._outgoing = deque([*first, *(entry for entry in self._outgoing if entry[0] != run)])

    def pump(self, wait_s: float = 0.0) -> None:
        """Write what the pipe takes; if it takes nothing, wait for it at most `wait_s` seconds.

        Raises
        ------
        WorkerError
            The process has closed its side.
        """
        while self._outgoing:
            run, frame = self._outgoing[0]
            try:
                count = os.write(self._input, frame)
            except BlockingIOError:
                if not select.select([], [self._input], [], wait_s)[1]:
                    return
                continue
            except OSError as error:
                raise WorkerError(f"the analysis process takes no more: {error}") from error
            if count == len(frame):
                self._outgoing.popleft()
                self._begun = False
            else:
                self._outgoing[0] = (run, frame[count:])
                self._begun = True

    def end(self, patience_s: float) -> str:
        """Let the process finish for `patience_s` seconds, then kill it.

        Returns
        -------
        str
            Its exit code, what it said instead of what it should, and the last line of its log.
        """
        code = self._wait(patience_s) if patience_s > 0 else None
        if code is None:
            self._kill()
            code = self._wait(5.0)
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._reader.join(1.0)
        said = f"; {self._misunderstood}" if self._misunderstood else ""
        return f"exit code {code}{said}{self._last_words()}"

    def _kill(self) -> None:
        """Kill the process and all of its own, such as ssh below a script."""
        with contextlib.suppress(OSError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            with stream:
                if not self._is_met(stream):  # type: ignore[arg-type]
                    return
                while (content := read_frame(stream)) is not None:  # type: ignore[arg-type]
                    self._understand(content)
        except (OSError, WorkerError) as error:
            logger.warning("what the analysis process said was cut off: %s", error)
        finally:
            self._heard(self, None)

    def _is_met(self, stream: BinaryIO) -> bool:
        """Return whether the worker has greeted, and can be worked with."""
        try:
            self.greeting, noise = read_greeting(stream)
        except WorkerError as error:
            self._misunderstood = str(error)
            return False
        if self.greeting is None:
            return False
        if noise:
            logger.info("before the analysis process something printed %r; passed over", noise)
        self.refusal = mismatch(self.greeting, OWN)
        return not self.refusal

    def _understand(self, content: Any) -> None:
        try:
            message = FROM_WORKER.decode(content)
        except WorkerError as error:
            logger.error("the analysis process sent %s", error)
            return
        self._heard(self, message)

    def _last_words(self) -> str:
        if not hasattr(self._log, "read"):
            return ""
        try:
            self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, self._log.tell() - 2000))
            lines = self._log.read(2000).decode(errors="replace").strip().splitlines()
        except (OSError, ValueError):
            return ""
        finally:
            self._close_log()
        return f": {message_of(lines[-1])}" if lines else ""

    def _close_log(self) -> None:
        if hasattr(self._log, "close"):
            with contextlib.suppress(OSError):
                self._log.close()


def _open_log(path: str | None) -> IO[bytes] | Any:
    """Return the log file, or a nameless one if there is none, for its last line is reported."""
    if path is not None:
        try:
            return open(path, "ab+")
        except OSError as error:
            logger.error("no log of the analysis process: %s", error)
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return subprocess.DEVNULL


def _environment(settings: AnalysisSettings, before: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the worker; what is set before about the caches is kept."""
    log = {LEVEL_VARIABLE: settings.log_level, FORMAT_VARIABLE: settings.log_format}
    given = {name: value for name, value in log.items() if value is not None}
    return process_environment(settings.threads, dict(before)) | given
