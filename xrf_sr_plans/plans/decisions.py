"""What a survey decided, and on what grounds, as events of two short runs."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans import schema
from xrf_sr_plans.errors import ConfigError, GridError, in_words
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import region_columns, regions_from_json
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.plan_record import PlanRecord, patient_read, record_event

logger = logging.getLogger(__name__)

_GRACE_S = 15.0
"""Seconds beyond its own timeouts after which a results device counts as hung."""
_FALLBACK_S = 30.0
"""Timeout of the bicubic result for results devices that don't tell theirs, in seconds."""


_MOMENT_S = 2.0
"""Seconds after which it is told what is waited for."""
RESULTS_S = 60.0
"""Longest time in seconds that a plan waits at its end for what follows from its maps."""


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
    model_sha256
        Hash of the model's weights.
    elapsed_s
        How long the plan waited, in seconds.
    """

    source_uid: str
    status: str
    reason: str = ""
    result_uid: str = ""
    model: str = ""
    regions: tuple[Region, ...] = ()
    model_sha256: str = ""
    elapsed_s: float = 0.0


def recorded_analyses(name: str, analyses: Sequence[TileAnalysis]) -> MsgGenerator[None]:
    """Emit one event for each tile that says what came of its analysis.

    Parameters
    ----------
    name
        Name of the results device, which is the prefix of the data keys.
    analyses
        What the device said about each tile.
    """
    fields = {key: type(value)() for key, value in _analysis_values(TileAnalysis("", "")).items()}
    record = PlanRecord(name, fields)
    for analysis in analyses:
        yield from record_event(record, schema.STREAM_ANALYSIS, _analysis_values(analysis))


def _analysis_values(analysis: TileAnalysis) -> dict[str, str | float]:
    return {
        "source_uid": analysis.source_uid,
        "result_uid": analysis.result_uid,
        "status": analysis.status,
        "reason": analysis.reason,
        "model": analysis.model,
        "model_sha256": analysis.model_sha256,
        "elapsed_s": float(analysis.elapsed_s),
        "regions": json.dumps([region.to_dict() for region in analysis.regions]),
    }


_COLUMNS = ("elements", "score", "x_low_um", "x_high_um", "y_low_um", "y_high_um")
"""Columns of a region that its events have, besides its ``json``."""


class RegionLog:
    """Remembers what became of each region, so that it can be recorded when no map is flown.

    Regions are kept in the order in which they were first heard of, each with its last outcome.
    """

    def __init__(self) -> None:
        self._outcomes: dict[str, RegionOutcome] = {}

    @property
    def outcomes(self) -> tuple[RegionOutcome, ...]:
        """The last outcome of each region."""
        return tuple(self._outcomes.values())

    def count(self) -> dict[str, int]:
        """Return how many regions have each disposition, the most frequent first."""
        return dict(Counter(one.disposition for one in self._outcomes.values()).most_common())

    def note(self, outcome: RegionOutcome) -> None:
        """Remember what became of a region; one with another rectangle takes its place."""
        logger.info("%s", outcome)
        self.remember(outcome)

    def remember(self, outcome: RegionOutcome) -> None:
        """Do the same without a line in the log."""
        key, before = outcome.region.key, outcome.region.approval.get("replaces")
        if before in self._outcomes and key not in self._outcomes:
            self._outcomes = {
                key if known == before else known: kept for known, kept in self._outcomes.items()
            }
        self._outcomes[key] = outcome

    def settle(self, reason: str, still: schema.Disposition = "proposed") -> None:
        """Call every region "failed" for this reason that is still no more than that."""
        for key, outcome in self._outcomes.items():
            if outcome.disposition == still:
                self._outcomes[key] = replace(outcome, disposition="failed", reason=reason)

    def recorded(self) -> MsgGenerator[None]:
        """Emit one event for each region with its last outcome."""
        record = PlanRecord("region", _NOTHING_NOTED)
        for outcome in self.outcomes:
            yield from record_event(record, schema.STREAM_REGIONS, region_values(outcome))


_NOTHING_NOTED: dict[str, str | float] = {
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
    "decided_by": "",
    "decided_at": 0.0,
    "decided_via": "",
    "decided_why": "",
    "replaces": "",
}


def region_values(outcome: RegionOutcome) -> dict[str, str | float]:
    """Return the fields of a region's event, without the name of the record before them."""
    region = outcome.region
    columns = region_columns(region)
    return {
        "key": region.key,
        "disposition": outcome.disposition,
        "reason": outcome.reason,
        "run_uid": outcome.run_uid,
        **{name: columns[name] for name in _COLUMNS},
        "json": json.dumps(region.to_dict()),
        "decided_by": str(region.approval.get("who", "")),
        "decided_at": float(region.approval.get("when", 0.0)),
        "decided_via": str(region.approval.get("via", "")),
        "decided_why": str(region.approval.get("why", "")),
        "replaces": str(region.approval.get("replaces", "")),
    }


def wait_for_analysis(device: Any, source_uid: str, timeout_s: float) -> MsgGenerator[TileAnalysis]:
    """Trigger the results device for one tile, wait for it, and return what it reads.

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
    reading = (yield from patient_read(device)) or {}
    return _tile_analysis(device.name, source_uid, reading)


def wait_for_results(device: Any, what: str, timeout_s: float) -> MsgGenerator[None]:
    """Wait until what follows from the maps so far is delivered, so that whoever looks sees it.

    These are verifications and the composite map. What takes longer than a moment is told, and
    where it takes too long the plan goes on and says that, too.

    Parameters
    ----------
    device
        The results device; None: there is nothing to wait for.
    what
        What is waited for, in words.
    timeout_s
        How many seconds to wait at most.
    """
    if device is None:
        return
    for seconds in (min(_MOMENT_S, timeout_s), timeout_s):
        group = f"settled-{uuid.uuid4().hex[:8]}"
        yield from bps.checkpoint()
        try:
            yield from bps.abs_set(device, {"settled_within_s": seconds}, group=group)
            yield from bps.wait(group, timeout=seconds + _GRACE_S)
        except (ConfigError, *ROW_FAILURES) as error:
            yield from bps.checkpoint()
            if seconds < timeout_s:
                logger.info("waiting for %s, at most %g s", what, timeout_s)
            else:
                logger.warning("%s may come later: %s", what, in_words(error))
        else:
            yield from bps.checkpoint()
            return


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
        str(value("model_sha256")),
        float(value("elapsed_s") or 0.0),
    )
