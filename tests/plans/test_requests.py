"""A plan's parameters are listed once: request, metadata, preview and forms follow from them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing

import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.plans.binding import USER_PLANS, bind_plans
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.plans.preview import PREVIEWED, preview

GOOD = {"x_low_um": 0, "x_high_um": 4, "y_low_um": 0, "y_high_um": 2}
TOO_FAR = {"x_low_um": 900, "x_high_um": 904, "y_low_um": 0, "y_high_um": 2}
FINE = {"fine_step_um": 0.5, "dwell_ms": 10}
AREA = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10}


@pytest.mark.parametrize("plan", [*USER_PLANS, fly_map], ids=lambda plan: plan.__name__)
def test_a_request_has_a_field_for_each_parameter_of_its_plan_and_no_default(plan):
    request = PREVIEWED[plan.__name__].request
    parameters = typing.get_type_hints(inspect.unwrap(plan))
    del parameters["beamline"], parameters["return"]
    assert typing.get_type_hints(request) == parameters
    for field in dataclasses.fields(request):
        assert field.default is dataclasses.MISSING
        assert field.default_factory is dataclasses.MISSING


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("coarse_survey_with_sr", {**AREA, "find": "Fe", "md": {"sample": "x"}}),
        ("xrf_map", AREA),
        ("acquire_pair", {"width_um": 4, "height_um": 2, **FINE, "factors": [4, 2]}),
    ],
)
def test_the_start_document_says_all_that_was_asked_defaults_included(name, arguments):
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    plan = bind_plans(small_beamline())[name]
    run_engine(plan(**arguments))
    expected = {key: one.default for key, one in inspect.signature(plan).parameters.items()}
    expected = json.loads(json.dumps({**expected, **arguments}))
    del expected["md"]
    for start in recorder.starts:
        if start["xrf_sr"]["purpose"] != "fine":
            assert start["xrf_sr"]["user_input"] == expected


def test_each_parameter_has_a_text_of_its_own_in_the_queue_servers_forms():
    profile_ops = pytest.importorskip("bluesky_queueserver.manager.profile_ops")
    for name, plan in bind_plans(small_beamline()).items():
        described = profile_ops._process_plan(plan, existing_devices={}, existing_plans={})
        texts = {one["name"]: one["description"] for one in described["parameters"]}
        assert set(texts) == set(inspect.signature(plan).parameters)
        assert len(set(texts.values())) == len(texts), f"{name}: two parameters share a text"
        for parameter, text in texts.items():
            assert text.endswith("."), f"{name}: {parameter}: {text!r} is no sentence"
            for suffix, unit in (("_um", "um"), ("_ms", "ms"), ("_s", "seconds")):
                if parameter.endswith(suffix):
                    assert unit in text, f"{name}: the text of {parameter} has no unit"
        forms = profile_ops.format_text_descriptions(described)
        assert "Width of the area" in forms["parameters"].get("width_um", "Width of the area")


def refusal(name: str, *args: object, **kwargs: object) -> str:
    """Return what a plan is refused for; fail if it isn't."""
    with pytest.raises(RefusedError) as refused:
        RunEngine({})(bind_plans(small_beamline())[name](*args, **kwargs))
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("rescan_regions", ([GOOD],), {**FINE, "budget_s": 0.1}),
        ("rescan_regions", ([],), FINE),
        ("rescan_regions", ([TOO_FAR],), FINE),
        ("coarse_survey_with_sr", (), {**AREA, "budget_s": 0.1, "find": "Xx"}),
        ("xrf_map", (), {**AREA, "width_um": 900}),
        ("acquire_pair", (), {"width_um": 4, "height_um": 2, **FINE, "budget_s": 0.1}),
    ],
)
def test_a_preview_refuses_in_the_words_of_the_plan(name, args, kwargs):
    seen = preview(bind_plans(small_beamline())[name], *args, **kwargs)
    assert "; ".join(seen.problems) == refusal(name, *args, **kwargs)


@pytest.mark.parametrize("name", ["rescan_regions", "collect_pairs"])
def test_a_preview_shows_the_regions_that_would_be_flown_and_notes_the_others(name):
    run_engine = RunEngine({}, call_returns_result=True)
    recorder = Recorder(run_engine)
    plan = bind_plans(small_beamline())[name]
    seen = preview(plan, [GOOD, TOO_FAR], **FINE)
    outcomes = run_engine(plan([GOOD, TOO_FAR], **FINE)).plan_result
    assert seen.allowed
    assert [one.grid.shape for one in seen.maps] == [
        tuple(s["shape"]) for s in recorder.map_starts()
    ]
    assert [one.disposition for one in outcomes] == ["rescanned", "refused"]
    (note,) = (note for note in seen.notes if note.startswith("left out"))
    assert outcomes[1].reason in note


def test_a_preview_of_pairs_spends_the_budget_as_the_plan_does():
    plan = bind_plans(small_beamline())["collect_pairs"]
    boxes = [{**GOOD, "x_low_um": x, "x_high_um": x + 4} for x in (0, 5)]
    seen = preview(plan, boxes, **FINE, budget_s=3.0)
    assert seen.allowed
    assert [one.what for one in seen.maps] == ["coarse 2x", "fine", "coarse 2x"]
    assert "budget_s" in seen.notes[-1]
    refused = preview(plan, boxes, **FINE, budget_s=0.1)
    assert not refused.allowed
    assert len(refused.problems) == 2
