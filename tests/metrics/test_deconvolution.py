"""Errors behind a noisy measurement: a few large ones must not pass for many middling ones."""

import numpy as np
import pytest

from xrf_sr_plans.metrics.calibration import covered
from xrf_sr_plans.metrics.deconvolution import hidden_coverage

WIDTHS = np.geomspace(0.05, 5, 200)


def measured(level, small, seed=0, number=4000):
    """Return counts, mean and half-width of intervals, and the share of truth inside at WIDTHS."""
    rng = np.random.default_rng(seed)
    mean = level * rng.uniform(0.3, 1.5, number)
    sigma = 0.3 * mean
    size = np.where(rng.random(number) < small, 0.1, 1.5 if small else 0.7)
    truth = np.clip(mean + sigma * size * rng.normal(size=number), 0, None)
    half = 1.645 * sigma
    inside = np.abs(truth - mean) <= WIDTHS[:, None] * half
    return rng.poisson(truth), mean, half, inside.mean(axis=1)


@pytest.mark.parametrize("level", [20, 60, 500, 5000])
@pytest.mark.parametrize("small", [0.0, 0.8])
def test_coverage_of_the_truth_is_found_behind_the_noise(level, small):
    counts, mean, half, truth = measured(level, small)
    found = hidden_coverage(counts, mean, mean - half, mean + half, WIDTHS)
    for width in (0.7, 1.0, 1.5):
        at = int(np.argmin(abs(WIDTHS - width)))
        assert found[at] == pytest.approx(truth[at], abs=0.05)


def test_few_large_errors_are_not_taken_for_a_general_width():
    counts, mean, half, truth = measured(20, 0.85)
    right = WIDTHS[np.argmax(truth >= 0.9)]
    true = hidden_coverage(counts, mean, mean - half, mean + half, WIDTHS)
    found = WIDTHS[np.argmax(true >= 0.9)]
    one_width = [covered(counts, mean, mean - w * half, mean + w * half).mean() for w in WIDTHS]
    plain = WIDTHS[np.argmax(np.array(one_width) >= 0.9)]
    assert abs(np.log(found / right)) < 0.6 * abs(np.log(plain / right))


def test_pixels_that_tell_much_do_not_speak_for_those_that_tell_little():
    """Dark pixels err less than they say, bright ones as they say; most are dark."""
    rng = np.random.default_rng(3)
    mean = np.where(rng.random(4000) < 0.75, 15.0, 400.0)
    sigma = np.where(mean < 100, 4.0, 60.0)
    truth = np.clip(mean + np.where(mean < 100, 0.3, 1.0) * sigma * rng.normal(size=4000), 0, None)
    half = 1.645 * sigma
    inside = np.mean(np.abs(truth - mean) <= half)
    found = hidden_coverage(rng.poisson(truth), mean, mean - half, mean + half)
    assert found == pytest.approx(inside, abs=0.02)


def test_where_noise_hides_everything_the_intervals_are_taken_at_their_word():
    rng = np.random.default_rng(4)
    mean = np.full(2000, 30.0)
    half = np.full(2000, 0.02)
    assert hidden_coverage(rng.poisson(mean), mean, mean - half, mean + half) == pytest.approx(
        0.9, abs=0.02
    )


def test_intervals_and_counts_may_have_another_unit_and_holes():
    counts, mean, half, _ = measured(100, 0.0)
    plain = hidden_coverage(counts, mean, mean - half, mean + half, WIDTHS)
    other = hidden_coverage(counts, 4 * mean, 4 * (mean - half), 4 * (mean + half), WIDTHS, 4.0)
    np.testing.assert_allclose(other, plain, atol=1e-9)
    holed = mean.copy()
    holed[::50] = np.nan
    found = hidden_coverage(counts, holed, mean - half, mean + half, WIDTHS)
    np.testing.assert_allclose(found, plain, atol=0.03)
    nothing = hidden_coverage(counts, np.full_like(mean, np.nan), mean, mean, WIDTHS)
    assert nothing.shape == WIDTHS.shape
    assert np.isnan(nothing).all()
