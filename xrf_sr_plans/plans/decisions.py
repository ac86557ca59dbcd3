"""What a survey decided, and on what grounds, as events of its summary run."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, RunEngineControlException

from xrf_sr_plans import schema
from xrf_sr_plans.errors import GridError, in_words
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import region_columns, regions_from_json
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.fly_map import ROW_FAILURES
from xrf_sr_plans.plans.plan_record import PlanRecord, record_event
from xrf_sr_plans.plans.safeguard import all_in_turn

logger = logging.getLogger(__name__)

RUN_KEY = "survey"
"""Run key of the summary run, which stays open while fine maps are flown as other runs."""
_GRACE_S = 15.0
"""Seconds beyond its own timeouts after which a results device counts as hung."""
_FALLBACK_S = 30.0
"""Timeout of the bicubic result for results devices that don't tell theirs, in seconds."""
_READ_ATTEMPTS = 3


@dataclass(frozen=True)
class TileAnalysis:
    """What the results device said about one tile.

    Attributes
    ----------
    source_uid
        Uid of the tile's run.
    status
        "done", "fallback" (bicubic, without the model) or "failed".
    reason
        Why it is not "done"; empty where it is.
    result_uid
        Uid of the result run; empty where there is none.
    model
        Name of what made the enhanced map.
    regions
        Regions that are proposed, best first.
    """

    source_uid: str
    status: str
    reason: str = ""
    result_uid: str = ""
    model: str = ""
    regions: tuple[Region, ...] = ()


def in_summary_run(part: MsgGenerator[Any]) -> MsgGenerator[Any]:
    """Run `part` with all its messages in the summary run."""
    return (yield from bpp.set_run_key_wrapper(part, RUN_KEY))


def summary_run(
    part: MsgGenerator[Any],
    md: Mapping[str, Any],
    settle: Callable[[Exception], MsgGenerator[None]],
) -> MsgGenerator[tuple[str, Any]]:
    """Run `part` with the summary run open around it; `part` may open and close other runs.

    Parameters
    ----------
    part
        The messages in between.
    md
        The summary run's start document.
    settle
        A plan that records what is left to say when `part` ends early with this error. After a
        halt no plan is run any more.

    Returns
    -------
    tuple of str and Any
        The summary's uid and what `part` returned.
    """

    def failed(error: Exception) -> MsgGenerator[None]:
        yield from all_in_turn(lambda: settle(error))
        control = isinstance(error, RunEngineControlException)
        status = getattr(error, "exit_status", "abort") if control else "fail"
        yield from in_summary_run(bps.close_run(status, "" if control else str(error)))

    def done() -> MsgGenerator[None]:
        yield from bps.checkpoint()
        yield from in_summary_run(bps.close_run())
        yield from bps.checkpoint()

    uid = yield from in_summary_run(bps.open_run(dict(md)))
    returned = yield from bpp.contingency_wrapper(part, except_plan=failed, else_plan=done)
    return str(uid), returned


_COLUMNS = ("elements", "score", "x_low_um", "x_high_um", "y_low_um", "y_high_um")
"""Columns of a region that its events in the summary run have, besides its ``json``."""


class RegionLog:
    """Records what becomes of each region: one event whenever its disposition changes.

    A region stays open while it is only proposed, or while its outcome could not be recorded
    because the plan was interrupted just then. `settle` closes what is still open.
    """

    def __init__(self) -> None:
        self._open: dict[str, RegionOutcome] = {}
        self._record = PlanRecord(
            "region",
            {
                "key": "",
                "disposition": "",
                "reason": "",
                "run_uid": "",
                "elements": "",
                "score": 0.0,
                "x_low_um": 0.0,
                "x_high_um": 0.0,
                "y_low_um": 0.0,
                "y_high_um": 0.0,
                "json": "",
            },
        )

    def note(self, outcome: RegionOutcome) -> MsgGenerator[None]:
        """Record what became of a region."""
        region = outcome.region
        columns = region_columns(region)
        values = {
            "key": region.key,
            "disposition": outcome.disposition,
            "reason": outcome.reason,
            "run_uid": outcome.run_uid,
            **{name: columns[name] for name in _COLUMNS},
            "json": json.dumps(region.to_dict()),
        }
        logger.info("%s", outcome)
        self._open[region.key] = outcome
        yield from in_summary_run(record_event(self._record, schema.STREAM_REGIONS, values))
        if outcome.disposition != "proposed":
            del self._open[region.key]

    def settle(self, reason: str) -> MsgGenerator[None]:
        """Record the outcome of every open region: "failed" where it was only proposed."""
        for outcome in list(self._open.values()):
            if outcome.disposition == "proposed":
                outcome = replace(outcome, disposition="failed", reason=reason)
            yield from self.note(outcome)


def wait_for_analysis(device: Any, source_uid: str, timeout_s: float) -> MsgGenerator[TileAnalysis]:
    """Trigger the results device for one tile, wait for it, and record what it reads.

    The device itself falls back to bicubic when its time is over. If even that fails, the
    analysis has failed and the survey goes on without this tile's regions.

    Parameters
    ----------
    device
        The results device, such as `AnalysisDevice`.
    source_uid
        Uid of the tile's run.
    timeout_s
        How many seconds to wait for the model's result.
    """
    group = f"analysis-{uuid.uuid4().hex[:8]}"
    request = {"source_uids": [source_uid], "timeout_s": timeout_s}
    yield from bps.checkpoint()
    try:
        yield from bps.abs_set(device, request, group=f"{group}-set")
        yield from bps.wait(f"{group}-set", timeout=_GRACE_S)
        yield from bps.trigger(device, group=group)
        fallback_s = getattr(device, "fallback_timeout_s", _FALLBACK_S)
        yield from bps.wait(group, timeout=timeout_s + fallback_s + _GRACE_S)
        yield from bps.checkpoint()
    except ROW_FAILURES as error:
        reason = f"{device.name}: {in_words(error)}"
        logger.error("no analysis of %s: %s", source_uid, reason)
        yield from bps.checkpoint()
        return TileAnalysis(source_uid, "failed", reason)
    reading = yield from _recorded_reading(device)
    return _tile_analysis(device.name, source_uid, reading)


def _recorded_reading(device: Any) -> MsgGenerator[Mapping[str, Any]]:
    def event() -> MsgGenerator[Mapping[str, Any] | None]:
        yield from bps.create(schema.STREAM_ANALYSIS)
        reading = yield from bps.read(device)
        yield from bps.save()
        return reading

    reading = yield from in_summary_run(event())
    # After a pause in the middle of it the message is repeated, but its answer gets lost.
    for _ in range(_READ_ATTEMPTS):
        if reading is not None:
            break
        reading = yield from bps.read(device)
    yield from bps.checkpoint()
    return reading or {}


def _tile_analysis(name: str, source_uid: str, reading: Mapping[str, Any]) -> TileAnalysis:
    """Return what a reading of the results device `name` says."""

    def value(key: str) -> Any:
        return reading.get(f"{name}_{key}", {}).get("value", "")

    try:
        regions = regions_from_json(value("regions") or "[]")
    except GridError as error:
        logger.error("%s gave no sound regions for %s: %r", name, source_uid, error)
        return TileAnalysis(source_uid, "failed", f"{name}_regions: {error}")
    return TileAnalysis(
        source_uid,
        str(value("status") or "failed"),
        str(value("reason")),
        str(value("result_uid")),
        str(value("model")),
        regions,
    )
