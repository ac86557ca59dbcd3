"""What counts as found, and what one who knows the targets could have done."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xrf_sr_plans.evaluation.targets import TrueTargets, inside
from xrf_sr_plans.rois.candidates import RescanCost

COST = RescanCost(pixel_s=0.01, row_s=0.1, box_s=0.5)


def three_squares() -> TrueTargets:
    """A large bright, a middle and a small square, and one pixel that is too small."""
    signal = np.ones((40, 60))
    signal[4:12, 5:13] = 50.0
    signal[20:26, 40:46] = 20.0
    signal[30:34, 10:14] = 20.0
    signal[2, 50] = 20.0
    return TrueTargets.above(signal, threshold=10.0, fewest_px=4)


def test_places_above_the_threshold_that_are_large_enough_are_targets() -> None:
    targets = three_squares()
    assert len(targets) == 3
    assert [len(targets.pixels(number)) for number in (1, 2, 3)] == [64, 36, 16]
    assert targets.label[2, 50] == 0


def test_a_target_that_lacks_one_pixel_is_not_found() -> None:
    targets = three_squares()
    whole = inside(np.array([[4, 12, 5, 13], [20, 26, 40, 46]]), (40, 60))
    assert targets.found(whole).tolist() == [True, True, False]
    whole[25, 45] = False
    assert targets.found(whole).tolist() == [True, False, False]


def test_recall_is_told_by_number_by_area_and_by_signal() -> None:
    recall = three_squares().recall(inside(np.array([[4, 12, 5, 13]]), (40, 60)))
    assert recall.number == pytest.approx(1 / 3)
    assert recall.area == pytest.approx(64 / 116)
    assert recall.signal == pytest.approx(3200 / 4240)


def test_the_oracle_finds_everything_where_the_time_is_enough_and_the_most_where_not() -> None:
    targets = three_squares()
    everything = targets.oracle(COST, math.inf)
    assert targets.recall(inside(everything, (40, 60))).number == 1.0
    # Time for the two smaller squares, which are more in number than the large one.
    some = targets.oracle(COST, 2.6)
    assert targets.found(inside(some, (40, 60))).tolist() == [False, True, True]
    assert COST.seconds(some).sum() <= 2.6


def test_the_oracles_least_time_is_that_of_the_cheapest_targets() -> None:
    targets = three_squares()
    one, two, three = (targets.oracle_least_s(COST, share / 3) for share in (1, 2, 3))
    assert one == pytest.approx(4 * (4 * 0.01 + 0.1) + 0.5)
    assert two == pytest.approx(one + 6 * (6 * 0.01 + 0.1) + 0.5)
    assert three == pytest.approx(two + 8 * (8 * 0.01 + 0.1) + 0.5)


def test_a_sample_without_a_target_has_no_recall() -> None:
    targets = TrueTargets.above(np.ones((8, 8)), threshold=10.0, fewest_px=1)
    assert len(targets) == 0
    assert math.isnan(targets.recall(np.zeros((8, 8), dtype=bool)).number)
    assert targets.oracle(COST, math.inf).shape == (0, 4)
