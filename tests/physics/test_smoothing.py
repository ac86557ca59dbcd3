"""The width of a Gaussian that the counts of a map choose for themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xrf_sr_plans.measurement import FACTORS, Measurement, Sampling
from xrf_sr_plans.physics.forward import degrade
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.physics.smoothing import WIDTHS_STEPS, chosen_widths, smoothed

WAYS: tuple[Sampling, ...] = ("fly", "area", "rows")


def sample(size: int = 96, blur_px: float = 5.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), blur_px, mode="wrap")
    return np.clip(1 + 0.5 * field / field.std(), 0, None)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("sampling", WAYS)
def test_the_choice_is_nearly_as_good_as_the_best_that_knows_the_truth(factor, sampling):
    how = Measurement(factor, sampling)
    for photons in (5.0, 50.0, 500.0):
        truth = photons * sample() / how.fast_pixels
        counts = np.random.default_rng(1).poisson(degrade(truth, how)).astype(float)
        errors = [
            np.mean((smoothed(counts, how, np.asarray(width)) - truth) ** 2)
            for width in range(len(WIDTHS_STEPS))
        ]
        chosen = int(chosen_widths(counts, how))
        assert 10 * np.log10(errors[chosen] / min(errors)) < 0.7


def test_without_noise_nothing_is_smoothed():
    how = Measurement(2, "rows")
    counts = degrade(1e6 * sample(blur_px=2.0), how)
    assert chosen_widths(counts, how) == 0
    np.testing.assert_allclose(smoothed(counts, how), upsample(counts, how.refinement))


def test_a_map_without_structure_is_smoothed_most():
    how = Measurement(2)
    counts = np.random.default_rng(0).poisson(20, (64, 64)).astype(float)
    assert chosen_widths(counts, how) == len(WIDTHS_STEPS) - 1


def test_each_map_chooses_for_itself():
    how = Measurement(1)
    rng = np.random.default_rng(0)
    flat = rng.poisson(np.full((64, 64), 20.0))
    sharp = rng.poisson(2000 * (np.indices((64, 64)).sum(0) // 4 % 2) + 5.0)
    both = chosen_widths(np.stack([flat, sharp]), how)
    assert both.tolist() == [int(chosen_widths(flat, how)), int(chosen_widths(sharp, how))]
    assert both[0] > 3 > 1 >= both[1]


@settings(max_examples=30)
@given(
    factor=st.sampled_from(FACTORS),
    sampling=st.sampled_from(WAYS),
    width=st.integers(0, len(WIDTHS_STEPS) - 1),
    rows=st.integers(5, 30),
    columns=st.integers(5, 30),
)
def test_a_constant_map_stays_and_a_mirrored_one_is_mirrored(
    factor, sampling, width, rows, columns
):
    how = Measurement(factor, sampling)
    shape = (rows, columns * how.fast_pixels)
    index = np.asarray(width)
    constant = smoothed(np.full(shape, 7.0), how, index)
    assert constant.shape == (rows * factor, columns * factor)
    np.testing.assert_allclose(constant, 7.0)
    counts = np.random.default_rng(rows).poisson(9, shape).astype(float)
    made = smoothed(counts, how, index)
    np.testing.assert_allclose(smoothed(counts[::-1, ::-1], how, index), made[::-1, ::-1])
