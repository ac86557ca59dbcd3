"""`Journal`: the documents of runs whose result is not in yet, within a bound of memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Run(Generic[Item]):
    size: int = 0
    entries: list[tuple[int, str, Item]] = field(default_factory=list)
    stopped: bool = False
    given_up: str = ""
    abandoned: bool = False

    def give_up(self, reason: str) -> None:
        """Let go of the documents."""
        self.given_up = self.given_up or reason
        self.entries.clear()
        self.size = 0


class Journal(Generic[Item]):
    """Documents by run and in their order, numbered through; thread-safe.

    Parameters
    ----------
    limit_bytes
        A run whose documents would exceed it is given up: they are let go, and nothing more of
        that run is kept. Documents of other runs stay, except abandoned ones (below), which make
        room.
    """

    def __init__(self, limit_bytes: float) -> None:
        self.limit_bytes = limit_bytes
        self._runs: dict[str, _Run[Item]] = {}
        self._number = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes held."""
        with self._lock:
            return self._size()

    def append(self, run: str, name: str, item: Item, size: int) -> int | None:
        """Keep a document and return its number; None: this run has been given up."""
        with self._lock:
            entry = self._runs.setdefault(run, _Run())
            entry.stopped = entry.stopped or name == "stop"
            if entry.given_up:
                return None
            if self._size() + size > self.limit_bytes:
                self._drop_abandoned()
            if self._size() + size > self.limit_bytes:
                entry.give_up(
                    f"its documents exceed the {self.limit_bytes / 2**20:g} MB that the analysis "
                    "may hold (memory_limit_mb)"
                )
                return None
            self._number += 1
            entry.entries.append((self._number, name, item))
            entry.size += size
            return self._number

    def give_up(self, run: str, reason: str) -> None:
        """Let go of a run's documents, and keep no more of them."""
        with self._lock:
            self._runs.setdefault(run, _Run()).give_up(reason)

    def open(self) -> list[str]:
        """Return the runs that are not over."""
        with self._lock:
            return [uid for uid, run in self._runs.items() if not run.stopped]

    def given_up(self, run: str) -> str:
        """Return why nothing is kept of a run; empty: it is, or is not known at all."""
        with self._lock:
            return self._runs[run].given_up if run in self._runs else ""

    def forget(self, run: str) -> None:
        """Let go of a run whose result is in."""
        with self._lock:
            self._runs.pop(run, None)

    def abandon(self, run: str) -> None:
        """Keep a run for its fallback only, while there is room."""
        with self._lock:
            if run in self._runs:
                self._runs[run].abandoned = True

    def is_abandoned(self, run: str) -> bool:
        """Return whether a run is kept for its fallback only."""
        with self._lock:
            return run in self._runs and self._runs[run].abandoned

    def next_number(self) -> int:
        """Return the number that the next document will get."""
        with self._lock:
            return self._number + 1

    def waiting(self) -> list[str]:
        """Return the runs that are over but have no result."""
        with self._lock:
            return [uid for uid, run in self._runs.items() if run.stopped and not run.abandoned]

    def run(self, run: str) -> list[tuple[int, str, Item]]:
        """Return (number, name, item) of one run."""
        with self._lock:
            return list(self._runs[run].entries) if run in self._runs else []

    def all(self) -> Iterator[tuple[int, str, str, Item]]:
        """Yield (number, run, name, item) of all runs not abandoned, in the order they came."""
        with self._lock:
            everything = [
                (number, uid, name, item)
                for uid, run in self._runs.items()
                if not run.abandoned
                for number, name, item in run.entries
            ]
        yield from sorted(everything, key=lambda entry: entry[0])

    def _drop_abandoned(self) -> None:
        for uid in [uid for uid, run in self._runs.items() if run.abandoned]:
            del self._runs[uid]

    def _size(self) -> int:
        return sum(run.size for run in self._runs.values())
