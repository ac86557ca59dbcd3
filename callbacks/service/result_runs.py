"""`ResultRuns`: result runs on their way from the worker to the sinks, each once and whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xrf_sr_plans.schema import Documents


class ResultRuns:
    """Collect what a worker says until a result run is whole, and hand it on once.

    A worker that dies half-way leaves no half result run behind. The next worker says the same
    result runs again, with the same uids, and those that were handed on are left out.
    """

    def __init__(self) -> None:
        self._coming: dict[str, Documents] = {}
        self._handed_on: dict[str, set[str]] = {}

    def add(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of a result run that follows from the map run with the uid `run`.

        A worker says one result run after the other, never two of them mixed.
        """
        self._coming.setdefault(run, []).append((name, dict(doc)))

    def take(self, run: str) -> list[Documents]:
        """Return the result runs of a map run that are whole and were not returned before."""
        whole: list[Documents] = []
        handed_on = self._handed_on.setdefault(run, set())
        documents: Documents = []
        for name, doc in self._coming.pop(run, []):
            documents.append((name, doc))
            if name == "stop":
                if doc["run_start"] not in handed_on:
                    handed_on.add(doc["run_start"])
                    whole.append(documents)
                documents = []
        if documents:
            self._coming[run] = documents
        return whole

    def forget(self, run: str) -> None:
        """Let go of a map run from which nothing more follows."""
        self._coming.pop(run, None)
        self._handed_on.pop(run, None)

    def start_again(self) -> None:
        """Let go of what a worker has said by halves, since a new one says it again."""
        self._coming.clear()
