"""The result run: what the analysis found, as a Bluesky run that any consumer can store.

Everything in it follows from the source run, the model and the settings. Uids are of the kind
uuid5, and times are those of the source run, so a replay makes exactly the same documents, with the
same `digest`. Arrays are `ndarray` here; `as_lists` turns them into lists before they leave the
analysis.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import REGION_NUMBERS, REGION_WORDS, region_columns
from xrf_sr_plans.maps.result import FIELDS, FLAGS
from xrf_sr_plans.schema import (
    PLAN_RESULT,
    STREAM_ENHANCED,
    STREAM_PREVIEW,
    STREAM_REGIONS,
    AnalysisRequest,
    Documents,
    RescanModel,
)

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "result.xrf-sr-plans")
"""Namespace of the uids of result runs."""
OBJECT = "super_resolution"
"""Name of the object (in the sense of event descriptors) that all keys belong to."""
TICK_S = 1e-3
"""Difference in time between one document of a run and the next."""


@dataclass(frozen=True)
class AnalysedMap:
    """One map run with everything that the analysis made of it."""

    start: Mapping[str, Any]
    """Start document of the map run."""
    end_time: float
    """When the map run stopped, in seconds since 1970."""
    request: AnalysisRequest
    maps: ElementalMaps | None
    """The map as measured, or None where it could not be assembled."""
    rows_used: Sequence[int]
    """Indices of the rows in `maps` with at least one frame."""
    enhanced: EnhancedMaps | None = None
    """The enhanced map, or None where it was not asked for or `reason` says what went wrong."""
    regions: Sequence[Region] = ()
    """Regions worth a fine rescan, best first."""
    reason: str = ""
    """Why the analysis failed; empty where it didn't."""
    notes: Sequence[str] = ()
    """What a reader of the result must know of the map, such as that its run was cut off."""
    forecast: Mapping[str, float] | None = None
    """What the regions are expected to hold (`rois.forecast`), or None where nothing was picked."""
    rescans: RescanModel | None = None
    """What rescans cost, going by how long the rows of this map took."""
    remark: str = ""
    """What was unusual about where the map was enhanced, such as that the cluster was gone. It is
    told with the summary and is in no document, since a replay makes the same documents without."""

    @property
    def source_uid(self) -> str:
        """Uid of the map run."""
        return str(self.start["uid"])

    @property
    def complete(self) -> bool:
        """Whether every row of the map was measured."""
        return self.maps is not None and bool(self.maps.attrs.get("complete"))

    @property
    def beam(self) -> dict[str, float | None]:
        """Dwell time (ms) and median monitor reading, which make the counts of maps comparable."""
        if self.maps is None:
            return {"dwell_ms": None, "i0_median": None}
        dwell_ms = self.maps.attrs.get("dwell_ms")
        return {
            "dwell_ms": None if dwell_ms is None else float(dwell_ms),
            "i0_median": self.maps.beam().median,
        }

    @property
    def model(self) -> dict[str, Any]:
        """Name, sha256 and calibration of the model; empty where there is no enhanced map."""
        return self.enhanced.model if self.enhanced is not None else {}

    @property
    def fallback(self) -> str:
        """Why the map was enhanced bicubically; empty where the model was used."""
        return self.enhanced.fallback if self.enhanced is not None else ""

    @property
    def status(self) -> Literal["done", "fallback", "failed"]:
        """Status that the analysis device reports for this run."""
        if self.reason:
            return "failed"
        return "fallback" if self.fallback else "done"

    @property
    def explanation(self) -> str:
        """What went wrong with the analysis or the network, and the notes; empty where nothing."""
        return self.reason or "; ".join(filter(None, [self.fallback, *self.notes]))

    @property
    def result_uid(self) -> str:
        """Uid of the result run; empty where the map was only to be assembled."""
        if not self.request.enhance:
            return ""
        settings = self.request.model_dump(mode="json")
        content = json.dumps([self.source_uid, self.model, settings], sort_keys=True)
        return str(uuid.uuid5(NAMESPACE, content))

    def summary(self, documents: Documents, elapsed_s: float = 0.0) -> AnalysisSummary:
        """Return what a plan is told about this run.

        Parameters
        ----------
        documents
            Documents of the result run, whose digest the summary carries.
        elapsed_s
            How long the analysis took, in seconds.
        """
        return AnalysisSummary(
            source_uid=self.source_uid,
            result_uid=self.result_uid,
            status=self.status,
            reason="; ".join(filter(None, [self.explanation, self.remark])),
            regions=tuple(self.regions),
            model=self.model,
            digest=digest(documents) if documents else "",
            elapsed_s=elapsed_s,
        )


