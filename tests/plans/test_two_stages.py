"""Surveys on a coarse stage, rescans on a fine one: right on the sample, and within all limits."""

from __future__ import annotations

import runpy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import Msg, RunEngineInterrupted
from ophyd.sim import SynAxis

from support.plan_support import (
    Interrupting,
    Recorder,
    is_safe,
    later,
    pause,
    region,
    same_map,
    small_beamline,
    small_survey,
)
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import FineStage, HeldAxis, RowTimeModel
from xrf_sr_plans.devices.sim import SimFineStage
from xrf_sr_plans.devices.sim.faults import StuckMotor, as_fault_plan
from xrf_sr_plans.devices.step_flyer import StepFlyer
from xrf_sr_plans.errors import ConfigError, FlightError, LimitsError, RefusedError
from xrf_sr_plans.maps.stage_placement import StagePlacement
from xrf_sr_plans.plans.fine_maps import FineMaps
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.queue_rescans import queue_item
from xrf_sr_plans.plans.rescan import rescan_regions
from xrf_sr_plans.plans.survey import coarse_survey_with_sr

BOX = {"x_low_um": -9.0, "x_high_um": 3.0, "y_low_um": -4.0, "y_high_um": 6.0}
FINE = {"fine_step_um": 0.5, "dwell_ms": 20}
OFF_CENTER = SimFineStage(center_um=(2.0, -3.0))
AGAINST = replace(OFF_CENTER, sign=(-1, 1))
MIRRORED = replace(OFF_CENTER, sign=(-1, -1))
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "limits.py"


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def fine_maps(recorder):
    return [s for s in recorder.map_starts() if s["xrf_sr"]["purpose"] == "fine"]


def rescanned(fine_stage, **changes):
    """Fly one region; return its start document and the assembled map."""
    run_engine = RunEngine({}, call_returns_result=True)
    recorder = Recorder(run_engine)
    beamline = small_beamline(fine_stage=fine_stage, probe_fwhm_um=0.5, **changes)
    run_engine(rescan_regions(beamline, [BOX], **FINE))
    (start,) = recorder.map_starts()
    builder = recorder.builder(start)
    assert builder.complete
    assert builder.notes == []
    return start, builder.maps(), recorder


@pytest.mark.parametrize("fine_stage", [OFF_CENTER, AGAINST, MIRRORED])
def test_a_fine_stage_measures_the_same_place_whichever_way_its_axes_run(fine_stage):
    _, one_stage, _ = rescanned(None)
    _, two_stages, _ = rescanned(fine_stage)
    assert two_stages.grid.extents_um == one_stage.grid.extents_um
    expected, measured = (maps.counts.sel(element="Fe").values for maps in (one_stage, two_stages))
    assert np.corrcoef(expected.ravel(), measured.ravel())[0, 1] > 0.95
    for turned in (measured[:, ::-1], measured[::-1], np.roll(measured, 2, axis=1)):
        assert np.corrcoef(expected.ravel(), turned.ravel())[0, 1] < 0.9


def test_documents_have_the_grid_on_the_sample_and_encoders_as_they_were_read(run_engine):
    start, _, recorder = rescanned(AGAINST)
    metadata = start["xrf_sr"]
    assert start["extents"] == [[-3.75, 5.75], [-8.75, 2.75]]
    assert metadata["grid"]["fast"]["name"] == "samx"
    placement = StagePlacement.from_dict(metadata["placement"])
    assert (placement.fast.name, placement.fast.sign) == ("finex", -1)
    assert (placement.slow.name, placement.slow.sign) == ("finey", 1)
    stage = metadata["stage"]
    assert metadata["region"]["stage"] == stage
    assert stage["finex"] == 2.0
    assert stage["finey"] == -3.0
    # Sample = coarse + sign * (fine - center), from what the documents say.
    assert placement.fast.to_sample_um(2.0) == pytest.approx(stage["samx"])
    assert placement.slow.to_sample_um(-3.0) == pytest.approx(stage["samy"])
    for event in recorder.events("primary"):
        readings = np.array(event["data"]["xrf_fast_um"])
        assert np.abs(readings).max() < 16
        assert event["data"]["xrf_direction"] == np.sign(readings[-1] - readings[0])
        row = event["data"]["xrf_row"]
        on_sample = placement.slow.to_sample_um(event["data"]["xrf_slow_um"][0])
        assert on_sample == pytest.approx(-3.75 + 0.5 * row, abs=0.05)


