"""What is approved after a survey is flown once, and every document says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import Recorder, later, small_beamline, small_survey
from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import By
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.plans.approved import rescan_approved
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.review.approval_keeper import ApprovalKeeper
from xrf_sr_plans.review.record import read_survey

BOXES = [[(-4.0, -2.5, -1.5, 0.5), (-2.0, -0.5, -1.5, 0.5), (1.0, 2.5, -1.5, 0.5)], []]
ANN = By(who="ann", why="the vein")


class Proposed:
    """A survey that only proposed, and the session in which that was."""

    def __init__(self, tmp_path: Path, **wishes: Any) -> None:
        self.folder = ApprovalFolder(tmp_path / "approvals")
        self.desk = ApprovalDesk(self.folder)
        self.beamline = replace(small_beamline(BOXES), approvals=self.desk)
        self.run_engine = RunEngine({}, call_returns_result=True)
        self.recorder = Recorder(self.run_engine)
        facts = {"rescan": "propose", "tile_um": 8, "budget_s": 30.0, "md": {"sample": "x"}}
        self.run_engine(small_survey(self.beamline, **{**facts, **wishes}))
        [self.uid] = self.folder.surveys()

    def states(self) -> list[str]:
        assert self.desk.flush()
        return [state.disposition for state in self.folder.regions(self.uid)]

    def recorded(self) -> list[str]:
        return [row["disposition"] for row in read_survey(self.recorder.docs).regions]

    def purposes(self) -> list[str]:
        return [run["xrf_sr"]["purpose"] for run in self.recorder.starts]


def test_what_is_approved_later_is_flown_once_and_recorded(tmp_path):
    proposed = Proposed(tmp_path)
    assert proposed.states() == ["proposed"] * 3
    proposed.folder.edit(proposed.uid, 1, pad_um=0.5, by=ANN)
    proposed.folder.approve(proposed.uid, 1, 3, by=ANN)
    proposed.folder.deny(proposed.uid, 2, by=ANN)
    plan = bind_plans(proposed.beamline)["rescan_approved"]
    seen = preview(plan)
    assert len(seen.maps) == 2
    outcomes = proposed.run_engine(plan()).plan_result
    assert [one.disposition for one in outcomes] == ["rescanned", "rescanned"]
    assert proposed.states() == proposed.recorded() == ["rescanned", "denied", "rescanned"]
    assert proposed.purposes()[-4:] == ["approvals", "fine", "fine", "approvals"]
    fine = [run for run in proposed.recorder.starts if run["xrf_sr"]["purpose"] == "fine"]
    assert {run["sample"] for run in fine} == {"x"}
    assert {run["xrf_sr"]["region"]["approval"]["why"] for run in fine} == {"the vein"}
    assert {run["survey_uid"] for run in fine} == {proposed.uid}
    # Numbers stay, and the region that was edited is in the place of the one that it was.
    rows = read_survey(proposed.recorder.docs).regions
    assert rows[0]["replaces"] == proposed.folder.proposal(proposed.uid).regions[0].region.key
    with pytest.raises(RefusedError, match="no survey has approved regions"):
        list(plan())
    with pytest.raises(RefusedError, match="region 1 rescanned; region 2 denied"):
        list(plan(survey_uid=proposed.uid))


def test_two_calls_at_once_fly_each_region_once(tmp_path):
    proposed = Proposed(tmp_path)
    proposed.folder.approve(proposed.uid, by=ANN)
    state = proposed.folder.regions(proposed.uid)[0]
    assert proposed.folder.claim(proposed.uid, state, by="another session", owner="other")
    outcomes = proposed.run_engine(rescan_approved(proposed.beamline)).plan_result
    assert len(outcomes) == 2
    assert proposed.states() == ["approved", "rescanned", "rescanned"]


def test_an_abort_leaves_what_was_not_flown_to_be_approved_again(tmp_path):
    proposed = Proposed(tmp_path)
    proposed.folder.approve(proposed.uid, by=ANN)

    def in_a_rescan(name: str, doc: dict[str, Any]) -> None:
        if name == "start" and doc.get("xrf_sr", {}).get("purpose") == "fine":
            later(0.0, proposed.run_engine.request_pause)

    token = proposed.run_engine.subscribe(in_a_rescan)
    with pytest.raises(RunEngineInterrupted):
        proposed.run_engine(rescan_approved(proposed.beamline))
    proposed.run_engine.abort()
    proposed.run_engine.unsubscribe(token)
    assert proposed.states() == proposed.recorded() == ["failed"] * 3
    proposed.folder.approve(proposed.uid, 2, by=ANN)
    proposed.run_engine(rescan_approved(proposed.beamline))
    assert proposed.states() == proposed.recorded() == ["failed", "rescanned", "failed"]


def test_a_rescan_that_was_stopped_before_its_last_row_is_not_taken_for_a_whole_one(tmp_path):
    """A run that RE.stop has ended closes as a success, whatever it lacks."""
    proposed = Proposed(tmp_path)
    proposed.run_engine.subscribe(ApprovalKeeper(proposed.desk, lambda documents: None))
    proposed.folder.approve(proposed.uid, by=ANN)

    def in_a_rescan(name: str, doc: dict[str, Any]) -> None:
        if name == "start" and doc.get("xrf_sr", {}).get("purpose") == "fine":
            later(0.0, proposed.run_engine.request_pause)

    proposed.run_engine.subscribe(in_a_rescan)
    with pytest.raises(RunEngineInterrupted):
        proposed.run_engine(rescan_approved(proposed.beamline))
    proposed.run_engine.stop()
    assert proposed.states() == proposed.recorded() == ["failed"] * 3


def test_the_dose_that_the_survey_was_given_holds_for_later_rescans(tmp_path):
    proposed = Proposed(tmp_path, max_dose=6e7)
    proposed.folder.approve(proposed.uid, by=ANN)
    proposed.run_engine(rescan_approved(proposed.beamline))
    flown = proposed.folder.regions(proposed.uid)[0].region
    edges = {name: getattr(flown, name) for name in ("x_low_um", "x_high_um", "y_low_um")}
    proposed.folder.draw(proposed.uid, **edges, y_high_um=flown.y_high_um + 0.5, by=ANN)
    with pytest.raises(RefusedError, match="would exceed the limit"):
        proposed.run_engine(rescan_approved(proposed.beamline))


def test_without_anybody_to_approve_it_is_refused():
    with pytest.raises(ConfigError, match="has no approvals"):
        list(rescan_approved(small_beamline(BOXES, approvals=None)))