def result_documents(analysed: AnalysedMap) -> Documents:
    """Return the documents of the result run, or [] where the map was only to be assembled."""
    if not analysed.request.enhance:
        return []
    return _run(analysed, analysed.result_uid, STREAM_ENHANCED)


def preview_documents(analysed: AnalysedMap) -> Documents:
    """Return the documents of a preview of an unfinished map.

    A preview is a run of its own, meant for live displays only.
    """
    label = f"preview {len(analysed.rows_used)} {analysed.result_uid}"
    return _run(analysed, str(uuid.uuid5(NAMESPACE, label)), STREAM_PREVIEW)


def _run(analysed: AnalysedMap, uid: str, stream: str) -> Documents:
    time = analysed.end_time
    documents: Documents = [("start", _start(analysed, uid, stream))]
    counts: dict[str, int] = {}
    if analysed.enhanced is not None:
        enhanced = analysed.enhanced
        events = [_map_event(enhanced, index) for index in range(len(enhanced.elements))]
        keys = _map_keys(enhanced)
        axes = axes_configuration(enhanced.grid)
        documents += stream_documents(uid, time, stream, keys, axes, events)
        counts[stream] = len(events)
    if analysed.regions:
        documents += region_documents(uid, time, analysed.regions)
        counts[STREAM_REGIONS] = len(analysed.regions)
    stop = {
        "uid": child_uid(uid, "stop"),
        "run_start": uid,
        "time": time,
        "exit_status": "fail" if analysed.reason else "success",
        "reason": analysed.explanation,
        "num_events": counts,
    }
    return in_order([*documents, ("stop", stop)])


def _start(analysed: AnalysedMap, uid: str, stream: str) -> dict[str, Any]:
    start: dict[str, Any] = {
        "uid": uid,
        "time": analysed.end_time,
        "plan_name": PLAN_RESULT,
        "purpose": "preview" if stream == STREAM_PREVIEW else "result",
        "original_run_uid": analysed.source_uid,
        "model": analysed.model,
        "settings": analysed.request.model_dump(mode="json"),
        "rows_used": list(analysed.rows_used),
        "complete": analysed.complete,
        "fallback": analysed.fallback,
        "versions": package_versions(),
        "hints": {},
    }
    if analysed.notes:
        start["notes"] = list(analysed.notes)
    metadata = analysed.start.get("xrf_sr", {})
    for key in ("survey_uid", "parent_uid"):
        if metadata.get(key) is not None:
            start[key] = metadata[key]
    if analysed.enhanced is not None:
        start["grid"] = analysed.enhanced.grid.to_dict()
        start["elements"] = analysed.enhanced.elements
        start["factor"] = analysed.request.factor
        start["sampling"] = analysed.enhanced.sampling
        start |= {key: value for key, value in analysed.beam.items() if value is not None}
    if analysed.forecast is not None:
        start["forecast"] = dict(analysed.forecast)
    return start


def in_order(documents: Documents) -> Documents:
    """Make each document `TICK_S` later than the one before, as stores sort documents by time."""
    first = documents[0][1]["time"]
    return [
        (name, {**doc, "time": first + TICK_S * number})
        for number, (name, doc) in enumerate(documents)
    ]


