"""A centre of None is where the stage is, and where it is again once the plan has completed."""

from __future__ import annotations

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import (
    Interrupting,
    Recorder,
    fly_through,
    is_safe,
    later,
    pause,
    small_beamline,
)
from xrf_sr_plans.devices.sim.faults import HungFlyer, StuckMotor
from xrf_sr_plans.errors import FlightError
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.xrf_map import xrf_map

AREA = {"width_um": 6, "height_um": 3, "dwell_ms": 10}
CALLS = {
    xrf_map: {**AREA, "step_um": 1},
    acquire_pair: {**AREA, "fine_step_um": 0.5},
    coarse_survey_with_sr: {**AREA, "step_um": 1, "tile_um": 4},
}
_BOX = (5.0, 6.0, -4.0, -2.0)
BOXES = [[_BOX], [], [_BOX]]
"""The regions of two tiles, and of both as one map."""


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def beamline_at(x_um: float, y_um: float, **changes):
    beamline = small_beamline(BOXES, **changes)
    for axis, place in ((beamline.fast, x_um), (beamline.slow, y_um)):
        axis.set(place / axis.um_per_unit).wait(5)
    return beamline


def places(beamline) -> tuple[float, float]:
    return beamline.fast.axis.motor_um, beamline.slow.axis.motor_um


@pytest.mark.parametrize("plan", CALLS)
@pytest.mark.parametrize("egu", ["um", "mm"])
def test_the_same_call_maps_the_same_place_again(run_engine, recorder, plan, egu):
    beamline = beamline_at(5.0, -3.0, egu=egu)
    grids = []
    for _ in range(2):
        recorder.docs.clear()
        run_engine(plan(beamline, **CALLS[plan]))
        grids.append([start["xrf_sr"]["grid"] for start in recorder.map_starts()])
    assert grids[0] == grids[1]
    assert places(beamline) == pytest.approx((5.0, -3.0))


def test_only_the_axis_without_a_centre_comes_back(run_engine):
    beamline = beamline_at(5.0, -3.0)
    run_engine(xrf_map(beamline, **CALLS[xrf_map], y_center_um=0.0))
    x_um, y_um = places(beamline)
    assert x_um == pytest.approx(5.0)
    assert y_um == pytest.approx(1.0), "the last row"


def test_here_after_an_interrupted_move_is_where_the_stage_stands(run_engine, recorder):
    beamline = beamline_at(5.0, -3.0)
    beamline.fast.setpoint.put(20.0)
    run_engine(xrf_map(beamline, **CALLS[xrf_map]))
    assert places(beamline)[0] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("ending", ["abort", "stop", "halt"])
def test_nothing_is_moved_back_after_an_early_end(run_engine, ending):
    beamline = beamline_at(5.0, -3.0)
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(xrf_map(beamline, **CALLS[xrf_map]), 30, pause)))
    before = places(beamline)
    assert before != pytest.approx((5.0, -3.0))
    getattr(run_engine, ending)()
    assert places(beamline) == before
    is_safe(beamline)


def test_nothing_is_moved_back_after_a_failure(run_engine):
    beamline = beamline_at(5.0, -3.0, faults=[HungFlyer(attempts=None)])
    with pytest.raises(FlightError):
        run_engine(xrf_map(beamline, **CALLS[xrf_map], row_attempts=1))
    assert places(beamline) != pytest.approx((5.0, -3.0))
    is_safe(beamline)


def test_a_pause_before_any_message_of_the_way_back_changes_nothing(run_engine, recorder):
    def call(beamline):
        return xrf_map(beamline, width_um=2, height_um=1, step_um=1, dwell_ms=10)

    plan = Interrupting(call(beamline_at(5.0, -3.0)), None, pause)
    run_engine(iter(plan))
    for k in range(plan.count - 12, plan.count):
        recorder.docs.clear()
        beamline = beamline_at(5.0, -3.0)
        with pytest.raises(RunEngineInterrupted):
            run_engine(iter(Interrupting(call(beamline), k, pause)))
        assert run_engine.resume().exit_status == "success"
        assert recorder.builder(recorder.map_starts()[0]).complete
        assert places(beamline) == pytest.approx((5.0, -3.0)), f"message {k}"
        is_safe(beamline)


def test_a_pause_in_the_middle_of_the_way_back_is_resumed(run_engine):
    beamline = beamline_at(5.0, -3.0)

    def slow_down_and_pause(name, doc):
        beamline.fast.axis.clock.speed = 0.3
        later(0.06, run_engine.request_pause)

    token = run_engine.subscribe(slow_down_and_pause, "stop")
    assert fly_through(run_engine, xrf_map(beamline, **CALLS[xrf_map])).exit_status == "success"
    run_engine.unsubscribe(token)
    assert places(beamline) == pytest.approx((5.0, -3.0))


def test_a_stage_that_does_not_come_back_is_told(run_engine, recorder):
    beamline = beamline_at(5.0, -3.0)

    def get_stuck(name, doc):
        beamline.slow.axis.stuck = StuckMotor("slow")

    run_engine.subscribe(get_stuck, "stop")
    with pytest.raises(FlightError, match="samx to 5 um, samy to -3 um"):
        run_engine(xrf_map(beamline, **CALLS[xrf_map]))
    assert recorder.builder(recorder.map_starts()[0]).complete
