"""A box around several objects is flown as one each where that costs little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xrf_sr_plans.rois.candidates import RescanCost, contains, possible_targets
from xrf_sr_plans.rois.split import HARDLY_LONGER, split_by_object

COST = RescanCost(pixel_s=0.01, row_s=0.2, box_s=0.5)


def two_objects(gap: float) -> np.ndarray:
    """Return the probability (y, x) of a wide and a narrow object, one above the other."""
    probability = np.zeros((24, 32))
    probability[0:9, 8:30] = 0.95
    probability[9:11, 8:14] = gap
    probability[11:22, 8:14] = 0.95
    return probability


def split(probability: np.ndarray, box: list[int], **changes: float):
    targets = possible_targets(probability, probability)
    boxes = np.array([box])
    found, shares = split_by_object(boxes, targets, probability, COST, pad_px=(1, 1), **changes)
    return boxes, targets, found, shares


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_two_objects_are_two_regions(gap: float):
    _, targets, found, shares = split(two_objects(gap), [0, 24, 7, 31])
    assert len(found) == 2
    assert shares.sum(axis=0) == pytest.approx(1.0)
    # Both together hold every pixel that may match.
    flown = np.zeros((24, 32), dtype=bool)
    for y0, y1, x0, x1 in found:
        flown[y0:y1, x0:x1] = True
    assert flown[two_objects(gap) > 0].all()
    assert (shares @ targets.weight).sum() == pytest.approx(targets.expected)


def test_one_object_stays_one_region_as_it_was():
    boxes, _, found, _ = split(two_objects(0.9), [0, 24, 5, 32])
    assert found.tolist() == boxes.tolist()


def test_nothing_is_split_where_that_takes_longer():
    probability = np.zeros((20, 20))
    probability[2:6, 2:6] = probability[2:6, 8:12] = 0.95
    boxes, _, found, _ = split(probability, [0, 8, 0, 14])
    assert found.tolist() == boxes.tolist()


def test_a_part_without_any_pixel_of_its_target_counts_nothing():
    """A target that is cut for its size may leave such parts, and no number becomes NaN."""
    probability = np.zeros((24, 32))
    probability[0:20, 2] = probability[19, 2:30] = 0.95
    probability[2:5, 20:26] = 0.95
    targets = possible_targets(probability, probability, largest_px=(8, 8))
    assert (targets.weight == 0).any()
    boxes = np.array([[0, 24, 0, 32]])
    _, shares = split_by_object(boxes, targets, probability, COST, pad_px=(1, 1))
    assert np.isfinite(shares).all()


@given(
    seed=st.integers(0, 10_000),
    density=st.floats(0.02, 0.3),
    hardly_longer=st.sampled_from([0.0, HARDLY_LONGER]),
)
def test_no_target_is_lost_and_the_time_hardly_grows(seed, density, hardly_longer):
    rng = np.random.default_rng(seed)
    probability = rng.uniform(size=(30, 40)) * (rng.uniform(size=(30, 40)) < density)
    targets = possible_targets(probability, probability)
    if not targets.weight.size:
        return
    boxes = np.array([[0, 30, 0, 40], [5, 20, 5, 35]])
    found, shares = split_by_object(
        boxes, targets, probability, COST, pad_px=(1, 2), hardly_longer=hardly_longer
    )
    assert shares.sum(axis=0) == pytest.approx(1.0 * contains(boxes, targets.boxes).any(axis=0))
    assert found[:, ::2].min() >= 0
    assert (found[:, 1] <= 30).all()
    assert (found[:, 3] <= 40).all()
    before_s = float(COST.seconds(boxes)[0])
    assert COST.seconds(found).sum() <= before_s * (1 + hardly_longer * len(found)) + 1e-9
