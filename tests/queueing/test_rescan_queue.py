from __future__ import annotations

import json
import threading
import time
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.queueing.client import CORRELATION_KEY, connect_zmq
from xrf_sr_plans.queueing.rescan_queue import RescanQueue


def region(x: float) -> Region:
    return Region(x, x + 4, 0, 4, ("Fe",), 1.0, "because", "raw", model_sha256="ab")


def item(x: float, **kwargs: Any) -> dict[str, Any]:
    plain = {k: v for k, v in region(x).to_dict().items() if v == v}
    return {
        "name": "rescan_regions",
        "kwargs": {"regions": [plain], "fine_step_um": 0.5, "dwell_ms": 10.0, "md": {"a": 1},
                   **kwargs},
    }  # fmt: skip


class Refused(Exception):
    """What the manager's client raises when the manager says no."""


class Manager:
    """A queue server as its client shows it, with a network that can fail."""

    RequestFailedError = Refused

    def __init__(self) -> None:
        self.queue: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.running: dict[str, Any] = {}
        self.submissions = 0
        self.lost_replies = 0
        self.lost_requests = 0
        self.refuse = ""
        self.gate = threading.Event()
        self.gate.set()
        self.closed = 0
        self.started = False

    def item_add(self, item: dict[str, Any], *, pos: str) -> dict[str, Any]:
        self.gate.wait(30)
        self.submissions += 1
        if self.refuse:
            raise Refused(f"Request failed: {self.refuse}")
        if self.lost_requests:
            self.lost_requests -= 1
            raise TimeoutError("timeout occurred")
        stored = {**item, "item_uid": f"item-{self.submissions}"}
        self.queue.insert(0 if pos == "front" else len(self.queue), stored)
        if self.lost_replies:
            self.lost_replies -= 1
            raise TimeoutError("timeout occurred")
        return {"success": True, "item": stored}

    def queue_get(self, *, reload: bool) -> dict[str, Any]:
        return {"items": list(self.queue), "running_item": self.running}

    def history_get(self, *, reload: bool) -> dict[str, Any]:
        return {"items": list(self.history)}

    def queue_start(self) -> None:
        self.started = True

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def sink(manager: Manager) -> RescanQueue:
    return RescanQueue(connect=lambda: manager, timeout_s=5)


def submit(sink: RescanQueue, *items: dict[str, Any], survey: str = "survey") -> list[Any]:
    sink.set({"items": list(items), "survey_uid": survey}).wait(10)
    return json.loads(sink.read()["rescan_queue_dispositions"]["value"])


def test_items_are_queued_in_their_order_before_what_others_queued(
    manager: Manager, sink: RescanQueue
) -> None:
    manager.queue.append({"name": "somebody_elses", "kwargs": {}, "item_uid": "x"})
    answers = submit(sink, item(0), item(10))
    assert [answer["disposition"] for answer in answers] == ["queued", "queued"]
    assert [answer["key"] for answer in answers] == [region(0).key, region(10).key]
    first, second, third = manager.queue
    assert first["kwargs"]["regions"][0]["x_low_um"] == 0
    assert second["kwargs"]["regions"][0]["x_low_um"] == 10
    assert third["name"] == "somebody_elses"
    assert first["item_type"] == "plan"
    assert first["kwargs"]["md"] == {"a": 1, CORRELATION_KEY: answers[0]["correlation"]}
    assert manager.closed == 1
    assert not manager.started


def test_at_the_back_the_order_is_kept_too(manager: Manager) -> None:
    sink = RescanQueue(connect=lambda: manager, position="back")
    manager.queue.append({"name": "somebody_elses", "item_uid": "x"})
    submit(sink, item(0), item(10))
    lows = [one["kwargs"]["regions"][0]["x_low_um"] for one in manager.queue[1:]]
    assert lows == [0, 10]


def test_setting_it_twice_queues_once(manager: Manager, sink: RescanQueue) -> None:
    submit(sink, item(0))
    (again,) = submit(sink, item(0))
    assert (again["disposition"], again["item_uid"]) == ("queued", "item-1")
    assert "waits in the queue" in again["reason"]
    manager.running = manager.queue.pop()
    assert "running" in submit(sink, item(0))[0]["reason"]
    manager.history.append({**manager.running, "result": {"exit_status": "completed"}})
    manager.running = {}
    assert submit(sink, item(0))[0]["reason"] == "already known: it ran: completed"
    assert manager.submissions == 1
    submit(sink, item(0), survey="another")
    assert manager.submissions == 2


def test_a_lost_reply_is_looked_up_and_not_submitted_again(
    manager: Manager, sink: RescanQueue
) -> None:
    manager.lost_replies = 1
    (answer,) = submit(sink, item(0))
    assert answer["disposition"] == "queued"
    assert answer["item_uid"] == "item-1"
    assert manager.submissions == 1


def test_the_reply_to_the_last_submission_may_be_lost_too(manager: Manager) -> None:
    manager.lost_replies = 1
    sink = RescanQueue(connect=lambda: manager, attempts=1)
    assert submit(sink, item(0))[0]["disposition"] == "queued"
    assert manager.submissions == 1


def test_a_lost_request_is_repeated(manager: Manager, sink: RescanQueue) -> None:
    manager.lost_requests = 2
    assert submit(sink, item(0))[0]["disposition"] == "queued"
    assert manager.submissions == 3
    assert len(manager.queue) == 1


