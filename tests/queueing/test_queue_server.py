from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.queue_servers import QueueServer
from xrf_sr_plans import schema
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans.binding import USER_PLANS
from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES
from xrf_sr_plans.queueing.client import CORRELATION_KEY, connect_zmq
from xrf_sr_plans.queueing.rescan_queue import RescanQueue
from xrf_sr_plans.store.documents import documents

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

Document = tuple[str, dict[str, Any]]


def runs(folder: Path) -> list[list[Document]]:
    found = [list(documents(path)) for path in folder.glob("*.jsonl")]
    return sorted(found, key=lambda docs: docs[0][1]["time"])


def of_purpose(docs: list[list[Document]], purpose: str) -> list[list[Document]]:
    return [one for one in docs if one[0][1].get("xrf_sr", {}).get("purpose") == purpose]


def test_rescans_that_a_survey_queued_are_executed_by_the_manager(
    queue_server: QueueServer,
) -> None:
    client = queue_server.client
    survey = {"width_um": 24, "height_um": 24, "step_um": 1, "dwell_ms": 20, "find": "K",
              "x_center_um": 0, "y_center_um": 0, "rescan": "queue", "max_regions": 2}  # fmt: skip
    client.item_add({"item_type": "plan", "name": "coarse_survey_with_sr", "kwargs": survey})
    client.queue_start()
    queue_server.wait_until_idle(120)

    history = client.history_get(reload=True)["items"]
    assert [item["name"] for item in history] == ["coarse_survey_with_sr"] + ["rescan_regions"] * 2
    assert {item["result"]["exit_status"] for item in history} == {"completed"}

    flown = runs(queue_server.documents)
    (coarse,) = of_purpose(flown, "coarse")
    fine = of_purpose(flown, "fine")
    (record,) = [docs for docs in flown if docs[0][1]["plan_name"] == schema.PLAN_OUTCOMES]
    streams = {doc["uid"]: doc["name"] for name, doc in record if name == "descriptor"}
    decisions = [
        doc["data"] for name, doc in record
        if name == "event" and streams[doc["descriptor"]] == schema.STREAM_REGIONS
    ]  # fmt: skip
    queued = [one["region_key"] for one in decisions if one["region_disposition"] == "queued"]
    assert len(fine) == len(queued) == 2

    for docs, item in zip(fine, history[1:], strict=True):
        start, stop = docs[0][1], docs[-1][1]
        about = start["xrf_sr"]
        region = Region.from_dict(about["region"])
        grid = ScanGrid.from_dict(about["grid"])
        assert item["result"]["run_uids"] == [start["uid"]]
        assert start[CORRELATION_KEY] == item["kwargs"]["md"][CORRELATION_KEY]
        assert about["parent_uid"] == region.source_uid == coarse[0][1]["uid"]
        assert about["survey_uid"] == coarse[0][1]["xrf_sr"]["survey_uid"]
        assert region.key in queued
        assert "K" in region.elements
        assert grid.fast.step_um == 0.5
        assert grid.fast.low_um == pytest.approx(region.x_low_um)
        assert grid.slow.high_um == pytest.approx(region.y_high_um)
        assert stop["exit_status"] == "success"
        assert sum(name == "event" for name, _ in docs) >= grid.shape[0]


def an_item(**kwargs: Any) -> dict[str, Any]:
    region = {"x_low_um": -2.0, "x_high_um": 2.0, "y_low_um": -2.0, "y_high_um": 2.0}
    return {
        "name": "rescan_regions",
        "kwargs": {"regions": [region], "fine_step_um": 1.0, "dwell_ms": 10.0, **kwargs},
    }


def submit(sink: RescanQueue, *items: dict[str, Any], survey: str) -> list[dict[str, Any]]:
    sink.set({"items": list(items), "survey_uid": survey}).wait(60)
    return json.loads(sink.read()["rescan_queue_dispositions"]["value"])


def test_an_idle_queue_is_not_started_and_an_item_is_there_once(queue_server: QueueServer) -> None:
    client = queue_server.client
    sink = RescanQueue(connect=connect_zmq(queue_server.control_addr, queue_server.info_addr))
    before = len(client.history_get(reload=True)["items"])
    (first,) = submit(sink, an_item(), survey="by hand")
    (again,) = submit(sink, an_item(), survey="by hand")
    assert first["disposition"] == again["disposition"] == "queued"
    assert first["item_uid"] == again["item_uid"]
    assert client.status(reload=True)["manager_state"] == "idle"
    assert len(client.queue_get(reload=True)["items"]) == 1
    client.queue_start()
    queue_server.wait_until_idle(60)
    (after,) = submit(sink, an_item(), survey="by hand")
    assert after["reason"] == "already known: it ran: completed"
    assert len(client.history_get(reload=True)["items"]) == before + 1
    assert client.queue_get(reload=True)["items"] == []


def test_what_the_manager_does_not_allow_is_refused_with_its_words(
    queue_server: QueueServer,
) -> None:
    sink = RescanQueue(connect=connect_zmq(queue_server.control_addr, queue_server.info_addr))
    unknown = {**an_item(), "name": "no_such_plan"}
    wrong = an_item(fine_step_um="tiny")
    for answer in submit(sink, unknown, wrong, survey="refused"):
        assert answer["disposition"] == "refused"
        assert answer["reason"]
    assert queue_server.client.queue_get(reload=True)["items"] == []


