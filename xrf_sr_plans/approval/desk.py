"""`ApprovalDesk`: the device through which a plan waits for people as it waits for a motor."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from bluesky.protocols import Hints, Reading
from event_model import DataKey
from ophyd.status import Status

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.questions import Collect, Question
from xrf_sr_plans.approval.records import (
    By,
    Decided,
    Decision,
    WaitBegan,
    WaitEnded,
)
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.schema import Disposition, Undecided

logger = logging.getLogger(__name__)

_POLL_S = 0.2
"""How often a wait looks for decisions."""
_SET_S = 30.0
"""Longest time in seconds that the folder may take to be written to."""


class ApprovalDesk:
    """A device that asks people about the regions of a survey.

    ``set(Question(...))`` puts the proposal where pages and consoles find it. `trigger` begins to
    wait: its status finishes once every region is decided on, or when the time is over. Then
    `read` gives the states of all regions, of which those that are approved belong to this plan
    call, and nobody else flies or queues them. ``set(Collect(...))`` takes what was approved when
    no plan waited.

    All files are read and written in threads. While the RunEngine is paused the time stands still.
    The same messages once more, as after a pause, ask nobody twice. When the device is unstaged,
    as after an abort or a halt, the wait is over, and what was taken and not flown can be approved
    again.

    Parameters
    ----------
    folder
        Where proposals and decisions are; None: the default folder.
    name
        Name of the device, with which the keys of its reading begin.

    Attributes
    ----------
    waiting : callable or None
        Called with True when a plan begins to wait, and with False when it waits no more, in a
        thread.
    """

    parent = None

    def __init__(self, folder: ApprovalFolder | None = None, name: str = "approvals") -> None:
        self.name = name
        self.folder = folder if folder is not None else ApprovalFolder()
        self.waiting: Callable[[bool], None] | None = None
        self._lock = threading.Lock()
        self._wait: _Wait | None = None
        self._question: Question | None = None
        self._answered: dict[str, tuple[RegionState, ...]] = {}
        self._survey_uid, self._owner = "", ""
        self._taken: dict[str, str] = {}
        self._read_at = time.time()
        self._jobs: deque[Callable[[], object]] = deque()
        self._is_working = False

    @cached_property
    def collections(self) -> ApprovalDesk:
        """The desk of collections of pairs, whose areas nobody is asked about.

        They have a folder of their own, so that none is taken for a survey.
        """
        folder = ApprovalFolder(self.folder.folder / "collections")
        return ApprovalDesk(folder, f"{self.name}_collections")

    @property
    def hints(self) -> Hints:
        """Nothing to plot."""
        return {"fields": []}

    @property
    def waits_for(self) -> str:
        """Uid of the survey that a plan waits with; "" where none does."""
        wait = self._wait
        return "" if wait is None or wait.over else wait.question.proposal.survey_uid

    # Messages of plans --------------------------------------------------------------------------

    def set(self, value: Question | Collect) -> Status:
        """Write down what is proposed, or take what was approved."""
        status = Status(self, timeout=_SET_S)

        def job() -> None:
            try:
                if isinstance(value, Collect):
                    self._collect(value)
                else:
                    self._propose(value)
            except Exception as error:  # noqa: BLE001 - the plan is told, and goes on without us
                status.set_exception(error)
            else:
                status.set_finished()

        self._do(job)
        return status

    def trigger(self) -> Status:
        """Begin to wait for decisions on what was set last."""
        status = Status(self)
        with self._lock:
            question = self._question
            if question is None or question.timeout_s is None or question.owner in self._answered:
                status.set_finished()
                return status
            if self._wait is None or self._wait.question != question:
                self._wait = _Wait(self, question)
                self._wait.start()
            self._wait.finish_too(status)
        return status

    def read(self) -> dict[str, Reading[str]]:
        """Return the states of the regions of the survey, as a JSON list of `RegionState` dicts."""
        states = self._answered.get(self._owner, ())
        values = {
            "survey_uid": self._survey_uid,
            "regions": json.dumps([state.to_dict() for state in states]),
        }
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": self._read_at}
            for key, value in values.items()
        }

    def describe(self) -> dict[str, DataKey]:
        """Return the data keys of `read`."""
        return {
            f"{self.name}_{key}": {"source": "approvals", "dtype": "string", "shape": []}
            for key in ("survey_uid", "regions")
        }

    def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return nothing, because nothing can be configured in a plan."""
        return {}

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return no data keys, as `read_configuration` returns nothing."""
        return {}

    def stage(self) -> list[object]:
        """Do nothing; `unstage` counts."""
        return [self]

    def unstage(self) -> list[object]:
        """End a wait, and give back what was taken and has not been flown."""
        with self._lock:
            wait, self._wait = self._wait, None
        if wait is not None:
            wait.end("the plan was ended")
        survey_uid = self._survey_uid
        for key in list(self._taken):
            self.became(survey_uid, key, "failed", "the plan ended before it was flown")
        return [self]

    def pause(self) -> None:
        """Let the time for decisions stand still."""
        if (wait := self._wait) is not None:
            wait.pause()

    def resume(self) -> None:
        """Let the time for decisions go on."""
        if (wait := self._wait) is not None:
            wait.resume()

    def became(
        self,
        survey_uid: str,
        region_key: str,
        disposition: Disposition,
        reason: str = "",
        run_uid: str = "",
    ) -> None:
        """Write down what became of a region, in a thread; microseconds, never raises."""
        if disposition == "proposed":
            return
        self._taken.pop(region_key, None)
        self._do(lambda: self.folder.became(survey_uid, region_key, disposition, reason, run_uid))

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything is written; return whether that was so in time."""
        done = threading.Event()
        self._do(done.set)
        beside: ApprovalDesk | None = self.__dict__.get("collections")
        others = beside is None or beside.flush(timeout_s)
        return done.wait(timeout_s) and others

    # In threads ---------------------------------------------------------------------------------

    def _do(self, job: Callable[[], object]) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._is_working:
                return
            self._is_working = True
        name = f"{self.name}-files"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        """Do all jobs, one after the other; the thread ends with the last one."""
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_working = False
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:  # a full disk must not end the thread
                logger.exception("%s: something was not written down", self.name)

    def _propose(self, question: Question) -> None:
        if self._question != question:
            self.folder.propose(question.proposal)
        with self._lock:
            self._question = question
            self._survey_uid, self._owner = question.proposal.survey_uid, question.owner

    def _collect(self, collect: Collect) -> None:
        if collect.again:
            self._approve_again(collect.survey_uid)
        self._take(collect.survey_uid, collect.owner, collect.by)
        with self._lock:
            self._question = None
            self._survey_uid, self._owner = collect.survey_uid, collect.owner

    def _approve_again(self, survey_uid: str) -> None:
        self.folder.release_orphans(survey_uid)
        states = self.folder.regions(survey_uid)
        again = [one.key for one in states if one.disposition in ("failed", "refused")]
        if again:
            decisions = [Decision(action="approve", key=key) for key in again]
            self.folder.decide(survey_uid, decisions, by=By(why="resumed"))

    def _take(self, survey_uid: str, owner: str, by: str) -> None:
        """Take every region that is approved, and remember the states of all."""
        for state in self.folder.regions(survey_uid):
            if state.ready and self.folder.claim(survey_uid, state, by=by, owner=owner):
                self._taken[state.region.key] = state.key
        self._answered = {owner: self.folder.regions(survey_uid)}
        self._read_at = time.time()

    def _answer(self, wait: _Wait, reason: str, *, take: bool) -> None:
        """Say that nobody waits any more, and take what is approved."""
        survey_uid = wait.question.proposal.survey_uid
        self.folder.add(survey_uid, WaitEnded(reason=reason))
        if take:
            self._take(survey_uid, wait.question.owner, "the survey")


