"""`ResultBoard`: who asked for which result, and what it was."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from xrf_sr_plans.devices.protocols import AnalysisSummary

MAX_REMEMBERED = 512


class ResultBoard:
    """Futures of results by source uid; the first result that is not a failure stays."""

    def __init__(self) -> None:
        self._futures: OrderedDict[str, Future[AnalysisSummary]] = OrderedDict()
        self._lock = threading.Lock()

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a run's result; the same one to everybody."""
        with self._lock:
            return self._future(source_uid)

    def settle(self, summary: AnalysisSummary) -> bool:
        """Publish a result; False: there is one already, this one came too late."""
        with self._lock:
            future = self._future(summary.source_uid)
            if future.done():
                if future.result().status != "failed" or summary.status == "failed":
                    return False
                # Better late than failed: who asks from now on gets it.
                del self._futures[summary.source_uid]
                future = self._future(summary.source_uid)
        future.set_result(summary)
        return True

    def reopen(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return the future of a result that may replace a failure (a fallback)."""
        with self._lock:
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
