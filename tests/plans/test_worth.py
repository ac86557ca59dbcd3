"""Whether a survey pays is said before it is flown; no more than a full map is flown unasked."""

from __future__ import annotations

import inspect

import pytest
from bluesky import RunEngine

from support.plan_support import small_beamline, small_survey
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.design import design_coarse_maps
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.request import SurveyRequest
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.worth import rescans_limit_s

SURVEY = {"width_um": 64, "height_um": 32, "step_um": 1, "dwell_ms": 10, "factor": 4}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


def test_the_fine_map_of_everything_has_its_own_rows_and_pixels():
    beamline = small_beamline()
    call = inspect.signature(coarse_survey_with_sr).bind(beamline, **SURVEY)
    call.apply_defaults()
    request = SurveyRequest.from_arguments(call.arguments)
    design = design_coarse_maps(beamline, request)
    assert design.time_s == pytest.approx(32 * (0.64 + 0.2))
    assert design.whole_s == pytest.approx(128 * (2.56 + 0.2))
    assert design.analysis is not None
    assert design.analysis.rescans is not None
    assert design.analysis.rescans.budget_s == design.rescans_limit_s == design.whole_s


def test_a_preview_says_what_a_fine_map_of_everything_would_take():
    plan = bind_plans(small_beamline())["coarse_survey_with_sr"]
    seen = preview(plan, **SURVEY, budget_s=100)
    assert any("a fine map of everything would take 353 s (13 times" in one for one in seen.notes)
    small = preview(plan, width_um=8, height_um=3, step_um=1, dwell_ms=200, fine_dwell_ms=1)
    assert any("fly that instead" in note for note in small.notes)


@pytest.mark.parametrize(
    ("budget_s", "limit_s"), [(None, 100.0), (50.0, 40.0), (500.0, 490.0), (5.0, 0.0)]
)
def test_rescans_take_no_more_than_is_said_or_else_than_a_full_map(budget_s, limit_s):
    assert rescans_limit_s(budget_s, survey_s=10.0, whole_s=100.0) == limit_s


def test_regions_beyond_a_full_map_are_refused_unless_the_budget_allows_them(run_engine):
    """Regions that a faulty analysis proposes all over the map, time and again."""
    nine = [(x, x + 2.5, y, y + 1.5) for x in (-4.0, -2.75, -0.5) for y in (-1.5, -0.75, 0.0)]
    outcome = run_engine(small_survey(small_beamline([nine]), tile_um=None)).plan_result
    flown = [one for one in outcome.regions if one.disposition == "rescanned"]
    refused = [one for one in outcome.regions if one.disposition == "refused"]
    assert 0 < len(flown) < 9
    assert any("are left" in one.reason for one in refused)
    allowed = run_engine(small_survey(small_beamline([nine]), tile_um=None, budget_s=60))
    assert sum(one.disposition == "rescanned" for one in allowed.plan_result.regions) > len(flown)


def test_a_preview_with_a_budget_says_what_such_surveys_have_found():
    plan = bind_plans(small_beamline())["coarse_survey_with_sr"]
    (note,) = [one for one in preview(plan, **SURVEY, budget_s=106).notes if "have found" in one]
    assert note.startswith("in 30% of that time, surveys at 4x have found ")
    assert "held-out phantoms" in note
    assert "; in 40%, " in note