def stream_documents(
    uid: str,
    time: float,
    name: str,
    data_keys: dict[str, Any],
    configuration: dict[str, Any],
    rows: list[dict[str, Any]],
) -> Documents:
    """Return the descriptor and the events of one stream.

    Parameters
    ----------
    uid
        Uid of the run, from which those of the documents follow.
    time
        Time of all documents, in seconds since 1970.
    name
        Name of the stream.
    data_keys
        Descriptions of the events' keys.
    configuration
        Configuration of the object that the keys belong to; {} where it has none.
    rows
        Data of each event.
    """
    descriptor_uid = child_uid(uid, name)
    descriptor = {
        "uid": descriptor_uid,
        "run_start": uid,
        "time": time,
        "name": name,
        "data_keys": data_keys,
        "object_keys": {OBJECT: list(data_keys)},
        "configuration": {OBJECT: configuration} if configuration else {},
        "hints": {OBJECT: {"fields": []}},
    }
    documents: Documents = [("descriptor", descriptor)]
    for number, data in enumerate(rows, start=1):
        event = {
            "uid": child_uid(uid, f"{name} {number}"),
            "descriptor": descriptor_uid,
            "seq_num": number,
            "time": time,
            "data": data,
            "timestamps": dict.fromkeys(data, time),
            "filled": {},
        }
        documents.append(("event", event))
    return documents


def region_documents(uid: str, time: float, regions: Sequence[Region]) -> Documents:
    """Return the stream of the proposed regions of a run, or [] where there are none."""
    events = [{**region_columns(region), "disposition": "proposed"} for region in regions]
    if not events:
        return []
    return stream_documents(uid, time, STREAM_REGIONS, _region_keys(), {}, events)


def _map_keys(enhanced: EnhancedMaps) -> dict[str, Any]:
    keys: dict[str, Any] = {"element": data_key("string", [])}
    for name in FIELDS:
        keys[name] = {
            **data_key("array", list(enhanced.grid.shape)),
            "dtype_numpy": "|u1" if name in FLAGS else "<f4",
            "dims": ["y", "x"],
            "units": "" if name in FLAGS else "photons",
        }
    return keys


def axes_configuration(grid: ScanGrid) -> dict[str, Any]:
    """Return the positions of the pixels' centers as an object's configuration."""
    axes = {"y_um": grid.slow.centers_um, "x_um": grid.fast.centers_um}
    return {
        "data": {name: values.tolist() for name, values in axes.items()},
        "timestamps": dict.fromkeys(axes, 0.0),
        "data_keys": {
            name: {**data_key("array", [len(values)]), "dtype_numpy": "<f8", "units": "um"}
            for name, values in axes.items()
        },
    }


def _map_event(enhanced: EnhancedMaps, index: int) -> dict[str, Any]:
    """Return the data of one event: the planes (y, x) of one element."""
    data: dict[str, Any] = {"element": enhanced.elements[index]}
    for name in FIELDS:
        kind = np.uint8 if name in FLAGS else np.float32
        data[name] = np.ascontiguousarray(enhanced.dataset[name].values[index], dtype=kind)
    return data


def _region_keys() -> dict[str, Any]:
    numbers = {name: data_key("number", []) for name in REGION_NUMBERS}
    words = (*REGION_WORDS, "disposition")
    return {**numbers, **{name: data_key("string", []) for name in words}}


def data_key(dtype: str, shape: list[int]) -> dict[str, Any]:
    """Return the description of one key of a descriptor."""
    return {"source": "xrf_sr_plans", "dtype": dtype, "shape": shape}


def child_uid(uid: str, label: str) -> str:
    """Return the uid of a document of a run, where `label` is unique within the run."""
    return str(uuid.uuid5(uuid.UUID(uid), label))


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that a result depends on."""
    versions = {}
    for package in ("xrf-sr-plans", "numpy", "torch"):
        try:
            versions[package.replace("-", "_")] = version(package)
        except PackageNotFoundError:
            continue
    return versions
