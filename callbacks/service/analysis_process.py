"""`AnalysisProcess`: the analysis in a process of its own, watched, restarted, caught up.

In the RunEngine's process one thread packs documents, keeps them in the journal until the result
of their run is in, and writes them to the worker without ever blocking. It is not woken by a
document but looks every `POLL_S`: woken at the end of a row it would compete for the interpreter
just when the RunEngine starts the next one (measured: +1 ms a row; benchmarks/overhead.py).
If the worker dies, or makes no progress for `hang_timeout_s`, it is killed and a new one gets the
journal from the beginning: its result is the same to the bit.
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
from typing import Any, Self

from xrf_sr_plans.callbacks.result_run import Documents
from xrf_sr_plans.callbacks.service import messages as wire
from xrf_sr_plans.callbacks.service.bicubic_fallback import BicubicFallback
from xrf_sr_plans.callbacks.service.journal import Journal
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.sink_thread import Sink, SinkThread
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.callbacks.service.worker_supervisor import Message, WorkerSupervisor
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary

logger = logging.getLogger(__name__)

POLL_S = 0.02
"""How often the supervisor looks for documents and for the worker's messages."""

MAX_INBOX = 20_000
"""Documents that may wait to be packed; beyond, a stuck thread would eat the memory."""


class AnalysisProcess:
    """The analysis behind one interface: submit documents, request results.

    Parameters
    ----------
    settings
        Model, timeouts, memory bound, log file.
    sinks
        Each is called with ``(name, doc)`` of whole result runs, in a thread of its own.
    command
        What to start instead of ``python -m xrf_sr_plans.callbacks.service`` (tests).
    """

    def __init__(
        self,
        settings: AnalysisSettings | None = None,
        sinks: Iterable[Sink] = (),
        *,
        command: list[str] | None = None,
    ) -> None:
        self.settings = settings or AnalysisSettings()
        self.board = ResultBoard()
        self.sinks = SinkThread(sinks)
        self.journal: Journal[bytes] = Journal(self.settings.memory_limit_mb * 2**20)
        self._fall_back = BicubicFallback(
            self.settings,
            self.board,
            self.sinks,
            self._documents_of,
            lambda run: self._inbox.append(("forget", run)),
        )
        self._inbox: deque[tuple[str, Any]] = deque()
        self._keeper = WorkerSupervisor(
            self.settings, self.journal, self.board, self.sinks, self._post, command
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
        """Process id of the worker; None: none is running."""
        return self._keeper.pid

    @property
    def ready(self) -> bool:
        """Whether a worker is up; documents may be submitted before."""
        return self._keeper.ready

    @property
    def starts(self) -> int:
        """How many workers there have been."""
        return self._keeper.starts

    def submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the run with that uid; microseconds, never raises, never blocks."""
        if self._closed or os.getpid() != self._pid:
            return
        if len(self._inbox) < MAX_INBOX:
            self._inbox.append(("doc", (run, name, doc)))
        else:
            self._overrun = True

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a run's result."""
        return self.board.request(source_uid)

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Give up on the model for this run: bicubic, now, in this process."""
        return self._fall_back(source_uid, reason)

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Wait until all runs that are over have results and the sinks have them."""
        deadline = time.monotonic() + timeout_s
        if not self._drained(timeout_s):
            return False
        while self.journal.waiting():
            if time.monotonic() > deadline or not self._thread.is_alive():
                return False
            time.sleep(0.01)
        return self.sinks.flush(max(0.0, deadline - time.monotonic()))

    def close(self, timeout_s: float = 10.0) -> None:
        """Let what is under way finish, within the time; then end the worker."""
        if self._closed or os.getpid() != self._pid:
            return
        self.flush(timeout_s)
        self._closed = True
        atexit.unregister(self.close)
        self._inbox.append(("close", None))
        self._thread.join(8.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _drained(self, timeout_s: float) -> bool:
        """Wait until every document submitted so far is in the journal."""
        reached = threading.Event()
        self._inbox.append(("reached", reached))
        return reached.wait(timeout_s)

    def _documents_of(self, run: str) -> Documents:
        self._drained(1.0)
        frames = (frame for _, _, frame in self.journal.run(run))
        return [(name, doc) for _, _, _, name, doc in map(wire.unpack_frame, frames)]

    def _supervise(self) -> None:
        keeper = self._keeper
        while True:
            try:
                while self._inbox:
                    kind, content = self._inbox.popleft()
                    if kind == "close":
                        keeper.end()
                        return
                    getattr(self, f"_on_{kind}")(content)
                if self._overrun:
                    self._overrun = False
                    for run in self.journal.open():
                        self._give_up(run, "documents came faster than they could be kept")
                if not keeper.tend():
                    time.sleep(POLL_S)
            except Exception:  # the thread that watches must outlive whatever it meets
                logger.exception("supervising the analysis process")
                time.sleep(POLL_S)

    def _on_doc(self, content: tuple[str, str, Mapping[str, Any]]) -> None:
        run, name, doc = content
        number = self.journal.next_number()
        try:
            frame = wire.pack(["doc", number, run, name, doc])
        except Exception as error:  # noqa: BLE001 - a run without one of its documents is no run
            self._give_up(run, f"its {name} document can't be passed on: {error}")
            return
        if self.journal.append(run, name, frame, len(frame)) is not None:
            self._keeper.send(run, name, number, frame)
        else:
            self._give_up(run, self.journal.given_up(run))
            if name == "stop":
                self.journal.forget(run)

    def _give_up(self, run: str, reason: str) -> None:
        self.journal.give_up(run, reason)
        if self.board.settle(failed(run, reason)):
            logger.error("run %s: %s", run, reason)
            self._keeper.forget(run)

    def _on_reached(self, event: threading.Event) -> None:
        event.set()

    def _on_forget(self, run: str) -> None:
        self.journal.forget(run)
        self._keeper.forget(run)

    def _post(self, worker: WorkerProcess, message: Message) -> None:
        self._inbox.append(("heard", (worker, message)))

    def _on_heard(self, content: tuple[WorkerProcess, Message]) -> None:
        self._keeper.heard(*content)