def test_a_survey_flies_its_rescan_with_the_fine_stage_and_leaves_both_where_they_were(
    run_engine, recorder
):
    beamline = small_beamline(fine_stage=OFF_CENTER, position_um=(5.0, -2.0))
    beamline.fine.fast.set(7.0).wait()
    outcome = run_engine(
        coarse_survey_with_sr(beamline, width_um=8, height_um=3, step_um=1, dwell_ms=10)
    ).plan_result
    assert [one.disposition for one in outcome.regions] == ["rescanned"]
    coarse, fine = recorder.map_starts()
    assert coarse["xrf_sr"]["placement"] is None
    assert coarse["xrf_sr"]["stage"] == {"finex": 2.0, "finey": -3.0}
    assert fine["xrf_sr"]["placement"]["fast"]["name"] == "finex"
    assert beamline.fast.setpoint.get() == 5.0
    assert beamline.slow.setpoint.get() == -2.0
    assert beamline.fine.fast.position == pytest.approx(2.0, abs=0.02)
    assert beamline.fine.slow.position == pytest.approx(-3.0, abs=0.02)
    is_safe(beamline)


def test_a_coarse_map_is_flown_with_the_fine_stage_at_its_center(run_engine, recorder):
    beamline = small_beamline(fine_stage=OFF_CENTER)
    beamline.fine.fast.set(-8.0).wait()
    run_engine(small_survey(beamline, rescan="propose"))
    assert beamline.fine.fast.position == pytest.approx(2.0, abs=0.02)


def test_at_its_limit_the_coarse_stage_leaves_the_rest_of_the_way_to_the_fine_one(run_engine):
    beamline = small_beamline(fine_stage=SimFineStage(), limits_um=((-20, 20), (-20, 20)))
    box = region(24.0, 30.0, -2.0, 2.0)
    maps = FineMaps(beamline, 0.5, 10)
    (outcome,) = run_engine(maps.fly_each([maps.rescan(box)])).plan_result
    assert outcome.disposition == "rescanned"
    assert beamline.fast.position == pytest.approx(20, abs=0.05)
    (_, refused) = maps.candidates([region(36.0, 40.0, -2.0, 2.0)])
    assert "of both stages" in refused[0].reason


def test_regions_are_no_larger_than_the_fine_stage_reaches(recorder, run_engine):
    fine = SimFineStage(limits_um=((-8, 8), (-6, 6)), reach_um=(12.0, 30.0), acceleration_s=0.01)
    beamline = small_beamline(fine_stage=fine)
    run_engine(small_survey(beamline))
    rescans = recorder.map_starts()[0]["xrf_sr"]["analysis"]["rescans"]
    # Along y the limits leave less than its reach, less the error of the coarse stage.
    assert rescans["reach_um"] == [12.0, 11.0]
    assert rescans["stage"] == {"finex": 0.0, "finey": 0.0}
    assert rescans["row_overhead_s"] == beamline.fine.time_model.overhead_s
    # The way of the coarse stage counts: a third of 8 um at 500 um/s.
    assert rescans["region_overhead_s"] == pytest.approx(0.5 + 8 / 3 / 500)


@pytest.mark.parametrize(
    ("fine", "words"),
    [
        ({"limits_um": ((0, 0), (-16, 16))}, ["'finex'", "knows no limits"]),
        ({"limits_um": ((3, 16), (-16, 16))}, ["'finex'", "center of 0 um", "3..16 um"]),
        ({"max_velocity_um_s": 20.0}, ["'finex'", "step / dwell needs 50 um/s"]),
        ({"limits_um": ((-16, 16), (-0.7, 0.7))}, ["'finey'", "leave no pixel of 0.5 um"]),
        ({"acceleration_s": 1.0}, ["'finex'", "run-up", "leave no pixel"]),
    ],
)
def test_a_fine_stage_that_can_fly_no_rescan_forbids_the_survey(run_engine, recorder, fine, words):
    beamline = small_beamline(fine_stage=SimFineStage(**fine))
    with pytest.raises(RefusedError) as refused:
        run_engine(small_survey(beamline))
    for word in words:
        assert word in str(refused.value)
    assert recorder.docs == []
    shown = preview(
        coarse_survey_with_sr, beamline, width_um=8, height_um=3, step_um=1, dwell_ms=10
    )
    assert not shown.allowed
    assert any(words[0] in problem for problem in shown.problems)


