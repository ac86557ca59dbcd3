"""A survey read back from its documents: maps, predictions, regions, fine maps, comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.metrics.agreement import compare

Document = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class SurveyRecord:
    """Everything that one survey's documents say.

    Attributes
    ----------
    coarse, fine
        Measured maps by run uid, in the order in which they were flown.
    enhanced
        Predictions by uid of the coarse run; the latest preview while there is no result.
    regions
        The last word on each region: its `Region` with ``disposition`` and ``why``.
    run_uids
        All run uids by plan name.
    """

    coarse: Mapping[str, ElementalMaps] = field(default_factory=dict)
    fine: Mapping[str, ElementalMaps] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    enhanced: Mapping[str, EnhancedMaps] = field(default_factory=dict)
    regions: tuple[Mapping[str, Any], ...] = ()
    run_uids: Mapping[str, list[str]] = field(default_factory=dict)

    def agreements(self) -> list[dict[str, Any]]:
        """Compare every fine map with what had been predicted there; one row per element."""
        rows = []
        for uid, measured in self.fine.items():
            predicted = self.enhanced.get(self.parents.get(uid, ""))
            if predicted is None:
                continue
            rows += [
                {"fine_uid": uid, **agreement.to_dict()}
                for agreement in compare(predicted, measured).values()
            ]
        return rows


def read_survey(documents: Iterable[Document]) -> SurveyRecord:
    """Sort a survey's documents (raw, result and summary runs, in any interleaving) by run."""
    runs: dict[str, list[Document]] = {}
    owner: dict[str, str] = {}
    for name, doc in documents:
        if name == "start":
            owner[doc["uid"]] = doc["uid"]
        parent = doc.get("run_start") or doc.get("descriptor") or doc.get("resource")
        uid = doc["uid"] if name == "start" else owner.get(str(parent))
        if uid is None:
            continue
        owner.setdefault(str(doc.get("uid")), uid)
        runs.setdefault(uid, []).append((name, doc))
    return _sorted_out(runs)


def _sorted_out(runs: Mapping[str, list[Document]]) -> SurveyRecord:
    coarse: dict[str, ElementalMaps] = {}
    fine: dict[str, ElementalMaps] = {}
    parents: dict[str, str] = {}
    enhanced: dict[str, EnhancedMaps] = {}
    previews: dict[str, EnhancedMaps] = {}
    regions: dict[str, Mapping[str, Any]] = {}
    uids: dict[str, list[str]] = {}
    for uid, documents in runs.items():
        start = documents[0][1]
        plan = str(start.get("plan_name"))
        uids.setdefault(plan, []).append(uid)
        if plan == schema.PLAN_MAP:
            metadata = start["xrf_sr"]
            (fine if metadata["purpose"] == "fine" else coarse)[uid] = _assembled(documents)
            parents[uid] = metadata.get("parent_uid") or ""
        elif plan == schema.PLAN_RESULT:
            of_what = previews if start.get("purpose") == "preview" else enhanced
            of_what[start["original_run_uid"]] = enhanced_from_documents(documents)
        elif plan == schema.PLAN_SURVEY:
            regions.update(_last_words(documents))
    # A preview counts while its map is still being flown.
    return SurveyRecord(
        coarse, fine, parents, {**previews, **enhanced}, tuple(regions.values()), uids
    )


def _assembled(documents: list[Document]) -> ElementalMaps:
    builder = MapBuilder(documents[0][1])
    for name, doc in documents:
        if name in ("descriptor", "event", "event_page"):
            getattr(builder, name)(doc)
    return builder.maps()


def _last_words(documents: list[Document]) -> dict[str, Mapping[str, Any]]:
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    words: dict[str, Mapping[str, Any]] = {}
    for name, doc in documents:
        if name == "event" and streams.get(doc["descriptor"]) == schema.STREAM_REGIONS:
            data = {key.removeprefix("region_"): value for key, value in doc["data"].items()}
            words[data["key"]] = {**data, "region": json.loads(data.pop("json"))}
    return words


def regions_of(record: SurveyRecord) -> list[Region]:
    """Return the regions of a record as `Region`s, in the order in which they were decided."""
    return [Region.from_dict(row["region"]) for row in record.regions]


def left_out(record: SurveyRecord) -> frozenset[str]:
    """Return the keys of the regions that were refused or failed."""
    return frozenset(
        str(row["key"]) for row in record.regions if row["disposition"] in ("refused", "failed")
    )
