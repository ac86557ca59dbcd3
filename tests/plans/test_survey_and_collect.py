"""A survey chooses areas, and pairs are acquired there: within budget, recorded, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import Interrupting, Recorder, pause, small_beamline
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.resume_collection import resume_collection
from xrf_sr_plans.plans.survey_and_collect import survey_and_collect_pairs
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.pairs import PairStore

BOXES = [[(-4.0, -2.0, -2.0, 0.0), (0.0, 2.0, -2.0, 0.0), (2.0, 4.0, 0.0, 2.0)]]
AREA: dict[str, Any] = {
    "width_um": 8, "height_um": 4, "pair_um": 2, "fine_step_um": 0.5, "dwell_ms": 10, "number": 2,
    "x_center_um": 0, "y_center_um": 0, "order": "coarse first",
}  # fmt: skip


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


def test_the_areas_that_the_analysis_chooses_become_pairs(run_engine):
    beamline = small_beamline(BOXES)
    recorder = Recorder(run_engine)
    outcome = run_engine(survey_and_collect_pairs(beamline, **AREA)).plan_result
    # No more than were asked for, whatever the analysis says.
    assert [one.disposition for one in outcome.regions] == ["rescanned"] * 2
    assert [one.disposition for one in outcome.survey.regions] == ["proposed"] * 2
    purposes = [start["xrf_sr"]["purpose"] for start in recorder.starts]
    assert purposes == [
        "coarse", "proposals", "outcomes", *["pair_coarse", "pair_fine"] * 2, "collection",
    ]  # fmt: skip
    coarse, last = recorder.starts[0], recorder.starts[-1]
    asked = coarse["xrf_sr"]["analysis"]["pair_areas"]
    assert asked == {"size_um": 2.0, "number": 2, "by": "least represented"}
    # As far apart as the rows of the pairs' coarse maps, with their dwell time.
    assert coarse["xrf_sr"]["step_um"] == 1.0
    assert coarse["xrf_sr"]["user_input"]["pair_um"] == 2
    assert last["uid"] == outcome.outcomes_uid
    assert last["xrf_sr"]["parent_survey_uid"] == outcome.survey.survey_uid
    pairs = [start for start in recorder.starts if "pair_uid" in start]
    assert {start["collection_uid"] for start in pairs} == {outcome.collection_uid}
    assert pairs[0]["xrf_sr"]["parent_uid"] == coarse["uid"]
    assert pairs[0]["shape"] == [2, 4]


def test_a_preview_tells_the_time_of_survey_and_pairs(run_engine):
    beamline = small_beamline(BOXES)
    seen = preview(survey_and_collect_pairs, beamline, **AREA)
    assert seen.allowed
    recorder = Recorder(run_engine)
    run_engine(survey_and_collect_pairs(beamline, **AREA, budget_s=seen.time_s * 1.001))
    flown = [start["xrf_sr"]["derived_input"] for start in recorder.map_starts()]
    assert sum(one["time_s"] for one in flown) == pytest.approx(seen.time_s)
    assert seen.dose == pytest.approx(sum(one["dose"] for one in flown[:3]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget_s": 3.0}, "for each of 2 pairs; budget_s is 3"),
        ({"max_dose": 5e7}, "of survey and pair"),
        ({"number": 9}, "has room for 8 areas"),
        ({"pair_um": 6}, "has room for 0 areas"),
        ({"fine_step_um": 0.5, "width_um": 900}, "samx"),
        ({"choose": "best"}, "choose is 'best'"),
    ],
)
def test_what_can_be_known_before_is_refused_before_anything_moves(run_engine, changes, words):
    beamline = small_beamline(BOXES)
    recorder = Recorder(run_engine)
    with pytest.raises(ValueError, match=words):
        run_engine(survey_and_collect_pairs(beamline, **{**AREA, **changes}))
    assert recorder.docs == []


def test_without_analysis_it_is_refused_and_without_areas_it_says_why(run_engine, caplog):
    with pytest.raises(ValueError, match="nothing can choose"):
        run_engine(survey_and_collect_pairs(replace(small_beamline(), analysis=None), **AREA))
    outcome = run_engine(survey_and_collect_pairs(small_beamline([[]]), **AREA)).plan_result
    assert outcome.regions == ()
    assert "no pair is acquired: the analysis has chosen no area" in caplog.text


def test_an_abort_after_the_survey_leaves_its_areas_to_be_resumed(run_engine):
    beamline = small_beamline(BOXES)
    recorder = Recorder(run_engine)
    plan = Interrupting(
        survey_and_collect_pairs(beamline, **AREA, max_dose=1e9),
        lambda: sum("pair_uid" in start for start in recorder.starts) == 3,
        pause,
    )
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan)
    run_engine.abort()
    outcomes = run_engine(resume_collection(beamline)).plan_result
    assert [one.region.x_low_um for one in outcomes] == [0.0]
    surveys = [one for one in recorder.starts if one["xrf_sr"]["purpose"] == "coarse"]
    assert len(surveys) == 1


@pytest.mark.timeout(180)
def test_pairs_of_chosen_areas_enter_the_store_and_the_next_survey_sees_them(tmp_path: Path):
    """Flown on a simulated sample, chosen by the analysis itself without torch."""
    run_engine = RunEngine({}, call_returns_result=True)
    settings = AnalysisSettings(pair_dir=str(tmp_path / "pairs"), model="none-such")
    how = {"width_um": 32, "height_um": 32, "pair_um": 8, "fine_step_um": 0.5, "dwell_ms": 20}
    with start_session(
        run_engine,
        make_beamline(),
        settings=settings,
        in_process=True,
        approvals=str(tmp_path / "approvals"),
    ) as session:
        plan = session.plans["survey_and_collect_pairs"]
        first = run_engine(plan(**how, number=1)).plan_result
        assert session.link.flush(60)
        second = run_engine(plan(**how, number=1)).plan_result
        assert session.link.flush(60)
    assert [one.disposition for one in (*first.regions, *second.regions)] == ["rescanned"] * 2
    assert "most typical" in first.regions[0].region.reason
    assert "from the nearest of 2 stored maps" in second.regions[0].region.reason
    assert len(list(PairStore(tmp_path / "pairs").pairs())) == 2
