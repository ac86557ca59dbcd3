"""`send_approved`: put the approved regions of a survey into the queue server's queue, once."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from bluesky.protocols import Reading
from ophyd.status import Status

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Proposal
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.errors import RefusedError, in_words
from xrf_sr_plans.queueing.items import rescan_item

logger = logging.getLogger(__name__)


class Queue(Protocol):
    """What takes the items, such as `queueing.rescan_queue.RescanQueue`."""

    name: str

    def set(self, value: Mapping[str, Any]) -> Status:
        """Submit ``value["items"]``."""
        ...

    def read(self) -> Mapping[str, Reading[str]]:
        """Return what became of the items."""
        ...


def send_approved(
    folder: ApprovalFolder, survey_uid: str, queue: Queue, *, timeout_s: float = 120.0
) -> tuple[RegionState, ...]:
    """Queue every region of a survey that is approved and that nobody flies or queues yet.

    It waits for the queue, so that pages call it in a thread. Whoever else calls it at the same
    time, in whatever process, each region is queued once.

    Parameters
    ----------
    folder
        Where the decisions are.
    survey_uid
        The survey.
    queue
        What takes the items.
    timeout_s
        How long the queue may take.

    Returns
    -------
    tuple of RegionState
        All regions of the survey, as they are then.

    Raises
    ------
    RefusedError
        There is no such survey, or nothing of it is approved and waits to be flown.
    """
    proposal, owner = folder.proposal(survey_uid), str(uuid.uuid4())
    ready = [state for state in folder.regions(survey_uid) if state.ready]
    if not ready:
        raise RefusedError(f"survey {survey_uid}: no region is approved and waits to be flown")
    claimed = [
        state for state in ready if folder.claim(survey_uid, state, by="the queue", owner=owner)
    ]
    answers: Mapping[str, Mapping[str, Any]] = {}
    problem = f"no answer of {queue.name}"
    if claimed:
        items = [_item(proposal, state) for state in claimed]
        try:
            queue.set({"items": items, "survey_uid": survey_uid}).wait(timeout=timeout_s)
            plain = queue.read()[f"{queue.name}_dispositions"]["value"]
            answers = {answer["key"]: answer for answer in json.loads(plain)}
        except Exception as error:  # noqa: BLE001 - 0MQ, HTTP and others; the state says it
            problem = in_words(error)
    for state in claimed:
        answer = answers.get(state.region.key, {})
        disposition = answer.get("disposition", "failed")
        reason = str(answer.get("reason") or problem)
        folder.became(survey_uid, state.region.key, disposition, reason)
        logger.info("region %d of survey %s: %s: %s", state.number, survey_uid, disposition, reason)
    return folder.regions(survey_uid)


def _item(proposal: Proposal, state: RegionState) -> dict[str, Any]:
    # A region that was flown in vain is another item, or the manager would say that it has run.
    again = {"rescan_attempt": state.failed_maps} if state.failed_maps else {}
    return rescan_item(
        state.to_fly,
        fine_step_um=proposal.fine_step_um,
        dwell_ms=proposal.fine_dwell_ms,
        survey_uid=proposal.survey_uid,
        row_attempts=proposal.row_attempts,
        md={**proposal.md, **again},
    )
