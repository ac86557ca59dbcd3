"""`WorkerSupervisor`: keeps a worker process going, and acts on what it says.

It is not thread-safe: only the supervising thread of `AnalysisProcess` calls it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import assert_never

from xrf_sr_plans.callbacks.service.greeting import Greeting
from xrf_sr_plans.callbacks.service.journal import Journal
from xrf_sr_plans.callbacks.service.messages import (
    TO_WORKER,
    Acknowledge,
    Close,
    Configure,
    ForgetRun,
    FromWorker,
    Preview,
    Ready,
    ResultDocument,
    RunDone,
    RunSummary,
)
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.result_runs import ResultRuns
from xrf_sr_plans.callbacks.service.scratch_elsewhere import new_name
from xrf_sr_plans.callbacks.service.scratch_folder import ScratchFolder
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import WorkerError

logger = logging.getLogger(__name__)

_PIPE_FULL_S = 0.1
"""Longest wait for a pipe that takes nothing."""
_FIRST_BACKOFF_S = 0.1
"""Half of the wait before a lost worker is replaced; every further loss doubles it."""
_LONGEST_BACKOFF_S = 5.0
_LAST_WORDS_S = 1.0
"""Longest wait for what ssh says at last, where it has no worker to give."""
_FAREWELL_S = 1.0
"""Longest wait for a worker that was told to close."""
_HOPELESS_BACKOFF_S = 30.0
"""Wait before the next attempt once workers have failed to start too often."""


class WorkerSupervisor:
    """Start the worker, catch it up, watch its progress, replace it when it dies or hangs.

    Parameters
    ----------
    settings
        Settings of the analysis, which the worker is given.
    journal
        Documents of the runs without a result, as frames. A new worker is given all of them.
    results
        Where outcomes are published.
    sinks
        Where result runs and previews are delivered.
    post
        Called as ``post(worker, message)`` in the worker's reading thread; it has to let the
        supervising thread call `heard` with the same arguments.
    command
        What to start instead of the ``worker_command`` of the settings, or of
        ``python -m xrf_sr_plans.callbacks.service`` where there is none.

    Attributes
    ----------
    starts : int
        How many workers have been started.
    refusal : str
        Why no worker is started any more, as where it has another version; empty: one is.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        journal: Journal[bytes],
        results: ResultBoard,
        sinks: SinkThread,
        post: Callable[[WorkerProcess, FromWorker | None], None],
        command: list[str] | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._results = results
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
        self._result_runs = ResultRuns()
        self._scratch = ScratchFolder()
        self._elsewhere = command is None and settings.worker_command is not None
        self._scratch_name = new_name() if self._elsewhere else ""
        self._late: set[str] = set()
        self._told = ""
        self.starts = 0
        self.refusal = ""

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or of ssh to it; None while none is running."""
        worker = self._worker
        return None if worker is None else worker.pid

    @property
    def greeting(self) -> Greeting | None:
        """Who the worker is; None while none has said so."""
        worker = self._worker
        return None if worker is None else worker.greeting

    @property
    def host(self) -> str:
        """Host of the worker, where that is another and has greeted; else empty."""
        greeting = self.greeting if self._elsewhere else None
        return "" if greeting is None else greeting.host

    @property
    def ready(self) -> bool:
        """Whether the worker has said that it takes documents."""
        return self._worker is not None and self._ready

    @property
    def scratch_dir(self) -> str:
        """Folder of this host in which predictions are remembered; empty: none can be made.

        It is the worker's, too, where that is on this host.
        """
        if self._elsewhere:
            return self._scratch.folder
        return self._settings.ledger_dir or self._scratch.folder

    def send(self, run: str, name: str, number: int, frame: bytes) -> None:
        """Pass on a document that has just been put into the journal."""
        if self._journal.is_abandoned(run):
            return
        if self._worker is not None:
            self._queue(self._worker, frame, run, number)
        elif name == "stop" and self._hopeless:
            self._give_up(run, f"the analysis process can't be started: {self._told}")

    def forget(self, run: str) -> None:
        """Have the worker skip what it has not done of a run."""
        self._deaths.pop(run, None)
        self._late.discard(run)
        self._result_runs.forget(run)
        if self._worker is not None:
            self._worker.drop(run)
            self._worker.queue(TO_WORKER.encode(ForgetRun(run, self._sent)))

    def tend(self) -> bool:
        """Do what is due: start a worker, write to it, and replace it if it hangs.

        Returns
        -------
        bool
            Whether the worker's pipe was full, so that time has been spent on waiting for it.
        """
        if self._worker is None:
            if time.monotonic() >= self._next_start and not self.refusal:
                self._start()
            return False
        try:
            self._worker.pump(_PIPE_FULL_S)
        except WorkerError as error:
            self._lost(str(error))
            return False
        silent_s = time.monotonic() - self._progress
        is_awaited = self._sent > self._acknowledged or self._worker.greeting is None
        if is_awaited and silent_s > self._settings.hang_timeout_s:
            self._lost(f"no progress for {self._settings.hang_timeout_s:g} s")
            return False
        return self._worker.unsent > 0

    def heard(self, worker: WorkerProcess, message: FromWorker | None) -> None:
        """Act on what a worker said; None means that it has closed its side."""
        if worker is not self._worker:
            return
        self._progress = time.monotonic()
        match message:
            case None:
                self._lost("the analysis process ended")
            case Ready(_, trouble):
                logger.info("analysis: %s is ready", worker.greeting)
                if trouble and self._elsewhere:
                    logger.error("analysis: %s: %s", worker.name, trouble)
                self._ready = True
                self._failed_starts = 0
                self._told = ""
            case Acknowledge(number):
                self._acknowledged = max(self._acknowledged, number)
            case RunSummary(summary):
                self._settle(summary)
            case ResultDocument(run, name, doc):
                self._result_runs.add(run, name, doc)
            case Preview(documents):
                self._sinks.deliver(documents, preview=True)
            case RunDone(run):
                self._done(run)
            case _:
                assert_never(message)

    def end(self) -> None:
        """Tell the worker to close, and kill it if it doesn't."""
        worker, self._worker = self._worker, None
        if worker is not None:
            try:
                worker.queue(TO_WORKER.encode(Close()))
                worker.pump(_PIPE_FULL_S)
            except WorkerError as error:
                logger.info("closing: %s", error)
            worker.end(patience_s=_LAST_WORDS_S + _FAREWELL_S if self._elsewhere else _FAREWELL_S)
        self._scratch.delete()

    @property
    def _hopeless(self) -> bool:
        return bool(self.refusal) or self._failed_starts > self._settings.max_restarts

    def _queue(self, worker: WorkerProcess, frame: bytes, run: str, number: int) -> None:
        if self._sent <= self._acknowledged:
            self._progress = time.monotonic()
        worker.queue(frame, run)
        self._sent = number

    def _start(self) -> None:
        try:
            worker = WorkerProcess(self._settings, self._post, self._command)
        except WorkerError as error:
            if not self._hopeless or str(error) != self._told:
                logger.error("analysis: %s", error)
            self._told = str(error)
            self._not_started(str(error))
            return
        self._worker = worker
        self.starts += 1
        self._ready = False
        self._acknowledged = self._sent = 0
        self._progress = time.monotonic()
        self._result_runs.start_again()
        self._late.clear()
        first = Configure(
            self._settings,
            self._sinks.has_sinks,
            self._sinks.has_preview_sinks,
            scratch_dir=self._scratch_of_worker,
            scratch_name=self._scratch_name,
        )
        worker.queue(TO_WORKER.encode(first))
        kept = list(self._journal.entries())
        for entry in kept:
            self._queue(worker, entry.item, entry.run, entry.number)
        if self.starts > 1:
            logger.warning("analysis process restarted, %d documents again", len(kept))

    @property
    def _scratch_of_worker(self) -> str:
        if self._elsewhere or self._settings.ledger_dir:
            return ""
        return self._scratch.folder

    def _lost(self, reason: str) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        # What was started may end by itself, with an exit code that says more than our signal.
        ended = worker.end(_LAST_WORDS_S if self._elsewhere else 0.0)
        how = self.refusal = worker.refusal
        how = how or f"{reason} ({ended})"
        if self._ready or not self._hopeless or how != self._told:
            logger.error("analysis: %s", how)
        self._told = how
        if not self._ready:
            self._not_started(how)
            return
        # The run of the first document that was not acknowledged is the one to blame.
        run = next(
            (entry.run for entry in self._journal.entries() if entry.number > self._acknowledged),
            None,
        )
        if run is not None:
            self._deaths[run] += 1
            if self._deaths[run] > self._settings.max_restarts:
                self._give_up(run, f"{self._deaths[run]} times: {how}")
        self._back_off(_LONGEST_BACKOFF_S)

    def _not_started(self, reason: str) -> None:
        self._failed_starts += 1
        if self._hopeless:
            for run in self._journal.waiting_runs():
                self._give_up(run, f"the analysis process can't be started: {reason}")
        self._back_off(_HOPELESS_BACKOFF_S if self._hopeless else _LONGEST_BACKOFF_S)

    def _back_off(self, longest_s: float) -> None:
        self._losses += 1
        wait_s = longest_s
        if longest_s < _HOPELESS_BACKOFF_S:
            wait_s = min(longest_s, _FIRST_BACKOFF_S * 2.0 ** min(self._losses, 20))
        self._next_start = time.monotonic() + wait_s

    def _give_up(self, run: str, reason: str) -> None:
        self._deaths.pop(run, None)
        self._result_runs.forget(run)
        self._results.settle(failed(run, reason))
        if not self._results.has_result(run):
            # Without the reason: it was logged when the process was lost, and is in the summary.
            logger.error("run %s is given up", run)
            self._journal.abandon(run)
        else:
            logger.error("run %s has its result, but not what follows (verification, pairs)", run)
            self._journal.forget(run)

    def _settle(self, summary: AnalysisSummary) -> None:
        run = summary.source_uid
        if self._results.settle(summary) or self._results.is_outcome(summary):
            # Now, because a plan has been told of it: what the worker dies of later, such as a
            # full disk under the pairs, must not cost the result.
            self._deliver(run)
        else:
            self._late.add(run)
            logger.info("result of run %s came after its fallback", run)

    def _done(self, run: str) -> None:
        self._losses = 0
        self._deaths.pop(run, None)
        if run not in self._late:
            self._deliver(run)
        self._late.discard(run)
        self._result_runs.forget(run)
        self._journal.forget(run)

    def _deliver(self, run: str) -> None:
        for documents in self._result_runs.take(run):
            self._sinks.deliver(documents)
