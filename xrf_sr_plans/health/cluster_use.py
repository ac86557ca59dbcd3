"""`ClusterUse`: how many of a session's maps its cluster enhanced, and why it didn't the others."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import CancelledError, Future
from typing import Literal

from xrf_sr_plans.cluster.connection import ENHANCED_HERE
from xrf_sr_plans.devices.protocols import AnalysisSummary

Where = Literal["cluster", "here", "bicubic"]
"""Where a map was enhanced: on the cluster, or beside the RunEngine by the model or without it."""


class ClusterUse:
    """Count maps by where they were enhanced. It is thread-safe.

    Parameters
    ----------
    address
        The cluster of the session; "" where it has none, and all maps are enhanced here.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._maps: Counter[Where] = Counter()
        self._trouble = ""

    @property
    def maps(self) -> Counter[Where]:
        """How many maps were enhanced where."""
        with self._lock:
            return self._maps.copy()

    @property
    def trouble(self) -> str:
        """Why the cluster didn't enhance the last map; "" where it did."""
        with self._lock:
            return self._trouble

    def take(self, outcome: Future[AnalysisSummary]) -> Where | None:
        """Count the outcome of a map, which is there; return where the map was enhanced, if it was.

        Parameters
        ----------
        outcome
            As `AnalysisLink.request` returns it.
        """
        try:
            summary = outcome.result(0)
        except (CancelledError, TimeoutError):
            return None
        if summary.status == "failed":
            return None
        _, said, why = summary.reason.partition(ENHANCED_HERE)
        where: Where = "here" if said or not self.address else "cluster"
        if summary.status == "fallback":
            where, why = "bicubic", why or summary.reason
        with self._lock:
            self._maps[where] += 1
            self._trouble = why if self.address else ""
        return where
