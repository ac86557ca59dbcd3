"""Approval as data: what people decide, from whatever process, and what follows from it."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import (
    By,
    Decision,
    Proposal,
    ProposedRegion,
    SurveyTile,
    WaitBegan,
    WaitEnded,
)
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import RescanModel

ANN = By(who="ann", via="page", why="the vein")


def region(x_um: float, **changed: object) -> Region:
    edges = (x_um, x_um + 4.0, 0.0, 2.0)
    return Region(*edges, elements=("Fe",), score=2.0, reason="bright", source_uid="tile-1")


def proposal(**changed: object) -> Proposal:
    regions = [ProposedRegion(region=region(x), reason="bright", time_s=3.0) for x in (0, 10, 20)]
    tiles = (
        SurveyTile(uid="tile-1", x_low_um=0, x_high_um=30, y_low_um=-5, y_high_um=5),
        SurveyTile(
            uid="tile-2", x_low_um=30, x_high_um=60, y_low_um=-5, y_high_um=5, model_sha256="ab"
        ),
    )
    facts = {
        "survey_uid": "s",
        "regions": tuple(regions),
        "tiles": tiles,
        "fine_step_um": 0.5,
        "fine_dwell_ms": 10.0,
        "rescans": RescanModel(step_um=0.5, dwell_ms=10.0, row_overhead_s=0.1, stage={"theta": 3}),
    }
    return Proposal(**{**facts, **changed})


@pytest.fixture
def folder(tmp_path: Path) -> ApprovalFolder:
    made = ApprovalFolder(tmp_path / "approvals")
    made.propose(proposal())
    return made


def dispositions(folder: ApprovalFolder) -> list[str]:
    return [state.disposition for state in folder.regions("s")]


def test_what_was_said_is_there_for_another_process_with_who_when_and_why(folder):
    before = time.time()
    folder.approve("s", 1, 3, by=ANN)
    folder.deny("s", 2, by=By(who="bob", why="too hot"))
    states = ApprovalFolder(folder.folder).regions("s")
    assert [state.disposition for state in states] == ["approved", "denied", "approved"]
    assert (states[0].who, states[0].via, states[0].why) == ("ann", "page", "the vein")
    assert before <= states[0].when <= time.time()
    assert states[1].reason == "denied by bob (console): too hot"


def test_without_a_number_all_that_is_undecided_is_meant(folder):
    folder.deny("s", 2)
    folder.approve("s")
    assert dispositions(folder) == ["approved", "denied", "approved"]
    with pytest.raises(RefusedError, match="no region is undecided"):
        folder.approve("s")


def test_an_edited_region_keeps_its_number_and_says_what_it_replaces(folder):
    folder.edit("s", 1, pad_um=2, by=ANN)
    state = folder.regions("s")[0]
    assert (state.region.x_low_um, state.region.x_high_um) == (-2, 6)
    assert (state.number, state.disposition, state.replaces) == (1, "proposed", region(0).key)
    assert state.region.key != state.replaces
    # 12 rows of 16 pixels of 0.5 um: the cost is that of the new rectangle.
    assert state.time_s == pytest.approx(12 * (16 * 0.01 + 0.1) + 0.5)
    folder.approve("s", 1)
    assert folder.regions("s")[0].region.width_um == 8
    with pytest.raises(RefusedError, match="low must be below high"):
        folder.edit("s", 2, pad_um=-5)
    with pytest.raises(RefusedError, match="x_left_um"):
        folder.edit("s", 2, x_left_um=-5)


def test_a_drawn_region_is_approved_and_belongs_to_the_tile_that_holds_most_of_it(folder):
    folder.draw("s", x_low_um=28, x_high_um=40, y_low_um=0, y_high_um=1, elements=["K"], by=ANN)
    state = folder.regions("s")[-1]
    assert (state.number, state.disposition, state.drawn) == (4, "approved", True)
    assert (state.region.source_uid, state.region.model_sha256) == ("tile-2", "ab")
    assert state.region.stage == {"theta": 3}
    with pytest.raises(RefusedError, match="outside of survey"):
        folder.draw("s", x_low_um=70, x_high_um=80, y_low_um=0, y_high_um=1)
    with pytest.raises(RefusedError, match="y_high_um is missing"):
        folder.draw("s", x_low_um=70, x_high_um=80, y_low_um=0)


def test_what_does_not_exist_is_refused_by_name(folder):
    with pytest.raises(RefusedError, match="no region 7; it has 1 to 3"):
        folder.approve("s", 1, 7)
    assert dispositions(folder) == ["proposed"] * 3
    with pytest.raises(RefusedError, match="'t' has proposed nothing"):
        folder.approve("t", 1)
    (folder.folder.parent / "file").write_text("")
    with pytest.raises(ConfigError, match="a folder is needed"):
        ApprovalFolder(folder.folder.parent / "file")


def test_a_whole_page_of_decisions_is_one_and_what_it_leaves_out_is_denied(folder):
    decisions = [
        Decision(action="edit", key=region(0).key, region=region(1)),
        Decision(action="approve", key=region(0).key),
    ]
    states = folder.decide("s", decisions, by=ANN, complete=True)
    assert [state.disposition for state in states] == ["approved", "denied", "denied"]
    assert states[0].region == region(1)
    with pytest.raises(RefusedError, match="no region 'x'"):
        folder.decide("s", [Decision(action="approve", key="x")])


def test_what_is_flown_cannot_be_changed_any_more_but_what_failed_can_be_approved_again(folder):
    folder.approve("s", 1, 2)
    first, second, _ = folder.regions("s")
    assert folder.claim("s", first, by="plan", owner="a")
    with pytest.raises(RefusedError, match="plan has it already"):
        folder.deny("s", 1)
    folder.became("s", first.region.key, "rescanned", "", "run-1")
    with pytest.raises(RefusedError, match="rescanned already: run-1"):
        folder.edit("s", 1, pad_um=1)
    folder.claim("s", second, by="plan", owner="a")
    folder.became("s", second.region.key, "failed", "RE.abort")
    assert not folder.regions("s")[1].ready
    folder.approve("s", 2)
    again = folder.regions("s")[1]
    assert (again.ready, again.attempt) == (True, 1)
    assert folder.claim("s", again, by="plan", owner="b")


def _claim(folder: str, owner: str, won: multiprocessing.Queue) -> None:
    there = ApprovalFolder(folder)
    won.put((owner, [there.claim("s", one, by=owner, owner=owner) for one in there.regions("s")]))


@pytest.mark.timeout(300)
def test_of_several_processes_one_gets_each_region(folder):
    folder.approve("s")
    context = multiprocessing.get_context("spawn")
    won = context.Queue()
    rivals = [
        context.Process(target=_claim, args=(str(folder.folder), str(number), won))
        for number in range(3)
    ]
    for rival in rivals:
        rival.start()
    got = dict(won.get(timeout=200) for _ in rivals)
    for rival in rivals:
        rival.join(60)
    assert [sum(owners) for owners in zip(*got.values(), strict=True)] == [1, 1, 1]
    first = folder.regions("s")[0]
    assert folder.claim("s", first, by="again", owner=first.owner)


def test_a_wait_is_told_until_it_ends_and_not_for_ever_after_a_kill(folder):
    assert folder.waiting("s") is None
    folder.add("s", WaitBegan(until=time.time() + 60, undecided="deny"))
    wait = folder.waiting("s")
    assert wait is not None
    assert wait.undecided == "deny"
    folder.add("s", WaitEnded())
    assert folder.waiting("s") is None
    folder.add("s", WaitBegan(until=time.time() - 120))
    assert folder.waiting("s") is None


def test_damaged_files_are_left_out(folder, caplog):
    folder.approve("s", 1)
    home = folder.folder / "s"
    (home / "event-1.json").write_text("{")
    (home / "event-2.json").write_text(json.dumps({"kind": "nonsense"}))
    assert dispositions(folder) == ["approved", "proposed", "proposed"]
    assert "event-1.json is left out" in caplog.text
    (home / "proposal.json").write_text("[]")
    with pytest.raises(RefusedError, match="no proposal"):
        folder.regions("s")


def test_the_latest_survey_comes_first(folder):
    time.sleep(0.01)
    folder.propose(proposal(survey_uid="t"))
    assert folder.surveys() == ["t", "s"]
    version = folder.version("s")
    time.sleep(0.01)
    folder.deny("s", 1)
    assert folder.version("s") != version
