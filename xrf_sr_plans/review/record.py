"""`SurveyRecord`: the maps, predictions and regions of a survey, read back from its documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.composite.compose import FineMap, compose
from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.composite.from_documents import composite_from_documents
from xrf_sr_plans.errors import AssemblyError, in_our_words
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import regions_from_arguments
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.metrics.agreement import compare
from xrf_sr_plans.review.verdicts import MapVerdict
from xrf_sr_plans.schema import Document


@dataclass(frozen=True)
class SurveyRecord:
    """What the documents of one survey say."""

    coarse: Mapping[str, ElementalMaps] = field(default_factory=dict)
    """Coarse maps by run uid, in the order in which they were flown."""
    fine: Mapping[str, ElementalMaps] = field(default_factory=dict)
    """Fine maps by run uid, in the order in which they were flown."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Uid of the map from which a map followed, by run uid; empty where it followed from none."""
    enhanced: Mapping[str, EnhancedMaps] = field(default_factory=dict)
    """Predictions by uid of the coarse run; while there is no result, the latest preview."""
    regions: tuple[Mapping[str, Any], ...] = ()
    """The data of the last event about each region, among them ``disposition`` and ``reason``,
    and the whole `Region` under ``region``."""
    composites: Mapping[str, CompositeMap] = field(default_factory=dict)
    """Composite maps that the analysis made, by the uid of their runs."""
    forecast: Mapping[str, float] | None = None
    """What the regions that were chosen on all tiles as one map were expected to hold
    (`rois.forecast`); None where there is only one tile, or no such choice."""
    verdicts: tuple[MapVerdict, ...] = ()
    """How the predictions did, for each fine map that was compared, in the order in which they
    were."""
    run_uids: Mapping[str, list[str]] = field(default_factory=dict)
    """Uids of all runs by the plan name that this package gives them, whatever users call them."""

    def composite(self) -> CompositeMap:
        """Return one map of the survey: measured where it was rescanned, else estimated.

        It is the latest that the analysis made, if that has all tiles and fine maps of this
        record. Otherwise it is made here, in the same way.

        Raises
        ------
        GridError
            There is no enhanced map, or the tiles don't belong together.
        """
        uids = [uid for uid, maps in self.fine.items() if (maps.coverage.values > 0).any()]
        tiles = {uid: self.enhanced[uid] for uid in self.coarse if uid in self.enhanced}
        for made in reversed(list(self.composites.values())):
            told = set(made.rescan_uids), set(made.dataset.attrs.get("tile_uids") or ())
            if told == (set(uids), set(tiles)):
                return made
        fine_maps = [FineMap(uid, self.fine[uid]) for uid in uids]
        return compose(list((tiles or self.enhanced).values()), fine_maps)

    def agreements(self) -> list[dict[str, Any]]:
        """Compare every fine map with what had been predicted there.

        Returns
        -------
        list of dict
            One for each fine map and element: ``fine_uid`` and the fields of an `Agreement`. Fine
            maps for which there is no prediction are left out.
        """
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
    """Read a survey back from the documents of its runs.

    Parameters
    ----------
    documents
        Documents of the measured runs, the result runs and the survey's own run. Those of
        different runs may be interleaved.

    Raises
    ------
    AssemblyError
        The documents of a run are damaged. The message names the run.
    """
    runs: dict[str, list[Document]] = {}
    index = RunIndex()
    for name, doc in documents:
        uid = index.run_of(name, doc)
        if uid is not None:
            runs.setdefault(uid, []).append((name, doc))
    return _from_runs(runs)


def _from_runs(runs: Mapping[str, list[Document]]) -> SurveyRecord:
    coarse: dict[str, ElementalMaps] = {}
    fine: dict[str, ElementalMaps] = {}
    parents: dict[str, str] = {}
    enhanced: dict[str, EnhancedMaps] = {}
    previews: dict[str, EnhancedMaps] = {}
    composites: dict[str, CompositeMap] = {}
    regions: dict[str, Mapping[str, Any]] = {}
    told: list[list[Document]] = []
    forecast: Mapping[str, float] | None = None
    verdicts: list[MapVerdict] = []
    uids: dict[str, list[str]] = {}
    for uid, documents in runs.items():
        with in_our_words(f"run {uid}", AssemblyError):
            start = documents[0][1]
            kind = schema.kind_of_run(start)
            plan = schema.PLAN_OF_KIND[kind] if kind else str(start.get("plan_name"))
            uids.setdefault(plan, []).append(uid)
            if kind == "map":
                metadata = start["xrf_sr"]
                (fine if metadata["purpose"] == "fine" else coarse)[uid] = _builder(
                    documents
                ).maps()
                parents[uid] = metadata.get("parent_uid") or ""
            elif kind in ("result", "preview"):
                results = previews if kind == "preview" else enhanced
                results[start["original_run_uid"]] = enhanced_from_documents(documents)
            elif kind == "composite":
                # Where it can't be read, as where it lies in a file elsewhere, it is made again.
                with suppress(AssemblyError):
                    composites[uid] = composite_from_documents(documents)
            elif kind == "verification":
                verdicts.append(MapVerdict.from_documents(documents))
            elif kind == "choice":
                forecast = start.get("forecast")
            elif kind in ("proposals", "approvals", "outcomes"):
                told.append(documents)
    # In the order of what they tell of, since decisions may be delivered after what followed.
    for documents in sorted(told, key=_told_at):
        with in_our_words(f"run {documents[0][1]['uid']}", AssemblyError):
            for row in _latest_by_region(documents).values():
                regions = _with_region(regions, row)
    for uid, documents in runs.items():
        with in_our_words(f"run {uid}", AssemblyError):
            _take_from_fine_map(regions, uid, documents)
    # A preview counts only until the result of its map is there.
    return SurveyRecord(
        coarse,
        fine,
        parents,
        {**previews, **enhanced},
        tuple(regions.values()),
        composites,
        forecast,
        tuple(verdicts),
        uids,
    )


