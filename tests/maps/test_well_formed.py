"""Damaged documents: named where they are read, left out where a scan is under way."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from support.row_documents import map_run, row_event, small_grid, truth
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.one_event_at_a_time import OneEventAtATime, ScanRows
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import AssemblyError, FileFormatError, XrfSrError
from xrf_sr_plans.maps.adapters import adapt_grid_scan, adapt_row_events
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.review.record import read_survey
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl

GRID = small_grid()
COUNTS = truth(GRID)
NOTHINGS: list[Any] = [None, 7, "text", [], np.zeros(3), {"uid": []}, {"uid": 3}, {}]


def run(**metadata: Any) -> list[tuple[str, dict[str, Any]]]:
    return copy.deepcopy(list(map_run(GRID, COUNTS, "r", **metadata)))


@pytest.mark.parametrize("doc", NOTHINGS)
@pytest.mark.parametrize("name", ["start", "descriptor", "event", "event_page", "stop"])
def test_a_document_that_is_none_ends_no_scan_and_no_map(name, doc, caplog):
    told, handed_on = [], []
    chain = AnalysisChain(AnalysisSettings(model="none"), finished=told.append)
    callbacks = [chain, *(kind(lambda *pair: handed_on.append(pair)) for kind in
                          (OneEventAtATime, ScanRows))]  # fmt: skip
    for number, pair in enumerate(run()):
        for callback in callbacks:
            if number == 3:
                callback(name, doc)
            callback(*pair)
    assert [summary.source_uid for summary in told] == ["r"]
    assert told[0].status == "fallback"
    assert sum(name == "event" for name, _ in handed_on) == 2 * GRID.slow.num
    assert name in caplog.text


@pytest.mark.parametrize("doc", NOTHINGS)
def test_the_run_of_a_document_without_uids_is_not_known(doc):
    index = RunIndex()
    index.run_of("start", {"uid": "r"})
    for name in ("start", "descriptor", "event", "stop"):
        assert index.run_of(name, doc) is None
    assert index.open_runs == ["r"]


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("key", ["uid", "data", "data_keys", "run_start", "descriptor", "xrf_sr"])
def test_readers_of_stored_documents_raise_errors_of_ours(place, key):
    documents = run()
    for value in ([], "x", 3, {}, None):
        documents[place % len(documents)][1][key] = value
        for read in (
            read_survey,
            enhanced_from_documents,
            lambda docs: list(adapt_grid_scan(docs, {"Fe": "x"}, dwell_ms=1)),
            lambda docs: list(adapt_row_events(docs, {"Fe": "x"})),
        ):
            try:
                read(documents)
            except XrfSrError:
                continue


def test_the_run_that_is_damaged_is_named():
    documents = run()
    documents[0][1]["xrf_sr"]["grid"] = {"fast": 3}
    with pytest.raises(AssemblyError, match="run r: "):
        read_survey(documents)
    with pytest.raises(AssemblyError, match="document 2: 'uid' of this descriptor is 5"):
        enhanced_from_documents([run()[0], ("descriptor", {**run()[1][1], "uid": 5})])


def built(*events: dict[str, Any]) -> MapBuilder:
    documents = run()
    builder = MapBuilder(documents[0][1])
    builder.descriptor(documents[1][1])
    for event in events:
        builder.event(event)
    return builder


@pytest.mark.parametrize("value", [float("inf"), 10**400, [], {}, "x", np.zeros(0), None])
@pytest.mark.parametrize("role", ["counts", "i0", "row", "attempt", "direction", "n_frames"])
def test_a_row_that_is_damaged_costs_that_row_only(role, value):
    events = [row_event(GRID, COUNTS, row, run="r") for row in range(GRID.slow.num)]
    events[1]["data"][f"xrf_{role}"] = value
    maps = built(*events).maps()
    whole = [0, 2, 3]
    np.testing.assert_array_equal(maps.counts.values[:, whole], COUNTS[:, whole])


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize("first", [True, False])
def test_a_row_whose_number_was_damaged_takes_the_place_of_no_other(attempt, first):
    own = row_event(GRID, COUNTS, 1, run="r")
    other = row_event(GRID, COUNTS, 2, run="r", attempt=attempt)
    other["data"]["xrf_row"] = 1
    builder = built(*((other, own) if first else (own, other)))
    maps = builder.maps()
    np.testing.assert_array_equal(maps.counts.values[:, 1], COUNTS[:, 1])
    assert np.isnan(maps.counts.values[:, 2]).all()


def test_two_events_that_contradict_each_other_are_named():
    own = row_event(GRID, COUNTS, 1, run="r")
    builder = built(own, own, row_event(GRID, 2 * COUNTS, 1, run="r"))
    np.testing.assert_array_equal(builder.maps().counts.values[:, 1], COUNTS[:, 1])
    assert builder.problems == ["another event says that it is attempt 0 at row 1"]


def test_a_damaged_descriptor_or_page_is_a_problem_and_no_exception():
    builder = built()
    builder.descriptor({"name": "primary", "data_keys": 3})
    builder.event_page({"seq_num": [1, 2], "descriptor": "r-rows", "data": {"xrf_row": [1]}})
    builder.event_page({})
    builder.event({})
    assert len(builder.problems) == 4
    assert builder.rows_used == []


def test_odd_metadata_cost_no_document_of_a_file(tmp_path):
    writer = JsonlWriter(tmp_path)
    circle: list[Any] = []
    circle.append(circle)
    odd = {(1, 2): "a tuple", None: {3: circle}, "uid": "r", "time": 1.0}
    writer("start", odd)
    writer("stop", {"uid": "s", "run_start": "r", "time": 2.0})
    documents = list(read_jsonl(tmp_path / "r.jsonl"))
    assert [name for name, _ in documents] == ["start", "stop"]
    assert documents[0][1]["(1, 2)"] == "a tuple"
    assert "nested more than 50 levels deep" in json.dumps(documents[0][1]["None"])


@pytest.mark.parametrize("uid", ["\0", "\ud800", "a\nb", "..", "", "a/b"])
def test_a_uid_that_is_no_file_name_is_refused(tmp_path, uid):
    with pytest.raises(FileFormatError, match="can't be a file name"):
        JsonlWriter(tmp_path)("start", {"uid": uid, "time": 1.0})


@pytest.mark.parametrize("time", [None, "x", [], float("nan"), 10**400, -1])
@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_time_costs_no_map(place, time):
    told = []
    chain = AnalysisChain(AnalysisSettings(model="none"), finished=told.append)
    documents = run()
    documents[place][1]["time"] = time
    for pair in documents:
        chain(*pair)
    assert [(summary.source_uid, summary.status) for summary in told] == [("r", "fallback")]


@pytest.mark.parametrize("damage", [{"xrf_sr": {"analysis": 3}, "time": None}, {"time": None}])
def test_of_a_run_that_asks_for_analysis_an_outcome_is_told_whatever_its_start(damage):
    told = []
    chain = AnalysisChain(AnalysisSettings(model="none"), finished=told.append)
    for name, doc in run():
        chain(name, doc | damage if name == "start" else doc)
    assert [summary.source_uid for summary in told] == ["r"]


@pytest.mark.parametrize("axis", ["fast", "slow"])
def test_a_map_that_no_memory_holds_is_refused_before_any_is_taken(axis):
    start = run()[0][1]
    start["xrf_sr"]["grid"][axis]["num"] = 10**9
    with pytest.raises(AssemblyError, match="at most 536870912 counts are held in memory"):
        MapBuilder(start)
    scan = {
        "uid": "g",
        "time": 1.0,
        "shape": [4, 10**9],
        "motors": ["y", "x"],
        "extents": [[0, 3], [0, 9]],
        "hints": {"dimensions": [[["y"], "p"], [["x"], "p"]]},
    }
    descriptor = {"uid": "d", "run_start": "g", "name": "primary"}
    descriptor["data_keys"] = {"fe": {"dtype": "number"}}
    documents = [("start", scan), ("descriptor", descriptor)]
    with pytest.raises(XrfSrError, match="at most 536870912 counts"):
        list(adapt_grid_scan(documents, {"Fe": "fe"}, dwell_ms=1, um_per_unit=1.0))


def test_more_element_names_than_a_map_can_have_are_a_problem_of_the_descriptor():
    (_, start), (_, descriptor) = run()[:2]
    start["xrf_sr"]["grid"]["slow"]["num"] = 10**7
    builder = MapBuilder(start)
    descriptor["configuration"]["xrf"]["data"]["xrf_elements"] = ["Fe"] * 20
    builder.descriptor(descriptor)
    assert "at most 536870912 counts" in builder.problems[0]
    assert builder.elements == ["Fe", "Zn", "Ca"]
