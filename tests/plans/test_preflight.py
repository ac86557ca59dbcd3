"""What is refused before anything moves, and how it is said."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from bluesky import RunEngine

from support.plan_support import small_beamline, small_survey
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.errors import (
    BudgetError,
    ConfigError,
    GridError,
    LimitsError,
    QueryError,
    RefusedError,
)
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.xrf_map import xrf_map, xrf_map_start_stop

MAP = {"width_um": 8, "height_um": 6, "step_um": 1, "dwell_ms": 10}
HERE = {"x_center_um": 0.0, "y_center_um": 0.0}
NO_LIMITS = ((0.0, 0.0), (0.0, 0.0))


@pytest.fixture(scope="module")
def run_engine():
    return RunEngine({}, call_returns_result=True)


def refused(run_engine, beamline, plan, kind, *words):
    """Fail unless `plan` is refused with all `words` and nothing has happened."""
    docs = []
    token = run_engine.subscribe(lambda name, doc: docs.append(name))
    moves = beamline.microscope.shutter_open, axis_facts(beamline.fast).position_um
    with pytest.raises(kind) as caught:
        run_engine(plan)
    run_engine.unsubscribe(token)
    for word in words:
        assert word in str(caught.value)
    assert docs == []
    assert (beamline.microscope.shutter_open, axis_facts(beamline.fast).position_um) == moves


@pytest.mark.parametrize(
    ("beamline", "changes", "kind", "words"),
    [
        ({"limits_um": ((-4, 4), (-50, 50))}, {}, LimitsError, ["'samx'", "-9..9", "-4..4"]),
        # Half a pixel: the centres would fit.
        ({"limits_um": ((-50, 50), (-2.6, 2.6))}, {}, LimitsError, ["'samy'", "-3..3"]),
        ({"limits_um": NO_LIMITS}, {}, LimitsError, ["'samx'", "'samy'", "safe_box_um"]),
        ({"safe_box_um": ((-5, 5), (-5, 5))}, {}, LimitsError, ["safe box", "-5..5"]),
        ({"safe_box_um": ((900, 950), (0, 5))}, {}, LimitsError, ["'samx'", "leave nothing"]),
        ({"limits_um": ((4, -4), (-50, 50))}, {}, LimitsError, ["'samx'", "nothing (4..-4 um)"]),
        ({"limits_um": ((-50, 50), (-math.inf, 2))}, {}, LimitsError, ["'samy'", "no lower limit"]),
        (
            {"limits_um": ((-50, 50), (-math.inf, 2)), "safe_box_um": ((-50, 50), (-50, 50))},
            {},
            LimitsError,
            ["'samy'", "-3..3", "limits and safe box allow -50..2 um"],
        ),
        (
            {"limits_um": ((-5, math.inf), (-50, 50)), "safe_box_um": ((-50, 50), (-50, 50))},
            {},
            LimitsError,
            ["'samx'", "-9..9", "limits and safe box allow -5..50 um"],
        ),
        ({"limits_um": ((math.nan, 50), (-50, 50))}, {}, LimitsError, ["'samx'", "no number"]),
        ({}, {"x_center_um": math.nan}, GridError, ["x_center_um is nan", "-1e+07 to 1e+07"]),
        ({}, {"width_um": math.nan}, GridError, ["width_um is nan"]),
        ({}, {"height_um": -1}, GridError, ["height_um is -1"]),
        ({}, {"step_um": 0}, GridError, ["step_um is 0"]),
        ({}, {"dwell_ms": math.inf}, GridError, ["dwell_ms is inf"]),
        ({}, {"step_um": 7}, GridError, ["step_um 7", "height_um 6"]),
        ({"max_velocity_um_s": 50}, {}, LimitsError, ["'samx'", "100 um/s", "50 um/s"]),
        ({"max_rate_hz": 20}, {}, LimitsError, ["100 frames/s", "20"]),
        ({"reach_um": (5, 50)}, {}, LimitsError, ["'samx'", "8 um long", "reaches 5 um"]),
        ({"max_points": 40}, {}, LimitsError, ["8 x 6 = 48", "40"]),
        ({}, {"budget_s": 1}, BudgetError, ["1.68 s", "1 s"]),
        ({}, {"budget_s": math.nan}, BudgetError, ["budget_s is nan"]),
        ({}, {"max_dose": 1e6}, BudgetError, ["1e+07 photons/um^2", "1e+06"]),
        ({"flux_ph_s": None}, {"max_dose": 0.001}, BudgetError, ["0.01 s/um^2"]),
    ],
)
def test_a_map_is_refused_in_words(run_engine, beamline, changes, kind, words):
    devices = small_beamline(**beamline)
    plan = xrf_map(devices, **{**MAP, **HERE, **changes})
    refused(run_engine, devices, plan, kind, *words)


def test_all_problems_are_told_at_once(run_engine):
    beamline = small_beamline(max_rate_hz=20, limits_um=((-4, 4), (-2, 2)))
    plan = xrf_map(beamline, **MAP, **HERE, budget_s=1)
    refused(run_engine, beamline, plan, RefusedError, "'samx'", "'samy'", "frames/s", "budget_s")


def test_a_safe_box_stands_in_for_missing_limits(run_engine):
    beamline = small_beamline(limits_um=NO_LIMITS, safe_box_um=((-20, 20), (-20, 20)))
    assert run_engine(xrf_map(beamline, **MAP, **HERE)).exit_status == "success"


def test_limits_in_millimetres_are_understood(run_engine):
    beamline = small_beamline(egu="mm", limits_um=((-4, 4), (-50, 50)))
    refused(
        run_engine, beamline, xrf_map(beamline, **MAP, **HERE), LimitsError, "-9..9", "-4..4 um"
    )
    assert run_engine(xrf_map(small_beamline(egu="mm"), **MAP, **HERE)).exit_status == "success"


def test_start_and_stop_at_one_place_is_no_grid(run_engine):
    beamline = small_beamline()
    ends = {"x_start_um": 1, "x_stop_um": 1, "x_num": 4, "y_start_um": 0, "y_stop_um": 1}
    plan = xrf_map_start_stop(beamline, **ends, y_num=2, dwell_ms=10)
    refused(run_engine, beamline, plan, GridError, "'samx'")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"find": "Fe and"}, QueryError, ["Fe and"]),
        ({"find": "Fe and not Xx"}, QueryError, ["'Xx'", "Fe"]),
        ({"factor": 3}, ConfigError, ["factor is 3"]),
        ({"max_regions": 0}, ConfigError, ["max_regions is 0"]),
        ({"worth": {"targets": -1.0}}, ConfigError, ["worth", "greater than 0"]),
        ({"worth": {"beauty": 1.0}}, ConfigError, ["worth", "'novelty'"]),
        ({"worth": {}}, ConfigError, ["worth is {}"]),
        ({"pad_um": -1.0}, ConfigError, ["pad_um is -1"]),
        ({"rescan": "later"}, ConfigError, ["'later'", "propose"]),
        ({"rescan": "queue"}, ConfigError, ["rescan_queue"]),
        ({"tile_um": 0.5}, GridError, ["smaller than the step"]),
        ({"tile_um": -2}, GridError, ["tile_um is -2"]),
        ({"fine_step_um": math.nan}, GridError, ["fine_step_um is nan"]),
        ({"fine_dwell_ms": 0}, GridError, ["fine_dwell_ms is 0"]),
        ({"analysis_timeout_s": 0}, GridError, ["analysis_timeout_s is 0"]),
        ({"budget_s": 0.5}, BudgetError, ["1.44 s", "0.5 s"]),
        ({"x_center_um": 106.0}, LimitsError, ["'samx'"]),
        ({"find": "Xx", "factor": 3, "budget_s": 0.1}, RefusedError, ["Xx", "factor", "budget"]),
        ({"fine_step_um": 2.5}, GridError, ["fine_step_um 2.5", "step_um 1"]),
    ],
)
def test_a_survey_is_refused_before_its_first_tile(run_engine, changes, kind, words):
    beamline = small_beamline()
    refused(run_engine, beamline, small_survey(beamline, **changes), kind, *words)


@pytest.mark.parametrize(
    ("beamline", "changes", "words"),
    [
        ({}, {"fine_dwell_ms": 0.001}, ["rescans: dwell_ms 0.001", "1e+06 frames/s"]),
        (
            {"max_velocity_um_s": 150},
            {"fine_dwell_ms": 2.0},
            ["rescans: axis 'samx'", "250 um/s", "150 um/s"],
        ),
        (
            # The fine maps are flown faster, so they need a run-up of 125 um.
            {"acceleration_s": 0.5},
            {"fine_dwell_ms": 2.0},
            ["rescans: axis 'samx': 125 um run-up on both sides leave nothing of -110..110 um"],
        ),
        (
            {"acceleration_s": 0.5, "limits_um": ((-220, 220), (-50, 50))},
            {"fine_dwell_ms": 2.0, "x_center_um": 112.0},
            ["rescans: axis 'samx': no pixel of 108..116 um lies within -95..95 um"],
        ),
        ({"max_points": 24}, {"min_size_um": 2.5}, ["rescans: 5 x 5 = 25 pixels", "24"]),
    ],
)
def test_what_would_forbid_every_rescan_forbids_the_survey(run_engine, beamline, changes, words):
    devices = small_beamline(**beamline)
    refused(run_engine, devices, small_survey(devices, **changes), LimitsError, *words)


def test_a_probe_in_another_unit_forbids_the_survey(run_engine):
    beamline = replace(small_beamline(), probe_fwhm_um=500.0)
    words = ["500 um, is 500 steps wide", "Are the units right?"]
    refused(run_engine, beamline, small_survey(beamline), ConfigError, *words)


def test_what_forbids_the_survey_and_its_rescans_alike_is_told_once(run_engine):
    beamline = small_beamline(max_rate_hz=20)
    with pytest.raises(LimitsError) as caught:
        run_engine(small_survey(beamline))
    assert str(caught.value).count("frames/s") == 1


@pytest.mark.parametrize(("max_dose", "notes"), [(None, 0), (1e8, 0), (2e7, 1)])
def test_a_preview_notes_a_dose_that_leaves_no_rescan(max_dose, notes):
    area = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10}
    seen = preview(coarse_survey_with_sr, small_beamline(), **area, max_dose=max_dose)
    assert seen.allowed
    assert sum("every region will be refused" in note for note in seen.notes) == notes


@pytest.mark.parametrize(("budget_s", "notes"), [(None, 0), (60, 0), (1.6, 1)])
def test_a_preview_notes_a_budget_that_leaves_no_rescan(budget_s, notes):
    area = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10}
    seen = preview(
        coarse_survey_with_sr, small_beamline(), **area, budget_s=budget_s, min_size_um=2
    )
    assert seen.allowed
    assert sum("every region will be refused" in note for note in seen.notes) == notes


def test_a_fine_step_as_large_as_the_coarse_one_is_allowed(run_engine):
    survey = small_survey(small_beamline(), fine_step_um=1)
    assert run_engine(survey).exit_status == "success"


def test_only_the_last_tile_beyond_the_limits_refuses_the_whole_survey(run_engine):
    beamline = small_beamline(limits_um=((-50, 8), (-50, 50)))
    refused(run_engine, beamline, small_survey(beamline), LimitsError, "'samx'", "8 um")


def test_the_run_up_is_what_the_axis_needs_to_reach_its_velocity():
    beamline = small_beamline(acceleration_s=0.2)
    run_up = preflight.run_up_um(beamline, axis_facts(beamline.fast), step_um=1, dwell_ms=10)
    assert run_up == pytest.approx(20.0)
    fixed = small_beamline(run_up_um=3.0)
    assert preflight.run_up_um(fixed, axis_facts(fixed.fast), step_um=1, dwell_ms=10) == 3.0