def _told_at(documents: Sequence[Document]) -> float:
    """Return when a run began that tells of regions."""
    start = documents[0][1]
    with in_our_words(f"run {start.get('uid')}", AssemblyError):
        return float(start["time"])


def _builder(documents: list[Document]) -> MapBuilder:
    """Return what assembled the rows of a map run."""
    builder = MapBuilder(documents[0][1])
    for name, doc in documents:
        if name == "descriptor":
            builder.descriptor(doc)
        elif name == "event":
            builder.event(doc)
        elif name == "event_page":
            builder.event_page(doc)
    return builder


def _take_from_fine_map(
    regions: dict[str, Mapping[str, Any]], uid: str, documents: list[Document]
) -> None:
    """Let a fine map say what became of its region where no recorded outcome says it.

    That is so after a halt, and where a region that was proposed, queued, refused or not complete
    was flown later on.
    """
    metadata = documents[0][1].get("xrf_sr") or {}
    row = regions.get(str((metadata.get("derived_input") or {}).get("region_key")))
    if row is None or metadata.get("purpose") != "fine":
        return
    unsettled = row["disposition"] in ("proposed", "approved", "queued")
    made_good = row["disposition"] in ("refused", "failed", "denied") and row["run_uid"] != uid
    if not unsettled and not made_good:
        return
    flown, reason = _end_of(documents)
    if flown:
        earlier = "" if unsettled else f"flown later on; before that: {row['reason']}"
        reason = "; ".join(filter(None, [reason, earlier])) or str(row["reason"])
    elif made_good:
        return
    changes = {"disposition": "rescanned" if flown else "failed", "reason": reason, "run_uid": uid}
    regions[str(row["key"])] = {**row, **changes}


def _end_of(documents: list[Document]) -> tuple[bool, str]:
    """Return whether a map was flown to its end, and in words what is missing of it."""
    builder = _builder(documents)
    lost = _lost_rows(documents)
    rows, measured = builder.grid.slow.num, len(builder.rows_used)
    stops = [doc for name, doc in documents if name == "stop"]
    status = str(stops[-1]["exit_status"]) if stops else "no stop document"
    # A run that RE.stop ended is a success to bluesky, however many rows it has.
    if status == "success" and measured + len(lost) >= rows:
        return True, f"rows {lost} lost" if lost else ""
    return False, f"interrupted after {measured} of {rows} rows: {status}"


def _lost_rows(documents: list[Document]) -> list[int]:
    """Return the rows that a map's plan gave up and left missing."""
    data = _data_of(documents, schema.STREAM_LOST_ROWS)
    return sorted(
        int(value) for row in data for key, value in row.items() if key.endswith("_lost_row")
    )


def _data_of(documents: list[Document], stream: str) -> Iterator[Mapping[str, Any]]:
    """Yield the data of each event of a stream."""
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    for name, doc in documents:
        if name == "event" and streams.get(doc["descriptor"]) == stream:
            yield doc["data"]


def _latest_by_region(documents: list[Document]) -> dict[str, Mapping[str, Any]]:
    """Return the data of the last event about each region, by the region's key."""
    latest: dict[str, Mapping[str, Any]] = {}
    for event in _data_of(documents, schema.STREAM_REGIONS):
        data = {key.removeprefix("region_"): value for key, value in event.items()}
        latest[data["key"]] = {**data, "region": json.loads(data.pop("json"))}
    return latest


def _with_region(
    regions: dict[str, Mapping[str, Any]], row: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Return the regions with one more row about one of them.

    One with another rectangle takes the place of the one that it replaces, so that the numbers of
    regions stay what they were when people were asked.
    """
    key, before = str(row["key"]), row.get("replaces")
    if before in regions and key not in regions:
        return {
            key if known == before else known: row if known == before else kept
            for known, kept in regions.items()
        }
    return {**regions, key: row}


def regions_of(record: SurveyRecord) -> list[Region]:
    """Return the regions of a survey in the order in which their first events came."""
    return regions_from_arguments(row["region"] for row in record.regions)


def left_out(record: SurveyRecord) -> frozenset[str]:
    """Return the keys of the regions that were refused or denied, or whose rescan failed."""
    out = ("refused", "failed", "denied")
    return frozenset(str(row["key"]) for row in record.regions if row["disposition"] in out)
