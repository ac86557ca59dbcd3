"""A beamline that is not left safe: the run fails, the plan raises, both say what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted
from ophyd.status import Status

from support.plan_support import Interrupting, Recorder, pause, small_beamline, small_survey
from xrf_sr_plans.errors import FlightError, LeftUnsafeError
from xrf_sr_plans.plans.xrf_map import xrf_map

MAP = {"x_center_um": 0, "y_center_um": 0, "width_um": 4, "height_um": 3, "step_um": 1}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def break_shutter(beamline: Any, how: str) -> None:
    """Let the shutter raise, fail or hang when it is closed."""
    works = beamline.shutter.set

    def broken(value: Any) -> Status:
        if value != "close":
            return works(value)
        if how == "raises":
            raise OSError("interlock")
        status = Status()
        if how == "fails":
            status.set_exception(OSError("interlock"))
        return status

    beamline.shutter.set = broken


@pytest.mark.parametrize("how", ["raises", "fails", "hangs"])
def test_a_shutter_that_does_not_close_fails_the_run_and_raises(run_engine, recorder, how):
    beamline = small_beamline()
    break_shutter(beamline, how)
    with pytest.raises(LeftUnsafeError, match="the shutter may be open"):
        run_engine(xrf_map(beamline, **MAP, dwell_ms=10))
    (stop,) = recorder.of("stop")
    assert stop["exit_status"] == "fail"
    assert "the shutter may be open" in stop["reason"]
    assert len(recorder.events("primary")) == 3, "the rows are kept"


def test_an_axis_that_does_not_take_its_velocity_back_fails_the_run_and_raises(
    run_engine, recorder
):
    beamline = small_beamline()
    velocity = beamline.fast.velocity
    before, works = velocity.get(), velocity.set

    def broken(value: Any, **options: Any) -> Status:
        if value == before:
            raise OSError("controller busy")
        return works(value, **options)

    velocity.set = broken
    with pytest.raises(LeftUnsafeError, match=f"'samx' may not have its velocity of {before:g}"):
        run_engine(xrf_map(beamline, **MAP, dwell_ms=10))
    (stop,) = recorder.of("stop")
    assert (stop["exit_status"], "controller busy" in stop["reason"]) == ("fail", True)


def test_no_region_is_flown_after_a_map_that_was_left_unsafe(run_engine, recorder):
    beamline = small_beamline([[(-4.0, -2.0, -1.5, 0.5), (2.0, 3.0, -1.0, 1.0)]])

    def break_it(name, doc):
        if doc.get("xrf_sr", {}).get("purpose") == "fine":
            break_shutter(beamline, "raises")

    run_engine.subscribe(break_it, "start")
    with pytest.raises(LeftUnsafeError):
        run_engine(small_survey(beamline, tile_um=None))
    purposes = [start["xrf_sr"]["purpose"] for start in recorder.starts]
    assert purposes == ["coarse", "proposals", "fine", "outcomes"]
    reasons = [event["data"]["region_reason"] for event in recorder.events("regions")[2:]]
    assert ["the shutter may be open" in reason for reason in reasons] == [True, True]


def test_a_map_that_failed_and_was_left_unsafe_says_both(run_engine, recorder):
    beamline = small_beamline()
    break_shutter(beamline, "raises")
    beamline.flyer.complete = lambda: 1 / 0
    with pytest.raises(LeftUnsafeError, match="division by zero; the shutter may be open"):
        run_engine(xrf_map(beamline, **MAP, dwell_ms=10))
    assert "division by zero" in recorder.of("stop")[0]["reason"]


@pytest.mark.parametrize("ending", ["abort", "stop"])
def test_a_map_ended_by_hand_that_was_left_unsafe_fails(run_engine, recorder, caplog, ending):
    beamline = small_beamline()
    plan = xrf_map(beamline, **MAP, dwell_ms=10)
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(plan, lambda: recorder.events("primary"), pause)))
    break_shutter(beamline, "raises")
    getattr(run_engine, ending)()
    (stop,) = recorder.of("stop")
    assert stop["exit_status"] == "fail"
    assert "the shutter may be open" in stop["reason"]
    assert any(record.levelname == "CRITICAL" for record in caplog.records)


def test_hardware_that_fails_but_is_left_safe_raises_as_ever(run_engine, recorder):
    beamline = small_beamline()

    def fails() -> Status:
        status = Status()
        status.set_exception(OSError("no trigger"))
        return status

    beamline.flyer.complete = fails
    with pytest.raises((FlightError, FailedStatus)):
        run_engine(xrf_map(beamline, **MAP, dwell_ms=10))
    assert not beamline.microscope.shutter_open
