"""The result run: what the analysis found, as a Bluesky run that any consumer can store.

Everything in it follows from the source run, the model and the settings: uids are uuid5, times
are the source run's. So a replay makes the same documents to the bit, and the same `digest`.
Arrays are float32 `ndarray` here; `as_lists` turns them into what leaves the analysis.
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
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import (
    PLAN_RESULT,
    STREAM_ENHANCED,
    STREAM_PREVIEW,
    STREAM_REGIONS,
    AnalysisRequest,
)

Documents = list[tuple[str, dict[str, Any]]]
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "result.xrf-sr-plans")
OBJECT = "super_resolution"
TICK_S = 1e-3
MAP_KEYS = ("estimate", "sigma", "lower", "upper", "baseline", "trusted")

_REGION_NUMBERS = (
    "x_low_um",
    "x_high_um",
    "y_low_um",
    "y_high_um",
    "score",
    "predicted_sigma",
    "trusted_fraction",
)
_REGION_WORDS = ("key", "elements", "reason", "model_sha256", "fallback", "stage", "disposition")


@dataclass(frozen=True)
class AnalysedMap:
    """One map run with all that was made of it; what routers after the chain are given.

    `enhanced` is None where the request asked for assembly only, or where `reason` says what
    went wrong.
    """

    start: Mapping[str, Any]
    end_time: float
    request: AnalysisRequest
    maps: ElementalMaps | None
    rows_used: Sequence[int]
    enhanced: EnhancedMaps | None = None
    regions: Sequence[Region] = ()
    reason: str = ""

    @property
    def source_uid(self) -> str:
        """Uid of the map run."""
        return str(self.start["uid"])

    @property
    def complete(self) -> bool:
        """Whether every row was there."""
        return self.maps is not None and bool(self.maps.attrs.get("complete"))

    @property
    def beam(self) -> dict[str, float | None]:
        """Dwell and median monitor reading of the map: what its counts are comparable by."""
        if self.maps is None:
            return {"dwell_ms": None, "i0_median": None}
        monitor = np.asarray(self.maps.i0.values, dtype=float)
        monitor = monitor[np.isfinite(monitor) & (monitor > 0)]
        dwell_ms = self.maps.attrs.get("dwell_ms")
        return {
            "dwell_ms": None if dwell_ms is None else float(dwell_ms),
            "i0_median": float(np.median(monitor)) if monitor.size else None,
        }

    @property
    def model(self) -> dict[str, Any]:
        """Name, sha256 and calibration id of what made the estimate."""
        return self.enhanced.model if self.enhanced is not None else {}

    @property
    def fallback(self) -> str:
        """Why the model was not used; empty where it was."""
        return self.enhanced.fallback if self.enhanced is not None else ""

    @property
    def status(self) -> Literal["done", "fallback", "failed"]:
        """What the results device reports."""
        if self.reason:
            return "failed"
        return "fallback" if self.fallback else "done"

    @property
    def result_uid(self) -> str:
        """Uid of the result run; empty where only assembly was asked for."""
        if not self.request.enhance:
            return ""
        settings = self.request.model_dump(mode="json")
        content = json.dumps([self.source_uid, self.model, settings], sort_keys=True)
        return str(uuid.uuid5(NAMESPACE, content))

    def summary(self, documents: Documents, elapsed_s: float = 0.0) -> AnalysisSummary:
        """Return what the plan is told."""
        return AnalysisSummary(
            source_uid=self.source_uid,
            result_uid=self.result_uid,
            status=self.status,
            reason=self.reason or self.fallback,
            regions=tuple(self.regions),
            model=self.model,
            digest=digest(documents) if documents else "",
            elapsed_s=elapsed_s,
        )


def result_documents(analysed: AnalysedMap) -> Documents:
    """Return the whole result run of an analysed map; [] where only assembly was asked for."""
    if not analysed.request.enhance:
        return []
    return _run(analysed, analysed.result_uid, STREAM_ENHANCED)


def preview_documents(analysed: AnalysedMap) -> Documents:
    """Return a preview of an unfinished map: a run of its own, for live displays only."""
    label = f"preview {len(analysed.rows_used)} {analysed.result_uid}"
    return _run(analysed, str(uuid.uuid5(NAMESPACE, label)), STREAM_PREVIEW)


def _run(analysed: AnalysedMap, uid: str, stream: str) -> Documents:
    time = analysed.end_time
    documents: Documents = [("start", _start(analysed, uid, stream))]
    counts: dict[str, int] = {}
    if analysed.enhanced is not None:
        events = [_map_event(analysed.enhanced, index) for index in range(_number(analysed))]
        described = _map_stream(analysed.enhanced)
        documents += stream_documents(
            uid, time, stream, described, _axes(analysed.enhanced), events
        )
        counts[stream] = len(events)
    if analysed.regions:
        events = [_region_event(region) for region in analysed.regions]
        documents += stream_documents(uid, time, STREAM_REGIONS, _region_stream(), {}, events)
        counts[STREAM_REGIONS] = len(events)
    stop = {
        "uid": child_uid(uid, "stop"),
        "run_start": uid,
        "time": time,
        "exit_status": "fail" if analysed.reason else "success",
        "reason": analysed.reason or analysed.fallback,
        "num_events": counts,
    }
    return in_order([*documents, ("stop", stop)])


def _number(analysed: AnalysedMap) -> int:
    return len(analysed.enhanced.elements) if analysed.enhanced is not None else 0


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
    metadata = analysed.start.get("xrf_sr", {})
    for key in ("survey_uid", "parent_uid"):
        if metadata.get(key) is not None:
            start[key] = metadata[key]
    if analysed.enhanced is not None:
        start["grid"] = analysed.enhanced.grid.to_dict()
        start["elements"] = analysed.enhanced.elements
        start["factor"] = analysed.request.factor
        start |= {key: value for key, value in analysed.beam.items() if value is not None}
    return start


def in_order(documents: Documents) -> Documents:
    """Let each document be `TICK_S` later than the one before: stores give them back by time."""
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
    """Return descriptor and events of one stream, all at one time, with uids from the run's."""
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


