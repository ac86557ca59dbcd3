"""The analysis process: documents in on one pipe, results out on another, and nothing else.

It ends when its input ends, so it never outlives the RunEngine's process, however that dies. What
it is told and what it says are the classes of `messages`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, assert_never

from xrf_sr_plans.callbacks.service.frames import read_frame
from xrf_sr_plans.callbacks.service.guard import Tell
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
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import WorkerError, XrfSrError

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
    tell_guard
        Tells the guard of this process what it must know; None: there is none, as where the
        session is on the same host.
    """

    def __init__(self, receive: BinaryIO, send: BinaryIO, tell_guard: Tell | None = None) -> None:
        self._receive = receive
        self._send = send
        self._tell_guard = tell_guard
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
            The first message is not `Configure`, or can't be read, or the scratch folder is
            somebody else's.
        """
        content = read_frame(self._receive)
        if content is None:
            return
        first = TO_WORKER.decode(content)
        if not isinstance(first, Configure):
            raise WorkerError(f"the first message is {type(first).__name__}, not Configure")
        chain = self._chain(first)
        self._say(Ready(os.getpid(), _trouble(first.settings) if first.scratch_name else ""))
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

        scratch_dir = first.scratch_dir
        if first.scratch_name and not first.settings.ledger_dir:
            from xrf_sr_plans.callbacks.service.scratch_elsewhere import take_scratch

            try:
                scratch_dir = take_scratch(first.scratch_name, self._tell_guard)
            except OSError as error:
                logger.warning("predictions are forgotten where a worker dies: %s", error)
        return AnalysisChain(
            first.settings,
            self._emit if first.wants_results else None,
            self._finished,
            preview=(lambda docs: self._say(Preview(docs))) if first.wants_previews else None,
            backlog=self._inbox.qsize,
            fallback_reason=first.fallback_reason,
            warm_up=not first.fallback_reason,
            scratch_dir=scratch_dir or None,
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
                if isinstance(message, Close) and self._tell_guard is not None:
                    # At once too: the session may kill this process before it gets there.
                    self._tell_guard("closing", "")
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


def _trouble(settings: AnalysisSettings) -> str:
    """Return what of the settings is not as it should be on this host, or "".

    A session on the same host has looked itself, before anything moved.
    """
    from xrf_sr_plans.cluster.connection import check_settings
    from xrf_sr_plans.sr.registry import model_path, read_card

    def check_model(settings: AnalysisSettings) -> None:
        read_card(model_path(settings.model))

    found = []
    for look in (AnalysisSettings.check_places, check_settings, check_model):
        try:
            look(settings)
        except XrfSrError as error:
            found.append(str(error))
    if importlib.util.find_spec("torch") is None:
        found.append("torch is not installed, so maps are made by bicubic interpolation")
    return "; ".join(found)
