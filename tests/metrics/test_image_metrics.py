"""PSNR, SSIM, stabilisation, spikes, totals and ratios."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.metrics.bias import count_bias, reduced_chi2, worst_ratio_bias
from xrf_sr_plans.metrics.image import (
    data_range,
    foreground,
    psnr_db,
    ssim,
    ssim_whole_and_foreground,
    winsorise,
)
from xrf_sr_plans.physics.counting import stabilise, unstabilise_mean


def test_psnr_uses_the_range_of_the_reference_without_its_spikes():
    rng = np.random.default_rng(0)
    reference = rng.uniform(0, 100, (100, 100))
    reference[3, 3] = 1e6
    assert data_range(reference) == pytest.approx(100, rel=0.01)
    noisy = reference + rng.normal(0, 1, reference.shape)
    assert psnr_db(noisy, reference) == pytest.approx(40, abs=0.3)


def test_psnr_of_an_empty_element_is_nan_and_of_itself_infinite():
    assert np.isnan(psnr_db(np.ones((8, 8)), np.zeros((8, 8))))
    ramp = np.arange(64.0).reshape(8, 8)
    assert psnr_db(ramp, ramp) == np.inf


def test_nan_pixels_do_not_count():
    ramp = np.arange(400.0).reshape(20, 20)
    holed = ramp + 1.0
    holed[2:5] = np.nan
    assert psnr_db(holed, ramp) == psnr_db(ramp + 1.0, ramp)
    assert np.isfinite(ssim(holed, ramp))
    assert np.isfinite(ssim(ramp, holed))


def test_different_shapes_are_refused():
    with pytest.raises(GridError, match="shape"):
        psnr_db(np.zeros((4, 4)), np.zeros((4, 5)))


def test_ssim_of_a_sparse_map_is_flattered_by_its_background():
    rng = np.random.default_rng(0)
    reference = np.zeros((128, 128))
    reference[40:60, 40:60] = rng.uniform(50, 100, (20, 20))
    estimate = np.zeros_like(reference)
    estimate[40:60, 40:60] = 75
    mask = foreground(reference)
    assert mask.sum() == 400
    assert ssim(estimate, reference) > 0.9
    assert ssim(estimate, reference, foreground=mask) < 0.6


@pytest.mark.parametrize("mean", [1, 4, 30, 1000])
def test_stabilising_and_back_keeps_the_mean_of_poisson_counts(mean):
    counts = np.random.default_rng(0).poisson(mean, 200_000)
    root = stabilise(counts)
    assert unstabilise_mean(np.array(root.mean())) == pytest.approx(mean, rel=0.03)
    if mean >= 4:
        assert root.std() == pytest.approx(1, abs=0.05)


def test_a_one_pixel_spike_is_cut_and_a_bright_grain_is_not():
    rng = np.random.default_rng(0)
    plane = rng.poisson(10, (100, 100)).astype(float)
    plane[20, 20] = 1e5
    plane[50:53, 50:53] = 400
    plane[70, 70] = np.nan
    clean = winsorise(plane)
    assert clean[20, 20] < 150
    np.testing.assert_array_equal(clean[50:53, 50:53], 400)
    assert np.isnan(clean[70, 70])
    assert (np.delete(clean, 20, 0) == np.delete(plane, 20, 0)).sum() == 99 * 100 - 1


def test_totals_and_ratios():
    reference = np.stack([np.full((8, 8), 10.0), np.full((8, 8), 20.0), np.zeros((8, 8))])
    estimate = np.repeat(np.repeat(reference, 2, 1), 2, 2) * np.array([1.1, 0.99, 1])[:, None, None]
    assert count_bias(estimate[0], reference[0]) == pytest.approx(0.1)
    assert np.isnan(count_bias(estimate[2], reference[2]))
    assert worst_ratio_bias(estimate, reference) == pytest.approx(1.1 / 0.99 - 1)


def test_chi2_is_one_for_the_truth_below_for_the_noise_and_above_for_a_lie():
    rng = np.random.default_rng(0)
    truth = rng.uniform(5, 50, (64, 64))
    measured = rng.poisson(truth)
    assert reduced_chi2(measured, truth) == pytest.approx(1, abs=0.05)
    assert reduced_chi2(measured, np.maximum(measured, 1)) < 0.1
    assert reduced_chi2(measured, truth * 1.3) > 1.5


def test_both_similarities_at_once_are_those_of_one_at_a_time():
    rng = np.random.default_rng(3)
    reference = ndimage.gaussian_filter(rng.random((40, 40)), 2) ** 3
    estimate = reference + 1e-3 * rng.normal(size=(40, 40))
    estimate[5:8, 5:8] = np.nan
    front = foreground(reference)
    both = ssim_whole_and_foreground(estimate, reference)
    assert both == (ssim(estimate, reference), ssim(estimate, reference, foreground=front))
