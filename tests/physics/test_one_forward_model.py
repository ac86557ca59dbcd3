"""The forward model has an array form and a matrix form: they are one operator."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans import measurement as measurement_module
from xrf_sr_plans.measurement import SAMPLINGS, Measurement
from xrf_sr_plans.physics.forward import AVERAGES, coarsen, degrade, probe_blur
from xrf_sr_plans.physics.operators import blur_matrices, forward_matrices, measure_again
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate


@pytest.fixture(autouse=True)
def any_factor(monkeypatch):
    """The operator itself is defined for every factor, odd ones too."""
    monkeypatch.setattr(measurement_module, "FACTORS", (1, 2, 3, 4, 5))


def grains(height, width):
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(2, height, width)), (0, 5, 5))
    return ndimage.gaussian_filter((field > 0) * 1.0, (0, 1.2, 1.2)) + 0.05


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("probe_steps", [0.0, 0.3, 1.1])
def test_both_forms_agree(sampling, factor, probe_steps):
    measurement = Measurement(factor, sampling, probe_steps)
    fine = grains(12 * factor, 16 * factor)
    expected = coarsen(probe_blur(fine, 1.0, probe_steps * factor), factor, sampling)
    np.testing.assert_array_equal(degrade(fine, measurement), expected)
    np.testing.assert_allclose(measure_again(fine, measurement), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_only_the_matrices_keep_negative_values(sampling):
    spike = np.zeros((1, 32, 32))
    spike[0, 14, 14] = 100.0
    measurement = Measurement(2, sampling)
    linear, counts = measure_again(spike, measurement), degrade(spike, measurement)
    assert counts.min() == 0
    assert (linear.min() < 0) == (not all(AVERAGES[sampling]))
    np.testing.assert_allclose(measure_again(-spike, measurement), -linear)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("deblur", [True, False])
def test_a_blur_that_the_estimate_keeps_is_not_applied_again(sampling, deblur):
    measurement = Measurement(4, sampling, 0.8, deblur=deblur)
    pair = simulate(
        grains(64, 64), Simulation.plain(measurement, np.inf, 2), np.random.default_rng(0)
    )
    # Counts are those of each measured pixel, the truth is in photons per coarse pixel.
    expected = degrade(pair.truth, measurement) / measurement.fast_pixels
    np.testing.assert_allclose(expected, pair.counts, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_blur_of_a_coarse_pixel_keeps_totals_and_ramps(sampling, factor):
    measurement = Measurement(factor, sampling, 0.8)
    shape = (20 * factor, 24 * factor)
    for matrix, size in zip(blur_matrices(shape, measurement), shape, strict=True):
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        inner = slice(6 * factor, -6 * factor)
        np.testing.assert_allclose((matrix @ np.arange(size))[inner], np.arange(size)[inner])


def test_a_coarse_pixel_averages_over_the_axes_of_its_sampling():
    for sampling, averages in AVERAGES.items():
        measurement = Measurement(4, sampling)
        matrices = forward_matrices((32, 32), measurement)
        steps = zip(matrices, measurement.refinement, averages, strict=True)
        for matrix, step, over in steps:
            weights = matrix[4][np.nonzero(matrix[4])]
            expected = [1 / step] * step if over else [-1 / 16, 9 / 16, 9 / 16, -1 / 16]
            np.testing.assert_allclose(weights, expected)