class _Wait:
    """One wait for decisions, in a thread of its own."""

    def __init__(self, desk: ApprovalDesk, question: Question) -> None:
        self.question = question
        self._desk = desk
        self._lock = threading.Lock()
        self._statuses: list[Status] = []
        self.over = False
        self._error: Exception | None = None
        self._until = time.time() + (question.timeout_s or 0.0)
        self._paused_at: float | None = None
        self._ended = threading.Event()
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name=f"{desk.name}-wait", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish_too(self, status: Status) -> None:
        """Finish a status when the wait is over."""
        with self._lock:
            if not self.over:
                self._statuses.append(status)
                return
        self._finish(status)

    def end(self, reason: str) -> None:
        self._reason = reason
        self._ended.set()

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = time.time()

    def resume(self) -> None:
        if self._paused_at is not None:
            self._until += time.time() - self._paused_at
            self._paused_at = None
            self._desk._do(self._tell)

    def _tell(self) -> None:
        event = WaitBegan(until=self._until, undecided=self.question.undecided)
        self._desk.folder.add(self.question.proposal.survey_uid, event)

    def _run(self) -> None:
        self._say(True)
        try:
            self._tell()
            reason = self._decided_or_over()
            self._desk._answer(self, reason, take=not self._ended.is_set())
        except Exception as error:  # noqa: BLE001 - the plan is told
            self._error = error
        with self._lock:
            self.over = True
        self._say(False)
        for status in self._statuses:
            self._finish(status)

    def _say(self, waits: bool) -> None:
        try:
            if self._desk.waiting is not None:
                self._desk.waiting(waits)
        except Exception:  # a broken display must not cost the answer
            logger.exception("%s: whoever shows that a plan waits", self._desk.name)

    def _finish(self, status: Status) -> None:
        if status.done:
            return
        if self._error is not None:
            status.set_exception(self._error)
        else:
            status.set_finished()

    def _decided_or_over(self) -> str:
        """Wait, and return why the wait is over."""
        folder, survey_uid = self._desk.folder, self.question.proposal.survey_uid
        seen = -1
        while True:
            version = folder.version(survey_uid)
            if version != seen:
                seen = version
                undecided = [one for one in folder.regions(survey_uid) if one.undecided]
                if not undecided:
                    return "all regions are decided on"
            if self._ended.wait(_POLL_S):
                return self._reason
            if self._paused_at is None and time.time() > self._until:
                return self._default(undecided)

    def _default(self, undecided: list[RegionState]) -> str:
        """Decide on what nobody has decided on, as the question says."""
        folder, survey_uid = self._desk.folder, self.question.proposal.survey_uid
        what, timeout_s = self.question.undecided, self.question.timeout_s
        reason = f"nobody decided on {len(undecided)} regions within {timeout_s:g} s"
        if what != "propose":
            decisions = tuple(Decision(action=what, key=state.key) for state in undecided)
            by = By(who="nobody", via="default", why=f"no answer within {timeout_s:g} s")
            folder.add(survey_uid, Decided(by=by, decisions=decisions))
        logger.warning("survey %s: %s: %s", survey_uid, reason, _CONSEQUENCE[what])
        return reason


_CONSEQUENCE: Mapping[Undecided, str] = {
    "propose": "they stay proposed and can be approved later",
    "approve": "they are flown",
    "deny": "they are not flown",
}
