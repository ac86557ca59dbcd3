"""`Listener`: from a bus to the analysis, until somebody ends it."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Event
from typing import Any

from xrf_sr_plans.callbacks.analysis_link import AnalysisLink
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import MessageError, PickleRefusedError
from xrf_sr_plans.intake.bus import TELL_AGAIN_S, Intake, Told
from xrf_sr_plans.intake.messages import Message, Place, document_in
from xrf_sr_plans.intake.ordered_runs import PATIENCE_S, SILENT_S, OrderedRuns
from xrf_sr_plans.schema import DocumentSink

_WAIT_S = 0.1
_SETTLE_S = 2.0
_IDLE_S = 0.05
"""Longest wait to learn whether all results are out, in seconds."""
_SETTLED_WITHIN_S = 60.0
"""Time after which all results are waited for, where they never were all out together."""
_MOST_AWAITED = 16
"""Number of results that are waited for before more is read."""
MOST_BYTES = 2**28
"""Size of the messages of runs without a result, from which on no more are read meanwhile."""
_MAX_SENDERS = 1000
_LONGEST_LINE = 2000

HOW_TO_SERIALIZE = (
    "It could run any code here. Give bluesky's publisher a safe serializer: "
    "Publisher(..., serializer=xrf_sr_plans.intake.serializers.to_msgpack)"
)


class Listener:
    """Take documents from a bus, and submit those of runs that ask for analysis.

    A bus that keeps messages is read no faster than results come, as after a weekend without a
    listener: what the analysis can't hold would be lost.

    Parameters
    ----------
    intake
        The bus.
    link
        The analysis. Whoever made it closes it.
    told
        Called with a sentence on whatever happens: runs, results, what is missing or refused.
    patience_s, silent_s
        How long to wait for a missing document, and for a run's next one (`OrderedRuns`).
    most_bytes
        Size of the messages of runs without a result, from which on a bus that keeps messages is
        not read until there is one.
    followers
        Each is called as ``follower(name, doc)`` with what is submitted.

    Attributes
    ----------
    runs : OrderedRuns
        The runs that are open.
    """

    def __init__(
        self,
        intake: Intake,
        link: AnalysisLink,
        told: Told,
        *,
        patience_s: float = PATIENCE_S,
        silent_s: float = SILENT_S,
        most_bytes: float = MOST_BYTES,
        followers: tuple[DocumentSink, ...] = (),
    ) -> None:
        self._intake = intake
        self._link = link
        self._told = told
        self._followers = followers
        self.runs = OrderedRuns(self._submit, told, patience_s=patience_s, silent_s=silent_s)
        self._awaited: dict[str, Future[AnalysisSummary]] = {}
        self._told_at: OrderedDict[str, float] = OrderedDict()
        self._number = 0
        # Number and place of each message that is not settled.
        self._unsettled: deque[tuple[int, Place]] = deque()
        self._next_settle_s = 0.0
        self._settled_s = time.monotonic()
        self._most_bytes = most_bytes
        self._size = 0
        # Size of the messages of each run that was submitted and has no result.
        self._sizes: dict[str, int] = {}

    def run(self, stop: Event) -> None:
        """Listen until `stop` is set, then say which runs are left."""
        while not stop.is_set():
            self.step(_WAIT_S)
        for uid in self.runs.open_runs:
            self._told(f"run {uid} is not over and is not analysed: this ends before it")

    def step(self, timeout_s: float) -> None:
        """Take the next message, if one comes within the time, and do what is due."""
        held = self._is_behind and self._intake.hold(timeout_s)
        message = None if held else self._intake.receive(timeout_s)
        now_s = time.monotonic()
        if message is not None:
            self._take(message, now_s)
        self.runs.tick(now_s)
        self.tell_results()
        if now_s >= self._next_settle_s:
            self._next_settle_s = now_s + _SETTLE_S
            self.settle()

    def tell_results(self) -> None:
        """Tell of the results that have come in."""
        for uid, future in list(self._awaited.items()):
            if future.done():
                del self._awaited[uid]
                self._sizes.pop(uid, None)
                self._told(_in_words(future.result(0.0)))

    def settle(self, timeout_s: float = _IDLE_S) -> None:
        """Let the bus forget what is not needed again, once all results are out.

        That is all before the first message of the oldest run that is open.

        Parameters
        ----------
        timeout_s
            Longest wait to learn whether they are out.
        """
        if self._unsettled and (self._awaited or not self._link.flush(timeout_s)):
            return
        self._settled_s = time.monotonic()
        open_runs = set(self.runs.open_runs)
        self._sizes = {run: size for run, size in self._sizes.items() if run in open_runs}
        oldest = self.runs.oldest_open
        places: dict[tuple[str, int], Place] = {}
        while self._unsettled and (oldest is None or self._unsettled[0][0] < oldest):
            _, place = self._unsettled.popleft()
            known = places.get((place.topic, place.partition), place)
            places[place.topic, place.partition] = max(place, known)
        if places:
            self._intake.settle(list(places.values()))

    @property
    def _is_behind(self) -> bool:
        """Whether results have to come before more is read."""
        return bool(self._awaited) and (
            len(self._awaited) >= _MOST_AWAITED
            or sum(self._sizes.values()) > self._most_bytes
            or time.monotonic() - self._settled_s > _SETTLED_WITHIN_S
        )

    def _take(self, message: Message, now_s: float) -> None:
        self._number += 1
        self._size = len(message.body)
        if message.place is not None:
            self._unsettled.append((self._number, message.place))
        try:
            document = document_in(message)
        except PickleRefusedError as error:
            self._tell_once(message.sender, f"{error}. {HOW_TO_SERIALIZE}", now_s)
            return
        except MessageError as error:
            self._tell_once(message.sender, str(error), now_s)
            return
        if document is not None:
            name, doc = document
            self.runs.take(name, doc, now_s, size=len(message.body), number=self._number)

    def _submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        self._link.submit(run, name, doc)
        self._sizes[run] = self._sizes.get(run, 0) + self._size
        for follower in self._followers:
            follower(name, dict(doc))
        if name == "start":
            self._told(f"run {run} has begun ({doc.get('plan_name', 'no plan_name')!s:.80})")
        elif name == "stop":
            self._told(f"run {run} is over")
            self._awaited[run] = self._link.request(run)

    def _tell_once(self, sender: str, words: str, now_s: float) -> None:
        """Tell of a message that was dropped, once per sender and minute."""
        before = self._told_at.get(sender)
        if before is not None and now_s - before < TELL_AGAIN_S:
            return
        self._told_at[sender] = now_s
        self._told_at.move_to_end(sender)
        while len(self._told_at) > _MAX_SENDERS:
            self._told_at.popitem(last=False)
        self._told(f"{sender}: {words}")


def _in_words(summary: AnalysisSummary) -> str:
    facts = [f"run {summary.source_uid}: {summary.status}", f"{len(summary.regions)} regions"]
    facts += [f"result {summary.result_uid}"] if summary.result_uid else []
    facts += [f"digest {summary.digest}"] if summary.digest else []
    return ", ".join(facts) + (f": {summary.reason}" if summary.reason else "")


def printed(told: Callable[[str], None]) -> Told:
    """Return a teller that puts each sentence on one line, whatever a message holds."""

    def tell(words: str) -> None:
        told("".join(one if one.isprintable() else "?" for one in words[:_LONGEST_LINE]))

    return tell
