"""`Journal`: the documents of runs whose result is not in yet, within a bound of memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class JournalEntry(NamedTuple, Generic[Item]):
    """One document in the journal; `item` is the form in which it is kept."""

    number: int
    run: str
    name: str
    item: Item


@dataclass
class _RunInJournal(Generic[Item]):
    size: int = 0
    entries: list[JournalEntry[Item]] = field(default_factory=list)
    stopped: bool = False
    given_up: str = ""
    abandoned: bool = False

    def give_up(self, reason: str) -> None:
        """Let go of the documents."""
        self.given_up = self.given_up or reason
        self.entries.clear()
        self.size = 0


class Journal(Generic[Item]):
    """The documents of several runs in their order, numbered through. It is thread-safe.

    A run is given up where it exceeds the memory: its documents are let go, and no more of them
    are kept. A run is abandoned where the analysis process will not be asked about it any more:
    its documents stay for the bicubic fallback as long as no other run needs the memory.

    Parameters
    ----------
    limit_bytes
        Number of bytes that all documents together may take. Abandoned runs make room first. A
        run whose documents still exceed the limit is given up; other runs stay.
    """

    def __init__(self, limit_bytes: float) -> None:
        self.limit_bytes = limit_bytes
        self._runs: dict[str, _RunInJournal[Item]] = {}
        self._number = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Number of bytes held."""
        with self._lock:
            return self._size()

    def append(self, run: str, name: str, item: Item, size: int) -> int | None:
        """Keep a document and return its number, or return None where the run is given up.

        Parameters
        ----------
        run
            Uid of the run that the document belongs to.
        name
            Kind of the document, such as "event".
        item
            The document in the form in which it is kept.
        size
            Number of bytes that it takes.
        """
        with self._lock:
            known = self._runs.setdefault(run, _RunInJournal())
            known.stopped = known.stopped or name == "stop"
            if known.given_up:
                return None
            if self._size() + size > self.limit_bytes:
                self._drop_abandoned()
            if self._size() + size > self.limit_bytes:
                known.give_up(
                    f"its documents exceed the {self.limit_bytes / 2**20:g} MB that the analysis "
                    "may hold (memory_limit_mb)"
                )
                return None
            self._number += 1
            known.entries.append(JournalEntry(self._number, run, name, item))
            known.size += size
            return self._number

    def give_up(self, run: str, reason: str) -> None:
        """Let go of a run's documents, and keep no more of them."""
        with self._lock:
            self._runs.setdefault(run, _RunInJournal()).give_up(reason)

    def given_up(self, run: str) -> str:
        """Return why a run is given up; empty where it is not, or is not known at all."""
        with self._lock:
            return self._runs[run].given_up if run in self._runs else ""

    def abandon(self, run: str) -> None:
        """Keep a run for its fallback only, while there is room."""
        with self._lock:
            if run in self._runs:
                self._runs[run].abandoned = True

    def is_abandoned(self, run: str) -> bool:
        """Return whether a run is kept for its fallback only."""
        with self._lock:
            return run in self._runs and self._runs[run].abandoned

    def forget(self, run: str) -> None:
        """Let go of a run whose result is in."""
        with self._lock:
            self._runs.pop(run, None)

    def next_number(self) -> int:
        """Return the number that the next document will get."""
        with self._lock:
            return self._number + 1

    def open_runs(self) -> list[str]:
        """Return the uids of the runs that have not stopped."""
        with self._lock:
            return [uid for uid, run in self._runs.items() if not run.stopped]

    def waiting_runs(self) -> list[str]:
        """Return the uids of the runs that have stopped and wait for their result."""
        with self._lock:
            return [uid for uid, run in self._runs.items() if run.stopped and not run.abandoned]

    def entries_of(self, run: str) -> list[JournalEntry[Item]]:
        """Return the documents of one run in their order."""
        with self._lock:
            return list(self._runs[run].entries) if run in self._runs else []

    def entries(self) -> Iterator[JournalEntry[Item]]:
        """Yield the documents of all runs that are not abandoned, in the order they came."""
        with self._lock:
            everything = [
                entry for run in self._runs.values() if not run.abandoned for entry in run.entries
            ]
        yield from sorted(everything, key=lambda entry: entry.number)

    def _drop_abandoned(self) -> None:
        for uid in [uid for uid, run in self._runs.items() if run.abandoned]:
            del self._runs[uid]

    def _size(self) -> int:
        return sum(run.size for run in self._runs.values())
