"""`AnalysisProcess`: the analysis in a process of its own, watched, restarted, caught up.

In the RunEngine's process one thread packs documents, keeps them in the journal until the result
of their run is in, and writes them to the worker without ever blocking. A document does not wake
that thread, which looks every `POLL_S` instead: woken at the end of a row it would compete for the
interpreter just when the RunEngine starts the next row (1 ms a row by benchmarks/overhead.py).
If the worker dies, or makes no progress for `hang_timeout_s`, it is killed, and a new one gets the
journal from the beginning. Its result is the same to the bit.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Self, assert_never

from xrf_sr_plans.callbacks.analysis_link import LinkState
from xrf_sr_plans.callbacks.service.bicubic_fallback import BicubicFallback
from xrf_sr_plans.callbacks.service.fallback_process import FallbackProcess
from xrf_sr_plans.callbacks.service.greeting import Greeting
from xrf_sr_plans.callbacks.service.journal import Journal
from xrf_sr_plans.callbacks.service.messages import TO_WORKER, FromWorker, RunDocument
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.callbacks.service.worker_supervisor import WorkerSupervisor
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.schema import Documents, DocumentSink

logger = logging.getLogger(__name__)

POLL_S = 0.02
"""How often the supervising thread looks for documents and for the worker's messages."""

MAX_INBOX = 20_000
"""Number of documents that may wait to be packed; more of them would eat the memory if it hung."""


# What waits for the supervising thread. Named tuples, because the RunEngine's thread makes one for
# each document, and a frozen dataclass takes it several times as long.
class _Submitted(NamedTuple):
    """A document of the run with that uid."""

    run: str
    name: str
    doc: Mapping[str, Any]


class _Heard(NamedTuple):
    """A worker's message; None: it has closed its side."""

    worker: WorkerProcess
    message: FromWorker | None


class _FellBack(NamedTuple):
    """The bicubic fallback is the outcome of a run, whose documents are not needed any more."""

    run: str


class _Reached(NamedTuple):
    """Everything before this item has been dealt with."""

    event: threading.Event


class _Closing(NamedTuple):
    """Nothing comes after this item."""


_Inbox = deque[_Submitted | _Heard | _FellBack | _Reached | _Closing]


