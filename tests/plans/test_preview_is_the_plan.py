"""A preview refuses what the plan refuses, in its words, and what it allows is flown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from bluesky import RunEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from support.plan_support import GOOD_CALLS, small_beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.plans.binding import USER_PLANS, bind_plans
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES
from xrf_sr_plans.plans.preview import PREVIEWED, preview
from xrf_sr_plans.schema import AnalysisRequest

BOX = {"x_low_um": 0, "x_high_um": 4, "y_low_um": 0, "y_high_um": 2}
GRID = ScanGrid(AxisGrid("samx", 0.0, 1.0, 4), AxisGrid("samy", 0.0, 1.0, 2))
CALLS: dict[str, dict[str, Any]] = {**GOOD_CALLS, "fly_map": {"grid": GRID, "dwell_ms": 10}}
PLANS = {plan.__name__: plan for plan in (*USER_PLANS, fly_map)}
MOST_FLOWN = 200
"""Pixels of the largest map that the test flies to its end."""

SOUND = st.sampled_from([0.5, 1, 2, 4, 10, 20])
UNSOUND = st.sampled_from(
    [math.nan, math.inf, -math.inf, 0, -1, 1e300, -1e300, 1e-300, 1e-4, 0.001, 900, 1e6, 10**400]
)
ODD = st.sampled_from(["8", "wide", True, None, [], [1], {}, b"8", 2.5])
REGIONS = st.lists(
    st.sampled_from(
        [BOX, {**BOX, "x_low_um": 900, "x_high_um": 904}, {**BOX, "x_high_um": math.nan},
         {**BOX, "x_high_um": -1}, {**BOX, "x_high_um": 1e300}, {**BOX, "stage": 5},
         {**BOX, "z": 1}, {**BOX, "score": math.nan}, {**BOX, "elements": [5]},
         {**BOX, "reason": None}, {}, 3]
    ),
    max_size=3,
)  # fmt: skip
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "find": st.sampled_from(["Fe", "Fe and", "Xx", "Fe > 1e999", "(" * 2000, "", 5]),
    "factor": st.sampled_from([2, 4, 3, "2", None]),
    "sampling": st.sampled_from(["rows", "squares", "lines", None]),
    "factors": st.sampled_from([[2], (2, 4), [], [2, 2], [3], "24", 2, None]),
    "choose": st.sampled_from(["least sure", "least represented", "best", 5]),
    "collection_uid": st.sampled_from([None, "collection-before", "x", 5]),
    "rescan": st.sampled_from(["inline", "propose", "queue", "later", 1]),
    "regions": REGIONS,
    "md": st.sampled_from([None, {"sample": "x"}, {"uid": "u"}, {"a.b": 1}, {1: 2}, 5]),
    "survey_uid": st.sampled_from([None, "u", 5]),
    "parent_uid": st.sampled_from([None, "u", 5]),
    "order": st.sampled_from(["bracketed", "coarse first", "maybe"]),
    "grid": st.sampled_from(
        [GRID, None, 5, ScanGrid(AxisGrid("samx", 1e300, 1.0, 4), GRID.slow),
         ScanGrid(AxisGrid("samx", 0.0, 1e-300, 4), GRID.slow),
         ScanGrid(AxisGrid("samx", 0.0, 1.0, 10**9), GRID.slow)]
    ),
    "purpose": st.sampled_from(["map", "fine", "fun"]),
    "analysis": st.sampled_from(
        [None, 5, AnalysisRequest(), AnalysisRequest(find="Fe and"), AnalysisRequest(find="Xx")]
    ),
}  # fmt: skip
BEAMLINES = st.sampled_from(
    [{}, {}, {}, {"limits_um": ((-2, 3), (-9, 9))}, {"limits_um": ((0, 0), (0, 0))},
     {"safe_box_um": ((-5, 5), (-5, 5))}, {"max_rate_hz": 20}, {"max_points": 9},
     {"reach_um": (3, 2)}, {"acceleration_s": 5.0}, {"flux_ph_s": None}]
)  # fmt: skip


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a plan's name, arguments of which some may be bad, and fields of the beamline."""
    name = draw(st.sampled_from(sorted(CALLS)))
    parameters = sorted(field for field in PREVIEWED[name].request.__dataclass_fields__)
    arguments = dict(CALLS[name])
    for parameter in draw(st.lists(st.sampled_from(parameters), max_size=3, unique=True)):
        numbers = st.one_of(SOUND, SOUND, UNSOUND, ODD)
        arguments[parameter] = draw(OTHERS.get(parameter, numbers))
    return name, arguments, draw(BEAMLINES)


