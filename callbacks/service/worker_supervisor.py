"""`WorkerSupervisor`: keeps a worker process going, and knows what each of its messages means.

Not thread-safe: the supervisor's thread alone calls it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from xrf_sr_plans.callbacks.result_run import Documents
from xrf_sr_plans.callbacks.service import messages as wire
from xrf_sr_plans.callbacks.service.journal import Journal
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.maps.region import Region

logger = logging.getLogger(__name__)

Message = list[Any] | None

_PIPE_FULL_S = 0.1
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_HOPELESS_BACKOFF_S = 30.0


class WorkerSupervisor:
    """Start the worker, catch it up, watch its progress, replace it when it dies or hangs.

    Parameters
    ----------
    journal
        The documents of unfinished runs, as frames: what a new worker is given.
    post
        Takes ``(worker, message)`` from the worker's reading thread to the supervisor's.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        journal: Journal[bytes],
        board: ResultBoard,
        sinks: SinkThread,
        post: Callable[[WorkerProcess, Message], None],
        command: list[str] | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._board = board
        self._sinks = sinks
        self._post = post
        self._command = command
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._sent = self._acknowledged = 0
        self._progress = 0.0
        self._next_start = 0.0
        self._losses = self._failed_starts = 0
        self._deaths: Counter[str] = Counter()
        self._results: dict[str, Documents] = {}
        self._late: set[str] = set()
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None: none is running."""
        worker = self._worker
        return None if worker is None else worker.pid

    @property
    def ready(self) -> bool:
        """Whether the worker has said that it is up."""
        return self._worker is not None and self._ready

    def send(self, run: str, name: str, number: int, frame: bytes) -> None:
        """Pass on a document that has just been put into the journal."""
        if self._journal.is_abandoned(run):
            return
        if self._worker is not None:
            self._queue(frame, run, number)
        elif name == "stop" and self._hopeless:
            self._give_up(run, "the analysis process can't be started")

    def forget(self, run: str) -> None:
        """Have the worker skip what it has not done of a run."""
        self._deaths.pop(run, None)
        if self._worker is not None:
            self._worker.drop(run)
            self._worker.queue(wire.pack(["forget", run, self._sent]))

    def tend(self) -> bool:
        """Do what is due: start, write, watch; return whether it has waited for a full pipe."""
        if self._worker is None:
            if time.monotonic() >= self._next_start:
                self._start()
            return False
        try:
            self._worker.pump(_PIPE_FULL_S)
        except WorkerError as error:
            self._lost(str(error))
            return False
        silent_s = time.monotonic() - self._progress
        if self._sent > self._acknowledged and silent_s > self._settings.hang_timeout_s:
            self._lost(f"no progress for {self._settings.hang_timeout_s:g} s")
            return False
        return self._worker.unsent > 0

    def heard(self, worker: WorkerProcess, message: Message) -> None:
        """Take what a worker said; None: it has closed its side."""
        if worker is not self._worker:
            return
        self._progress = time.monotonic()
        if message is None:
            self._lost("the analysis process ended")
            return
        kind, *content = message
        getattr(self, f"_on_{kind}", self._on_unknown)(*content)

    def end(self) -> None:
        """Tell the worker to close; kill it if it doesn't."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            worker.queue(wire.pack(["close"]))
            worker.pump(_PIPE_FULL_S)
        except WorkerError as error:
            logger.info("closing: %s", error)
        worker.end(patience_s=1.0)

    @property
    def _hopeless(self) -> bool:
        return self._failed_starts > self._settings.max_restarts

    def _queue(self, frame: bytes, run: str, number: int) -> None:
        assert self._worker is not None
        if self._sent <= self._acknowledged:
            self._progress = time.monotonic()
        self._worker.queue(frame, run)
        self._sent = number

    def _start(self) -> None:
        try:
            worker = WorkerProcess(self._settings, self._post, self._command)
        except WorkerError as error:
            self._not_started(str(error))
            return
        self._worker = worker
        self.starts += 1
        self._ready = False
        self._acknowledged = self._sent = 0
        self._progress = time.monotonic()
        self._results.clear()
        self._late.clear()
        wanted = self._sinks.has_sinks, self._sinks.has_preview_sinks
        worker.queue(wire.pack(["settings", self._settings.model_dump(), *wanted]))
        for number, run, _, frame in self._journal.all():
            self._queue(frame, run, number)
        if self.starts > 1:
            logger.warning("analysis process restarted, %d documents again", worker.unsent - 1)

    def _lost(self, reason: str) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        how = f"{reason} ({worker.end(patience_s=0.0)})"
        logger.error("analysis: %s", how)
        if not self._ready:
            self._not_started(how)
            return
        run = next((run for n, run, *_ in self._journal.all() if n > self._acknowledged), None)
        if run is not None:
            self._deaths[run] += 1
            if self._deaths[run] > self._settings.max_restarts:
                self._give_up(run, f"{self._deaths[run]} times: {how}")
        self._back_off(_LONGEST_BACKOFF_S)

    def _not_started(self, reason: str) -> None:
        logger.error("analysis process: %s", reason)
        self._failed_starts += 1
        if self._hopeless:
            for run in self._journal.waiting():
                self._give_up(run, f"the analysis process can't be started: {reason}")
        self._back_off(_HOPELESS_BACKOFF_S if self._hopeless else _LONGEST_BACKOFF_S)

    def _back_off(self, longest_s: float) -> None:
        self._losses += 1
        wait_s = longest_s
        if longest_s < _HOPELESS_BACKOFF_S:
            wait_s = min(longest_s, _FIRST_BACKOFF_S * 2.0 ** min(self._losses, 20))
        self._next_start = time.monotonic() + wait_s

    def _give_up(self, run: str, reason: str) -> None:
        logger.error("run %s is given up: %s", run, reason)
        self._deaths.pop(run, None)
        self._journal.abandon(run)
        self._board.settle(failed(run, reason))

    def _on_ready(self, pid: int) -> None:
        logger.info("analysis process %d is ready", pid)
        self._ready = True
        self._failed_starts = 0

    def _on_ack(self, number: int) -> None:
        self._acknowledged = max(self._acknowledged, number)

    def _on_summary(self, plain: dict[str, Any]) -> None:
        regions = tuple(Region.from_dict(region) for region in plain["regions"])
        summary = AnalysisSummary(**{**plain, "regions": regions})
        if not self._board.settle(summary):
            self._late.add(summary.source_uid)
            logger.info("result of run %s came after its fallback", summary.source_uid)

    def _on_emit(self, run: str, name: str, doc: dict[str, Any]) -> None:
        self._results.setdefault(run, []).append((name, doc))

    def _on_preview(self, documents: list[Any]) -> None:
        self._sinks.deliver([(name, doc) for name, doc in documents], preview=True)

    def _on_done(self, run: str) -> None:
        self._losses = 0
        self._deaths.pop(run, None)
        documents = self._results.pop(run, [])
        # The whole run or nothing: a worker that dies half-way leaves no half result behind.
        if run not in self._late:
            self._sinks.deliver(documents)
        self._late.discard(run)
        self._journal.forget(run)

    def _on_unknown(self, *content: Any) -> None:
        logger.error("the analysis process said %.200r", content)
