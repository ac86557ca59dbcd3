"""The analysis process: documents in on one pipe, results out on another, and nothing else.

It ends when its input ends, so it never outlives the RunEngine's process however that dies.
Messages in: ``settings``, ``doc``, ``forget``, ``close``. Out: ``ready``, ``ack`` (number of the
last document dealt with), ``summary``, ``emit`` (one result document), ``preview``, ``done``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

from xrf_sr_plans.callbacks.service import messages as wire
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import WorkerError

logger = logging.getLogger(__name__)

_ACK_EVERY = 32
_LULL_S = 0.3
"""Not at every document: each message costs the RunEngine's process some of its interpreter."""


class Worker:
    """Feed documents to the analysis chain in their order and report.

    Parameters
    ----------
    receive, send
        The pipes.
    """

    def __init__(self, receive: BinaryIO, send: BinaryIO) -> None:
        self._receive = receive
        self._send = send
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[tuple[int, str, str, dict[str, Any]] | None] = SimpleQueue()
        self._forgotten: set[str] = set()
        self._run = ""
        self._done = self._acknowledged = 0

    def work(self) -> None:
        """Serve until the other side says close, or is gone."""
        first = wire.read_frame(self._receive)
        if first is None:
            return
        kind, plain, wants_documents, wants_previews = first
        if kind != "settings":
            raise WorkerError(f"the first message is {kind!r}; it must be 'settings'")
        settings = AnalysisSettings(**plain)
        os.nice(settings.nice)
        from xrf_sr_plans.callbacks.chain import AnalysisChain

        chain = AnalysisChain(
            settings,
            self._emit if wants_documents else None,
            self._finished,
            preview=self._preview if wants_previews else None,
            backlog=self._inbox.qsize,
            warm_up=True,
        )
        self._say(["ready", os.getpid()])
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while (item := self._next()) is not None:
            number, self._run, name, doc = item
            if name == "stop":
                # Should this map be the end of us, then it is the one to blame.
                self._acknowledge()
            if name and self._run not in self._forgotten:
                chain.take(self._run, name, doc)
            self._done = max(self._done, number)
            if name == "stop":
                self._say(["done", self._run])
                self._acknowledge()
            elif self._done - self._acknowledged >= _ACK_EVERY:
                self._acknowledge()

    def _next(self) -> tuple[int, str, str, dict[str, Any]] | None:
        """Wait for the next document; acknowledge those before it once there is a lull."""
        try:
            return self._inbox.get(timeout=_LULL_S)
        except Empty:
            self._acknowledge()
            return self._inbox.get()

    def _acknowledge(self) -> None:
        if self._done > self._acknowledged:
            self._say(["ack", self._done])
            self._acknowledged = self._done

    def _listen(self) -> None:
        try:
            while (message := wire.read_frame(self._receive)) is not None:
                kind, *rest = message
                if kind == "doc":
                    number, run, name, doc = rest
                    self._inbox.put((number, run, name, doc))
                elif kind == "forget":
                    # At once, ahead of the documents that wait; its number is acknowledged in turn.
                    run, number = rest
                    self._forgotten.add(run)
                    self._inbox.put((number, run, "", {}))
                elif kind == "close":
                    self._inbox.put(None)
        except (OSError, WorkerError):
            logger.exception("input is broken")
        # The RunEngine's process is gone: no result has anybody to go to.
        os._exit(0)

    def _say(self, message: list[Any]) -> None:
        frame = memoryview(wire.pack(message))
        try:
            with self._lock:
                while frame:
                    frame = frame[self._send.write(frame) :]
        except OSError:
            os._exit(0)

    def _finished(self, summary: AnalysisSummary) -> None:
        plain = {**asdict(summary), "regions": [region.to_dict() for region in summary.regions]}
        self._say(["summary", plain])

    def _emit(self, name: str, doc: dict[str, Any]) -> None:
        self._say(["emit", self._run, name, doc])

    def _preview(self, documents: list[tuple[str, dict[str, Any]]]) -> None:
        self._say(["preview", documents])


class _Tolerant:
    """A text stream that loses what can't be written, say because the disk is full."""

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
    """Take the pipes for our own use, keep signals away, and work."""
    receive = os.fdopen(os.dup(0), "rb", buffering=0)
    send = os.fdopen(os.dup(1), "wb", buffering=0)
    # A stray print, even from C, goes to the log and not between two frames.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Tolerant(sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # Where we are stopped or stuck in C when the parent dies, reading on can't tell us.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    logging.basicConfig(
        level=os.environ.get("XRF_SR_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    Worker(receive, send).work()  # type: ignore[arg-type]
    os._exit(0)
