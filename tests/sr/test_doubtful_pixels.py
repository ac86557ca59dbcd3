"""A pixel that may be a hot one of its element has no say in what the other elements are."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.sr.doubtful_pixels import run_without_doubts
from xrf_sr_plans.sr.predict import enhance

NAMES = ["Fe", "Zn", "Ca"]
REACH = 2


def smeared(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stand for a network: every element sees all others, two pixels far, on a grid twice as fine.

    Its first result is the element itself plus the mean of all within reach; the second is zero.
    """
    height, width = counts.shape[1:]
    padded = np.pad(counts.sum(axis=0), REACH, mode="edge")
    around = [
        padded[y : y + height, x : x + width]
        for y in range(2 * REACH + 1)
        for x in range(2 * REACH + 1)
    ]
    made = (counts + np.mean(around, axis=0)).repeat(2, axis=1).repeat(2, axis=2)
    return made, np.zeros_like(made)


@pytest.mark.parametrize("size", [12, 60])
def test_each_element_is_what_it_is_without_the_doubtful_pixels_of_the_others(size) -> None:
    sound = np.random.default_rng(0).poisson(100, (3, size, size)).astype(float)
    doubtful = [(0, 4, 5), (1, 7, 6), (0, 0, size - 1)]
    for element, row, column in doubtful:
        # Among pixels that are alike, the one that takes its place is what it would have been.
        sound[element, max(0, row - 1) : row + 2, column - 1 : column + 2] = 90
    counts = sound.copy()
    for place in doubtful:
        counts[place] = 1e4
    made = smeared(counts)
    run_without_doubts(made, counts, doubtful, Measurement(2), REACH, smeared)
    for element in range(3):
        own = sound.copy()
        own[element] = counts[element]
        np.testing.assert_allclose(made[0][element], smeared(own)[0][element])


def test_where_most_elements_have_such_pixels_only_the_others_are_made_once_more() -> None:
    counts = np.full((5, 12, 12), 100.0)
    doubtful = [(element, 2 + 2 * element, 5) for element in range(4)]
    for place in doubtful:
        counts[place] = 1e4
    made, runs = smeared(counts), []
    first = made[0].copy()
    run_without_doubts(
        made,
        counts,
        doubtful,
        Measurement(2),
        REACH,
        lambda part: (runs.append(1), smeared(part))[1],
    )
    assert len(runs) == 1
    np.testing.assert_array_equal(made[0][:4], first[:4])
    np.testing.assert_allclose(made[0][4], 600)


def blobs(size: int = 48) -> np.ndarray:
    """Photons (element, y, x) of three elements in the same smooth spots."""
    y, x = np.mgrid[:size, :size]
    spots = sum(
        np.exp(-((y - row) ** 2 + (x - column) ** 2) / 30)
        for row, column in ((10, 10), (30, 20), (20, 38))
    )
    shares = np.array([1.0, 0.6, 0.4])[:, None, None]
    return np.random.default_rng(0).poisson(500 * shares * spots + 20).astype(float)


def test_a_kept_pixel_changes_nothing_in_other_elements_and_the_result_says_so() -> None:
    clean, spoilt = blobs(), blobs()
    spoilt[0, 40, 8] = 1e4
    clean[0, 40, 8] = clean[0, 40, 7]
    before, after = (
        enhance(counts, elements=NAMES, factor=2, step_um=1.0, device="cpu")
        for counts in (clean, spoilt)
    )
    for name in ("estimate", "lower", "upper"):
        near = np.s_[1:, 70:92, 6:28]
        one, other = getattr(before, name).values[near], getattr(after, name).values[near]
        np.testing.assert_allclose(one, other, rtol=0.05, atol=1)
    # The element itself has its particle, if it is one.
    assert after.estimate.values[0, 80:82, 16:18].mean() > 5e3
    notes = after.dataset.attrs["data_notes"]
    assert any("Fe: the pixel at row 40, column 8" in note for note in notes)
