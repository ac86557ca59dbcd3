"""`queue_rescans`: rescans as items of the queue server, through the beamline's rescan queue."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.region import Region, Rescan
from xrf_sr_plans.plans.fine_maps import FineMaps, RegionOutcome
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.queueing.items import rescan_item

logger = logging.getLogger(__name__)

_TIMEOUT_S = 120.0
"""Seconds for which the rescan queue is waited for."""
_DISPOSITIONS = ("queued", "refused", "failed")


def queue_item(maps: FineMaps, rescan: Rescan) -> dict[str, Any]:
    """Return the queue server item that maps one region, in JSON types."""
    return rescan_item(
        rescan.region,
        fine_step_um=maps.fine_step_um,
        dwell_ms=maps.dwell_ms,
        survey_uid=maps.survey_uid,
        row_attempts=maps.row_attempts,
        md=maps.md,
    )


def queue_rescans(
    maps: FineMaps,
    rescans: Sequence[Rescan],
    note: Callable[[RegionOutcome], None],
) -> MsgGenerator[list[RegionOutcome]]:
    """Give all rescans to the rescan queue at once, and record what became of each.

    Parameters
    ----------
    maps
        How they are flown, and the beamline whose `rescan_queue` takes them.
    rescans
        What shall be queued. Nothing is done where there is none.
    note
        Takes each outcome.

    Returns
    -------
    list of RegionOutcome
        "queued" or "refused" as the queue says, "failed" where it doesn't answer.
    """
    if not rescans:
        return []
    queue = maps.beamline.rescan_queue
    assert queue is not None, "a survey that queues is refused where there is no rescan_queue"
    group = f"queue-{uuid.uuid4().hex[:8]}"
    items = [queue_item(maps, rescan) for rescan in rescans]
    yield from bps.checkpoint()
    try:
        submission = {"items": items, "survey_uid": maps.survey_uid}
        yield from bps.abs_set(queue, submission, group=group)
        yield from bps.wait(group, timeout=_TIMEOUT_S)
        yield from bps.checkpoint()
        answers = _answers(queue.name, (yield from bps.read(queue)))
        problem = f"no answer of {queue.name}"
    except ROW_FAILURES as error:
        answers = {}
        problem = f"{queue.name}: {in_words(error)}"
        logger.error("rescans not known to be queued: %s", problem)
    outcomes = []
    for rescan in rescans:
        outcome = _outcome(rescan.region, answers.get(rescan.region.key, {}), problem)
        outcomes.append(outcome)
        note(outcome)
    return outcomes


def _outcome(region: Region, answer: Mapping[str, Any], problem: str) -> RegionOutcome:
    """Return what the queue answered for a region; `problem` says why there is no answer."""
    disposition = answer.get("disposition", "failed")
    if disposition not in _DISPOSITIONS:
        disposition = "failed"
    unknown = "" if disposition == "queued" else problem
    return RegionOutcome(region, disposition, str(answer.get("reason") or unknown or region.reason))


def _answers(name: str, reading: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the answers in a reading of the rescan queue `name`, by key of the region."""
    plain = (reading or {}).get(f"{name}_dispositions", {}).get("value", "[]")
    return {answer["key"]: answer for answer in json.loads(plain)}
