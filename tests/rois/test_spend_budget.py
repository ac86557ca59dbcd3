from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrf_sr_plans.errors import BudgetError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region, Rescan
from xrf_sr_plans.rois.budget import spend_budget


def rescan(
    x: float,
    y: float = 0.0,
    *,
    score: float = 1.0,
    time_s: float = 10.0,
    dose: float = 1.0,
    size: float = 4.0,
) -> Rescan:
    region = Region(
        x - size / 2, x + size / 2, y - size / 2, y + size / 2, ("Fe",), score, "because", "raw"
    )
    grid = ScanGrid.from_center(
        x_center_um=x, y_center_um=y, width_um=size, height_um=size, step_um=1.0
    )
    return Rescan(region, grid, 10.0, time_s, dose)


def spend(candidates, *, budget_s=None, max_dose=None, start_um=(0.0, 0.0), may_cut=False):
    limits = {"budget_s": budget_s, "max_dose": max_dose}
    return spend_budget(candidates, **limits, start_um=start_um, may_cut=may_cut)


def test_the_best_score_per_second_is_flown_and_the_rest_says_why_not() -> None:
    good, fair, poor = rescan(0, score=9), rescan(20, score=5), rescan(40, score=1)
    spending = spend([poor, fair, good], budget_s=25.0)
    assert spending.chosen == (good, fair)
    assert spending.time_s == 20.0
    ((refused, why),) = spending.refused
    assert refused is poor
    assert why == "needs 10 s; 5 s of the 25 s are left"


def test_what_does_not_fit_is_cut_rather_than_dropped_where_that_is_allowed() -> None:
    large = rescan(0, score=8, time_s=60, size=12)
    ((refused, why),) = spend([large], budget_s=50.0).refused
    assert refused is large
    assert why == "needs 60 s; 50 s of the 50 s are left"
    (cut,) = spend([large], budget_s=50.0, may_cut=True).chosen
    rows = large.grid.slow.num
    assert cut.grid.slow.num == rows * 50 // 60
    assert cut.time_s <= 50.0
    # The middle of it, with its share of the score.
    assert large.region.y_low_um <= cut.region.y_low_um < cut.region.y_high_um
    assert cut.region.y_high_um <= large.region.y_high_um
    assert cut.region.score == pytest.approx(8 * cut.grid.slow.num / rows)
    assert f"cut to {cut.grid.slow.num} of {rows} rows by the time left" in cut.region.reason
    assert not spend([large], budget_s=20.0, may_cut=True).chosen


def test_a_cheap_crumb_does_not_crowd_out_what_is_worth_the_whole_budget() -> None:
    crumb, cake = rescan(0, score=1, time_s=1), rescan(20, score=50, time_s=100)
    assert spend([crumb, cake], budget_s=100.0).chosen == (cake,)


def test_without_limits_everything_is_flown_and_nothing_is_a_normal_wish() -> None:
    assert len(spend([rescan(0), rescan(20)]).chosen) == 2
    assert spend([]).chosen == ()
    assert spend([rescan(0)], budget_s=0.0).chosen == ()


def test_regions_of_one_choice_may_overlap_but_not_lie_in_one_another() -> None:
    one, other, inside = rescan(0, score=3, size=4), rescan(1, score=2), rescan(0, size=2)
    spending = spend_budget(
        [one, other, inside], budget_s=None, max_dose=None, start_um=(0, 0), chosen_together=True
    )
    assert spending.chosen in ((one, other), (other, one))
    assert [refused for refused, _ in spending.refused] == [inside]


def test_the_same_find_seen_twice_is_flown_once() -> None:
    better, twin, same = rescan(0, score=2), rescan(0.5), rescan(0, score=1)
    spending = spend([same, twin, better])
    assert spending.chosen == (better,)
    assert all("same area" in why for _, why in spending.refused)


def test_a_twin_within_the_dose_replaces_one_that_is_not() -> None:
    better, gentler = rescan(0, score=2, dose=9), rescan(0.5, dose=1)
    assert spend([better, gentler], max_dose=5.0).chosen == (gentler,)


def test_doses_add_where_regions_overlap() -> None:
    first, beside = rescan(0, score=2), rescan(3.5)
    assert len(spend([first, beside], max_dose=2.0).chosen) == 2
    spending = spend([first, beside], max_dose=1.5)
    assert spending.chosen == (first,)
    assert "dose 2 would exceed the limit 1.5" in spending.refused[0][1]


@pytest.mark.parametrize(
    "broken",
    [{"score": math.nan}, {"time_s": math.inf}, {"time_s": 0.0}, {"dose": math.nan}],
)
def test_a_candidate_without_sound_estimates_is_refused(broken: dict[str, float]) -> None:
    spending = spend([rescan(0, **broken), rescan(20)], budget_s=100.0)
    assert len(spending.chosen) == 1
    assert "no sound estimate" in spending.refused[0][1]


@pytest.mark.parametrize("limit", [math.nan, -1.0])
def test_a_senseless_budget_is_refused(limit: float) -> None:
    with pytest.raises(BudgetError, match="budget_s"):
        spend([], budget_s=limit)


def test_the_tour_runs_along_a_line_from_the_start() -> None:
    places = [rescan(x, score=100 - x) for x in (50, 10, 40, 20, 30)]
    tour = spend(places, start_um=(0.0, 0.0)).chosen
    assert [one.region.x_center_um for one in tour] == [10, 20, 30, 40, 50]


candidates = st.lists(
    st.builds(
        rescan,
        st.floats(-100, 100),
        st.floats(-100, 100),
        score=st.floats(0, 10),
        time_s=st.floats(0.1, 30),
        dose=st.floats(0, 3),
        size=st.floats(1, 20),
    ),
    max_size=10,
)


@settings(max_examples=60)
@given(candidates=candidates, budget_s=st.floats(0, 100), max_dose=st.floats(0, 5))
def test_every_candidate_is_either_chosen_or_refused_and_no_limit_is_broken(
    candidates: list[Rescan], budget_s: float, max_dose: float
) -> None:
    spending = spend(candidates, budget_s=budget_s, max_dose=max_dose)
    refused = [one for one, _ in spending.refused]
    assert sorted(map(id, [*spending.chosen, *refused])) == sorted(map(id, candidates))
    assert spending.time_s <= budget_s * (1 + 1e-9)
    assert all(one.dose <= max_dose for one in spending.chosen)
    again = spend(candidates[::-1], budget_s=budget_s, max_dose=max_dose)
    assert sum(one.region.score for one in again.chosen) == pytest.approx(
        sum(one.region.score for one in spending.chosen)
    )


def test_a_thousand_candidates_are_chosen_from_and_ordered_within_a_second() -> None:
    rng = np.random.default_rng(0)
    candidates = [
        rescan(float(x), float(y), score=float(score))
        for x, y, score in zip(*rng.uniform(0, 1e4, (2, 1000)), rng.random(1000), strict=True)
    ]
    began = time.perf_counter()
    spending = spend(candidates, budget_s=500.0, max_dose=1e9)
    assert time.perf_counter() - began < 1.0
    assert spending.chosen
