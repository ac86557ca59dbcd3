"""The set of boxes that is flown: worth most within the time, each target counted once."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xrf_sr_plans.rois.candidates import (
    RescanCost,
    candidate_boxes,
    contains,
    possible_targets,
)
from xrf_sr_plans.rois.cover import cover


@settings(max_examples=60)
@given(st.data())
def test_no_other_set_of_few_boxes_is_worth_more(data: st.DataObject) -> None:
    boxes, targets = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    held = rng.random((boxes, targets)) < 0.4
    value, seconds = rng.random(targets), rng.uniform(0.5, 3.0, boxes)
    budget_s, worth_per_s = float(rng.uniform(0, 8)), float(rng.choice([0.0, 0.1]))
    chosen = cover(held, value, seconds, budget_s=budget_s, worth_per_s=worth_per_s)

    def gain(some: tuple[int, ...] | list[int]) -> float:
        return value[held[list(some)].any(axis=0)].sum() - worth_per_s * seconds[list(some)].sum()

    possible = itertools.chain.from_iterable(
        itertools.combinations(range(boxes), number) for number in range(boxes + 1)
    )
    best = max(gain(some) for some in possible if seconds[list(some)].sum() <= budget_s)
    assert seconds[chosen].sum() <= budget_s + 1e-9
    assert gain(chosen) >= best - 0.005 * abs(best) - 1e-6


def field(number: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    probability = np.zeros((side, side))
    for y, x in rng.integers(10, side - 10, (number, 2)):
        low, high = rng.integers(1, 5, 2), rng.integers(1, 5, 2)
        probability[y - low[0] : y + high[0], x - low[1] : x + high[1]] += rng.random()
    return np.clip(1.3 * ndimage.gaussian_filter(probability, 1), 0, 1)


def test_a_thousand_candidates_are_chosen_from_within_a_second() -> None:
    probability = field(1000, 1000)
    cost = RescanCost(0.01, 0.1)
    targets = possible_targets(probability, probability)
    boxes = candidate_boxes(
        probability, targets, targets.weight, cost, pad_px=(2, 2), largest_px=(1000, 1000)
    )
    assert len(boxes) > 1000
    held, seconds = contains(boxes, targets.boxes), cost.seconds(boxes)
    began = time.perf_counter()
    chosen = cover(held, targets.weight, seconds, budget_s=500.0, worth_per_s=0.0)
    assert time.perf_counter() - began < 1.0
    assert 400 < seconds[chosen].sum() <= 500


def test_two_grains_close_by_are_flown_as_one_box_where_that_is_faster() -> None:
    probability = np.zeros((60, 60))
    probability[10:14, 10:14] = probability[10:14, 18:22] = probability[45:49, 45:49] = 0.99
    targets = possible_targets(probability, probability)
    assert targets.expected == pytest.approx(3 * 0.97)
    for row_s, number in ((0.001, 3), (0.1, 2)):
        cost = RescanCost(0.01, row_s)
        boxes = candidate_boxes(
            probability, targets, targets.weight, cost, pad_px=(1, 1), largest_px=(60, 60)
        )
        held = contains(boxes, targets.boxes)
        chosen = cover(held, targets.weight, cost.seconds(boxes), budget_s=np.inf, worth_per_s=1e-3)
        assert len(chosen) == number
        assert held[chosen].any(axis=0).all()


def test_where_rows_are_slow_no_more_is_flown_than_the_whole_map() -> None:
    probability = np.zeros((20, 20))
    probability[::3, ::3] = 0.9
    targets = possible_targets(probability, probability)
    cost = RescanCost(0.001, 3.8)
    boxes = candidate_boxes(
        probability, targets, targets.weight, cost, pad_px=(1, 1), largest_px=(20, 20)
    )
    held = contains(boxes, targets.boxes)
    chosen = cover(held, targets.weight, cost.seconds(boxes), budget_s=np.inf, worth_per_s=0.0)
    assert held[chosen].any(axis=0).all()
    assert cost.seconds(boxes[chosen]).sum() <= cost.seconds(np.array([0, 20, 0, 20]))[0]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    largest=st.tuples(st.integers(3, 30), st.integers(3, 30)),
    smallest=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_boxes_stay_inside_the_map_and_the_reach(
    seed: int, largest: tuple[int, int], smallest: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    probability = np.clip(ndimage.gaussian_filter(rng.random((40, 50)), 2) * 4 - 1.5, 0, 1)
    targets = possible_targets(probability, probability)
    boxes = candidate_boxes(
        probability,
        targets,
        targets.weight,
        RescanCost(0.01, 0.1),
        pad_px=(2, 1),
        largest_px=largest,
        smallest_px=smallest,
    )
    y0, y1, x0, x1 = boxes.T
    assert ((y0 >= 0) & (x0 >= 0) & (y1 <= 40) & (x1 <= 50) & (y0 < y1) & (x0 < x1)).all()
    assert (y1 - y0 <= largest[0]).all()
    assert (x1 - x0 <= largest[1]).all()


def test_a_target_larger_than_the_reach_is_flown_in_parts() -> None:
    probability = np.zeros((40, 40))
    probability[5:35, 5:35] = 0.95
    targets = possible_targets(probability, probability, largest_px=(16, 16))
    assert targets.expected == pytest.approx(0.92)
    boxes = candidate_boxes(
        probability,
        targets,
        targets.weight,
        RescanCost(0.01),
        pad_px=(0, 0),
        largest_px=(16, 16),
    )
    held = contains(boxes, targets.boxes)
    chosen = cover(held, targets.weight, np.ones(len(boxes)), budget_s=np.inf, worth_per_s=0.0)
    flown = np.zeros(probability.shape, dtype=bool)
    for y0, y1, x0, x1 in boxes[chosen]:
        flown[y0:y1, x0:x1] = True
    assert flown[probability > 0].all()
