"""Pairs: the same area coarse and fine, with pixels that nest, linked by one uid."""

from __future__ import annotations

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline
from xrf_sr_plans.errors import BudgetError, ConfigError, RefusedError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.collect import collect_pairs
from xrf_sr_plans.plans.pair import acquire_pair

PAIR = {"width_um": 8, "height_um": 4, "fine_step_um": 0.5, "dwell_ms": 10}
HERE = {"x_center_um": 0.0, "y_center_um": 0.0}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def test_coarse_and_fine_maps_have_the_same_edges_and_one_pair_uid(run_engine, recorder):
    outcome = run_engine(
        acquire_pair(small_beamline(), **PAIR, **HERE, factors=[2, 4], order="coarse first")
    ).plan_result
    facts = [start["xrf_sr"] for start in recorder.starts]
    assert [one["purpose"] for one in facts] == ["pair_coarse", "pair_coarse", "pair_fine"]
    assert [one["step_um"] for one in facts] == [1.0, 2.0, 0.5]
    assert {one["derived_input"]["pair_uid"] for one in facts} == {outcome.pair_uid}
    assert {start["pair_uid"] for start in recorder.starts} == {outcome.pair_uid}
    edges = [ScanGrid.from_dict(one["grid"]).extents_um for one in facts]
    assert edges == [[[-2.0, 2.0], [-4.0, 4.0]]] * 3
    assert outcome.fine_uid == recorder.starts[2]["uid"]
    assert set(outcome.coarse_uids) == {2, 4}
    assert all(one["analysis"]["enhance"] is False for one in facts)


@pytest.mark.parametrize("sampling", ["rows", "squares"])
def test_block_sums_of_the_fine_map_look_like_the_coarse_one(run_engine, recorder, sampling):
    run_engine(acquire_pair(small_beamline(), **PAIR, **HERE, sampling=sampling))
    coarse, fine, _ = (recorder.builder(start).maps() for start in recorder.starts)
    across = coarse.grid.shape[1]
    # A row's pixel has the time of a square one divided by how many of them a step has.
    dwell = coarse.attrs["dwell_ms"] / fine.attrs["dwell_ms"]
    blocks = fine.counts.values.reshape(-1, 4, 2, across, 16 // across).mean(axis=(2, 4)) * dwell
    expected = coarse.counts.values
    assert (across, dwell) == ((16, 0.5) if sampling == "rows" else (8, 1.0))
    assert np.abs(blocks - expected).mean() < 3 * np.sqrt(expected.mean())


def test_the_coarse_maps_are_flown_before_and_after_the_fine_one(run_engine, recorder):
    outcome = run_engine(acquire_pair(small_beamline(), **PAIR, **HERE, factors=[2, 4])).plan_result
    order = [start["xrf_sr"]["derived_input"]["pair_factor"] for start in recorder.starts]
    assert order == [2, 4, 1, 4, 2]
    assert set(outcome.bracket_uids) == {2, 4}


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"factors": [3]}, ConfigError, "factor is 3; it should be 2 or 4"),
        ({"factors": []}, ConfigError, "factors"),
        ({"budget_s": 1.0}, BudgetError, "budget_s"),
        ({"max_dose": 4.5e7}, BudgetError, "of all maps"),
    ],
)
def test_a_pair_is_refused_before_anything_moves(run_engine, recorder, changes, kind, word):
    with pytest.raises(kind, match=word):
        run_engine(acquire_pair(small_beamline(), **PAIR, **HERE, **changes))
    assert recorder.docs == []


def test_pairs_are_collected_as_long_as_the_budget_lasts(run_engine, recorder):
    boxes = [
        {"x_low_um": x, "x_high_um": x + 4, "y_low_um": 0, "y_high_um": 2} for x in (0, 5, 900)
    ]
    outcomes = run_engine(
        collect_pairs(small_beamline(), boxes, fine_step_um=0.5, dwell_ms=10, budget_s=3.6)
    ).plan_result
    assert [one.disposition for one in outcomes] == ["rescanned", "refused", "refused"]
    assert "budget_s" in outcomes[1].reason
    assert "samx" in outcomes[2].reason
    assert len(recorder.map_starts()) == 3


def test_no_pair_at_all_is_a_refusal():
    run_engine = RunEngine({})
    far = {"x_low_um": 900, "x_high_um": 904, "y_low_um": 0, "y_high_um": 2}
    for boxes, words in (([], "no region"), ([far], "'samx'"), ([far, far], "'samx'")):
        with pytest.raises(RefusedError, match=words):
            run_engine(collect_pairs(small_beamline(), boxes, fine_step_um=0.5, dwell_ms=10))


def test_each_factor_is_flown_once():
    plan = acquire_pair(small_beamline(), **PAIR, **HERE, factors=(2, 2))
    with pytest.raises(ConfigError, match="each factor once"):
        RunEngine({})(plan)