class AnalysisProcess:
    """The analysis in a process of its own: submit documents, request results.

    It is an `xrf_sr_plans.callbacks.analysis_link.AnalysisLink`.

    Parameters
    ----------
    settings
        Settings of the analysis, among them its timeouts, its bound of memory and its log file.
    sinks
        Each is called as ``sink(name, doc)`` with the documents of whole result runs. They share
        a thread of their own.
    command
        What to start instead of the ``worker_command`` of the settings, or of
        ``python -m xrf_sr_plans.callbacks.service`` where there is none.

    Attributes
    ----------
    journal : Journal
        Documents of the runs whose result is not in yet.
    sink_thread : SinkThread
        Where result runs are delivered.
    """

    def __init__(
        self,
        settings: AnalysisSettings | None = None,
        sinks: Iterable[DocumentSink] = (),
        *,
        command: list[str] | None = None,
    ) -> None:
        self.settings = settings or AnalysisSettings()
        self.sink_thread = SinkThread(sinks)
        self.journal: Journal[bytes] = Journal(self.settings.memory_limit_mb * 2**20, self._let_go)
        self._results = ResultBoard()
        self._inbox: _Inbox = deque()
        self._fallback_process = FallbackProcess(
            self.settings,
            self.sink_thread,
            self._frames_of,
            lambda: self._supervisor.scratch_dir,
        )
        self._fall_back = BicubicFallback(
            self._fallback_process,
            self._results,
            self.sink_thread,
            lambda run: self._inbox.append(_FellBack(run)),
        )
        self._supervisor = WorkerSupervisor(
            self.settings,
            self.journal,
            self._results,
            self.sink_thread,
            lambda worker, message: self._inbox.append(_Heard(worker, message)),
            command,
        )
        self._overrun = False
        self._closed = False
        self._pid = os.getpid()
        self._thread = threading.Thread(
            target=self._supervise, name="xrf-sr-supervisor", daemon=True
        )
        self._thread.start()
        atexit.register(self.close, 2.0)

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or of ssh to it; None while none is running."""
        return self._supervisor.pid

    @property
    def greeting(self) -> Greeting | None:
        """Who the worker is, on whichever host; None while none has said so."""
        return self._supervisor.greeting

    @property
    def ready(self) -> bool:
        """Whether a worker takes documents. They may be submitted before."""
        return self._supervisor.ready

    @property
    def starts(self) -> int:
        """How many workers there have been."""
        return self._supervisor.starts

    def submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the run with that uid; microseconds, never raises, never blocks."""
        if self._closed or os.getpid() != self._pid:
            return
        if len(self._inbox) < MAX_INBOX:
            self._inbox.append(_Submitted(run, name, doc))
        else:
            self._overrun = True

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a run's outcome; asking twice is harmless."""
        return self._results.request(source_uid)

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Stop waiting for the model's result of a run, and let a helper make a bicubic one."""
        return self._fall_back(source_uid, reason)

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Wait until all runs that are over have results, and the sinks have them.

        Returns
        -------
        bool
            Whether that was so within the time.
        """
        deadline = time.monotonic() + timeout_s
        if not self._drained(timeout_s):
            return False
        while self.journal.waiting_runs() or self._fall_back.busy:
            if time.monotonic() > deadline or not self._thread.is_alive():
                return False
            time.sleep(0.01)
        return self.sink_thread.flush(max(0.0, deadline - time.monotonic()))

    def state(self) -> LinkState:
        """Return how the analysis is doing; microseconds."""
        waiting = len(self.journal.waiting_runs())
        return LinkState(self.ready, self.pid, self.starts, waiting, self._supervisor.host)

    def deliver(self, documents: Documents) -> None:
        """Give a whole run to the sinks, in their thread; return at once."""
        self.sink_thread.deliver(documents)

    def close(self, timeout_s: float = 10.0) -> None:
        """Let what is under way finish within the time, then end the worker."""
        if self._closed or os.getpid() != self._pid:
            return
        self.flush(timeout_s)
        self._closed = True
        self._fallback_process.close()
        atexit.unregister(self.close)
        self._inbox.append(_Closing())
        self._thread.join(8.0)
        self._say_what_is_lost()
        self.sink_thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _drained(self, timeout_s: float) -> bool:
        """Wait until every document submitted so far is in the journal."""
        reached = threading.Event()
        self._inbox.append(_Reached(reached))
        return reached.wait(timeout_s)

    def _frames_of(self, run: str) -> list[bytes]:
        self._drained(1.0)
        return [entry.item for entry in self.journal.entries_of(run)]

    def _supervise(self) -> None:
        while True:
            try:
                while self._inbox:
                    item = self._inbox.popleft()
                    if isinstance(item, _Closing):
                        self._supervisor.end()
                        return
                    self._handle(item)
                if self._overrun:
                    self._overrun = False
                    for run in self.journal.open_runs():
                        self._give_up(run, "documents came faster than they could be kept")
                if not self._supervisor.tend():
                    time.sleep(POLL_S)
            except Exception:  # the thread that watches must outlive whatever it meets
                logger.exception("supervising the analysis process")
                time.sleep(POLL_S)

    def _handle(self, item: _Submitted | _Heard | _FellBack | _Reached) -> None:
        match item:
            case _Submitted(run, name, doc):
                self._keep_and_send(run, name, doc)
            case _Heard(worker, message):
                self._supervisor.heard(worker, message)
            case _FellBack(run):
                self.journal.forget(run)
                self._supervisor.forget(run)
            case _Reached(event):
                event.set()
            case _:
                assert_never(item)

    def _keep_and_send(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        number = self.journal.next_number()
        try:
            frame = TO_WORKER.encode(RunDocument(number, run, name, doc))
        except Exception as error:  # noqa: BLE001 - a run without one of its documents is no run
            self._give_up(run, f"its {name} document can't be passed on: {error}")
            return
        if self.journal.append(run, name, frame, len(frame)) is not None:
            self._supervisor.send(run, name, number, frame)
        else:
            reason = self.journal.given_up(run)
            self._give_up(run, reason)
            if name == "stop":
                self._results.say_unless_asked(run, reason)
                self.journal.forget(run)

    def _say_what_is_lost(self) -> None:
        for run in self.journal.waiting_runs():
            logger.error("closed before the result of run %s was in; replay it", run)

    def _let_go(self, run: str, reason: str) -> None:
        logger.warning("run %s is let go by the analysis: %s", run, reason)
        self._results.settle(failed(run, reason))
        self._supervisor.forget(run)

    def _give_up(self, run: str, reason: str) -> None:
        self.journal.give_up(run, reason)
        if self._results.settle(failed(run, reason)):
            # Not a warning: whoever asks for the result warns of it, once, with the reason.
            logger.info("run %s: %s", run, reason)
            self._supervisor.forget(run)