def test_the_preview_names_both_stages():
    beamline = small_beamline(fine_stage=SimFineStage())
    shown = preview(
        coarse_survey_with_sr, beamline, width_um=8, height_um=3, step_um=1, dwell_ms=10
    )
    assert "rescans are flown by 'finex' and 'finey', at most 30 x 30 um each" in shown.notes
    assert shown.allowed
    assert shown.limits_um["finex"] == "-16..16 um (limits)"
    assert set(shown.limits_um) == {"samx", "samy", "finex", "finey"}


def test_a_coarse_stage_that_stops_elsewhere_costs_the_region_and_says_why(run_engine, recorder):
    beamline = small_beamline(
        fine_stage=SimFineStage(), faults=StuckMotor("fast", mode="silent"), position_um=(30, 0)
    )
    maps = FineMaps(beamline, 0.5, 10)
    (outcome,) = run_engine(maps.fly_each([maps.rescan(region(-4, -2, 0, 2))])).plan_result
    assert outcome.disposition == "failed"
    assert "'samx' was sent to -3 um and is at 30" in outcome.reason
    assert fine_maps(recorder) == []


def test_a_fine_stage_that_does_not_come_back_is_told(run_engine, recorder):
    # Two moves to its center before the tiles, one for each of four rows, and then the way home.
    stuck = as_fault_plan(StuckMotor("slow", after_moves=6))
    beamline = small_beamline(fine_stage=replace(OFF_CENTER, faults=stuck))
    with pytest.raises(FlightError, match=r"all is measured, but .* finey to -3 um"):
        run_engine(small_survey(beamline))
    assert len(fine_maps(recorder)) == 1
    is_safe(beamline)


@pytest.mark.parametrize("ending", ["abort", "stop", "halt"])
def test_ended_before_any_message_both_stages_are_still_and_the_shutter_is_closed(
    run_engine, ending
):
    count = messages(run_engine)
    for k in range(count - 60, count, 3):
        beamline = small_beamline(fine_stage=MIRRORED, shutter_open=False)
        with pytest.raises(RunEngineInterrupted):
            run_engine(iter(Interrupting(survey(beamline), k, pause)))
        getattr(run_engine, ending)()
        is_safe(beamline)
        for axis in (beamline.fine.fast, beamline.fine.slow):
            assert not axis.moving
        assert not beamline.fine.flyer._flying
        assert beamline.fine.fast.velocity.get() == OFF_CENTER.max_velocity_um_s


def test_paused_before_any_message_of_a_rescan_its_map_is_the_same(run_engine):
    recorder = Recorder(run_engine)
    count = messages(run_engine)
    run_engine.unsubscribe(recorder.token)
    undisturbed = recorder.builder(fine_maps(recorder)[0])
    for k in range(count - 60, count, 4):
        recorder = Recorder(run_engine)
        with pytest.raises(RunEngineInterrupted):
            run_engine(iter(Interrupting(survey(small_beamline(fine_stage=MIRRORED)), k, pause)))
        run_engine.resume()
        run_engine.unsubscribe(recorder.token)
        (start,) = fine_maps(recorder)
        same_map(recorder.builder(start), undisturbed)


