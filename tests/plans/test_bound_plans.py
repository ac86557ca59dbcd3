"""Plans bound to a beamline: what the queue server reads of them, and what they do."""

from __future__ import annotations

import inspect
import json
import typing

import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline
from xrf_sr_plans.plans.binding import USER_PLANS, bind_plans
from xrf_sr_plans.plans.preview import preview

SURVEY = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10}


def test_a_bound_plan_is_a_generator_function_without_the_beamline():
    plans = bind_plans(small_beamline())
    assert {plan.__name__ for plan in USER_PLANS} == set(plans)
    for name, plan in plans.items():
        assert plan.__name__ == name
        assert inspect.isgeneratorfunction(plan)
        assert "beamline" not in inspect.signature(plan).parameters


def test_annotations_are_types_and_defaults_are_json():
    for plan in bind_plans(small_beamline()).values():
        for parameter in inspect.signature(plan).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
            assert not isinstance(parameter.annotation, str)
            if parameter.default is not inspect.Parameter.empty:
                json.dumps(parameter.default)


def test_the_queue_server_accepts_every_plan_and_keeps_its_annotations():
    profile_ops = pytest.importorskip("bluesky_queueserver.manager.profile_ops")
    plans = bind_plans(small_beamline())
    found = profile_ops.plans_from_nspace(dict(plans))
    assert set(found) == set(plans)
    for name, plan in plans.items():
        seen = profile_ops._process_plan(plan, existing_devices={}, existing_plans={})
        assert seen["properties"]["is_generator"]
        signature = inspect.signature(plan).parameters
        assert [one["name"] for one in seen["parameters"]] == list(signature)
        for one in seen["parameters"]:
            assert "annotation" in one, f"{name}: {one['name']} lost its annotation"
            assert one.get("description"), f"{name}: {one['name']} isn't documented"
    kwargs = {**SURVEY, "find": "Fe and not K", "rescan": "propose", "factor": 4}
    item = {"item_type": "plan", "name": "coarse_survey_with_sr", "kwargs": kwargs}
    described = {
        name: profile_ops._process_plan(plan, existing_devices={}, existing_plans={})
        for name, plan in plans.items()
    }
    for change, accepted in (({}, True), ({"width_um": "wide"}, False), ({"rescan": "x"}, False)):
        tried = {**item, "kwargs": {**kwargs, **change}}
        good, _ = profile_ops.validate_plan(tried, allowed_plans=described, allowed_devices={})
        assert good is accepted


def test_a_survey_from_json_arguments_runs():
    run_engine = RunEngine({}, call_returns_result=True)
    plans = bind_plans(small_beamline())
    kwargs = json.loads(json.dumps({**SURVEY, "md": {"sample": "x"}}))
    result = run_engine(plans["coarse_survey_with_sr"](**kwargs))
    assert result.exit_status == "success"


def test_a_wrong_argument_is_named():
    plan = bind_plans(small_beamline())["coarse_survey_with_sr"]
    with pytest.raises(TypeError, match="widht_um"):
        list(plan(**SURVEY, widht_um=3))


def test_plans_print_nothing(capsys):
    run_engine = RunEngine({}, call_returns_result=True)
    run_engine(bind_plans(small_beamline())["coarse_survey_with_sr"](**SURVEY))
    captured = capsys.readouterr()
    assert captured.out == ""


def test_a_preview_tells_tiles_time_dose_and_limits_and_moves_nothing():
    beamline = small_beamline()
    where = beamline.fast.axis.motor_um, beamline.slow.axis.motor_um
    plan = bind_plans(beamline)["coarse_survey_with_sr"]
    seen = preview(plan, **SURVEY, tile_um=4, budget_s=10, find="Fe")
    assert seen.allowed
    assert [one.grid.shape for one in seen.maps] == [(3, 8), (3, 8)]
    assert seen.time_s == pytest.approx(2 * 3 * 0.24)
    assert seen.dose == pytest.approx(1e7)
    assert set(seen.limits_um) == {"samx", "samy"}
    text = str(seen)
    pixels = ("tile 2/2", "pixels of 0.5 x 1 um", "rows, 1 um apart")
    for word in (*pixels, "1.4 s", "photons/um^2", "samx: -110..110 um", "8.6 s left"):
        assert word in text
    assert (beamline.fast.axis.motor_um, beamline.slow.axis.motor_um) == where


@pytest.mark.parametrize(
    ("find", "says"),
    [(None, "at 0.5 um of whatever stands out"), ("Fe", "at 0.5 um of what matches 'Fe'")],
)
def test_a_preview_says_what_would_be_mapped_finely(find, says):
    seen = preview(bind_plans(small_beamline())["coarse_survey_with_sr"], **SURVEY, find=find)
    assert any(note.endswith(says) for note in seen.notes), seen.notes


def test_a_preview_lists_what_the_plan_would_be_refused_for():
    plan = bind_plans(small_beamline(max_rate_hz=20))["coarse_survey_with_sr"]
    seen = preview(plan, **{**SURVEY, "width_um": 900}, find="Xx")
    assert not seen.allowed
    assert len(seen.problems) == 3
    assert "REFUSED" in str(seen)


def test_every_bound_plan_can_be_previewed_as_it_is_called():
    plans = bind_plans(small_beamline())
    box = {"x_low_um": 0, "x_high_um": 4, "y_low_um": 0, "y_high_um": 2}
    ends = {"x_start_um": 0, "x_stop_um": 3, "x_num": 4, "y_start_um": 0, "y_stop_um": 1}
    calls = {
        "coarse_survey_with_sr": ((), SURVEY),
        "xrf_map": ((), SURVEY),
        "xrf_map_start_stop": ((), {**ends, "y_num": 2, "dwell_ms": 10}),
        "rescan_regions": (([box],), {"fine_step_um": 0.5, "dwell_ms": 10}),
        "acquire_pair": (
            (),
            {"width_um": 4, "height_um": 2, "fine_step_um": 0.5, "dwell_ms": 10},
        ),
        "collect_pairs": (([box],), {"fine_step_um": 0.5, "dwell_ms": 10}),
    }
    run_engine = RunEngine({}, call_returns_result=True)
    for name, (args, kwargs) in calls.items():
        seen = preview(plans[name], *args, **kwargs)
        assert seen.allowed, name
        recorder = Recorder(run_engine)
        run_engine(plans[name](*args, **kwargs))
        run_engine.unsubscribe(recorder.token)
        flown = [tuple(start["shape"]) for start in recorder.map_starts()]
        foreseen = [one.grid.shape for one in seen.maps]
        assert flown[: len(foreseen)] == foreseen, name


def test_type_hints_of_the_plans_themselves_resolve():
    for plan in USER_PLANS:
        assert "beamline" in typing.get_type_hints(inspect.unwrap(plan))
