"""The phase of the coarse/fine operator pair: a ramp stays a ramp."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.physics.forward import coarsen
from xrf_sr_plans.physics.resample import block_mean, fill_unmeasured, upsample


def ramps(factor: int) -> tuple[np.ndarray, np.ndarray]:
    def ramp(height: int, width: int, step: float) -> np.ndarray:
        y = (np.arange(height) + 0.5) * step
        x = (np.arange(width) + 0.5) * step
        return 10 + 3 * y[:, None] + x

    return ramp(12, 16, 1.0), ramp(12 * factor, 16 * factor, 1 / factor)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_upsampling_a_coarse_ramp_gives_the_fine_ramp(factor, kernel) -> None:
    coarse, fine = ramps(factor)
    inner = np.s_[3 * factor : -3 * factor, 3 * factor : -3 * factor]
    np.testing.assert_allclose(upsample(coarse, factor, kernel)[inner], fine[inner], atol=1e-9)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("sampling", ["fly", "area", "point"])
def test_every_way_of_sampling_a_fine_ramp_gives_the_coarse_ramp(factor, sampling) -> None:
    coarse, fine = ramps(factor)
    np.testing.assert_allclose(
        coarsen(fine, factor, sampling)[1:-1, 1:-1], coarse[1:-1, 1:-1], atol=1e-9
    )


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_constant_map_stays_constant_up_to_its_border(kernel) -> None:
    np.testing.assert_allclose(upsample(np.full((2, 3, 5), 7.0), 4, kernel), 7.0)


def test_nearest_then_block_mean_is_the_identity() -> None:
    maps = np.random.default_rng(0).random((3, 5, 7))
    np.testing.assert_allclose(block_mean(upsample(maps, 4, "nearest"), 4), maps)


def test_unmeasured_pixels_take_their_nearest_neighbour_only_for_filtering() -> None:
    maps = np.array([[[1.0, np.nan, np.nan, 5.0]], [[np.nan] * 4]])
    assert fill_unmeasured(maps).tolist() == [[[1, 1, 5, 5]], [[0, 0, 0, 0]]]
    assert np.isnan(maps[0, 0, 1])
