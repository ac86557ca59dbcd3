"""Decisions that no plan waits for become documents, and fine maps count, whoever flew them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import event_model
import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline, small_survey
from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import By
from xrf_sr_plans.approval.send import send_approved
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.queueing.rescan_queue import RescanQueue
from xrf_sr_plans.review.approval_keeper import ApprovalKeeper
from xrf_sr_plans.review.record import read_survey

BOXES = [[(-4.0, -2.5, -1.5, 0.5), (-2.0, -0.5, -1.5, 0.5), (1.0, 2.5, -1.5, 0.5)], []]
ANN = By(who="ann", via="page", why="the vein")


class Kept:
    """A survey that proposed, in a session whose keeper delivers into a list."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = ApprovalFolder(tmp_path / "approvals")
        self.desk = ApprovalDesk(self.folder)
        self.delivered: list[list[tuple[str, dict[str, Any]]]] = []
        self.keeper = ApprovalKeeper(self.desk, self.delivered.append)
        self.beamline = small_beamline(BOXES, approvals=self.desk)
        self.run_engine = RunEngine({}, call_returns_result=True)
        self.recorder = Recorder(self.run_engine)
        self.run_engine.subscribe(self.keeper)
        wishes = {"rescan": "propose", "tile_um": 8, "budget_s": 30.0}
        self.run_engine(small_survey(self.beamline, **wishes))
        [self.uid] = self.folder.surveys()

    def states(self) -> list[str]:
        assert self.desk.flush()
        return [state.disposition for state in self.folder.regions(self.uid)]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


class Manager:
    """A RE Manager in memory: `items` waits, nothing is run."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def item_add(self, item: dict[str, Any], *, pos: Any = None) -> dict[str, Any]:
        self.items.insert(0, {**item, "item_uid": f"item-{len(self.items)}"})
        return {"item": self.items[0]}

    def queue_get(self, *, reload: bool = False) -> dict[str, Any]:
        return {"items": self.items}

    def history_get(self, *, reload: bool = False) -> dict[str, Any]:
        return {"items": []}

    def close(self) -> None:
        pass


def test_what_is_denied_after_the_survey_is_a_run_with_who_when_and_why(kept):
    kept.folder.edit(kept.uid, 1, pad_um=0.5, by=ANN)
    kept.folder.deny(kept.uid, 2, by=ANN)
    kept.keeper.look()
    assert len(kept.delivered) == 2
    for run in kept.delivered:
        for name, doc in run:
            event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    start = kept.delivered[1][0][1]
    assert (start["plan_name"], start["survey_uid"]) == ("xrf_survey_approvals", kept.uid)
    assert start["xrf_sr"]["regions"] == {"proposed": 2, "denied": 1}
    documents = [*kept.recorder.docs, *(one for run in kept.delivered for one in run)]
    rows = read_survey(documents).regions
    assert [row["disposition"] for row in rows] == ["proposed", "denied", "proposed"]
    assert (rows[1]["decided_by"], rows[1]["decided_via"]) == ("ann", "page")
    assert rows[0]["replaces"] == kept.folder.proposal(kept.uid).regions[0].region.key
    # Neither this session nor another one tells it twice.
    kept.keeper.look()
    ApprovalKeeper(kept.desk, kept.delivered.append).look()
    assert len(kept.delivered) == 2


def test_what_a_plan_waited_for_is_recorded_by_the_plan_alone(kept):
    assert not kept.delivered
    kept.keeper.look()
    assert not kept.delivered


def test_what_is_approved_is_queued_once_and_counts_as_rescanned_once_it_was_flown(kept):
    manager = Manager()
    queue = RescanQueue(connect=lambda: manager)
    kept.folder.approve(kept.uid, 1, 3, by=ANN)
    send_approved(kept.folder, kept.uid, queue)
    with pytest.raises(RefusedError, match="no region is approved and waits"):
        send_approved(kept.folder, kept.uid, queue)
    assert kept.states() == ["queued", "proposed", "queued"]
    assert len(manager.items) == 2
    kwargs = dict(manager.items[0]["kwargs"])
    assert kwargs["regions"][0]["approval"]["who"] == "ann"
    kept.run_engine(bind_plans(kept.beamline)["rescan_regions"](**kwargs))
    assert kept.states().count("rescanned") == 1
    row = next(
        row for row in read_survey(kept.recorder.docs).regions if row["disposition"] == "rescanned"
    )
    assert row["run_uid"]


def test_a_queue_that_does_not_answer_leaves_regions_to_be_approved_again(kept):
    def silent() -> Any:
        raise TimeoutError("no manager")

    queue = RescanQueue(connect=silent)
    kept.folder.approve(kept.uid, 1, by=ANN)
    [state, *_] = send_approved(kept.folder, kept.uid, queue)
    assert state.disposition == "failed"
    assert "no manager" in state.reason
    kept.folder.approve(kept.uid, 1, by=ANN)
    manager = Manager()
    send_approved(kept.folder, kept.uid, RescanQueue(connect=lambda: manager))
    assert len(manager.items) == 1


def test_what_a_killed_session_had_taken_can_be_approved_again(kept):
    kept.folder.approve(kept.uid, 1, by=ANN)
    code = (
        "import sys; from xrf_sr_plans.approval.folder import ApprovalFolder;"
        "folder = ApprovalFolder(sys.argv[1]); state = folder.regions(sys.argv[2])[0];"
        "assert folder.claim(sys.argv[2], state, by='a session', owner='gone')"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(kept.folder.folder), kept.uid], check=True, timeout=100
    )
    assert not kept.folder.regions(kept.uid)[0].ready
    kept.folder.approve(kept.uid, 1, by=ANN)
    state = kept.folder.regions(kept.uid)[0]
    assert (state.ready, state.attempt) == (True, 1)
