"""Handing rescans to the queue server, through the beamline's rescan sink."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.region import Rescan
from xrf_sr_plans.plans.fly_map import ROW_FAILURES
from xrf_sr_plans.plans.rescan import FineMaps, RegionOutcome
from xrf_sr_plans.plans.start_document import plain_region

logger = logging.getLogger(__name__)

PLAN_NAME = "rescan_regions"
_TIMEOUT_S = 120.0
_DISPOSITIONS = ("queued", "refused", "failed")


def queue_item(maps: FineMaps, rescan: Rescan) -> dict[str, Any]:
    """Return the plan call, in JSON, that maps one region; as the queue server takes it."""
    return {
        "name": PLAN_NAME,
        "kwargs": {
            "regions": [plain_region(rescan.region)],
            "fine_step_um": maps.fine_step_um,
            "dwell_ms": maps.dwell_ms,
            "survey_uid": maps.survey_uid,
            "parent_uid": rescan.region.source_uid,
            "row_attempts": maps.row_attempts,
            "md": dict(maps.md),
        },
    }


def queue_rescans(
    maps: FineMaps,
    rescans: Sequence[Rescan],
    note: Callable[[RegionOutcome], MsgGenerator[None]],
) -> MsgGenerator[list[RegionOutcome]]:
    """Give all rescans to the sink at once, and record which of them are queued."""
    if not rescans:
        return []
    sink = maps.beamline.rescan_queue
    assert sink is not None, "a survey that queues is refused where there is no rescan_queue"
    group = f"queue-{uuid.uuid4().hex[:8]}"
    items = [queue_item(maps, one) for one in rescans]
    yield from bps.checkpoint()
    try:
        order = {"items": items, "survey_uid": maps.survey_uid}
        yield from bps.abs_set(sink, order, group=group)
        yield from bps.wait(group, timeout=_TIMEOUT_S)
        yield from bps.checkpoint()
        answers = _answers(sink.name, (yield from bps.read(sink)))
        problem = ""
    except ROW_FAILURES as error:
        answers = {}
        problem = f"{sink.name}: {in_words(error)}"
        logger.error("rescans not known to be queued: %s", problem)
    outcomes = []
    for one in rescans:
        answer = answers.get(one.region.key, {})
        disposition = answer.get("disposition", "failed")
        if disposition not in _DISPOSITIONS:
            disposition = "failed"
        unknown = "" if disposition == "queued" else problem or f"no answer of {sink.name}"
        reason = str(answer.get("reason") or unknown or one.region.reason)
        outcome = RegionOutcome(one.region, disposition, reason)
        outcomes.append(outcome)
        yield from note(outcome)
    return outcomes


def _answers(name: str, reading: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    plain = (reading or {}).get(f"{name}_dispositions", {}).get("value", "[]")
    return {answer["key"]: answer for answer in json.loads(plain)}
