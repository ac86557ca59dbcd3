"""A survey that is given a time is flown as its beamline has it best, and says what it compared."""

from __future__ import annotations

import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline
from xrf_sr_plans import coarse_survey_with_sr, design_survey, preview
from xrf_sr_plans.devices.protocols import RowTimeModel
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import BudgetError, ConfigError, GridError, RefusedError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.training.phantoms import phantom

AREA = {"width_um": 16, "height_um": 12, "x_center_um": 0.0, "y_center_um": 0.0}
FINE = {**AREA, "fine_step_um": 0.5}


def flown(beamline, **wishes) -> list[dict]:
    """Fly a survey and return the start documents of its coarse maps."""
    run_engine = RunEngine({}, call_returns_result=True)
    seen = Recorder(run_engine)
    run_engine(coarse_survey_with_sr(beamline, rescan="propose", **wishes))
    return [doc for doc in seen.starts if doc.get("xrf_sr", {}).get("purpose") == "coarse"]


@pytest.mark.parametrize("time_s", [1.5, 3.0, 6.0, 20.0])
@pytest.mark.parametrize("tile_um", [None, 8.0])
def test_the_simulated_time_of_a_survey_is_within_5_percent_of_what_it_was_given(time_s, tile_um):
    stage = small_beamline(max_rate_hz=5000, max_velocity_um_s=5000.0)
    object.__setattr__(stage, "time_model", RowTimeModel(overhead_s=0.05))
    wishes = {**FINE, "time_s": time_s, "tile_um": tile_um}
    seen = preview(coarse_survey_with_sr, stage, **wishes)
    assert seen.allowed, seen
    assert seen.time_s == pytest.approx(time_s, rel=0.05)
    assert seen.time_s <= time_s * 1.001


def test_the_clock_of_the_simulated_stage_agrees():
    """The beamline's own time model is that of its simulated hardware."""
    stage = make_beamline(clock="instant", max_rate_hz=2000, shutter_open=True)
    before_s = stage.clock.elapsed_s
    flown(stage, **FINE, time_s=20)
    # The way to the first row, and back, comes on top.
    assert stage.clock.elapsed_s - before_s == pytest.approx(20, rel=0.05)


def test_start_documents_have_what_was_asked_and_what_was_flown():
    (start,) = flown(small_beamline(), **FINE, time_s=3)
    facts = start["xrf_sr"]
    assert facts["user_input"]["time_s"] == 3
    assert facts["user_input"]["step_um"] is None
    assert facts["sampling"] == "rows"
    assert facts["step_um"] == pytest.approx(2.0)
    assert facts["analysis"]["factor"] == 4
    assert facts["dwell_ms"] == pytest.approx(37.5 / 4)
    assert len(facts["derived_input"]["compared"]) == 5
    assert facts["derived_input"]["compared"][0].startswith("4x rows: 2 um, 37.5 ms, 3 s")


def test_the_best_way_is_handed_to_the_plan_as_it_is():
    stage = small_beamline()
    found = design_survey(coarse_survey_with_sr, stage, **FINE, time_s=3)
    (by_time,) = flown(small_beamline(), **FINE, time_s=3)
    (by_hand,) = flown(small_beamline(), **FINE, **found.arguments)
    for key in ("grid", "dwell_ms", "sampling", "step_um"):
        assert by_time["xrf_sr"][key] == by_hand["xrf_sr"][key]


def test_a_preview_lists_what_was_compared_and_what_limits_each():
    seen = preview(coarse_survey_with_sr, small_beamline(), **FINE, time_s=3)
    text = str(seen)
    assert "flown as 4x rows, 37.5 ms at each step of 2 um" in text
    assert text.count("compared: ") == 5
    assert "dB; limited by time_s" in text
    assert "takes 4.8 s between its 24 rows alone" in text


def test_squares_that_nobody_asked_for_are_not_said_to_be_asked_for():
    stage = small_beamline(max_points=60)
    text = str(preview(coarse_survey_with_sr, stage, **FINE, time_s=10))
    assert "flown as 4x squares" in text
    assert "as asked for" not in text
    asked = preview(coarse_survey_with_sr, stage, **FINE, time_s=10, sampling="squares")
    assert "squares, as asked for" in str(asked)


def test_options_are_a_table_with_the_best_marked():
    found = design_survey(coarse_survey_with_sr, small_beamline(), **FINE, time_s=3)
    assert found.best is found.options[0]
    lines = str(found).splitlines()
    assert len(lines) == 1 + 5 + 1
    assert lines[1].startswith("* 4x rows")
    assert found.arguments["step_um"] == 2


def test_where_nothing_is_fast_enough_every_way_says_why():
    stage = small_beamline(max_rate_hz=20)
    found = design_survey(coarse_survey_with_sr, stage, **FINE, time_s=1)
    assert found.best is None
    assert found.arguments == {}
    with pytest.raises(BudgetError, match="4x squares, which takes") as refused:
        next(coarse_survey_with_sr(stage, **FINE, time_s=1))
    assert len(refused.value.reasons) == 5


