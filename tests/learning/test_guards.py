"""The guards: what is worse beyond its interval is found, what is noise is not."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.learning.guards import Figures, judge, paired_bootstrap


def figures(shift=0.0, scatter=0.1, groups=10, margin=0.05, seed=0):
    rng = np.random.default_rng(seed)
    before = rng.normal(30, 3, (groups, 6))
    after = before + shift + scatter * (rng.normal(size=(groups, 1)) + rng.normal(size=(groups, 6)))
    names = [f"sample {index // 6}" for index in range(6 * groups)]
    return Figures("dB", "phantoms", after.ravel(), before.ravel(), names, margin)


@pytest.mark.parametrize(
    ("shift", "scatter", "worse", "better"),
    [
        (-0.5, 0.1, True, False),
        (-0.02, 0.001, False, False),  # sure, but less than matters
        (-0.5, 3.0, False, False),  # much, but not sure
        (0.5, 0.1, False, True),
    ],
)
def test_worse_is_what_is_sure_and_matters(shift, scatter, worse, better):
    (guard,) = judge([figures(shift, scatter)])
    assert (guard.worse, guard.better) == (worse, better)
    assert guard.maps == 60
    assert guard.groups == 10


def test_equal_models_raise_an_alarm_in_one_comparison_of_twenty_at_most():
    alarms = 0
    for seed in range(40):
        guards = judge([figures(0.0, 0.2, margin=0.0, seed=100 * seed + i) for i in range(12)])
        alarms += any(guard.worse for guard in guards)
    assert alarms <= 8


def test_figures_that_are_missing_do_not_count():
    values = figures(-0.5)
    values.candidate[:30] = np.nan
    (guard,) = judge([values])
    assert (guard.maps, guard.worse) == (30, True)
    (none,) = judge([Figures("flag", "x", np.full(3, np.nan), np.ones(3), ["a", "b", "c"], 0.0)])
    assert not none.worse
    assert not none.better
    assert none.to_dict()["difference"] is None


def test_one_map_tells_nothing_and_one_group_is_told_by_its_maps():
    rng = np.random.default_rng(0)
    assert paired_bootstrap(np.array([1.0]), ["a"], 0.025, rng)[1:] == (-np.inf, np.inf)
    mean, low, high = paired_bootstrap(np.array([1.0, 2.0, 3.0]), ["a"] * 3, 0.025, rng)
    assert low < mean < high
