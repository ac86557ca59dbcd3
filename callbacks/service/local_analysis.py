"""`LocalAnalysis`: the analysis in a thread of this process, for notebooks, replay and tests.

It has the interface of `AnalysisProcess`. It shares the interpreter with the RunEngine, so that a
heavy model slows rows down. At a beamline, use the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from xrf_sr_plans.callbacks.analysis_link import LinkState
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.service.bicubic_fallback import BicubicFallback, FallbackInThread
from xrf_sr_plans.callbacks.service.journal import Journal
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.result_runs import ResultRuns
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.schema import Documents, DocumentSink

logger = logging.getLogger(__name__)

_BYTES_PER_NUMBER = 32
"""Rough size of a number in a list."""


class _ForgetRun(NamedTuple):
    """The result of a run is not needed any more."""

    run: str


class LocalAnalysis:
    """Run the analysis chain in a daemon thread.

    It is an `xrf_sr_plans.callbacks.analysis_link.AnalysisLink`.

    Parameters
    ----------
    settings
        Settings of the analysis.
    sinks
        Each is called as ``sink(name, doc)`` with the documents of whole result runs. They share
        a thread of their own.

    Attributes
    ----------
    journal : Journal
        Documents of the runs whose result is not in yet.
    sink_thread : SinkThread
        Where result runs are delivered.
    chain : AnalysisChain
        What analyses the documents.
    """

    def __init__(
        self, settings: AnalysisSettings | None = None, sinks: Iterable[DocumentSink] = ()
    ) -> None:
        self.settings = settings or AnalysisSettings()
        self.sink_thread = SinkThread(sinks)
        self.journal: Journal[Mapping[str, Any]] = Journal(
            self.settings.memory_limit_mb * 2**20, self._let_go
        )
        self.chain = AnalysisChain(
            self.settings,
            emit=lambda name, doc: self._result_runs.add(self._run, name, doc),
            finished=self._finished,
            preview=lambda documents: self.sink_thread.deliver(documents, preview=True),
            backlog=lambda: self._inbox.qsize(),
        )
        self._results = ResultBoard()
        self._fall_back = BicubicFallback(
            FallbackInThread(self.settings, self._documents_of), self._results, self.sink_thread
        )
        self._inbox: SimpleQueue[tuple[str, str, Mapping[str, Any]] | _ForgetRun | None] = (
            SimpleQueue()
        )
        self._result_runs = ResultRuns()
        self._run = ""
        self._in_time = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="xrf-sr-analysis", daemon=True)
        self._thread.start()

    def submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the run with that uid; microseconds, never raises, never blocks."""
        if self._closed:
            return
        if self.journal.append(run, name, doc, rough_size(doc)) is not None:
            self._inbox.put((run, name, doc))
        elif reason := self.journal.given_up(run):
            if self._results.settle(failed(run, reason)):
                self._inbox.put(_ForgetRun(run))
            if name == "stop":
                self._results.say_unless_asked(run, reason)
                self.journal.forget(run)

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a run's outcome; asking twice is harmless."""
        return self._results.request(source_uid)

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Stop waiting for the model's result of a run, and make a bicubic one in a thread."""
        return self._fall_back(source_uid, reason)

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Wait until all runs that are over have results, and the sinks have them.

        Returns
        -------
        bool
            Whether that was so within the time.
        """
        deadline = time.monotonic() + timeout_s
        while self.journal.waiting_runs() and self._thread.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return self.sink_thread.flush(max(0.0, deadline - time.monotonic()))

    def state(self) -> LinkState:
        """Return how the analysis is doing; microseconds."""
        return LinkState(self._thread.is_alive(), None, 1, len(self.journal.waiting_runs()))

    def deliver(self, documents: Documents) -> None:
        """Give a whole run to the sinks, in their thread; return at once."""
        self.sink_thread.deliver(documents)

    def close(self, timeout_s: float = 10.0) -> None:
        """Let what is under way finish within the time, then stop."""
        if self._closed:
            return
        self._closed = True
        self.flush(timeout_s)
        self._inbox.put(None)
        self._thread.join(min(1.0, timeout_s))
        for run in self.journal.waiting_runs():
            logger.error("closed before the result of run %s was in; replay it", run)
        self.sink_thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _documents_of(self, run: str) -> Documents:
        return [(entry.name, dict(entry.item)) for entry in self.journal.entries_of(run)]

    def _let_go(self, run: str, reason: str) -> None:
        logger.warning("run %s is let go by the analysis: %s", run, reason)
        self._results.settle(failed(run, reason))
        self._inbox.put(_ForgetRun(run))

    def _work(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=60.0)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, _ForgetRun):
                self.chain.forget(item.run)
                continue
            self._run, name, doc = item
            self._in_time = False
            self.chain.take(self._run, name, doc)
            if name == "stop":
                self._deliver()
                self._result_runs.forget(self._run)
                self.journal.forget(self._run)

    def _finished(self, summary: AnalysisSummary) -> None:
        settled = self._results.settle(summary)
        if summary.source_uid != self._run:
            # What follows from several runs has no fallback that could be first.
            return
        self._in_time = settled
        if not self._in_time:
            logger.info("result of run %s came after its fallback", summary.source_uid)
        self._deliver()

    def _deliver(self) -> None:
        """Hand the result runs that are whole to the sinks, unless the fallback was first."""
        if self._in_time:
            for documents in self._result_runs.take(self._run):
                self.sink_thread.deliver(documents)


def rough_size(doc: Mapping[str, Any]) -> int:
    """Return roughly how many bytes a document holds, going by the first item of each list."""
    data = doc.get("data")
    return 2000 + (sum(map(_rough, data.values())) if isinstance(data, Mapping) else 0)


def _rough(value: Any) -> int:
    if isinstance(value, (list, tuple)) and value:
        return len(value) * _rough(value[0])
    return int(getattr(value, "nbytes", _BYTES_PER_NUMBER))
