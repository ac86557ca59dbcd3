"""`ToldRows`: which rows of a map its documents tell of, measured or left missing.

A run that RE.stop has ended closes as a success, however many rows it lacks, so that only its rows
say whether the map came to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xrf_sr_plans import schema


class ToldRows:
    """Count the rows of those maps that are being watched."""

    def __init__(self) -> None:
        self._wanted: dict[str, int] = {}
        self._rows: dict[str, set[int]] = {}
        self._streams: dict[str, str] = {}

    def watch(self, start: Mapping[str, Any]) -> None:
        """Watch the map with that start document."""
        uid = str(start["uid"])
        self._wanted[uid], self._rows[uid] = int(start["shape"][0]), set()

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of any run between start and stop."""
        if name == "descriptor":
            streams = (schema.STREAM_ROWS, schema.STREAM_LOST_ROWS)
            if doc.get("run_start") in self._wanted and doc.get("name") in streams:
                self._streams[str(doc["uid"])] = str(doc["run_start"])
        elif name in ("event", "event_page") and doc.get("descriptor") in self._streams:
            rows = self._rows[self._streams[doc["descriptor"]]]
            for key, value in doc["data"].items():
                if key.endswith("_row"):
                    rows.update(map(int, value if isinstance(value, list) else [value]))

    def missing(self, uid: str) -> int:
        """Return how many rows a map lacks of which nothing was told, and watch it no more."""
        self._streams = {key: run for key, run in self._streams.items() if run != uid}
        return self._wanted.pop(uid, 0) - len(self._rows.pop(uid, ()))
