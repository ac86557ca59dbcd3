"""Which run a document belongs to, and whether the analysis wants that run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_OPEN_RUNS = 64
"""A run that never gets a stop document is forgotten when so many others have been opened."""

_PARENT = {
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
_HAS_CHILDREN = ("descriptor", "resource", "stream_resource")


def wants_analysis(start: Mapping[str, Any]) -> bool:
    """Return whether a start document carries a request to the analysis."""
    metadata = start.get("xrf_sr")
    return isinstance(metadata, Mapping) and metadata.get("analysis") is not None


class RunIndex:
    """Follow the uids of open runs; a few dictionary look-ups per document."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}
        self._uids: dict[str, list[str]] = {}

    def owner(self, name: str, doc: Mapping[str, Any]) -> str | None:
        """Return the uid of the run the document belongs to; None: not one for the analysis."""
        if name == "start":
            return self._open(doc) if wants_analysis(doc) else None
        if name not in _PARENT:
            return None
        run = self._owner.get(doc.get(_PARENT[name], ""))
        if run is None:
            return None
        if name in _HAS_CHILDREN:
            self._owner[doc["uid"]] = run
            self._uids[run].append(doc["uid"])
        elif name == "stop":
            self._forget(run)
        return run

    def _open(self, start: Mapping[str, Any]) -> str:
        run = start["uid"]
        if len(self._uids) >= MAX_OPEN_RUNS:
            self._forget(next(iter(self._uids)))
        self._owner[run] = run
        self._uids[run] = [run]
        return run

    def _forget(self, run: str) -> None:
        for uid in self._uids.pop(run, ()):
            self._owner.pop(uid, None)
