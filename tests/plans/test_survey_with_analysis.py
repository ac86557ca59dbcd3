"""The survey with the real analysis in this process: it runs along, and pauses don't disturb it."""

from __future__ import annotations

import pytest
from bluesky import RunEngine

from support.plan_support import Interrupting, Recorder, fly_through, pause
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.session import start_session

SURVEY = {
    "width_um": 48,
    "height_um": 24,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 0,
    "y_center_um": 0,
    "tile_um": 24,
    "find": "Fe > p95",
    "max_regions": 2,
}


def survey(pause_at: int | None) -> tuple[list, Recorder, int]:
    """Fly a survey with analysis; return what became of regions, documents, message count."""
    run_engine = RunEngine({}, call_returns_result=True)
    recorder = Recorder(run_engine)
    settings = AnalysisSettings(threads=1)
    with start_session(run_engine, make_beamline(), settings=settings, in_process=True) as session:
        plan = Interrupting(session.plans["coarse_survey_with_sr"](**SURVEY), pause_at, pause)
        outcome = fly_through(run_engine, iter(plan)).plan_result
    regions = [
        (one.disposition, one.region.x_low_um, one.region.x_high_um, one.region.y_low_um)
        for one in outcome.regions
    ]
    return [regions, [one.status for one in outcome.analyses]], recorder, plan.count


@pytest.mark.timeout(240)
def test_regions_are_found_rescanned_and_the_same_whenever_the_survey_was_paused():
    undisturbed, recorder, count = survey(None)
    regions, statuses = undisturbed
    assert statuses == ["done", "done"] or statuses == ["fallback", "fallback"]
    assert regions
    assert {one[0] for one in regions} == {"rescanned"}
    told = [event["data"]["analysis_status"] for event in recorder.events("analysis")]
    assert told == [*statuses, "done"]
    for pause_at in (count // 3, 2 * count // 3, count - 30):
        assert survey(pause_at)[0] == undisturbed
