"""`SinkThread`: whole result runs to their consumers, in a thread that nobody waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable

from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.schema import Documents, DocumentSink

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 2**29
"""Size of the result runs that may wait for slow sinks. What comes on top is lost, and logged."""
_BYTES_PER_DOCUMENT = 4000
"""Rough size of a document without its arrays."""


class SinkThread:
    """Call sinks with whole result runs, one after the other, in a daemon thread.

    A sink that raises (no space, no server) misses the rest of that run. The others get it.

    It differs from `xrf_sr_plans.store.background.BackgroundSink` in what it is given. That one
    takes single documents of open runs from the RunEngine, for one sink, and must follow their
    uids in order to give up a run with a gap. This one takes runs that are finished, for several
    sinks, so that a run is delivered or lost as a whole. It also turns arrays into lists once for
    all sinks, and drops a preview when anything else is waiting.

    Parameters
    ----------
    sinks
        Each is called as ``sink(name, doc)`` with the documents of one run after the other. A
        sink with an attribute ``wants_preview`` that is true gets previews, too, and one with
        ``takes_arrays`` gets arrays as they are.

    Attributes
    ----------
    sinks : list
        The sinks.
    failures : int
        How many runs a sink did not take, or were lost because sinks are too slow.
    """

    def __init__(self, sinks: Iterable[DocumentSink]) -> None:
        self.sinks = list(sinks)
        self.failures = 0
        self._waiting: deque[tuple[Documents, bool]] = deque()
        self._waiting_bytes = 0
        self._busy = False
        self._closed = False
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
        """Queue a run for all sinks that want it; return at once."""
        if not documents or not any(self._wanted(sink, preview) for sink in self.sinks):
            return
        with self._changed:
            if self._closed or (preview and (self._waiting or self._busy)):
                return
            size = _size(documents)
            # However large a run is, it is taken where none waits.
            if self._waiting and self._waiting_bytes + size > MAX_WAITING_BYTES:
                self.failures += 1
                logger.error("sinks are too slow: result run %s is lost", documents[0][1]["uid"])
                return
            self._waiting.append((documents, preview))
            self._waiting_bytes += size
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="xrf-sr-sinks", daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued has been delivered; return False if that takes too long."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._busy, max(0.0, deadline - time.monotonic())
            )

    def close(self) -> None:
        """End the thread once the run that it is at is delivered, without waiting for it.

        What still waits is lost, which is logged.
        """
        with self._changed:
            self._closed = True
            lost = [documents[0][1]["uid"] for documents, preview in self._waiting if not preview]
            self._waiting.clear()
            self._changed.notify_all()
        self.failures += len(lost)
        if lost:
            logger.error("sinks are too slow: result runs %s are lost", ", ".join(lost))

    @staticmethod
    def _wanted(sink: DocumentSink, preview: bool) -> bool:
        return not preview or bool(getattr(sink, "wants_preview", False))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                documents, preview = self._waiting.popleft()
                self._waiting_bytes -= _size(documents)
                self._busy = True
            try:
                self._feed([sink for sink in self.sinks if self._wanted(sink, preview)], documents)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _feed(self, sinks: list[DocumentSink], documents: Documents) -> None:
        uid = documents[0][1]["uid"]
        while documents:
            # One at a time, since lists take eight times the memory of the arrays they are made of.
            name, doc = documents.pop(0)
            wanting_lists = [sink for sink in sinks if not getattr(sink, "takes_arrays", False)]
            listed = as_lists(doc) if wanting_lists else doc
            for sink in list(sinks):
                try:
                    sink(name, listed if sink in wanting_lists else doc)
                except Exception:  # one sink's full disk is not another's problem
                    self.failures += 1
                    logger.exception("sink %r did not take result run %s", sink, uid)
                    sinks.remove(sink)


def _size(documents: Documents) -> int:
    """Return roughly how many bytes documents take; nearly all of them are in their arrays."""
    arrays = sum(
        int(getattr(value, "nbytes", 0))
        for name, doc in documents
        if name == "event"
        for value in doc["data"].values()
    )
    return arrays + _BYTES_PER_DOCUMENT * len(documents)
