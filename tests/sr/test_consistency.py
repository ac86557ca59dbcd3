"""Measured counts against the estimate: what is taken back, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.metrics.bias import reduced_chi2
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.sr.consistency import project

AREA = Measurement(2, "area")


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 4)
    return (1.0 + (field > 0))[None]


def measured(truth, factor=2):
    return np.random.default_rng(1).poisson(block_mean(truth, factor)).astype(float)


def test_an_estimate_that_the_counts_confirm_is_left_alone(sample):
    truth = 50 * sample
    counts = measured(truth)
    made = project(counts, truth, AREA)
    change = made / (truth * counts.mean() / truth.mean()) - 1
    assert np.mean(np.abs(change) > 1e-3) < 0.05
    assert np.sqrt(np.mean(change**2)) < 0.005  # the noise of a coarse pixel is 0.1 to 0.14


def test_where_it_is_off_by_more_than_the_noise_it_comes_nearer_to_counts_and_truth(sample):
    truth = 20_000 * sample
    counts = measured(truth)
    blurred = ndimage.gaussian_filter(truth, (0, 2, 2))
    made = project(counts, blurred, AREA)
    before, after = (np.square(m - truth).mean() for m in (blurred, made))
    assert after < 0.5 * before
    seen = block_mean(made, 2)
    assert reduced_chi2(counts, seen) < 0.2 * reduced_chi2(counts, block_mean(blurred, 2))
    assert made.sum() / 4 == pytest.approx(counts.sum())
