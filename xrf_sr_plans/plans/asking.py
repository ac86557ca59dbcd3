"""`ask` and `take_approved`: people decide which regions are flown, while a plan waits or later."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.approval.questions import Collect, Question, states_in
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.errors import RefusedError, in_words
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.plan_record import patient_read

logger = logging.getLogger(__name__)

_FILES_S = 40.0
"""Seconds for which the desk may write and read its files."""
_GRACE_S = 60.0
"""Seconds beyond the time for decisions after which the desk counts as hung."""
_THEN = {
    "propose": "then they stay proposed",
    "approve": "then they are flown",
    "deny": "then they are not flown",
}


def propose(desk: Any, question: Question) -> MsgGenerator[str]:
    """Put a proposal where people find it; return in words why that failed, or ""."""
    group = f"{desk.name}-{uuid.uuid4().hex[:8]}"
    yield from bps.checkpoint()
    try:
        yield from bps.abs_set(desk, question, group=group)
        yield from bps.wait(group, timeout=_FILES_S)
    except ROW_FAILURES as error:
        reason = f"{desk.name}: {in_words(error)}"
        logger.error("survey %s: %s", question.proposal.survey_uid, reason)
        return reason
    yield from bps.checkpoint()
    return ""


def ask(desk: Any, question: Question) -> MsgGenerator[tuple[RegionState, ...]]:
    """Wait until people have decided on the regions of a proposal, or the time is over.

    It can be paused, and the time then stands still. Where nobody can be asked, as with a full
    disk, nothing is flown, and the log says why.

    Parameters
    ----------
    desk
        The approval desk.
    question
        What is asked, and for how long.

    Returns
    -------
    tuple of RegionState
        All regions; this plan alone may fly those that it owns. Empty where nobody could be asked.
    """
    problem = yield from propose(desk, question)
    if problem:
        return ()
    _tell(question)
    group = f"{desk.name}-{uuid.uuid4().hex[:8]}"
    try:
        yield from bps.trigger(desk, group=group)
        yield from bps.wait(group, timeout=(question.timeout_s or 0.0) + _GRACE_S)
        yield from bps.checkpoint()
        return states_in(desk.name, (yield from patient_read(desk)))
    except (RefusedError, *ROW_FAILURES) as error:
        logger.error("survey %s: %s", question.proposal.survey_uid, in_words(error))
        return ()


def take_approved(desk: Any, question: Collect) -> MsgGenerator[tuple[RegionState, ...]]:
    """Take what was approved of a survey; this plan call alone may fly what it owns then.

    Raises
    ------
    RefusedError
        The desk doesn't answer.
    """
    group = f"{desk.name}-{uuid.uuid4().hex[:8]}"
    yield from bps.checkpoint()
    try:
        yield from bps.abs_set(desk, question, group=group)
        yield from bps.wait(group, timeout=_FILES_S)
    except ROW_FAILURES as error:
        raise RefusedError(f"{desk.name}: {in_words(error)}") from error
    return states_in(desk.name, (yield from patient_read(desk)))


def _tell(question: Question) -> None:
    """Say at the prompt what is waited for."""
    proposal = question.proposal
    undecided = [one for one in proposal.regions if one.disposition == "proposed"]
    if not undecided:
        return
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + (question.timeout_s or 0.0)))
    lines = [
        f"survey {proposal.survey_uid[:8]}: {len(undecided)} regions wait for approval until"
        f" {until}, {_THEN[question.undecided]}: approve(1, 3), deny(2), edit(1, pad_um=2)"
    ]
    for number, one in enumerate(proposal.regions, start=1):
        region = one.region
        lines.append(
            f"  {number}. {','.join(region.elements) or 'any element'} x {region.x_low_um:.4g}.."
            f"{region.x_high_um:.4g}, y {region.y_low_um:.4g}..{region.y_high_um:.4g} um,"
            f" {one.time_s:.3g} s: {one.disposition}: {one.reason}"
        )
    logger.info("%s", "\n".join(lines))


def outcomes_of(states: Iterable[RegionState]) -> list[RegionOutcome]:
    """Return what was decided about each region, as outcomes that a survey records."""
    return [
        RegionOutcome(state.to_fly, state.disposition, state.reason, state.run_uid)
        for state in states
    ]


def owned(states: Sequence[RegionState], owner: str) -> list[RegionState]:
    """Return the regions that a plan call may fly, in the order of their numbers."""
    return [state for state in states if state.owner == owner and state.disposition == "approved"]
