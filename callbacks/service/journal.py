"""`Journal`: the documents of runs whose result is not in yet, within a bound of memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from xrf_sr_plans.maps.run_index import MAX_OPEN_RUNS

Item = TypeVar("Item")

SILENT_S = 3600.0
"""Seconds without a document after which a run is let go, where a later run has started since."""
_MAX_GONE = 512
"""Number of runs of which it is remembered why they are not kept any more."""


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
    runs_before: int = 0
    """How many runs had been started when its latest document came."""
    latest: float = 0.0
    """When that was, by the monotonic clock."""

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

    A run may never get a stop document, as where the scan was halted. It counts as still being
    written until a later run starts. From then on it is let go where there are more than
    `MAX_OPEN_RUNS` runs without a stop, where another run needs the memory, or where it has had no
    document for `SILENT_S`: of all such runs the one that has been silent for longest goes first.

    Parameters
    ----------
    limit_bytes
        Number of bytes that all documents together may take. Abandoned runs make room first, then
        runs that were left without a stop. A run whose documents still exceed the limit is given
        up; other runs stay.
    gone
        Called as ``gone(run, reason)`` for each run without a stop that is let go.
    """

    def __init__(
        self, limit_bytes: float, gone: Callable[[str, str], None] = lambda run, reason: None
    ) -> None:
        self.limit_bytes = limit_bytes
        self._tell_gone = gone
        # In the order of their latest documents.
        self._runs: OrderedDict[str, _RunInJournal[Item]] = OrderedDict()
        self._gone: OrderedDict[str, str] = OrderedDict()
        self._number = 0
        self._started = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Number of bytes held."""
        with self._lock:
            return self._size()

    def append(self, run: str, name: str, item: Item, size: int) -> int | None:
        """Keep a document and return its number, or return None where the run is not kept.

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
            number, gone = self._append(run, name, item, size)
        for uid, reason in gone.items():
            self._tell_gone(uid, reason)
        return number

    def _append(
        self, run: str, name: str, item: Item, size: int
    ) -> tuple[int | None, dict[str, str]]:
        """Return the number of the document, and the runs that were let go with the reasons."""
        known = self._touch(run, name)
        if known is None:
            return None, {}
        gone = self._let_silent_runs_go() if name == "start" else {}
        if known.given_up:
            return None, gone
        if self._size() + size > self.limit_bytes:
            self._drop_abandoned()
        if self._size() + size > self.limit_bytes:
            gone |= self._make_room(size)
        if self._size() + size > self.limit_bytes:
            known.give_up(
                f"its documents exceed the {self.limit_bytes / 2**20:g} MB that the analysis "
                "may hold (memory_limit_mb)"
            )
            return None, gone
        self._number += 1
        known.entries.append(JournalEntry(self._number, run, name, item))
        known.size += size
        return self._number, gone

    def give_up(self, run: str, reason: str) -> None:
        """Let go of a run's documents, and keep no more of them."""
        with self._lock:
            if run not in self._gone:
                self._runs.setdefault(run, _RunInJournal()).give_up(reason)

    def given_up(self, run: str) -> str:
        """Return why the documents of a run are not kept; empty where they are."""
        with self._lock:
            return self._runs[run].given_up if run in self._runs else self._gone.get(run, "")

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
            self._gone.pop(run, None)

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

    def _touch(self, run: str, name: str) -> _RunInJournal[Item] | None:
        """Note that a document of a run has come; return None where the run is not kept."""
        if name == "start":
            self._started += 1
            self._gone.pop(run, None)
        elif run not in self._runs:
            self._remember(run, "its first documents are not kept any more")
            return None
        known = self._runs.setdefault(run, _RunInJournal())
        self._runs.move_to_end(run)
        known.stopped = known.stopped or name == "stop"
        known.runs_before, known.latest = self._started, time.monotonic()
        return known

    def _left_without_stop(self) -> list[str]:
        """Return the runs that a later one has started after, the longest silent one first."""
        return [
            uid
            for uid, run in self._runs.items()
            if not run.stopped and run.runs_before < self._started
        ]

    def _let_silent_runs_go(self) -> dict[str, str]:
        left = self._left_without_stop()
        silent_since = time.monotonic() - SILENT_S
        too_many = sum(not run.stopped for run in self._runs.values()) - MAX_OPEN_RUNS
        gone = dict.fromkeys(left[: max(too_many, 0)], f"{MAX_OPEN_RUNS} other runs have started")
        for uid in left:
            if uid not in gone and self._runs[uid].latest < silent_since:
                gone[uid] = f"it has had no document for {SILENT_S:g} s"
        return self._let_go(gone)

    def _make_room(self, size: int) -> dict[str, str]:
        gone: dict[str, str] = {}
        excess = self._size() + size - self.limit_bytes
        for uid in self._left_without_stop():
            if excess <= 0:
                break
            if self._runs[uid].size:
                gone[uid] = "a later run needs its memory (memory_limit_mb)"
                excess -= self._runs[uid].size
        return self._let_go(gone)

    def _let_go(self, reasons: dict[str, str]) -> dict[str, str]:
        gone = {uid: f"its stop document has not come and {why}" for uid, why in reasons.items()}
        for uid, reason in gone.items():
            del self._runs[uid]
            self._remember(uid, reason)
        return gone

    def _remember(self, run: str, reason: str) -> None:
        self._gone.setdefault(run, reason)
        while len(self._gone) > _MAX_GONE:
            self._gone.popitem(last=False)

    def _drop_abandoned(self) -> None:
        for uid in [uid for uid, run in self._runs.items() if run.abandoned]:
            del self._runs[uid]

    def _size(self) -> int:
        return sum(run.size for run in self._runs.values())
