"""Callbacks that know no event pages, such as apstools' file writers, get the rows as events.

Bluesky emits the rows of every flyer as event pages. apstools' writers (1.7.12) log an error for
each page and leave it out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from event_model import unpack_event_page

from xrf_sr_plans.maps.well_formed import flaw
from xrf_sr_plans.schema import STREAM_ROWS, Document

logger = logging.getLogger(__name__)

_IN_AN_EVENT = ("data", "timestamps")
"""Where an event has one value for each data key."""


class OneEventAtATime:
    """Hand documents on, each event page as its events: ``RE.subscribe(OneEventAtATime(writer))``.

    apstools' `NXWriter` writes a run's file in a thread that it starts at the stop document, and
    that file is lost if the next start document comes meanwhile. So threads that the callback
    starts at a stop document are waited for when the next start document comes, in the thread of
    the RunEngine.

    Parameters
    ----------
    callback
        Takes the documents, such as ``nxwriter.receiver``.
    patience_s
        How many seconds to wait for such a thread at most.
    """

    def __init__(self, callback: Callable[[str, Any], object], patience_s: float = 30.0) -> None:
        self._callback = callback
        self._patience_s = patience_s
        self._threads: list[threading.Thread] = []

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Hand on a document; a damaged one is left out, which is logged as an error."""
        if _is_sound(name, doc):
            self._hand_on(name, doc)

    def _hand_on(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "event_page":
            for event in _events(doc):
                self._callback("event", event)
            return
        if name == "start":
            self._wait_for_threads()
        before = set(threading.enumerate())
        self._callback(name, doc)
        if name == "stop":
            self._threads = [one for one in threading.enumerate() if one not in before]

    def _wait_for_threads(self) -> None:
        threads, self._threads = self._threads, []
        deadline = time.monotonic() + self._patience_s
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
            if thread.is_alive():
                logger.error(
                    "%s still runs after %g s; what %r writes of the run before may be lost",
                    thread.name,
                    self._patience_s,
                    self._callback,
                )


class ScanRows(OneEventAtATime):
    """The same for writers of tables, such as SPEC files, whose columns hold one number a row.

    Arrays are left out, because apstools' SPEC writer puts the number of the row in their place.
    So are runs without rows, because it would append how they ended to the scan before. Where
    runs are nested, the one that was opened last is handed on.

    Parameters
    ----------
    callback
        Takes the documents, such as ``specwriter.receiver``.
    patience_s
        How many seconds to wait at most for a thread that the callback starts at the end of a run.
    """

    def __init__(self, callback: Callable[[str, Any], object], patience_s: float = 30.0) -> None:
        super().__init__(callback, patience_s)
        self._run_uid = ""
        self._held: list[Document] | None = None
        self._arrays: dict[str, set[str]] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Hand on a document, once it is known that its run has rows.

        A damaged document is left out, which is logged as an error.
        """
        if not _is_sound(name, doc):
            return
        if name == "start":
            self._run_uid, self._held, self._arrays = doc["uid"], [], {}
        elif doc.get("run_start", self._run_uid) != self._run_uid:
            # Such a writer follows one run at a time, the one that was opened last.
            return
        try:
            numbers = list(self._without_arrays(name, doc))
        except Exception:  # a damaged document must not end a scan
            logger.exception("a %s document is left out", name)
            return
        for one in numbers:
            self._hold_or_hand_on(*one)

    def _hold_or_hand_on(self, name: str, doc: dict[str, Any]) -> None:
        if self._held is None:
            self._hand_on(name, doc)
            return
        if name == "stop":
            self._held = None
            return
        self._held.append((name, doc))
        stream = doc.get("name") if name == "descriptor" else None
        if isinstance(stream, str) and stream == STREAM_ROWS:
            held, self._held = self._held, None
            for one in held:
                self._hand_on(*one)

    def _without_arrays(self, name: str, doc: Mapping[str, Any]) -> Iterator[Document]:
        if name == "event_page":
            for event in _events(doc):
                yield from self._without_arrays("event", cast(Any, event))
            return
        if name == "descriptor":
            arrays = {key for key, facts in doc["data_keys"].items() if facts["dtype"] == "array"}
            self._arrays[doc["uid"]] = arrays
            doc = {
                **doc,
                "data_keys": _without(doc["data_keys"], arrays),
                "object_keys": {
                    device: [key for key in keys if key not in arrays]
                    for device, keys in doc.get("object_keys", {}).items()
                },
            }
        elif name == "event":
            if doc["descriptor"] not in self._arrays:
                return
            arrays = self._arrays[doc["descriptor"]]
            doc = {**doc, **{part: _without(doc[part], arrays) for part in _IN_AN_EVENT}}
        yield name, dict(doc)


def _events(page: Mapping[str, Any]) -> list[Any]:
    """Return the events of a page; none, and a line in the log, where they can't be told."""
    try:
        return list(unpack_event_page(cast(Any, page)))
    except Exception:  # a damaged document must not end a scan
        logger.exception("an event page is left out")
        return []


def _is_sound(name: str, doc: Any) -> bool:
    """Return whether a document has what is relied on here; log what is wrong where not."""
    problem = flaw((name, doc))
    if problem:
        logger.error("left out: %s", problem)
    return not problem


def _without(values: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
