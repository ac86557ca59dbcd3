"""The analysis process: documents in on one pipe, results out on another, and nothing else.

It ends when its input ends, so it never outlives the RunEngine's process, however that dies. What
it is told and what it says are the classes of `messages`.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, assert_never

from xrf_sr_plans.callbacks.service.frames import read_frame
from xrf_sr_plans.callbacks.service.messages import (
    FROM_WORKER,
    TO_WORKER,
    Acknowledge,
    Close,
    Configure,
    ForgetRun,
    FromWorker,
    Preview,
    Ready,
    ResultDocument,
    RunDocument,
    RunDone,
    RunSummary,
    ToWorker,
)
from xrf_sr_plans.config.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, formatter
from xrf_sr_plans.errors import WorkerError

if TYPE_CHECKING:
    from xrf_sr_plans.callbacks.chain import AnalysisChain
    from xrf_sr_plans.devices.protocols import AnalysisSummary

logger = logging.getLogger(__name__)

_ACK_EVERY = 32
"""Number of documents after which they are acknowledged at the latest.

Not at every document: each message costs the RunEngine's process some of its interpreter's time.
"""

_LULL_S = 0.3
"""Seconds without a document after which those before are acknowledged."""


class Worker:
    """Feed documents to the analysis chain in their order, and report.

    Parameters
    ----------
    receive, send
        The pipes from and to the RunEngine's process.
    """

    def __init__(self, receive: BinaryIO, send: BinaryIO) -> None:
        self._receive = receive
        self._send = send
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[ToWorker] = SimpleQueue()
        self._forgotten: set[str] = set()
        self._run = ""
        self._done = self._acknowledged = 0

    def work(self) -> None:
        """Serve until the other side says close, or is gone.

        Raises
        ------
        WorkerError
            The first message is not `Configure`, or can't be read.
        """
        content = read_frame(self._receive)
        if content is None:
            return
        first = TO_WORKER.decode(content)
        if not isinstance(first, Configure):
            raise WorkerError(f"the first message is {type(first).__name__}, not Configure")
        chain = self._chain(first)
        self._say(Ready(os.getpid()))
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            message = self._next()
            match message:
                case RunDocument():
                    self._analyse(chain, message)
                case ForgetRun(run, number):
                    # None of its documents comes after this message.
                    chain.forget(run)
                    self._forgotten.discard(run)
                    self._done = max(self._done, number)
                    self._acknowledge_if_many()
                case Close():
                    return
                case Configure():
                    logger.error("configured twice; the second time changes nothing")
                case _:
                    assert_never(message)

    def _chain(self, first: Configure) -> AnalysisChain:
        """Return the analysis chain; the libraries are loaded with the niceness asked for."""
        os.nice(first.settings.nice)
        # Where memory runs out, the kernel is to take it from here and not from the scan.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")
        from xrf_sr_plans.callbacks.chain import AnalysisChain

        return AnalysisChain(
            first.settings,
            self._emit if first.wants_results else None,
            self._finished,
            preview=(lambda docs: self._say(Preview(docs))) if first.wants_previews else None,
            backlog=self._inbox.qsize,
            fallback_reason=first.fallback_reason,
            warm_up=not first.fallback_reason,
            scratch_dir=first.scratch_dir or None,
        )

    def _analyse(self, chain: AnalysisChain, message: RunDocument) -> None:
        self._run = message.run
        stop = message.name == "stop"
        if stop:
            # If the process dies of this map, the first document not acknowledged gets the blame.
            self._acknowledge()
        if message.run not in self._forgotten:
            chain.take(message.run, message.name, message.doc)
        self._done = max(self._done, message.number)
        if stop:
            self._say(RunDone(message.run))
            self._acknowledge()
        else:
            self._acknowledge_if_many()

    def _next(self) -> ToWorker:
        """Wait for the next message; acknowledge the documents before it once there is a lull."""
        try:
            return self._inbox.get(timeout=_LULL_S)
        except Empty:
            self._acknowledge()
            return self._inbox.get()

    def _acknowledge(self) -> None:
        if self._done > self._acknowledged:
            self._say(Acknowledge(self._done))
            self._acknowledged = self._done

    def _acknowledge_if_many(self) -> None:
        if self._done - self._acknowledged >= _ACK_EVERY:
            self._acknowledge()

    def _listen(self) -> None:
        try:
            while (content := read_frame(self._receive)) is not None:
                message = TO_WORKER.decode(content)
                if isinstance(message, ForgetRun):
                    # At once, ahead of the documents that wait; its number is acknowledged in turn.
                    self._forgotten.add(message.run)
                self._inbox.put(message)
        except (OSError, WorkerError):
            logger.exception("input is broken")
        # The RunEngine's process is gone: no result has anybody to go to.
        os._exit(0)

    def _say(self, message: FromWorker) -> None:
        frame = memoryview(FROM_WORKER.encode(message))
        try:
            with self._lock:
                while frame:
                    frame = frame[self._send.write(frame) :]
        except OSError:
            os._exit(0)

    def _finished(self, summary: AnalysisSummary) -> None:
        self._say(RunSummary(summary))

    def _emit(self, name: str, doc: dict[str, Any]) -> None:
        self._say(ResultDocument(self._run, name, doc))


class _Tolerant:
    """A text stream that loses what can't be written, as where the disk is full."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` has flushed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main() -> None:
    """Keep the pipes for messages, keep signals away, and work until the other side is gone."""
    receive = os.fdopen(os.dup(0), "rb", buffering=0)
    send = os.fdopen(os.dup(1), "wb", buffering=0)
    # A stray print, even from C, goes to the log and not between two frames.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Tolerant(sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A process that is stopped or stuck in C can't notice by reading that its parent died.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(formatter(os.environ.get(FORMAT_VARIABLE, "text")))
    logging.basicConfig(level=os.environ.get(LEVEL_VARIABLE, "INFO"), handlers=[log])
    Worker(receive, send).work()  # type: ignore[arg-type]
    os._exit(0)