AREA = {"width_um": 24, "height_um": 24, "step_um": 1, "dwell_ms": 20}
PAIR = {"width_um": 8, "height_um": 8, "fine_step_um": 1, "dwell_ms": 20}


@pytest.mark.parametrize(
    ("plan", "kwargs", "words"),
    [
        ("coarse_survey_with_sr", {**AREA, "factor": 3}, "Input should be 1, 2 or 4"),
        (
            "coarse_survey_with_sr",
            {**AREA, "rescan": "later"},
            "'inline', 'ask', 'queue' or 'propose'",
        ),
        ("coarse_survey_with_sr", {**AREA, "find": "Fe and"}, "at character 7, found the end"),
        ("coarse_survey_with_sr", {**AREA, "find": "(Fe"}, "find"),
        ("coarse_survey_with_sr", {**AREA, "step_um": -2}, "-2 is out of range [0.0001, 100000]"),
        ("coarse_survey_with_sr", {**AREA, "row_attempts": 0}, "0 is out of range [1, 100]"),
        ("coarse_survey_with_sr", {**AREA, "dwell_ms": 1e300}, "dwell_ms"),
        ("coarse_survey_with_sr", {**AREA, "max_regions": 2.5}, "max_regions"),
        ("xrf_map", {**AREA, "budget_s": -1}, "-1 is out of range [0, 100000000]"),
        (
            "coarse_survey_with_sr",
            {**AREA, "sampling": "fly"},
            "Input should be 'rows' or 'squares'",
        ),
        ("acquire_pair", {**PAIR, "factors": [2, 3]}, "Input should be 2 or 4"),
        ("acquire_pair", {**PAIR, "coarse_dwell_ms": 0}, "coarse_dwell_ms"),
    ],
)
def test_what_no_plan_would_fly_is_refused_when_it_is_submitted(
    queue_server: QueueServer, plan: str, kwargs: dict[str, Any], words: str
) -> None:
    item = {"item_type": "plan", "name": plan, "kwargs": kwargs}
    with pytest.raises(Exception, match=re.escape(words)):
        queue_server.client.item_add(item)
    assert queue_server.client.queue_get(reload=True)["items"] == []


def test_every_number_of_every_plan_has_its_range_in_the_forms(queue_server: QueueServer) -> None:
    allowed = queue_server.client.plans_allowed(reload=True)["plans_allowed"]
    for plan in USER_PLANS:
        for parameter in allowed[plan.__name__]["parameters"]:
            kind = parameter["annotation"]["type"]
            name = parameter["name"]
            assert ("min" in parameter) == (kind.split(" | ")[0] in ("float", "int")), name
            if "min" in parameter:
                assert float(parameter["min"]) == PARAMETER_RANGES[name].low
            if "max" in parameter:
                assert float(parameter["max"]) == PARAMETER_RANGES[name].high


@pytest.mark.parametrize("find", ["Fe and not Zn", None])
def test_a_sound_item_is_taken(queue_server: QueueServer, find: str | None) -> None:
    kwargs = {**AREA, "find": find, "budget_s": None, "max_dose": 1e12}
    item = {"item_type": "plan", "name": "coarse_survey_with_sr", "kwargs": kwargs}
    reply = queue_server.client.item_add(item)
    queue_server.client.item_remove(uid=reply["item"]["item_uid"])
    assert queue_server.client.queue_get(reload=True)["items"] == []


def test_where_no_manager_listens_the_answer_is_that_it_is_unknown() -> None:
    pytest.importorskip("bluesky_queueserver_api")
    connect = connect_zmq("tcp://127.0.0.1:9", "tcp://127.0.0.1:9", timeout_s=0.3)
    (answer,) = submit(RescanQueue(connect=connect, attempts=2), an_item(), survey="nobody")
    assert answer["disposition"] == "failed"
    assert "unknown whether it is queued" in answer["reason"]


def test_pairs_of_chosen_areas_are_collected_from_the_queue(queue_server: QueueServer) -> None:
    client = queue_server.client
    before = {docs[0][1]["uid"] for docs in runs(queue_server.documents)}
    asked = {"width_um": 24, "height_um": 24, "pair_um": 8, "number": 1, "fine_step_um": 1,
             "dwell_ms": 20, "x_center_um": 0, "y_center_um": 0, "budget_s": 600}  # fmt: skip
    wrong = {**asked, "choose": "at random"}
    name = "survey_and_collect_pairs"
    with pytest.raises(Exception, match="at random"):
        client.item_add({"item_type": "plan", "name": name, "kwargs": wrong})
    client.item_add({"item_type": "plan", "name": name, "kwargs": asked})
    client.queue_start()
    queue_server.wait_until_idle(120)
    item = client.history_get(reload=True)["items"][-1]
    assert item["name"] == name
    assert item["result"]["exit_status"] == "completed"
    flown = [docs for docs in runs(queue_server.documents) if docs[0][1]["uid"] not in before]
    purposes = [docs[0][1]["xrf_sr"]["purpose"] for docs in flown]
    assert purposes == [
        "coarse", "proposals", "outcomes", "pair_coarse", "pair_fine", "pair_coarse", "collection",
    ]  # fmt: skip
    assert flown[-1][0][1]["xrf_sr"]["regions"] == {"rescanned": 1}
    assert len({docs[0][1].get("collection_uid") for docs in flown[3:]}) == 1
