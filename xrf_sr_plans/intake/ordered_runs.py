"""`OrderedRuns`: the documents of each run in their order and once, and what is missing in words.

A bus may deliver a document twice, late, in another order, or not at all. A document waits for the
one that it follows from; a stop document waits for the events that it announces; neither waits
longer than `patience_s`. What did not come by then is told, and the run is analysed without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xrf_sr_plans.callbacks.map_assembler import seconds
from xrf_sr_plans.intake.tally import Tally
from xrf_sr_plans.maps.run_index import HAS_CHILDREN, MAX_FOLLOWED_RUNS, PARENT, wants_analysis
from xrf_sr_plans.maps.well_formed import flaw
from xrf_sr_plans.schema import MISSING_DOCUMENTS
from xrf_sr_plans.store.unfinished import made_up_stop

PATIENCE_S = 5.0
"""How long a document waits for another one, in seconds."""
SILENT_S = 3600.0
"""Seconds without a document after which a run without a stop document is analysed as it is."""
_MAX_RUNS = 2 * MAX_FOLLOWED_RUNS
"""Number of runs, open or over, that are remembered."""
_MAX_LOST = 10_000
"""Number of uids of which it is remembered that they did not come."""
_MAX_HELD_BYTES = 2**28
"""Size of all documents that wait for the one that they follow from."""
_BYTES_PER_DOCUMENT = 1000
"""Rough size of a document without its arrays, in bytes."""

Submit = Callable[[str, str, Mapping[str, Any]], None]
"""Takes the uid of a run, the name of a document and the document, as an analysis link does."""
Told = Callable[[str], None]
"""Takes a sentence on something that went wrong."""


@dataclass
class _Run:
    """What is known of a run whose start document has come."""

    start: Mapping[str, Any]
    wanted: bool
    first: int
    """Lowest number of its messages."""
    latest_s: float
    tally: Tally = field(default_factory=Tally)
    stop: Mapping[str, Any] | None = None
    stop_came_s: float = 0.0
    latest_time: float = 0.0
    """Time of its latest document, in seconds since 1970."""
    over: bool = False
    told_late: bool = False


@dataclass
class _Held:
    """Documents that wait for the one that they follow from."""

    since_s: float
    first: int
    """Number of the first message."""
    documents: list[tuple[str, dict[str, Any], int, int]] = field(default_factory=list)
    """Name, document, size in bytes and number of the message."""
    size: int = 0


class OrderedRuns:
    """Put the documents of a bus in order, and hand on those of runs that ask for analysis.

    It has no clock of its own and never raises on what a document holds.

    Parameters
    ----------
    submit
        Called as ``submit(run, name, doc)`` with what is handed on, each run in its order.
    told
        Called with a sentence on each thing that went wrong.
    patience_s
        How long a document waits for one that is missing, in seconds.
    silent_s
        Seconds without a document after which a run is taken to have lost its stop document. One
        with the exit status "abort" is then made up.
    wanted
        Called with each start document; documents of other runs are dropped.
    """

    def __init__(
        self,
        submit: Submit,
        told: Told,
        *,
        patience_s: float = PATIENCE_S,
        silent_s: float = SILENT_S,
        wanted: Callable[[Mapping[str, Any]], bool] = wants_analysis,
    ) -> None:
        self.patience_s = patience_s
        self.silent_s = silent_s
        self._submit = submit
        self._told = told
        self._wanted = wanted
        # In the order of their latest documents.
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        # Uid of a descriptor or a resource -> uid of its run.
        self._owner: dict[str, str] = {}
        self._children: dict[str, list[str]] = {}
        # Uid of what has not come -> what waits for it.
        self._held: dict[str, _Held] = {}
        self._held_bytes = 0
        # Uid of a descriptor or a resource that waits -> uid of what it waits for.
        self._waits_for: dict[str, str] = {}
        self._lost: OrderedDict[str, None] = OrderedDict()

    @property
    def open_runs(self) -> list[str]:
        """Uids of the runs that ask for analysis and are not over."""
        return [uid for uid, run in self._runs.items() if run.wanted and not run.over]

    @property
    def oldest_open(self) -> int | None:
        """Number of the first message of a run that is not over, or of what waits; None: nothing.

        Whoever reads all messages again from there on misses no run.
        """
        numbers = [run.first for run in self._runs.values() if run.wanted and not run.over]
        return min([*numbers, *(held.first for held in self._held.values())], default=None)

    def take(
        self, name: str, doc: dict[str, Any], now_s: float, *, size: int = 0, number: int = 0
    ) -> None:
        """Take a document.

        Parameters
        ----------
        name, doc
            The document.
        now_s
            The time, in seconds by any clock that never goes back.
        size
            Its size in bytes.
        number
            The number of its message.
        """
        if name != "start" and name not in PARENT:
            return
        if problem := flaw((name, doc)) or _flaw_of_uids(name, doc):
            self._told(f"a damaged document is left out: {problem}")
            return
        if name == "start":
            self._begin(doc, now_s, number)
            return
        run = self._run_of(name, doc)
        if run is None:
            self._hold(name, doc, now_s, size, number)
        else:
            self._runs[run].first = min(self._runs[run].first, number)
            self._pass(run, name, doc, now_s)

    def tick(self, now_s: float) -> None:
        """Do what is due: end the waiting for documents, and runs that nothing comes of."""
        for parent, held in list(self._held.items()):
            if now_s - held.since_s >= self.patience_s:
                self._give_up(parent)
        for uid, run in list(self._runs.items()):
            if run.over or not run.wanted:
                continue
            if run.stop is not None and now_s - run.stop_came_s >= self.patience_s:
                self._end(uid, run, run.stop)
            elif run.stop is None and now_s - run.latest_s >= self.silent_s:
                self._told(
                    f"run {uid}: no stop document and nothing else has come for "
                    f"{self.silent_s:g} s; it is analysed as it is"
                )
                reason = f"no stop document came over the bus for {self.silent_s:g} s"
                stop = {**made_up_stop(run.start, run.latest_time), "reason": reason}
                self._end(uid, run, stop)

    def _begin(self, start: dict[str, Any], now_s: float, number: int) -> None:
        uid = start["uid"]
        if uid in self._runs:
            return
        self._make_room()
        run = _Run(start, self._wanted(start), number, now_s, latest_time=seconds(start, 0.0))
        self._runs[uid] = run
        if run.wanted:
            self._submit(uid, "start", start)
        self._release(uid, now_s)

    def _run_of(self, name: str, doc: Mapping[str, Any]) -> str | None:
        """Return the uid of a document's run, where all has come that it follows from."""
        parent = doc[PARENT[name]]
        return parent if parent in self._runs else self._owner.get(parent)

    def _pass(self, uid: str, name: str, doc: dict[str, Any], now_s: float) -> None:
        run = self._runs[uid]
        if name in HAS_CHILDREN and doc["uid"] not in self._owner:
            self._owner[doc["uid"]] = uid
            self._children.setdefault(uid, []).append(doc["uid"])
        if run.wanted:
            self._follow(uid, run, name, doc, now_s)
        elif name == "stop":
            run.over = True
        if name in HAS_CHILDREN:
            self._release(doc["uid"], now_s)

    def _follow(self, uid: str, run: _Run, name: str, doc: dict[str, Any], now_s: float) -> None:
        """Hand on a document of a run that is wanted, unless it came before or comes too late."""
        if name == "stop":
            if run.stop is None and not run.over:
                run.stop, run.stop_came_s = doc, now_s
        elif run.tally.add(name, doc):
            if run.over:
                if not run.told_late:
                    run.told_late = True
                    self._told(f"run {uid}: a document came after its analysis had begun")
                return
            self._submit(uid, name, doc)
        if run.over:
            return
        run.latest_s = now_s
        run.latest_time = max(run.latest_time, seconds(doc, 0.0))
        self._runs.move_to_end(uid)
        if run.stop is not None and not run.tally.missing(run.stop):
            self._end(uid, run, run.stop)

    def _end(self, uid: str, run: _Run, stop: Mapping[str, Any]) -> None:
        missing = run.tally.missing(stop)
        for words in missing:
            self._told(f"run {uid}: documents are missing: {words}")
        run.over = True
        run.stop = stop
        self._submit(uid, "stop", {**stop, MISSING_DOCUMENTS: missing} if missing else stop)

    def _hold(self, name: str, doc: dict[str, Any], now_s: float, size: int, number: int) -> None:
        parent: str = doc[PARENT[name]]
        parent = self._waits_for.get(parent, parent)
        if parent in self._lost:
            return
        size += _BYTES_PER_DOCUMENT
        held = self._held.setdefault(parent, _Held(now_s, number))
        held.documents.append((name, doc, size, number))
        held.size += size
        self._held_bytes += size
        if name in HAS_CHILDREN:
            self._waits_for[doc["uid"]] = parent
        while self._held_bytes > _MAX_HELD_BYTES:
            self._give_up(next(iter(self._held)))

    def _release(self, parent: str, now_s: float) -> None:
        """Take again what waited for a document that has come."""
        self._lost.pop(parent, None)
        for name, doc, size, number in self._no_longer_held(parent):
            self.take(name, doc, now_s, size=size, number=number)

    def _give_up(self, parent: str) -> None:
        """Let go of documents, as the one that they follow from does not come."""
        documents = self._no_longer_held(parent)
        lost = [parent, *(doc["uid"] for name, doc, *_ in documents if name in HAS_CHILDREN)]
        self._lost.update(dict.fromkeys(lost))
        while len(self._lost) > _MAX_LOST:
            self._lost.popitem(last=False)
        kinds = {PARENT[name] for name, *_ in documents}
        several = f"{len(documents)} document{'s' if len(documents) > 1 else ''}"
        if "run_start" in kinds:
            self._told(
                f"run {parent}: {several} came without its start document, which was lost or sent "
                "before this began to listen; nothing of the run is analysed"
            )
            return
        # The run can't be named. Where it asks for analysis, its end tells of them, too.
        self._told(f"{several} came without the {kinds.pop()} {parent} that they belong to")

    def _no_longer_held(self, parent: str) -> list[tuple[str, dict[str, Any], int, int]]:
        held = self._held.pop(parent, None)
        if held is None:
            return []
        self._held_bytes -= held.size
        for name, doc, *_ in held.documents:
            if name in HAS_CHILDREN:
                self._waits_for.pop(doc["uid"], None)
        return held.documents

    def _make_room(self) -> None:
        if len(self._runs) < _MAX_RUNS:
            return
        of_no_use = (uid for uid, run in self._runs.items() if run.over or not run.wanted)
        uid = next(of_no_use, None) or next(iter(self._runs))
        run = self._runs[uid]
        if run.wanted and not run.over:
            self._told(f"run {uid} is let go: {_MAX_RUNS} other runs are open")
        del self._runs[uid]
        for child in self._children.pop(uid, ()):
            self._owner.pop(child, None)


def _flaw_of_uids(name: str, doc: Mapping[str, Any]) -> str:
    """Return which uid a document lacks without which it belongs nowhere, or ""."""
    needed = ["uid"] if name == "start" or name in HAS_CHILDREN else []
    needed += [PARENT[name]] if name in PARENT else []
    wrong = [key for key in needed if not isinstance(doc.get(key), str)]
    return f"{name} has no usable {' and '.join(wrong)}" if wrong else ""
