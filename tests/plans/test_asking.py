"""Surveys that ask: what is flown is what people approve, while the plan waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import Recorder, later, small_beamline, small_survey
from support.waiting import until
from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import By
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.review.record import read_survey

BOXES = [[(-4.0, -2.5, -1.5, 0.5), (-2.0, -0.5, -1.5, 0.5), (1.0, 2.5, -1.5, 0.5)], []]
ANN = By(who="ann", via="page", why="the vein")


class Asked:
    """A survey that asks, somebody who answers it once it waits, and what came of it."""

    def __init__(self, tmp_path: Path, answer: Callable[..., Any] | None, **wishes: Any) -> None:
        self.folder = ApprovalFolder(tmp_path / "approvals")
        self.desk = ApprovalDesk(self.folder)
        self.beamline = replace(small_beamline(BOXES), approvals=self.desk)
        self.run_engine = RunEngine({}, call_returns_result=True)
        self.recorder = Recorder(self.run_engine)
        usual = {"rescan": "ask", "tile_um": 8, "approval_timeout_s": 60.0, "budget_s": 30.0}
        self.wishes = {**usual, **wishes}
        self._answer = answer
        self.uid = ""

    def fly(self) -> Any:
        answering = threading.Thread(target=self._answer_when_waiting, daemon=True)
        answering.start()
        try:
            return self.run_engine(small_survey(self.beamline, **self.wishes)).plan_result
        finally:
            answering.join(20)
            assert self.desk.flush()

    def _answer_when_waiting(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for uid in self.folder.surveys():
                if self.folder.waiting(uid) is not None:
                    self.uid = uid
                    if self._answer is not None:
                        self._answer(self.folder, uid)
                    return
            time.sleep(0.02)

    def purposes(self) -> list[str]:
        return [run["xrf_sr"]["purpose"] for run in self.recorder.starts]

    def states(self) -> list[str]:
        return [state.disposition for state in self.folder.regions(self.uid)]


def test_what_is_approved_is_flown_and_the_documents_say_who_when_and_why(tmp_path):
    before = time.time()

    def answer(folder: ApprovalFolder, uid: str) -> None:
        folder.edit(uid, 3, pad_um=0.5, by=ANN)
        folder.approve(uid, 1, 3, by=ANN)
        folder.deny(uid, 2, by=By(who="bob"))

    asked = Asked(tmp_path, answer)
    outcome = asked.fly()
    assert asked.purposes() == ["coarse", "proposals", "approvals", "fine", "fine", "outcomes"]
    assert asked.states() == ["rescanned", "denied", "rescanned"]
    assert [one.disposition for one in outcome.regions] == ["rescanned", "rescanned", "denied"]
    [run] = [run for run in asked.recorder.starts if run["xrf_sr"]["purpose"] == "approvals"]
    assert run["uid"] == outcome.approvals_uid
    events = [
        event
        for event in asked.recorder.events("regions")
        if asked.recorder.purpose_of(event) == "approvals"
    ]
    said = [(one["data"]["region_disposition"], one["data"]["region_decided_by"]) for one in events]
    assert said == [("approved", "ann"), ("denied", "bob"), ("approved", "ann")]
    assert events[0]["data"]["region_decided_why"] == "the vein"
    assert before < events[0]["data"]["region_decided_at"] < time.time()
    fine = [run["xrf_sr"] for run in asked.recorder.starts if run["xrf_sr"]["purpose"] == "fine"]
    assert all(run["region"]["approval"]["who"] == "ann" for run in fine)
    # Numbers stay: the edited region is the third one, as it was when it was proposed.
    record = read_survey(asked.recorder.docs)
    assert [row["disposition"] for row in record.regions] == ["rescanned", "denied", "rescanned"]
    proposed = asked.folder.proposal(asked.uid).regions[2].region
    assert record.regions[2]["x_low_um"] == pytest.approx(proposed.x_low_um - 0.5)
    assert record.regions[2]["decided_by"] == "ann"


def test_a_region_of_ones_own_is_flown_too(tmp_path):
    def answer(folder: ApprovalFolder, uid: str) -> None:
        folder.draw(uid, x_low_um=3, x_high_um=4, y_low_um=-1, y_high_um=0, by=ANN)
        folder.deny(uid, by=ANN)

    asked = Asked(tmp_path, answer)
    outcome = asked.fly()
    assert asked.states() == ["denied", "denied", "denied", "rescanned"]
    assert outcome.regions[0].region.source_uid == outcome.tile_uids[0]
    record = read_survey(asked.recorder.docs)
    assert len(record.regions) == 4
    assert record.regions[3]["run_uid"] == outcome.rescan_uids[0]


@pytest.mark.parametrize(
    ("undecided", "states", "decided_by"),
    [
        ("propose", ["rescanned", "proposed", "proposed"], ""),
        ("approve", ["rescanned", "rescanned", "rescanned"], "nobody"),
        ("deny", ["rescanned", "denied", "denied"], "nobody"),
    ],
)
def test_when_the_time_is_over_what_is_undecided_becomes_what_was_asked_for(
    tmp_path, undecided, states, decided_by, caplog
):
    asked = Asked(
        tmp_path,
        lambda folder, uid: folder.approve(uid, 1, by=ANN),
        undecided=undecided,
        approval_timeout_s=1.0,
    )
    asked.fly()
    assert asked.states() == states
    assert "nobody decided on 2 regions within 1 s" in caplog.text
    record = read_survey(asked.recorder.docs)
    assert [row["disposition"] for row in record.regions] == states
    assert record.regions[1]["decided_by"] == decided_by
    assert asked.folder.waiting(asked.uid) is None


def test_a_pause_stops_the_time_and_what_is_said_meanwhile_counts(tmp_path):
    asked = Asked(tmp_path, None, approval_timeout_s=2.0, undecided="deny")

    def pause(folder: ApprovalFolder, uid: str) -> None:
        asked.run_engine.request_pause()

    asked._answer = pause
    with pytest.raises(RunEngineInterrupted):
        asked.fly()
    time.sleep(2.5)
    assert asked.states() == ["proposed"] * 3
    asked.folder.approve(asked.uid, 2, by=ANN)
    asked.folder.deny(asked.uid, by=ANN)
    result = asked.run_engine.resume()
    assert result.exit_status == "success"
    assert asked.desk.flush()
    assert asked.states() == ["denied", "rescanned", "denied"]
    assert asked.purposes().count("fine") == 1


def test_an_abort_while_it_waits_leaves_the_regions_to_be_approved_later(tmp_path):
    asked = Asked(tmp_path, lambda folder, uid: asked.run_engine.request_pause())
    with pytest.raises(RunEngineInterrupted):
        asked.fly()
    asked.run_engine.abort()
    assert asked.desk.flush()
    assert asked.states() == ["proposed"] * 3
    assert asked.folder.waiting(asked.uid) is None
    record = read_survey(asked.recorder.docs)
    assert [row["disposition"] for row in record.regions] == ["proposed"] * 3


def test_an_abort_in_a_rescan_lets_what_was_not_flown_be_approved_again(tmp_path):
    asked = Asked(tmp_path, lambda folder, uid: folder.approve(uid, by=ANN))

    def in_the_first_rescan(name: str, doc: dict[str, Any]) -> None:
        if name == "start" and doc.get("xrf_sr", {}).get("purpose") == "fine":
            later(0.0, asked.run_engine.request_pause)

    asked.run_engine.subscribe(in_the_first_rescan)
    with pytest.raises(RunEngineInterrupted):
        asked.fly()
    asked.run_engine.abort()
    assert asked.desk.flush()
    assert asked.states() == ["failed"] * 3
    asked.folder.approve(asked.uid, 1, 2, 3)
    assert all(state.ready for state in asked.folder.regions(asked.uid))


def test_the_highest_dose_holds_for_what_people_draw(tmp_path):
    def answer(folder: ApprovalFolder, uid: str) -> None:
        other = folder.regions(uid)[1].region
        edges = {"x_low_um": other.x_low_um + 0.5, "x_high_um": other.x_high_um + 0.5}
        folder.edit(uid, 1, **edges, y_low_um=-1.5, y_high_um=0.5, by=ANN)
        folder.approve(uid, 1, 2, by=ANN)
        folder.deny(uid, by=ANN)

    # The survey takes 1e7 and each rescan 4e7.
    asked = Asked(tmp_path, answer, max_dose=6e7)
    asked.fly()
    assert sorted(asked.states()) == ["denied", "refused", "rescanned"]
    [refused] = [one for one in asked.folder.regions(asked.uid) if one.disposition == "refused"]
    assert "would exceed the limit" in refused.reason
    assert asked.purposes().count("fine") == 1


def test_where_nothing_is_proposed_nobody_is_asked(tmp_path):
    asked = Asked(tmp_path, None)
    asked.beamline = replace(small_beamline([[], []]), approvals=asked.desk)
    outcome = asked.run_engine(small_survey(asked.beamline, **asked.wishes)).plan_result
    assert outcome.regions == ()


def test_a_folder_that_cannot_be_written_to_costs_the_rescans_and_not_the_survey(
    tmp_path, caplog, monkeypatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    asked = Asked(tmp_path, None)
    monkeypatch.setattr(asked.folder, "propose", full)
    outcome = asked.run_engine(small_survey(asked.beamline, **asked.wishes)).plan_result
    assert {one.disposition for one in outcome.regions} <= {"proposed", "refused"}
    assert "No space left on device" in caplog.text


def test_asking_needs_somebody_to_ask():
    with pytest.raises(ConfigError, match="no approvals to ask with"):
        list(small_survey(small_beamline(BOXES, approvals=None), rescan="ask"))


def test_what_a_survey_leaves_is_proposed_in_every_mode(tmp_path):
    asked = Asked(tmp_path, None, rescan="inline", max_dose=4.5e7)
    asked.run_engine(small_survey(asked.beamline, **asked.wishes))
    assert asked.desk.flush()
    [asked.uid] = asked.folder.surveys()
    assert asked.states() == ["refused"] * 3
    asked.folder.approve(asked.uid, 2, by=ANN)
    assert asked.states() == ["refused", "approved", "refused"]


def test_a_desk_that_has_nothing_to_do_has_no_thread(tmp_path: Path) -> None:
    desk = ApprovalDesk(ApprovalFolder(tmp_path), "front desk")
    for _ in range(2):
        assert desk.flush(10)
        until(lambda: "front desk-files" not in [one.name for one in threading.enumerate()], 10)
