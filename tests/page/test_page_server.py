"""What the page's server tells, and what it lets people decide."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ophyd.status import Status
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.page.server import page_app
from xrf_sr_plans.page.watched import WatchedSurvey, WatchedSurveys
from xrf_sr_plans.review.feed import FeedReader
from xrf_sr_plans.review.growing import GrowingSurvey

DECIDE = {"x-xrf-sr": "1"}


class FakeManager:
    """Takes items as the queue does, and remembers them."""

    name = "rescan_queue"

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def set(self, value: dict[str, Any]) -> Status:
        self.items += value["items"]
        status = Status()
        status.set_finished()
        return status

    def read(self) -> dict[str, Any]:
        from xrf_sr_plans.maps.region import Region

        keys = [Region.from_dict(item["kwargs"]["regions"][0]).key for item in self.items]
        answers = [{"key": key, "disposition": "queued", "reason": "item 1"} for key in keys]
        return {"rescan_queue_dispositions": {"value": json.dumps(answers), "timestamp": 0.0}}


@dataclass
class Page:
    client: TestClient
    manager: FakeManager
    uid: str

    def state(self, **query: str) -> dict[str, Any]:
        while self.client.get(f"/api/surveys/{self.uid}").json()["reading"]:
            time.sleep(0.05)
        answer = self.client.get(f"/api/surveys/{self.uid}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tell(self, path: str = "decide", status: int = 200, **wish: Any) -> dict[str, Any]:
        place = f"/api/surveys/{self.uid}/{path}"
        answer = self.client.post(place, json=wish, headers=DECIDE)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def page(root: Path, approvals: ApprovalFolder, uid: str) -> Iterator[Page]:
    manager = FakeManager()
    surveys = WatchedSurveys(root / "surveys", approvals)
    app = page_app(surveys, lambda: manager, hosts=("testserver",))
    with closing(surveys), TestClient(app) as client:
        yield Page(client, manager, uid)


def test_the_survey_is_listed_and_described(page: Page):
    (listed,) = page.client.get("/api/surveys").json()
    assert listed["uid"] == page.uid
    assert listed["sample"] == "<i>leaf</i>"
    assert listed["find"] == "K"
    state = page.state()
    assert state["element"] == "K"  # what was looked for
    assert state["axes"] == ["samx", "samy"]
    assert [layer["name"] for layer in state["layers"]] == [
        "coarse", "baseline", "enhanced", "sigma",
    ]  # fmt: skip
    assert state["coarse"]["rows"] == state["coarse"]["of_rows"] == 12
    assert state["regions"]
    for region in state["regions"]:
        assert region["disposition"] == "proposed"
        assert region["editable"]
        assert region["time_s"] > 0
        assert float(region["expected"]) > 0
    assert state["cost"]["undecided"] == len(state["regions"])


def test_while_a_survey_is_read_nothing_can_be_decided_on(
    root: Path, approvals: ApprovalFolder, uid: str
):
    survey = WatchedSurvey(root / "surveys" / uid, approvals)
    state = survey.state(None)
    assert (state["reading"], state["open"], state["regions"]) == (True, False, [])
    survey.refresh()
    state = survey.state(None)
    assert (state["reading"], state["open"], len(state["regions"]) > 0) == (False, True, True)


def test_nothing_is_told_twice(page: Page):
    state = page.state()
    again = page.client.get(f"/api/surveys/{page.uid}", params={"version": state["version"]})
    assert again.status_code == 204
    page.tell(action="deny", numbers=[1])
    assert page.state(version=state["version"])["regions"][0]["disposition"] == "denied"


def maps_of(uid: str, root: Path) -> ElementalMaps:
    survey = GrowingSurvey()
    survey.take(FeedReader(root / "surveys" / uid).new_documents())
    (maps,) = survey.record.coarse.values()
    return maps


def test_maps_are_pictures_with_the_highest_row_on_top(page: Page, root: Path):
    state = page.state()
    assert state["layers"]
    for layer in state["layers"]:
        answer = page.client.get(f"/api/surveys/{page.uid}/maps/{layer['name']}/Si.png")
        assert answer.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(answer.content))
        assert min(image.size) >= 12
    coarse = page.client.get(f"/api/surveys/{page.uid}/maps/coarse/K.png").content
    image = np.asarray(Image.open(io.BytesIO(coarse)))
    counts = maps_of(page.uid, root).counts.sel(element="K").values
    assert image.shape == counts.shape
    row, column = np.unravel_index(np.nanargmax(counts), counts.shape)
    assert image[len(counts) - 1 - row, column] == image.max()


def test_what_there_is_not_is_refused_with_its_name(page: Page):
    for place in (f"/api/surveys/{page.uid}/maps/coarse/Xx.png", "/api/surveys/nothing"):
        answer = page.client.get(place)
        assert answer.status_code == 400
        assert "Xx" in answer.json()["error"] or "nothing" in answer.json()["error"]
    assert page.client.get("/api/surveys/..%2F..%2Fetc").status_code in (400, 404)


def test_people_approve_deny_edit_and_draw_and_it_is_known_who_and_why(
    page: Page, approvals: ApprovalFolder
):
    first = page.state()["regions"][0]
    page.tell(action="approve", numbers=[1], who="Ann", why="the vein")
    state = page.tell(action="draw", edges=[0, 4, 0, 4], elements=["Fe"], who="Bob")
    drawn = state["regions"][-1]
    assert drawn["drawn"]
    assert drawn["disposition"] == "approved"
    assert drawn["edges"] == [0, 4, 0, 4]
    low, high, bottom, top = first["edges"]
    page.tell(action="edit", number=1, edges=[low, high - 1, bottom, top], who="Ann")
    states = approvals.regions(page.uid)
    assert (states[0].who, states[0].via) == ("Ann", "page")
    assert states[0].region.x_high_um == high - 1
    assert states[-1].who == "Bob"
    assert page.state()["cost"]["ready"] == 2


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"action": "fly"}, "'approve', 'deny', 'edit' or 'draw'"),
        ({"action": "approve", "numbers": []}, "no region"),
        ({"action": "approve", "numbers": [99]}, "99"),
        ({"action": "draw", "edges": [0, 1, 2]}, "four numbers"),
        ({"action": "draw", "edges": [4, 0, 0, 4]}, "low must be below high"),
        ({"action": "draw", "edges": [900, 904, 0, 4]}, "lies outside"),
        ({"action": "edit", "number": 1, "edges": ["a", 1, 2, 3]}, "four numbers"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_decided(
    page: Page, approvals: ApprovalFolder, wish: dict[str, Any], words: str
):
    before = approvals.events(page.uid)
    assert words in page.tell(status=400, **wish)["error"]
    assert approvals.events(page.uid) == before


def test_what_is_approved_is_queued_once_however_often_it_is_sent(page: Page):
    page.tell(action="approve", numbers=[1])
    state = page.tell("send")
    assert state["regions"][0]["disposition"] == "queued"
    assert not state["regions"][0]["editable"]
    assert len(page.manager.items) == 1
    assert "approved" in page.tell("send", status=400)["error"]
    assert "queued already" in page.tell(action="deny", numbers=[1], status=400)["error"]
    assert len(page.manager.items) == 1


def test_a_plan_that_waits_goes_on_when_it_is_sent(page: Page, approvals: ApprovalFolder):
    from xrf_sr_plans.approval.records import Decided, WaitBegan

    approvals.add(page.uid, WaitBegan(until=time.time() + 60))
    assert page.state()["waiting"]["until"] > time.time()
    page.tell(action="approve", numbers=[1])
    page.tell("send")
    last = [one for one in approvals.events(page.uid) if isinstance(one, Decided)][-1]
    assert last.complete
    assert page.manager.items == []  # the plan flies it


def test_pages_of_others_and_other_names_of_this_machine_get_nothing(page: Page):
    place = f"/api/surveys/{page.uid}/decide"
    wish = {"action": "deny", "numbers": [1]}
    assert page.client.post(place, json=wish).status_code == 403
    answer = page.client.get("/api/surveys", headers={"host": "evil.example"})
    assert answer.status_code == 400
    policy = page.client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")


def test_beyond_this_machine_a_token_is_needed(root: Path, approvals: ApprovalFolder):
    surveys = WatchedSurveys(root / "surveys", approvals)
    app = page_app(surveys, FakeManager, token="secret", hosts=("*",))
    with closing(surveys), TestClient(app) as client:
        assert client.get("/").status_code == 401
        assert client.get("/api/surveys").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        answer = client.get("/?token=secret", follow_redirects=False)
        assert answer.status_code == 303
        assert "token" not in answer.headers["location"]
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert client.get("/api/surveys").status_code == 200


def test_a_survey_without_a_proposal_is_shown_and_cannot_be_decided_on(root: Path, uid: str):
    surveys = WatchedSurveys(root / "surveys", ApprovalFolder(root / "elsewhere"))
    app = page_app(surveys, FakeManager, hosts=("testserver",))
    with closing(surveys), TestClient(app) as client:
        while (state := client.get(f"/api/surveys/{uid}").json())["reading"]:
            time.sleep(0.05)
        assert state["open"] is False
        assert state["regions"]
        assert not any(region["editable"] for region in state["regions"])
        wish = {"action": "approve", "numbers": [1]}
        answer = client.post(f"/api/surveys/{uid}/decide", json=wish, headers=DECIDE)
        assert answer.status_code == 400
        assert "proposed nothing" in answer.json()["error"]
