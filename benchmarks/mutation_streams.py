"""Streams of documents to be mutated, for `mutations.py`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bluesky import RunEngine
from bluesky.plans import grid_scan
from ophyd.sim import SynAxis, SynSignal

from xrf_sr_plans import schema
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import RowTimeModel
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.store.documents import documents

Documents = list[tuple[str, dict[str, Any]]]
VALUES = ("counts", "i0", "live_time_s", "coverage")
NO_NETWORK = AnalysisSettings(model="none-of-that-name")


@dataclass(frozen=True)
class KnownRun:
    """A map run of an undamaged stream."""

    start: int
    """Place of its start document; the other places likewise."""
    descriptors: tuple[int, ...]
    events: dict[int, list[int]]
    """Places of the events of each row."""
    values: dict[str, np.ndarray]
    """What the map holds, by `VALUES`, with rows along the axis before the last."""


@dataclass(frozen=True)
class Stream:
    """An undamaged stream of documents."""

    name: str
    documents: Documents
    maps: dict[str, KnownRun] = field(default_factory=dict)
    """Its map runs by uid."""


def fly(plan: Callable[[Any], Any], settings: AnalysisSettings = NO_NETWORK) -> Documents:
    """Return all documents of a plan, with those of its results."""
    out: Documents = []
    # Behind all others, so that the stream doesn't depend on how busy the machine is.
    results: Documents = []
    analysis = LocalAnalysis(settings, [lambda name, doc: results.append((name, as_lists(doc)))])
    engine = RunEngine({})
    engine.subscribe(lambda name, doc: out.append((name, as_lists(doc))))
    tap = Tap(analysis)
    engine.subscribe(tap)
    beamline = make_beamline(
        analysis=AnalysisDevice(source=analysis),
        time_model=RowTimeModel(overhead_s=0.2, patience=1.0, grace_s=0.3),
        shutter_open=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        engine(plan(beamline))
    analysis.flush(60)
    analysis.close()
    return out + results


def grid_documents() -> Documents:
    """Return the documents of bluesky's own grid scan, one event a pixel."""
    slow, fast = SynAxis(name="samy"), SynAxis(name="samx")
    detector = SynSignal(name="iron", func=lambda: round(10 * slow.position + fast.position))
    out: Documents = []
    plan = grid_scan([detector], slow, 0.0, 3.0, 4, fast, 0.0, 4.0, 5, True)
    RunEngine({})(plan, lambda name, doc: out.append((name, as_lists(doc))))
    return out


def row_scan_documents() -> Documents:
    """Return a fly scan with one event a row, as NSLS-II's SRX has them."""
    axes = {f"{which}_axis": {"motor_name": which, "units": "um"} for which in ("fast", "slow")}
    scan = {"scan_input": [0.0, 4.0, 5, 0.0, 3.0, 4, 0.1], **axes}
    out: Documents = [("start", {"uid": "srx", "time": 1.0, "scan": scan})]
    keys = {"iron": {"source": "s", "dtype": "array", "shape": [5]}}
    descriptor = {"uid": "d", "run_start": "srx", "name": "stream0", "time": 1.0}
    out.append(("descriptor", {**descriptor, "data_keys": keys}))
    for row in range(4):
        event = {"uid": f"e{row}", "descriptor": "d", "seq_num": row + 1, "time": 2.0 + row}
        data = {"iron": [float(10 * row + column) for column in range(5)]}
        out.append(("event", {**event, "data": data, "timestamps": {"iron": 1.0}}))
    out.append(("stop", {"uid": "s", "run_start": "srx", "time": 9.0, "exit_status": "success"}))
    return out


def streams() -> list[Stream]:
    """Return all streams to be mutated."""
    survey = fly(
        lambda beamline: coarse_survey_with_sr(
            beamline,
            width_um=14,
            height_um=8,
            step_um=1,
            dwell_ms=10,
            find="Fe",
            x_center_um=0.0,
            y_center_um=0.0,
            max_regions=1,
        ),
        # With the network, whose trusted pixels have regions worth a rescan.
        AnalysisSettings(),
    )
    pair = fly(
        lambda beamline: acquire_pair(
            beamline, width_um=8, height_um=4, fine_step_um=1, dwell_ms=10
        )
    )
    coarse = [run for run in _runs(survey) if _purpose(run) in ("map", "survey", "coarse")]
    one = coarse[0]
    flown = {
        "survey": survey,
        "pair": pair,
        "one map": one,
        "one map, event by event": list(documents(one)),
        "grid scan": grid_documents(),
        "rows of another beamline": row_scan_documents(),
    }
    return [Stream(name, docs, known_runs(docs)) for name, docs in flown.items()]


def _runs(docs: Documents) -> list[Documents]:
    index, runs = RunIndex(), {}
    for name, doc in docs:
        uid = index.run_of(name, doc)
        if uid is not None:
            runs.setdefault(uid, []).append((name, doc))
    return list(runs.values())


def _purpose(run: Documents) -> str:
    return str((run[0][1].get("xrf_sr") or {}).get("purpose"))


def known_runs(docs: Documents) -> dict[str, KnownRun]:
    """Return the map runs in an undamaged stream, with what their maps hold."""
    index, places, runs = RunIndex(), {}, {}
    for place, (name, doc) in enumerate(docs):
        uid = index.run_of(name, doc)
        if uid is not None:
            places.setdefault(uid, []).append(place)
    for uid, mine in places.items():
        start = docs[mine[0]][1]
        if schema.kind_of_run(start) != "map":
            continue
        builder = MapBuilder(start)
        descriptors, events = [], {}
        for place in mine:
            name, doc = docs[place]
            if name == "descriptor":
                builder.descriptor(doc)
                descriptors.append(place)
            elif name in ("event", "event_page"):
                getattr(builder, name)(doc)
                for row in _rows_of(doc):
                    events.setdefault(row, []).append(place)
        runs[uid] = KnownRun(mine[0], tuple(descriptors), events, values_of(builder.maps()))
    return runs


def _rows_of(doc: dict[str, Any]) -> list[int]:
    rows = [value for key, value in doc["data"].items() if key.endswith("_row")]
    return [int(row) for value in rows for row in (value if isinstance(value, list) else [value])]


def values_of(maps: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a map by name."""
    return {name: np.asarray(maps.dataset[name].values) for name in VALUES}