@pytest.mark.parametrize("ending", ["abort", "stop", "halt"])
def test_ended_on_the_way_to_a_region_the_coarse_stage_stops_there(run_engine, recorder, ending):
    beamline = small_beamline(fine_stage=SimFineStage(), clock=0.1, shutter_open=False)
    beamline = replace(beamline, time_model=RowTimeModel())
    far = {"x_low_um": 38.0, "x_high_um": 40.0, "y_low_um": 0.0, "y_high_um": 2.0}
    ended = later(0.4, lambda: getattr(run_engine, ending)())
    with pytest.raises(RunEngineInterrupted):
        run_engine(rescan_regions(beamline, [far], **FINE))
    ended.join(5)
    is_safe(beamline)
    stopped_um = beamline.fast.position
    assert 0.5 < stopped_um < 38
    time.sleep(0.2)
    assert beamline.fast.position == stopped_um
    assert recorder.docs == []


def test_a_coarse_stage_that_is_moved_by_hand_during_a_pause_ends_the_map(run_engine, recorder):
    beamline = small_beamline(fine_stage=SimFineStage())
    third_row = later_row(recorder, 2)
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(rescan_regions(beamline, [BOX], **FINE), third_row, pause)))
    beamline.slow.set(beamline.slow.position + 3.0).wait()
    (outcome,) = run_engine.resume().plan_result
    assert outcome.disposition == "failed"
    assert "'samy' was moved from 1" in outcome.reason
    assert "while the fine stage on it flew a map" in outcome.reason
    (start,) = recorder.map_starts()
    assert recorder.builder(start).rows_used == [0, 1]
    is_safe(beamline)


def later_row(recorder, row):
    """Return what says when a row's event is the next one."""
    return lambda: len(recorder.events("primary")) == row


def test_stages_in_mm_fly_the_same_map(run_engine, recorder):
    beamline = small_beamline(fine_stage=replace(MIRRORED, egu="mm"), egu="mm")
    run_engine(rescan_regions(beamline, [BOX], **FINE))
    (start,) = recorder.map_starts()
    in_um, _, other = rescanned(MIRRORED)
    same_map(recorder.builder(start), other.builder(in_um))


def test_the_fine_stage_may_be_stepped_without_any_fly_scan_hardware(run_engine, recorder):
    beamline = small_beamline(fine_stage=AGAINST)
    keys = {"Fe": "xrfdet_Fe", "K": "xrfdet_K"}
    flyer = StepFlyer(
        "steps",
        [beamline.detector],
        beamline.fine.fast,
        beamline.fine.slow,
        counts=keys,
        exposure=[beamline.detector.exposure_s],
    )
    beamline = replace(beamline, fine=replace(beamline.fine, flyer=flyer))
    run_engine(rescan_regions(beamline, [BOX], **FINE))
    (start,) = recorder.map_starts()
    assert start["xrf_sr"]["sampling"] == "point"
    stepped, (_, one_stage, _) = recorder.builder(start).maps(), rescanned(None)
    expected, measured = (maps.counts.sel(element="Fe").values for maps in (one_stage, stepped))
    assert np.corrcoef(expected.ravel(), measured.ravel())[0, 1] > 0.9


def survey(beamline):
    return small_survey(beamline, tile_um=None)


def messages(run_engine) -> int:
    plan = Interrupting(survey(small_beamline(fine_stage=MIRRORED)), None, pause)
    run_engine(iter(plan))
    return plan.count


def with_theta(position: float, **changes):
    theta = SynAxis(name="theta", egu="deg")
    theta.set(position).wait()
    held = (HeldAxis(theta, tolerance=0.1),)
    return theta, small_beamline(fine_stage=SimFineStage(), held=held, **changes)


def test_a_region_surveyed_at_another_angle_is_refused_in_words(run_engine, recorder):
    _, beamline = with_theta(45.0)
    box = {**BOX, "stage": {"theta": 30.0, "samx": 400.0, "finex": 0.0}}
    with pytest.raises(RefusedError, match="surveyed at theta 30, but it is at 45 now"):
        run_engine(rescan_regions(beamline, [box], **FINE))
    assert recorder.docs == []
    shown = preview(rescan_regions, beamline, [box], **FINE)
    assert "surveyed at theta 30" in shown.problems[0]


def test_a_region_surveyed_with_an_axis_that_nobody_names_is_refused(run_engine):
    beamline = small_beamline()
    box = {**BOX, "stage": {"omega": 30.0}}
    with pytest.raises(RefusedError, match="sim doesn't name that axis"):
        run_engine(rescan_regions(beamline, [box], **FINE))


