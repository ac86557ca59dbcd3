"""`SinkThread`: whole result runs to their consumers, away from everything that must go on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.result_run import Documents

logger = logging.getLogger(__name__)

Sink = Callable[[str, dict[str, Any]], Any]
"""Takes (name, doc). With an attribute ``wants_preview = True`` it is given previews too."""

MAX_WAITING = 32
"""Result runs that may wait for slow sinks; the next one is not delivered, and that is logged."""


class SinkThread:
    """Call sinks with whole runs, one after the other, in a daemon thread.

    A sink that raises (no space, no server) misses the rest of that run; the others get it.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self.sinks = list(sinks)
        self.failures = 0
        self._waiting: deque[tuple[Documents, bool]] = deque()
        self._busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def has_sinks(self) -> bool:
        """Whether anybody takes results."""
        return bool(self.sinks)

    @property
    def has_preview_sinks(self) -> bool:
        """Whether anybody takes previews."""
        return any(self._wanted(sink, True) for sink in self.sinks)

    def deliver(self, documents: Documents, *, preview: bool = False) -> None:
        """Queue a run for all sinks; returns at once."""
        if not documents or not any(self._wanted(sink, preview) for sink in self.sinks):
            return
        with self._changed:
            if preview and (self._waiting or self._busy):
                return
            if len(self._waiting) >= MAX_WAITING:
                self.failures += 1
                logger.error("sinks are too slow: result run %s is lost", documents[0][1]["uid"])
                return
            self._waiting.append((documents, preview))
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="xrf-sr-sinks", daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued has been delivered; False: not within the time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._busy, max(0.0, deadline - time.monotonic())
            )

    @staticmethod
    def _wanted(sink: Sink, preview: bool) -> bool:
        return not preview or bool(getattr(sink, "wants_preview", False))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                documents, preview = self._waiting.popleft()
                self._busy = True
            try:
                plain: Documents = [(name, as_lists(doc)) for name, doc in documents]
                for sink in self.sinks:
                    if self._wanted(sink, preview):
                        self._feed(sink, plain)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _feed(self, sink: Sink, documents: Documents) -> None:
        try:
            for name, doc in documents:
                sink(name, doc)
        except Exception:  # one sink's full disk is not another's problem
            self.failures += 1
            logger.exception("sink %r did not take result run %s", sink, documents[0][1]["uid"])