def test_a_survey_of_every_fine_row_is_not_told_to_fly_a_fine_map_instead():
    seen = preview(coarse_survey_with_sr, small_beamline(), **FINE, time_s=30, factor=1)
    assert any("the survey has every fine row" in note for note in seen.notes)
    assert not any("instead" in note for note in seen.notes)


def test_an_earlier_map_tells_structure_and_counts():
    wishes = {**FINE, "time_s": 12}
    for family, brightness in (("gradients", 3.0), ("texture", 3000.0)):
        counts = phantom(family, 1_500_400, size=64, n_elements=2) * brightness
        grid = ScanGrid(AxisGrid("x", 0.0, 0.5, 64), AxisGrid("y", 0.0, 0.5, 64))
        like = ElementalMaps.from_arrays(counts, grid, ["Fe", "Zn"], dwell_ms=10.0)
        found = design_survey(coarse_survey_with_sr, small_beamline(), **wishes, like=like)
        rate = brightness / 10e-3
        expected = rate * found.options[0].dwell_ms * 1e-3 / found.options[0].way.factor ** 2
        assert found.options[0].photons == pytest.approx(expected, rel=0.2)
        finest = {str(option.way): option.expected_db for option in found.options}
        lost = finest["every fine row"] - finest["4x squares"]
        assert lost > 3 if family == "texture" else lost < 1


def test_a_dose_alone_designs_too():
    found = design_survey(coarse_survey_with_sr, small_beamline(), **FINE, max_dose=1e9)
    assert str(found.best.way) == "every fine row"
    assert found.best.dose == pytest.approx(1e9, rel=2e-3)
    assert found.best.limit == "max_dose"


@pytest.mark.parametrize(
    ("given", "factors"), [({"factor": 4}, {4}), ({"step_um": 1.0}, {2}), ({}, {1, 2, 4})]
)
def test_what_is_given_is_kept_and_only_the_rest_is_chosen(given, factors):
    wishes = {**FINE, **given, "time_s": 12}
    found = design_survey(coarse_survey_with_sr, small_beamline(), **wishes)
    assert {option.way.factor for option in found.options} == factors
    if "step_um" in given:
        assert {option.step_um for option in found.options} == {1.0}


def test_squares_may_be_asked_for():
    wishes = {**FINE, "time_s": 3, "sampling": "squares"}
    (start,) = flown(small_beamline(), **wishes)
    assert start["xrf_sr"]["sampling"] == "fly"


def test_a_dwell_that_contradicts_the_time_is_refused():
    wishes = {**AREA, "step_um": 1, "dwell_ms": 5}
    assert preview(coarse_survey_with_sr, small_beamline(), **wishes, time_s=4).allowed
    with pytest.raises(BudgetError, match=r"time_s 2.*takes 3.36 s with dwell_ms 5"):
        next(coarse_survey_with_sr(small_beamline(), **wishes, time_s=2))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"step_um": 1}, ConfigError, "dwell_ms is not given; then time_s or max_dose is needed"),
        ({"dwell_ms": 1}, GridError, "step_um is not given; then fine_step_um is needed"),
        ({"time_s": 10}, GridError, "then fine_step_um is needed"),
        ({"time_s": -1, "fine_step_um": 1}, BudgetError, "time_s is -1"),
        ({"time_s": 9, "fine_step_um": 1, "counts_per_s": 0}, ConfigError, "counts_per_s is 0"),
        ({"step_um": 1, "dwell_ms": 9, "counts_per_s": 0}, ConfigError, "counts_per_s is 0"),
        ({"time_s": 9, "fine_step_um": 900}, GridError, "step_um 900 is larger than width_um 16"),
        ({"time_s": 9, "fine_step_um": 1, "factor": 3}, ConfigError, "factor is 3"),
        ({"time_s": 9, "fine_step_um": 1, "find": "Xx"}, RefusedError, "nobody measures 'Xx'"),
    ],
    ids=str,
)
def test_too_little_or_wrong_is_refused_in_words(given, error, words):
    with pytest.raises(error, match=words):
        next(coarse_survey_with_sr(small_beamline(), **AREA, **given))
    seen = preview(coarse_survey_with_sr, small_beamline(), **AREA, **given)
    assert any(words in problem for problem in seen.problems)


def test_what_the_stage_forbids_is_told_as_ever():
    stage = small_beamline(limits_um=((-2, 2), (-20, 20)))
    with pytest.raises(RefusedError, match="axis 'samx': the map needs"):
        next(coarse_survey_with_sr(stage, **FINE, time_s=10))


def test_a_map_with_too_many_fine_pixels_is_flown_in_squares():
    stage = small_beamline(max_points=60)
    found = design_survey(coarse_survey_with_sr, stage, **FINE, time_s=10)
    assert str(found.best.way) == "4x squares"
    refused = {str(option.way): option.problem for option in found.options}
    assert "takes at most 60 in one map" in refused["4x rows"]


def test_only_surveys_are_designed():
    from xrf_sr_plans.plans.xrf_map import xrf_map

    with pytest.raises(ConfigError, match="only coarse_survey_with_sr"):
        design_survey(xrf_map, small_beamline(), **AREA, step_um=1, dwell_ms=1)