def test_the_angle_is_checked_again_before_each_rescan(run_engine):
    theta, beamline = with_theta(30.0)
    maps = FineMaps(beamline, 0.5, 10)
    rescans = [maps.rescan(region(x, x + 2, 0, 2, stage={"theta": 30.0})) for x in (-4.0, 4.0)]

    def turned(outcome):
        theta.set(31.0).wait()

    outcomes = run_engine(maps.fly_each(rescans, turned)).plan_result
    assert [outcome.disposition for outcome in outcomes] == ["rescanned", "refused"]
    assert "surveyed at theta 30, but it is at 31 now" in outcomes[1].reason


def test_an_axis_that_says_nothing_can_be_held_by_nobody(run_engine):
    class Mute:
        name = "theta"

    beamline = small_beamline(held=(HeldAxis(Mute()),))
    with pytest.raises(LimitsError, match="'theta': doesn't say where it is"):
        run_engine(small_survey(beamline))


def test_a_queued_rescan_carries_the_state_of_the_stage_and_honours_it(run_engine, recorder):
    theta, beamline = with_theta(30.0)
    maps = FineMaps(beamline, 0.5, 20)
    found = region(*BOX.values(), stage={"theta": 30.0, "finex": 1.5, "finey": 0.0})
    item = queue_item(maps, maps.rescan(found))
    assert item["kwargs"]["regions"][0]["stage"] == found.stage
    run_engine(rescan_regions(beamline, **item["kwargs"]))
    (start,) = fine_maps(recorder)
    stage = start["xrf_sr"]["stage"]
    assert stage["theta"] == 30.0
    # Coordinates are those of the survey, which was flown with the fine stage at 1.5 um.
    placed = StagePlacement.from_dict(start["xrf_sr"]["placement"])
    assert placed.fast.to_sample_um(1.5) == pytest.approx(stage["samx"])
    theta.set(0.0).wait()
    with pytest.raises(RefusedError, match="surveyed at theta 30"):
        run_engine(rescan_regions(beamline, **item["kwargs"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reach_um": (0.0, 30.0)}, "reach_um is (0.0, 30.0)"),
        ({"sign": (1, 0)}, "sign is (1, 0); it must be a pair of 1 or -1"),
        ({"center_um": (np.nan, 0.0)}, "center_um is (nan, 0.0)"),
        ({"coarse_error_um": -1.0}, "coarse_error_um is -1;"),
        ({"flyer": None}, "flyer is None, which has no name, no elements"),
        ({"time_model": 3}, "time_model is 3; it must be a RowTimeModel"),
    ],
)
def test_a_fine_stage_with_a_slip_of_the_pen_is_refused(changes, words):
    fine = small_beamline(fine_stage=SimFineStage()).fine
    assert isinstance(fine, FineStage)
    with pytest.raises(ConfigError) as refused:
        replace(fine, **changes)
    assert words in str(refused.value)


def test_two_axes_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="each needs a name of its own"):
        small_beamline(fine_stage=SimFineStage(axis_names=("samx", "finey")))


@pytest.mark.parametrize("two_stages", [False, True])
def test_no_rescan_of_random_regions_leaves_any_limit(two_stages):
    benchmark = runpy.run_path(str(BENCHMARK))
    counts = benchmark["checked"](10_000, two_stages=two_stages, seed=1)
    assert set(counts) == {"designed", "refused"}, counts
    assert counts["designed"] > 3000


def test_limits_that_shrank_since_the_region_was_chosen_are_seen(run_engine):
    beamline = small_beamline(fine_stage=SimFineStage())
    maps = FineMaps(beamline, 0.5, 10)
    rescan = maps.rescan(region(-4.0, -2.0, 0.0, 2.0))
    beamline.fine.fast.axis.limits_um = (-0.3, 0.3)
    (outcome,) = run_engine(maps.fly_each([rescan])).plan_result
    assert outcome.disposition == "refused"
    assert "'finex'" in outcome.reason
    assert axis_facts(beamline.fast).position_um == pytest.approx(0.0, abs=0.1)
    assert run_engine(iter([Msg("null")])) is not None
