"""`BackgroundSink`: a slow document sink that works in a thread, so that no scan waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from xrf_sr_plans.maps.run_index import MAX_FOLLOWED_RUNS, RunIndex
from xrf_sr_plans.ranges import Range, check
from xrf_sr_plans.schema import DocumentSink

logger = logging.getLogger(__name__)

_STOP = object()


class _Mark(NamedTuple):
    """Asks whether everything up to the document with that number has been dealt with."""

    number: int
    reached: threading.Event


_LIMITS = Range(1, 10_000_000, whole=True)


class BackgroundSink:
    """Hand documents to a slow or failing sink without ever waiting for it.

    A call takes microseconds, never raises and never blocks. Documents are not copied, so nobody
    may change them afterwards.

    A run is given up as a whole where the sink refused one of its documents, or where one was
    dropped because `limit` documents were already waiting. A run with a gap can therefore never
    pass for a complete one. Other runs go on.

    Result runs, which are finished when they are handed over, have a thread of another kind:
    `xrf_sr_plans.callbacks.service.sink_thread.SinkThread`.

    Parameters
    ----------
    sink
        Called as ``sink(name, doc)`` with one document after the other, always in the same thread.
    name
        Name of the thread, which also begins every line in the log.
    limit
        Largest number of documents that may wait for the sink.
    finished
        Called in the sink's thread when a run stops, with the run's uid and whether the sink took
        every one of its documents.

    Raises
    ------
    ConfigError
        `limit` is no whole number above 0.
    """

    def __init__(
        self,
        sink: DocumentSink,
        *,
        name: str,
        limit: int = 2000,
        finished: Callable[[str, bool], None] | None = None,
    ) -> None:
        check(name, _LIMITS.flaw("limit", limit))
        self._sink = sink
        self._name = name
        self._finished = finished
        self._waiting: queue.Queue[Any] = queue.Queue(limit)
        self._lock = threading.Lock()
        # Documents are numbered as they come, and the thread compares with the last number that
        # it saw: that is how it notices which ones were dropped.
        self._handed = 0
        self._seen = 0
        self._closed = False
        self._left_behind = False
        self._index = RunIndex(most_open=MAX_FOLLOWED_RUNS)
        self._given_up: set[str] = set()
        self._gave_up = False
        # A daemon: a sink that hangs on a dead server must not keep the interpreter alive.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Hand over one document, or drop it where too many are waiting."""
        with self._lock:
            self._handed += 1
            if not self._closed:
                try:
                    self._waiting.put_nowait((self._handed, name, doc))
                except queue.Full:
                    # The thread sees the gap in the numbers, and gives up the runs it may be in.
                    return

    @property
    def waiting(self) -> int:
        """Number of documents that were handed over and not yet given to the sink."""
        return self._waiting.qsize()

    @property
    def gave_up(self) -> bool:
        """Whether any run has been given up so far."""
        return self._gave_up

    @property
    def given_up_runs(self) -> frozenset[str]:
        """Uids of the runs that have been given up and have not stopped."""
        return frozenset(self._given_up)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the sink has had everything handed over so far.

        Returns
        -------
        bool
            False where that was not the case within `timeout_s` seconds.
        """
        if self._closed:
            return not self._thread.is_alive()
        mark = _Mark(self._handed, threading.Event())
        deadline = time.monotonic() + timeout_s
        try:
            self._waiting.put(mark, timeout=max(timeout_s, 0.0))
        except queue.Full:
            return False
        return mark.reached.wait(max(deadline - time.monotonic(), 0))

    def close(self, timeout_s: float) -> bool:
        """Let the sink finish what is waiting, then end the thread.

        Returns
        -------
        bool
            False where documents were left behind after `timeout_s` seconds.
        """
        done = self.flush(timeout_s)
        with self._lock:
            self._closed = True
            self._left_behind = not done
        try:
            self._waiting.put_nowait(_STOP)
        except queue.Full:
            done = False
        if done:
            self._thread.join(max(timeout_s, 1.0))
        else:
            logger.error("%s: closed with %d documents left behind", self._name, self.waiting)
        return done

    def _work(self) -> None:
        # What is left behind when it is closed stays so, whenever the sink wakes up.
        while (item := self._waiting.get()) is not _STOP and not self._left_behind:
            if isinstance(item, _Mark):
                self._note_dropped(item.number)
                item.reached.set()
                continue
            number, name, doc = item
            self._note_dropped(number - 1)
            self._seen = number
            try:
                self._handle(name, doc)
            except Exception:
                logger.exception("%s: %s document", self._name, name)

    def _note_dropped(self, number: int) -> None:
        """Give up the open runs where not everything up to that number has come."""
        if number > self._seen:
            # Nobody knows which run the dropped documents belonged to: it may be any open one.
            dropped = number - self._seen
            self._give_up(set(self._index.open_runs), f"{dropped} documents were dropped")
            self._seen = number

    def _handle(self, name: str, doc: dict[str, Any]) -> None:
        uid = self._index.run_of(name, doc)
        if uid is None:
            logger.error("%s: %s document of a run whose start was not seen", self._name, name)
            return
        if uid not in self._given_up:
            try:
                self._sink(name, doc)
            except Exception as error:  # noqa: BLE001 - a failing sink must not touch the scan
                self._give_up({uid}, f"{name} document: {error!r:.500}")
        if name == "stop":
            complete = uid not in self._given_up
            self._given_up.discard(uid)
            if self._finished is not None:
                self._finished(uid, complete)

    def _give_up(self, runs: set[str], why: str) -> None:
        for uid in runs - self._given_up:
            logger.error("%s: run %s is given up: %s", self._name, uid, why)
        self._given_up |= runs
        self._gave_up = self._gave_up or bool(runs)
