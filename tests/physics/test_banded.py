"""The fast forms of interpolation, smoothing and sampling give what the plain ones give."""

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.measurement import FACTORS, SAMPLINGS, Measurement
from xrf_sr_plans.physics.banded import gaussian_single
from xrf_sr_plans.physics.blobs import is_peak
from xrf_sr_plans.physics.forward import AVERAGES, degrade, sample_axis
from xrf_sr_plans.physics.quantiles import quantiles, smallest
from xrf_sr_plans.physics.resample import upsample, upsample_filled
from xrf_sr_plans.physics.smoothing import WIDTHS_STEPS, chosen_widths, smoothing_matrices

SHAPES = ((1, 512, 300), (2, 70, 301), (3, 5, 2), (1, 1, 40))


def counts(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    mean = 50 * ndimage.gaussian_filter(rng.random(shape), (0, 2, 2), mode="nearest")
    return rng.poisson(mean).astype(float)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma_px", [(0.4, 0.4), (0.0, 1.5), (3.7, 0.9)])
def test_a_gaussian_in_bands_is_that_of_scipy(shape, sigma_px):
    maps = counts(*shape)
    plain = ndimage.gaussian_filter(maps, (0, *sigma_px), mode="nearest", truncate=3.0)
    fast = gaussian_single(maps.astype(np.float32), sigma_px, 3.0)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, plain, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [2, 3, 4, (4, 1), (1, 2)])
def test_interpolation_in_bands_is_that_by_taps(shape, factor):
    maps = counts(*shape)
    plain = upsample(maps, factor)
    np.testing.assert_allclose(upsample_filled(maps, factor), plain, rtol=1e-12, atol=1e-10)
    single = upsample_filled(maps.astype(np.float32), factor)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, plain, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("probe_steps", [0.0, 0.7])
def test_the_forward_model_in_single_precision_is_that_in_double(factor, sampling, probe_steps):
    how = Measurement(factor, sampling, probe_steps, True)
    fine = counts(2, 12 * 4, 20 * 4)
    plain = degrade(fine, how)
    fast = degrade(fine.astype(np.float32), how)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, plain, rtol=3e-6, atol=1e-4)


@pytest.mark.parametrize(("factor", "sampling"), [(2, "fly"), (4, "rows"), (1, "fly")])
def test_the_chosen_widths_are_those_of_whole_matrices(factor, sampling):
    how = Measurement(factor, sampling)
    rng = np.random.default_rng(1)
    grains = ndimage.gaussian_filter(rng.random((96, 128)), 1.5) > 0.5
    maps = np.stack([rng.poisson(2.0 + 500 * grains), rng.poisson(3.0, grains.shape)])
    refinement, averages = how.refinement, AVERAGES[how.sampling]
    operators = []
    for num, times, mean in zip(maps.shape[1:], refinement, averages, strict=True):
        made = smoothing_matrices(num, times, factor)
        made = sample_axis(made, times, -2, averages=mean) if times > 1 else made
        operators.append([np.eye(num), *made[1:]])
    risks = [
        [
            np.square(y @ plane @ x.T - plane).sum() + 2 * np.diag(y) @ plane @ np.diag(x)
            for y, x in zip(*operators, strict=True)
        ]
        for plane in maps
    ]
    found = chosen_widths(maps, how)
    np.testing.assert_array_equal(found, np.argmin(risks, axis=1))
    assert len(risks[0]) == len(WIDTHS_STEPS)
    assert len(set(found)) > 1


@pytest.mark.parametrize("size", [1, 2, 17, 5000, 100_001])
@pytest.mark.parametrize("kind", ["noise", "few values", "one value", "columns"])
def test_quantiles_are_those_of_numpy(size, kind):
    rng = np.random.default_rng(size)
    values = {
        "noise": rng.standard_normal(size).astype(np.float32),
        "few values": rng.poisson(1.0, size).astype(float),
        "one value": np.full(size, 7.0),
        # As in a map whose pixels depend on their column alone.
        "columns": np.tile(np.arange(64.0), size // 64 + 1)[:size],
    }[kind]
    shares = (0.0, 0.01, 0.3, 0.75, 0.995, 1.0)
    expected = np.quantile(values.astype(float), shares)
    np.testing.assert_allclose(quantiles(values, shares), expected, rtol=1e-12, atol=1e-12)
    for rank in {0, size // 3, size - 1}:
        assert smallest(values, rank) == np.sort(values)[rank]


def test_the_highest_of_nine_is_that_of_scipy():
    maps = counts(2, 40, 33)
    plain = ndimage.maximum_filter(maps, size=(1, 3, 3)) == maps
    np.testing.assert_array_equal(is_peak(maps, 3, 20.0), plain & (maps > 20.0))