def _map_stream(enhanced: EnhancedMaps) -> dict[str, Any]:
    keys: dict[str, Any] = {"element": data_key("string", [])}
    for name in MAP_KEYS:
        keys[name] = {
            **data_key("array", list(enhanced.grid.shape)),
            "dtype_numpy": "|u1" if name == "trusted" else "<f4",
            "dims": ["y", "x"],
            "units": "" if name == "trusted" else "photons",
        }
    return keys


def _axes(enhanced: EnhancedMaps) -> dict[str, Any]:
    axes = {"y_um": enhanced.grid.slow.centers_um, "x_um": enhanced.grid.fast.centers_um}
    return {
        "data": {name: values.tolist() for name, values in axes.items()},
        "timestamps": dict.fromkeys(axes, 0.0),
        "data_keys": {
            name: {**data_key("array", [len(values)]), "dtype_numpy": "<f8", "units": "um"}
            for name, values in axes.items()
        },
    }


def _map_event(enhanced: EnhancedMaps, index: int) -> dict[str, Any]:
    data: dict[str, Any] = {"element": enhanced.elements[index]}
    for name in MAP_KEYS:
        kind = np.uint8 if name == "trusted" else np.float32
        data[name] = np.ascontiguousarray(enhanced.dataset[name].values[index], dtype=kind)
    return data


def _region_stream() -> dict[str, Any]:
    numbers = {name: data_key("number", []) for name in _REGION_NUMBERS}
    return {**numbers, **{name: data_key("string", []) for name in _REGION_WORDS}}


def _region_event(region: Region) -> dict[str, Any]:
    numbers = {name: float(getattr(region, name)) for name in _REGION_NUMBERS}
    words = {
        "key": region.key,
        "elements": ",".join(region.elements),
        "reason": region.reason,
        "model_sha256": region.model_sha256,
        "fallback": region.fallback,
        "stage": json.dumps(dict(region.stage), sort_keys=True),
        "disposition": "proposed",
    }
    return {**numbers, **words}


def data_key(dtype: str, shape: list[int]) -> dict[str, Any]:
    """Return a descriptor's entry for one key."""
    return {"source": "xrf_sr_plans", "dtype": dtype, "shape": shape}


def child_uid(uid: str, label: str) -> str:
    """Return the uid of a document within a run."""
    return str(uuid.uuid5(uuid.UUID(uid), label))


def package_versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    versions = {}
    for package in ("xrf-sr-plans", "numpy", "torch"):
        try:
            versions[package.replace("-", "_")] = version(package)
        except PackageNotFoundError:
            continue
    return versions