def test_a_manager_that_never_answers_gives_unknown_and_not_an_exception(
    manager: Manager, sink: RescanQueue
) -> None:
    manager.lost_requests = 99
    (answer,) = submit(sink, item(0))
    assert answer["disposition"] == "failed"
    assert "unknown whether it is queued: the RE Manager: TimeoutError" in answer["reason"]
    assert manager.submissions == 3


def test_after_one_item_without_any_answer_the_others_are_given_up(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    class Unreachable:
        address = "tcp://nowhere:60615"
        asked = 0

        def __call__(self) -> Any:
            def look(*, reload: bool) -> Any:
                self.asked += 1
                raise TimeoutError("timeout occurred")

            manager.queue_get = look  # type: ignore[method-assign]
            return manager

    connect = Unreachable()
    answers = submit(RescanQueue(connect=connect), item(0), item(10), item(20))
    assert [answer["disposition"] for answer in answers] == ["failed"] * 3
    assert [answer["key"] for answer in answers] == [region(x).key for x in (0, 10, 20)]
    assert all("tcp://nowhere:60615" in answer["reason"] for answer in answers)
    assert "TimeoutError" in answers[2]["reason"], "the last one is submitted first"
    assert answers[0]["reason"].startswith("not submitted")
    assert connect.asked == 3
    (warning,) = caplog.records
    assert "tcp://nowhere:60615" in warning.getMessage()


def test_a_connection_over_zmq_knows_the_address_that_it_will_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variable = "QSERVER_ZMQ_CONTROL_ADDRESS"
    monkeypatch.delenv(variable, raising=False)
    assert connect_zmq().address == "tcp://localhost:60615"
    monkeypatch.setenv(variable, "tcp://manager:60615")
    assert connect_zmq().address == "tcp://manager:60615"
    assert connect_zmq("tcp://other:1").address == "tcp://other:1"


def test_what_the_manager_refuses_is_not_repeated(manager: Manager, sink: RescanQueue) -> None:
    manager.refuse = "plan 'rescan_regions' is not in the list of allowed plans"
    (answer,) = submit(sink, item(0))
    assert answer["disposition"] == "refused"
    assert "allowed plans" in answer["reason"]
    assert manager.submissions == 1


def test_no_connection_is_an_answer_for_every_item() -> None:
    def connect() -> Any:
        raise ConnectionError("no manager there")

    answers = submit(RescanQueue(connect=connect), item(0), item(10))
    assert [answer["disposition"] for answer in answers] == ["failed", "failed"]
    assert [answer["key"] for answer in answers] == [region(0).key, region(10).key]
    assert "no manager there" in answers[0]["reason"]


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "rescan_regions", "kwargs": {}},
        {"name": "rescan_regions", "kwargs": {"regions": [{"x_low_um": 1.0}]}},
        item(0, dwell_ms=float("nan")),
        item(0, md={"device": object()}),
    ],
)
def test_what_can_not_be_an_item_is_refused_and_the_others_are_queued(
    manager: Manager, sink: RescanQueue, broken: dict[str, Any]
) -> None:
    first, second = submit(sink, broken, item(10))
    assert first["disposition"] == "refused"
    assert second["disposition"] == "queued"


def test_a_plan_waits_for_it_without_blocking_and_reads_the_answers(manager: Manager) -> None:
    sink = RescanQueue(connect=lambda: manager)
    manager.gate.clear()
    seen: dict[str, Any] = {}

    def plan() -> Any:
        before = time.perf_counter()
        yield from bps.abs_set(sink, {"items": [item(0)], "survey_uid": "s"}, group="q")
        seen["set took"] = time.perf_counter() - before
        manager.gate.set()
        yield from bps.wait("q", timeout=10)
        seen["read"] = yield from bps.read(sink)

    RunEngine({})(plan())
    assert seen["set took"] < 1
    assert json.loads(seen["read"]["rescan_queue_dispositions"]["value"])[0]["disposition"] == (
        "queued"
    )
    assert seen["read"].keys() == sink.describe().keys()


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"attempts": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be a .* number"):
        RescanQueue(**wrong)


@pytest.mark.parametrize("foreign", [None, 3, "x", [], {}, {"kwargs": None}, {"kwargs": [1]},
                                     {"kwargs": {"md": "a comment"}}, {"kwargs": {"md": [1]}},
                                     {"result": None}, {"result": "failed"}])  # fmt: skip
@pytest.mark.parametrize("place", ["queue", "history", "running"])
def test_other_peoples_items_of_any_form_do_not_matter(manager, sink, foreign, place):
    if place == "running":
        manager.running = foreign
    else:
        getattr(manager, place).append(foreign)
    status = sink.set({"items": [item(0)], "survey_uid": "survey"})
    status.wait(5)
    (answer,) = json.loads(sink.read()["rescan_queue_dispositions"]["value"])
    assert answer["disposition"] == "queued", answer["reason"]


def test_a_submission_repeated_while_it_is_under_way_is_made_once(manager, sink):
    manager.gate.clear()
    order = {"items": [item(0), item(9)], "survey_uid": "survey"}
    first, again = sink.set(order), sink.set(order)
    assert not first.done
    assert not again.done
    manager.gate.set()
    for status in (first, again):
        status.wait(5)
    assert len(manager.queue) == 2
    answers = json.loads(sink.read()["rescan_queue_dispositions"]["value"])
    assert [answer["disposition"] for answer in answers] == ["queued", "queued"]
