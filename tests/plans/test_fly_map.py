"""One map: its start document, its rows, its messages, and what happens when rows fail."""

from __future__ import annotations

import json

import pytest
from bluesky import RunEngine
from bluesky.simulators import RunEngineSimulator, assert_message_and_return_remaining

from support.plan_support import QUICK, Recorder, is_safe, small_beamline
from xrf_sr_plans.devices.sim.faults import HungFlyer, MissingRow, StuckMotor
from xrf_sr_plans.errors import FlightError
from xrf_sr_plans.plans.xrf_map import xrf_map, xrf_map_start_stop

AREA = {"width_um": 5, "height_um": 4, "step_um": 1, "dwell_ms": 10}
HERE = {"x_center_um": 0.0, "y_center_um": 0.0}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def test_a_map_is_one_run_with_one_event_per_row(run_engine, recorder):
    beamline = small_beamline()
    uid = run_engine(xrf_map(beamline, **AREA, **HERE)).plan_result
    (start,) = recorder.starts
    assert start["uid"] == uid
    rows = recorder.events("primary")
    assert [event["data"]["xrf_row"] for event in rows] == [0, 1, 2, 3]
    assert [event["data"]["xrf_direction"] for event in rows] == [1, -1, 1, -1]
    assert {event["data"]["xrf_attempt"] for event in rows} == {0}
    assert recorder.builder(start).complete
    is_safe(beamline)


def test_the_start_document_says_all_that_readers_look_for(run_engine, recorder):
    md = {"sample": "zagami", "proposal": 7}
    run_engine(xrf_map(small_beamline(), **AREA, **HERE, md=md))
    (start,) = recorder.starts
    assert start["plan_name"] == "xrf_fly_map"
    assert start["motors"] == ["samy", "samx"]
    assert start["shape"] == [4, 10]
    assert start["extents"] == [[-1.5, 1.5], [-2.25, 2.25]], "centres, as of bluesky's grid_scan"
    assert start["sample"] == "zagami"
    scan = start["scan"]
    assert scan["type"] == "XRF_FLY"
    assert scan["shape"] == [10, 4], "PyXRF reads (fast, slow)"
    assert scan["scan_input"] == [-2.25, 2.25, 10, -1.5, 1.5, 4, 0.005]
    assert scan["dwell"] == 0.005, "what a recorded pixel got"
    assert scan["fast_axis"] == {"motor_name": "samx", "units": "um"}
    assert scan["slow_axis"] == {"motor_name": "samy", "units": "um"}
    assert scan["detectors"] == ["xrf"]
    facts = start["xrf_sr"]
    assert facts["purpose"] == "map"
    assert facts["grid"]["fast"]["centers_um"] == [-2.25 + 0.5 * at for at in range(10)]
    assert (facts["sampling"], facts["fast_pixels"], facts["step_um"]) == ("rows", 2, 1.0)
    assert (facts["dwell_ms"], facts["derived_input"]["step_dwell_ms"]) == (5.0, 10.0)
    assert facts["user_input"]["width_um"] == 5
    assert facts["derived_input"]["velocity_um_s"] == pytest.approx(100.0)
    assert json.loads(json.dumps(start, allow_nan=False)) == start


def test_start_stop_and_centre_width_mean_the_same_pixels(run_engine, recorder):
    ends = {"x_start_um": -2, "x_stop_um": 2, "x_num": 5, "y_start_um": -1.5, "y_stop_um": 1.5}
    run_engine(xrf_map(small_beamline(), **AREA, **HERE, sampling="squares"))
    run_engine(xrf_map_start_stop(small_beamline(), **ends, y_num=4, dwell_ms=10))
    one, other = (start["xrf_sr"]["grid"] for start in recorder.starts)
    assert one == other


