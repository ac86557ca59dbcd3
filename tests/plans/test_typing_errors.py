"""What a person mistypes at the prompt is refused by name, value and what is allowed."""

from __future__ import annotations

import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline
from xrf_sr_plans.errors import ConfigError, GridError, RefusedError
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.preview import preview

SURVEY = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10}
SPAN = {"x_start_um": 0, "x_stop_um": 4, "y_start_um": 0, "y_stop_um": 2, "y_num": 3}
FINE = {"fine_step_um": 0.5, "dwell_ms": 10}
SQUARE = {"x_low_um": 0, "x_high_um": 4, "y_low_um": 0, "y_high_um": 4}


@pytest.mark.parametrize(
    ("plan", "arguments", "kind", "says"),
    [
        (
            "coarse_survey_with_sr",
            {**SURVEY, "width_um": "wide"},
            ConfigError,
            "width_um is 'wide'",
        ),
        ("coarse_survey_with_sr", {**SURVEY, "rescan": "inlin"}, ConfigError, "'inlin'.*'queue'"),
        ("coarse_survey_with_sr", {**SURVEY, "md": "me"}, ConfigError, "md is 'me'.*dictionary"),
        ("coarse_survey_with_sr", {**SURVEY, "row_attempts": 0}, ConfigError, "row_attempts is 0"),
        ("coarse_survey_with_sr", {**SURVEY, "dwell": 10}, TypeError, "'dwell'.*'dwell_ms'"),
        ("coarse_survey_with_sr", {"width_um": 8}, TypeError, "coarse_survey.*'height_um'"),
        ("xrf_map_start_stop", {**SPAN, "x_num": 4.5, "dwell_ms": 9}, ConfigError, "x_num is 4.5"),
        ("acquire_pair", {**SURVEY, "factors": 3}, TypeError, "'step_um'.*'fine_step_um'"),
        (
            "acquire_pair",
            {"width_um": 8, "height_um": 8, "factors": 3, **FINE},
            ConfigError,
            "factors is 3",
        ),
        (
            "rescan_regions",
            {"regions": [{**SQUARE, "z": 1}], **FINE},
            GridError,
            "'z' is unknown .there are x_low_um",
        ),
        (
            "rescan_regions",
            {"regions": [{"x_low_um": 0}], **FINE},
            GridError,
            "'x_high_um' is missing; 'y_low_um' is missing",
        ),
    ],
)
def test_a_mistyped_argument_is_refused_in_words_and_nothing_is_flown(plan, arguments, kind, says):
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    with pytest.raises(kind, match=says):
        run_engine(bind_plans(small_beamline())[plan](**arguments))
    assert not recorder.docs


def test_all_wrong_types_are_told_at_once_and_a_preview_says_the_same():
    plan = bind_plans(small_beamline())["coarse_survey_with_sr"]
    wrong = {**SURVEY, "width_um": "wide", "factor": "two"}
    with pytest.raises(ConfigError) as flown:
        RunEngine({})(plan(**wrong))
    assert "width_um is 'wide'" in str(flown.value)
    assert "factor is 'two'" in str(flown.value)
    with pytest.raises(ConfigError) as previewed:
        preview(plan, **wrong)
    assert str(previewed.value) == str(flown.value)


def test_a_number_typed_as_text_is_a_number():
    plan = bind_plans(small_beamline())["coarse_survey_with_sr"]
    assert preview(plan, **{**SURVEY, "width_um": "8"}).maps == preview(plan, **SURVEY).maps


@pytest.mark.parametrize("wrong", ["coarse_survey_with_sr", RunEngine, 3])
def test_a_preview_of_what_is_no_plan_names_the_plans(wrong):
    with pytest.raises(RefusedError, match="there is one of acquire_pair"):
        preview(wrong, **SURVEY)


def test_a_preview_of_a_plan_that_was_called_says_how_to_write_it():
    plan = bind_plans(small_beamline())["coarse_survey_with_sr"]
    with pytest.raises(ConfigError, match=r"preview\(coarse_survey_with_sr, \.\.\.\)"):
        preview(plan(**SURVEY))
