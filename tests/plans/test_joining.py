"""A session joins a RunEngine that others have made, or leaves that to its plans."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback

from neighbours.company import SURVEY, Runs, check_survey
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.session import start_session

SETTINGS = AnalysisSettings(model="bicubic-please")


@pytest.fixture
def run_engine() -> RunEngine:
    """A RunEngine as a service makes it: no signal handling, and others subscribed already."""
    engine = RunEngine({}, context_managers=[], call_returns_result=True)
    engine.subscribe(lambda name, doc: None)
    return engine


def in_a_thread(work: Any) -> Any:
    """Do something in another thread, and return what it returns."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(60)
    (result,) = results
    return result


def test_a_session_joins_later_and_from_another_thread(run_engine: RunEngine) -> None:
    runs = Runs()
    run_engine.subscribe(runs)
    session = in_a_thread(
        lambda: start_session(run_engine, make_beamline(), settings=SETTINGS, in_process=True)
    )
    with session:
        survey = session.plans["coarse_survey_with_sr"]
        outcome = in_a_thread(lambda: run_engine(survey(**SURVEY))).plan_result
    check_survey(runs)
    assert [one.status for one in outcome.analyses] == ["fallback"]


def test_without_a_runengine_each_plan_subscribes_the_analysis_while_it_runs(
    run_engine: RunEngine,
) -> None:
    runs = Runs()
    run_engine.subscribe(runs)
    with start_session(None, make_beamline(), settings=SETTINGS, in_process=True) as session:
        survey = session.plans["coarse_survey_with_sr"]
        # Which RunEngine it is may change from plan to plan.
        another = RunEngine({}, context_managers=[], call_returns_result=True)
        for engine in (run_engine, another):
            before = len(engine.dispatcher._token_mapping)
            outcome = in_a_thread(lambda engine=engine: engine(survey(**SURVEY))).plan_result
            assert [one.status for one in outcome.analyses] == ["fallback"]
            assert len(outcome.rescan_uids) == SURVEY["max_regions"]
            assert len(engine.dispatcher._token_mapping) == before
    check_survey(runs)


def test_subscribers_of_bound_plans_see_every_document_once() -> None:
    seen: list[str] = []
    plans = bind_plans(make_beamline(), [lambda name, doc: seen.append(name)])
    area = {"x_center_um": 0, "y_center_um": 0, "width_um": 4, "height_um": 3, "step_um": 1}
    engine = RunEngine({})
    engine(plans["xrf_map"](**area, dwell_ms=10))
    engine(plans["xrf_map"](**area, dwell_ms=10))
    assert seen == ["start", "descriptor", "event_page", "event_page", "event_page", "stop"] * 2


def test_best_effort_callback_shows_a_survey_with_rescans_without_an_error(
    run_engine: RunEngine, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    callback = BestEffortCallback()
    callback.disable_plots()
    run_engine.subscribe(callback)
    bluesky_logger = logging.getLogger("bluesky")
    bluesky_logger.addHandler(caplog.handler)
    try:
        with start_session(
            run_engine, make_beamline(), settings=SETTINGS, in_process=True
        ) as session:
            run_engine(session.plans["coarse_survey_with_sr"](**SURVEY))
    finally:
        bluesky_logger.removeHandler(caplog.handler)
    assert not [one for one in caplog.records if one.name.startswith("bluesky")]
    assert "Traceback" not in caplog.text
    # Each map has a table with a line per row.
    assert capsys.readouterr().out.count("xrf_row |") == 1 + SURVEY["max_regions"]