def test_a_row_is_checkpoint_move_prepare_kickoff_complete_collect_checkpoint():
    beamline = small_beamline()
    simulator = RunEngineSimulator()
    simulator.add_handler("collect", lambda _: [{"data": {}}], "xrf")
    simulator.add_handler("open_run", lambda _: "uid")
    messages = simulator.simulate_plan(xrf_map(beamline, **AREA, **HERE))
    commands = [message.command for message in messages]
    moving = next(at for at, one in enumerate(messages) if one.command == "set")
    assert "open_run" in commands[:moving], "nothing moves outside a run"
    rest = messages
    for row in range(4):
        for command in ("checkpoint", "set", "wait", "prepare", "kickoff", "complete", "wait"):
            rest = assert_message_and_return_remaining(
                rest, lambda msg, command=command: msg.command == command
            )
            if command == "set":
                assert rest[0].obj is beamline.slow
            if command == "prepare":
                request = rest[0].args[0]
                assert request["row"] == row
                assert request["slow_um"] == -1.5 + row
                assert (request["first_um"] < request["last_um"]) == (request["direction"] > 0)
        rest = assert_message_and_return_remaining(rest, lambda msg: msg.command == "collect")
        assert rest[1].command == "checkpoint"
    waits = [message for message in messages if message.command == "wait"]
    assert all(
        message.kwargs.get("timeout") is not None
        for message in waits
        if message.kwargs["group"] is not None and "row" in str(message.kwargs["group"])
    )
    assert [message.command for message in rest].count("unstage") == 3


def test_a_row_that_hangs_once_is_flown_again(run_engine, recorder):
    beamline = small_beamline(faults=[HungFlyer(rows=(1,))])
    run_engine(xrf_map(beamline, **AREA, **HERE))
    (start,) = recorder.starts
    builder = recorder.builder(start)
    assert builder.complete
    assert [event["data"]["xrf_attempt"] for event in recorder.events("primary")] == [0, 1, 0, 0]
    assert not recorder.events("lost_rows")
    is_safe(beamline)


def test_a_row_that_always_hangs_is_left_missing_and_noted(run_engine, recorder):
    beamline = small_beamline(faults=[HungFlyer(rows=(1,), attempts=None)])
    result = run_engine(xrf_map(beamline, **AREA, **HERE, row_attempts=2))
    assert result.exit_status == "success"
    (start,) = recorder.starts
    builder = recorder.builder(start)
    assert not builder.complete
    assert sorted(builder.rows_used) == [0, 2, 3]
    (lost,) = recorder.events("lost_rows")
    assert lost["data"]["xrf_lost_row"] == 1
    assert lost["data"]["xrf_lost_attempts"] == 2
    is_safe(beamline)


def test_a_flyer_that_collects_nothing_counts_as_a_failed_row(run_engine, recorder):
    beamline = small_beamline(faults=[MissingRow(rows=(2,))])
    run_engine(xrf_map(beamline, **AREA, **HERE, row_attempts=2))
    (lost,) = recorder.events("lost_rows")
    assert lost["data"]["xrf_lost_row"] == 2
    assert "nothing to collect" in lost["data"]["xrf_lost_reason"]


def test_three_lost_rows_in_succession_end_the_map_and_keep_what_was_measured(run_engine, recorder):
    beamline = small_beamline(faults=[HungFlyer(rows=(1, 2, 3), attempts=None)])
    with pytest.raises(FlightError, match=r"rows \[1, 2, 3\]"):
        run_engine(xrf_map(beamline, **AREA, **HERE, row_attempts=1))
    (start,) = recorder.starts
    stop = recorder.stop_of(start["uid"])
    assert stop["exit_status"] == "fail"
    assert "could not be measured" in stop["reason"]
    assert recorder.builder(start).rows_used == [0]
    is_safe(beamline)


def test_a_small_map_of_which_nothing_could_be_measured_is_a_failure(run_engine):
    beamline = small_beamline(faults=[HungFlyer(attempts=None)])
    with pytest.raises(FlightError):
        run_engine(xrf_map(beamline, **{**AREA, "height_um": 2}, **HERE, row_attempts=1))


def test_a_stuck_slow_axis_costs_its_rows_and_never_hangs(run_engine, recorder):
    beamline = small_beamline(faults=[StuckMotor(axis="slow")])
    with pytest.raises(FlightError):
        run_engine(xrf_map(beamline, **AREA, **HERE, row_attempts=1))
    assert recorder.of("stop")[0]["exit_status"] == "fail"
    is_safe(beamline)


def test_best_effort_callback_can_watch_a_map(run_engine, capsys):
    from bluesky.callbacks.best_effort import BestEffortCallback

    watcher = BestEffortCallback()
    watcher.disable_plots()
    run_engine.subscribe(watcher)
    assert run_engine(xrf_map(small_beamline(), **AREA, **HERE)).exit_status == "success"


def test_the_row_timeout_follows_the_time_model():
    row_s = QUICK.row_s(100, 10)
    assert row_s == pytest.approx(1.2)
    assert QUICK.timeout_s(row_s) == pytest.approx(1.5)