def what_is_refused(call: Any) -> str:
    """Return why a call is refused, or "" where it isn't."""
    try:
        call()
    except RefusedError as error:
        return str(error)
    return ""


def fully_flown(plan: Any) -> list[Mapping[str, Any]]:
    """Fly a plan to its end, and return the start documents of its maps."""
    starts = []
    run_engine = RunEngine({})
    run_engine.subscribe(lambda _, doc: starts.append(doc), "start")
    run_engine(plan)
    return [doc for doc in starts if "grid" in doc["xrf_sr"] and "shape" in doc]


@given(call=calls(), bound=st.booleans())
@settings(max_examples=150)
def test_a_preview_and_its_plan_agree_whatever_is_asked(call, bound):
    name, arguments, changes = call
    beamline = small_beamline(**changes)
    if bound and name in GOOD_CALLS:
        plan, args = bind_plans(beamline)[name], ()
    else:
        plan, args = PLANS[name], (beamline,)
    seen = []

    def look() -> None:
        seen.append(preview(plan, *args, **arguments))

    foreseen = what_is_refused(look) or "; ".join(seen[0].problems)
    # The first message comes after everything has been checked.
    refused = what_is_refused(lambda: next(iter(plan(*args, **arguments))))
    assert refused == foreseen
    if refused or max(one.grid.shape[0] * one.grid.shape[1] for one in seen[0].maps) > MOST_FLOWN:
        return
    starts = fully_flown(plan(*args, **arguments))
    shapes = [one.grid.shape for one in seen[0].maps]
    assert [tuple(doc["shape"]) for doc in starts][: len(shapes)] == shapes


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -math.inf, 1e300, -1e300, -1, 10**400], ids=str
)
def test_every_number_of_every_plan_is_refused_by_name_value_and_range(name, wrong):
    beamline = small_beamline()
    for parameter in PREVIEWED[name].request.__dataclass_fields__:
        allowed = PARAMETER_RANGES.get(parameter)
        if allowed is None or wrong in allowed:
            continue
        arguments = {**CALLS[name], parameter: wrong}
        words = what_is_refused(lambda given=arguments: next(PLANS[name](beamline, **given)))
        assert f"{parameter} is {wrong!r:.80}; it must be {allowed}" in words


def test_a_query_is_told_together_with_numbers_and_before_a_map_is_flown_for_it():
    area = {**CALLS["coarse_survey_with_sr"], "step_um": -2, "find": "Fe and"}
    words = what_is_refused(lambda: next(PLANS["coarse_survey_with_sr"](small_beamline(), **area)))
    assert "step_um is -2" in words
    assert "'Fe and'" in words
    asked = {**CALLS["fly_map"], "analysis": AnalysisRequest(find="Xx")}
    words = what_is_refused(lambda: next(fly_map(small_beamline(), **asked)))
    assert "find 'Xx': nobody measures 'Xx'" in words


@pytest.mark.parametrize("name", ["rescan_regions", "collect_pairs"])
def test_more_regions_than_anybody_flies_are_refused(name):
    arguments = {**CALLS[name], "regions": [BOX] * 1001}
    seen = preview(PLANS[name], small_beamline(), **arguments)
    assert seen.problems == ("1001 regions at once; it must be at most 1000",)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_number_that_a_plan_takes_has_a_range(plan):
    request = PREVIEWED[plan.__name__].request
    for name, field in request.__dataclass_fields__.items():
        # Weights are numbers of a dict, whose range the request to the analysis knows.
        if "dict" not in str(field.type) and ("float" in field.type or "int" in field.type):
            assert name in PARAMETER_RANGES
