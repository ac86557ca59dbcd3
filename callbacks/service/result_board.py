"""`ResultBoard`: the outcomes of the analysis by run, for whoever waits for them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future

from xrf_sr_plans.devices.protocols import AnalysisSummary

logger = logging.getLogger(__name__)

ASKED_WITHIN_S = 60.0
"""How long it is waited for somebody to ask for a run that failed, before the log says so."""
MAX_REMEMBERED = 512
"""Number of runs whose outcome is remembered; beyond it the oldest are forgotten."""


class ResultBoard:
    """Futures of outcomes by the uid of the measured run. It is thread-safe.

    The first outcome that is not a failure is final. A failure may be replaced once by something
    better, such as a bicubic fallback. While a fallback is being made, only its own failure counts.
    """

    def __init__(self) -> None:
        self._futures: OrderedDict[str, Future[AnalysisSummary]] = OrderedDict()
        self._falling_back: set[str] = set()
        self._asked: deque[str] = deque(maxlen=MAX_REMEMBERED)
        self._lock = threading.Lock()

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a run's outcome; everybody who asks gets the same one."""
        with self._lock:
            self._asked.append(source_uid)
            return self._future(source_uid)

    def say_unless_asked(self, source_uid: str, reason: str) -> None:
        """Log why a run has no result if nobody asks for it, who would be told and warn of it."""

        def say() -> None:
            if source_uid not in self._asked:
                logger.error("run %s has no result: %s", source_uid, reason)

        timer = threading.Timer(ASKED_WITHIN_S, say)
        timer.daemon = True
        timer.start()

    def settle(self, summary: AnalysisSummary, *, is_fallback: bool = False) -> bool:
        """Publish an outcome; return False where there is one already and this one is too late."""
        with self._lock:
            if is_fallback:
                self._falling_back.discard(summary.source_uid)
            elif summary.status == "failed" and summary.source_uid in self._falling_back:
                return False
            future = self._future(summary.source_uid)
            if future.done():
                if future.result().status != "failed" or summary.status == "failed":
                    return False
                # Better late than failed: those who ask from now on get it.
                del self._futures[summary.source_uid]
                future = self._future(summary.source_uid)
        future.set_result(summary)
        return True

    def has_result(self, source_uid: str) -> bool:
        """Return whether the outcome of a run is known and is not a failure."""
        with self._lock:
            future = self._futures.get(source_uid)
            return future is not None and future.done() and future.result().status != "failed"

    def is_outcome(self, summary: AnalysisSummary) -> bool:
        """Return whether a run's outcome is this result, as a new worker says it once more."""
        with self._lock:
            future = self._futures.get(summary.source_uid)
            if future is None or not future.done():
                return False
            known = future.result()
        return (known.status, known.result_uid, known.digest) == (
            summary.status,
            summary.result_uid,
            summary.digest,
        )

    def reopen(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a fallback's outcome, which may replace a failure."""
        with self._lock:
            self._falling_back.add(source_uid)
            future = self._future(source_uid)
            if future.done() and future.result().status == "failed":
                del self._futures[source_uid]
                future = self._future(source_uid)
            return future

    def _future(self, source_uid: str) -> Future[AnalysisSummary]:
        future = self._futures.get(source_uid)
        if future is None:
            future = Future()
            # Shared by all who ask: none of them may cancel it for the others.
            future.set_running_or_notify_cancel()
            self._futures[source_uid] = future
            for uid in list(self._futures)[: max(0, len(self._futures) - MAX_REMEMBERED)]:
                if self._futures[uid].done():
                    del self._futures[uid]
        return future


def failed(source_uid: str, reason: str) -> AnalysisSummary:
    """Return the summary of a run that has no result."""
    return AnalysisSummary(source_uid, "", "failed", reason, ())
