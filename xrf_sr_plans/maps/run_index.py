"""`RunIndex`: which run a document belongs to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from xrf_sr_plans.schema import kind_of_run

logger = logging.getLogger(__name__)

MAX_OPEN_RUNS = 64
"""Number of runs without a stop document that the live analysis keeps at a time."""
MAX_FOLLOWED_RUNS = 1024
"""Number of runs without a stop document whose uids are followed; a few of them take no memory."""

PARENT = {
    "descriptor": "run_start",
    "resource": "run_start",
    "stream_resource": "run_start",
    "stop": "run_start",
    "event": "descriptor",
    "event_page": "descriptor",
    "stream_datum": "descriptor",
    "datum": "resource",
    "datum_page": "resource",
}
"""Kind of document -> the key under which it names the document that it follows from."""

HAS_CHILDREN = ("descriptor", "resource", "stream_resource")
"""Kinds of documents, besides start documents, that others follow from."""

_NEEDED = {
    "start": ("uid",),
    **{name: (key, *(("uid",) if name in HAS_CHILDREN else ())) for name, key in PARENT.items()},
}
"""Kind of document -> the keys with uids that it must have."""


def wants_analysis(start: Mapping[str, Any]) -> bool:
    """Return whether the analysis takes a run.

    It takes the maps whose start documents carry a request to it, and the outcomes of surveys, at
    whose end it puts their maps together.
    """
    metadata = start.get("xrf_sr")
    if not isinstance(metadata, Mapping):
        return False
    return metadata.get("analysis") is not None or kind_of_run(start) == "outcomes"


class RunIndex:
    """Follow the uids of open runs from start to descriptor to event.

    A document costs a few dictionary look-ups. A run is forgotten at its stop document.

    Parameters
    ----------
    wanted
        Called with each start document. The documents of a run for which it returns False are
        treated as unknown. None: every run is followed.
    most_open
        A run that never stops is forgotten when one more than this many are open: of all of them,
        the one that has had no document for longest. None: there is no such limit.
    """

    def __init__(
        self,
        wanted: Callable[[Mapping[str, Any]], bool] | None = None,
        most_open: int | None = None,
    ) -> None:
        self._wanted = wanted
        self._most_open = most_open
        self._run_of: dict[str, str] = {}
        self._uids: dict[str, list[str]] = {}

    @property
    def open_runs(self) -> list[str]:
        """Uids of the runs that are followed at the moment, the oldest first."""
        return list(self._uids)

    def run_of(self, name: str, doc: Mapping[str, Any]) -> str | None:
        """Return the uid of the run that a document belongs to.

        Documents of one run have to come in their order. The answer is None where the run's start
        document was not seen or not wanted, where the kind of document is unknown, and where the
        uids that it should have are not there or no texts, which is logged.
        """
        if name not in _NEEDED:
            return None
        if not isinstance(doc, Mapping) or not all(
            isinstance(doc.get(key), str) for key in _NEEDED[name]
        ):
            logger.warning("a %s document has no usable %s", name, " and ".join(_NEEDED[name]))
            return None
        if name == "start":
            return self._open(doc) if self._wanted is None or self._wanted(doc) else None
        run = self._run_of.get(doc[PARENT[name]])
        if run is None:
            return None
        if self._most_open is not None:
            # In the order of their latest documents.
            self._uids[run] = self._uids.pop(run)
        if name in HAS_CHILDREN:
            self._run_of[doc["uid"]] = run
            self._uids[run].append(doc["uid"])
        elif name == "stop":
            self._forget(run)
        return run

    def _open(self, start: Mapping[str, Any]) -> str:
        run = start["uid"]
        self._forget(run)
        if self._most_open is not None and len(self._uids) >= self._most_open:
            self._forget(next(iter(self._uids)))
        self._run_of[run] = run
        self._uids[run] = [run]
        return run

    def _forget(self, run: str) -> None:
        for uid in self._uids.pop(run, ()):
            self._run_of.pop(uid, None)
