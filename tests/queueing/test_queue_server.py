from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.queue_servers import QueueServer
from xrf_sr_plans import schema
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
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


def test_where_no_manager_listens_the_answer_is_that_it_is_unknown() -> None:
    pytest.importorskip("bluesky_queueserver_api")
    connect = connect_zmq("tcp://127.0.0.1:9", "tcp://127.0.0.1:9", timeout_s=0.3)
    (answer,) = submit(RescanQueue(connect=connect, attempts=2), an_item(), survey="nobody")
    assert answer["disposition"] == "failed"
    assert "unknown whether it is queued" in answer["reason"]
