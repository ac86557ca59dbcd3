"""Prediction against the fine map measured afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.metrics.agreement import compare, detail_share, effective_size
from xrf_sr_plans.metrics.common_pixels import overlap_matrix
from xrf_sr_plans.physics.counting import NORMAL_90

COARSE = ScanGrid.from_center(
    x_center_um=0, y_center_um=0, width_um=48, height_um=48, step_um=2, fast="x", slow="y"
)


def predicted(truth, sigma, rng, factor=2, elements=("Fe",), **attributes):
    """A prediction that is wrong by exactly the sigma it states."""
    grid = COARSE.refined(factor)
    estimate = truth + sigma * rng.standard_normal((len(elements), *grid.shape))
    half = np.full(estimate.shape, NORMAL_90 * sigma)
    return EnhancedMaps.from_arrays(
        grid,
        elements,
        estimate=estimate,
        sigma=half / NORMAL_90,
        lower=estimate - half,
        upper=estimate + half,
        baseline=truth + 3 * sigma * rng.standard_normal(estimate.shape),
        trusted=np.ones(estimate.shape, dtype=bool),
        factor=factor,
        **attributes,
    )


def measured(expected, grid, rng, elements=("Fe",), **attributes):
    counts = rng.poisson(np.broadcast_to(expected, (len(elements), *grid.shape)))
    return ElementalMaps.from_arrays(counts, grid, elements, **attributes)


@pytest.mark.parametrize(("mean", "sigma"), [(0.05, 0.01), (0.7, 0.1), (5, 1), (40, 4), (900, 20)])
def test_a_perfectly_calibrated_prediction_covers_90_percent_at_any_counts(mean, sigma):
    rng = np.random.default_rng(1)
    enhanced = predicted(mean, sigma, rng)
    agreement = compare(enhanced, measured(mean, enhanced.grid, rng))["Fe"]
    assert agreement.pixels == enhanced.grid.shape[0] * enhanced.grid.shape[1]
    assert agreement.coverage_90 == pytest.approx(0.90, abs=0.025)
    assert agreement.bias == pytest.approx(0, abs=0.15 if mean < 1 else 0.03)


def test_intervals_half_as_wide_as_they_should_be_are_found_out():
    rng = np.random.default_rng(2)
    enhanced = predicted(900.0, 60.0, rng)
    for name in ("lower", "upper"):
        centre = enhanced.estimate
        enhanced.dataset[name] = centre + (enhanced.dataset[name] - centre) / 2
    assert compare(enhanced, measured(900.0, enhanced.grid, rng))["Fe"].coverage_90 < 0.75


@pytest.mark.parametrize("by", ["attributes", "the coarse map"])
def test_dwell_and_beam_intensity_are_scaled_away(by):
    rng = np.random.default_rng(3)
    known = {"dwell_ms": 10.0, "i0_median": 1e6} if by == "attributes" else {}
    enhanced = predicted(400.0, 5.0, rng, **known)
    coarse = measured(400.0, COARSE, rng, i0=np.full(COARSE.shape, 1e6), dwell_ms=10.0)
    i0 = np.full(enhanced.grid.shape, 0.5e6)
    fine = measured(400.0 * 4 * 0.5, enhanced.grid, rng, i0=i0, dwell_ms=40.0)
    agreement = compare(enhanced, fine, None if known else coarse)["Fe"]
    assert agreement.scale == pytest.approx(0.5)
    assert agreement.bias == pytest.approx(0, abs=0.01)
    assert agreement.coverage_90 == pytest.approx(0.9, abs=0.03)
    assert agreement.chi2 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("step_um", [0.5, 1.0, 1.5, 4.0])
def test_a_fine_map_of_any_step_compares_on_the_coarser_pixels(step_um):
    rng = np.random.default_rng(4)
    x, y = COARSE.refined(2).fast.centers_um, COARSE.refined(2).slow.centers_um
    enhanced = predicted(300 + 2 * x + 3 * y[:, None], 0.01, rng)
    grid = ScanGrid.from_center(
        x_center_um=3.3, y_center_um=-2.1, width_um=24, height_um=20, step_um=step_um
    )
    fine = ElementalMaps.from_arrays(
        (300 + 2 * grid.fast.centers_um + 3 * grid.slow.centers_um[:, None])[None], grid, ["Fe"]
    )
    agreement = compare(enhanced, fine)["Fe"]
    assert agreement.pixels > 20
    assert agreement.psnr_enhanced_db > 50
    assert abs(agreement.bias) < 1e-4


def test_noise_of_binned_fine_pixels_is_the_noise_of_their_sum():
    rng = np.random.default_rng(5)
    enhanced = predicted(3.0, 0.2, rng)
    fine = measured(3.0, COARSE.refined(8), rng)
    agreement = compare(enhanced, fine)["Fe"]
    assert agreement.coverage_90 == pytest.approx(0.9, abs=0.025)
    assert agreement.chi2 == pytest.approx(1.0, abs=0.1)


def test_unmeasured_pixels_do_not_count():
    rng = np.random.default_rng(6)
    enhanced = predicted(50.0, 1.0, rng)
    fine = measured(50.0, enhanced.grid, rng)
    fine.dataset["counts"][:, :10] = np.nan
    agreement = compare(enhanced, fine)["Fe"]
    assert agreement.pixels == 38 * 48
    assert agreement.coverage_90 == pytest.approx(0.9, abs=0.03)


def test_an_element_that_only_one_side_has_is_left_out_and_none_in_common_is_an_error():
    rng = np.random.default_rng(7)
    enhanced = predicted(50.0, 1.0, rng, elements=("Fe", "Zn"))
    assert set(compare(enhanced, measured(50.0, enhanced.grid, rng))) == {"Fe"}
    with pytest.raises(AssemblyError, match="none in common"):
        compare(enhanced, measured(50.0, enhanced.grid, rng, elements=("Cu",)))


def test_maps_of_different_places_are_refused():
    rng = np.random.default_rng(8)
    enhanced = predicted(50.0, 1.0, rng)
    away = ScanGrid.from_center(
        x_center_um=500, y_center_um=0, width_um=10, height_um=10, step_um=1
    )
    with pytest.raises(AssemblyError, match="share no measured pixel"):
        compare(enhanced, measured(50.0, away, rng))


def test_overlap_of_equal_grids_is_the_identity():
    axis = COARSE.fast
    np.testing.assert_allclose(overlap_matrix(axis, axis), np.eye(axis.num), atol=1e-12)


def test_neighbours_that_are_right_or_wrong_together_count_less():
    rng = np.random.default_rng(9)
    alone = (rng.random((60, 60)) < 0.9).astype(float)
    assert effective_size(alone, 6) == pytest.approx(3600, rel=0.25)
    blocks = np.kron((rng.random((15, 15)) < 0.9).astype(float), np.ones((4, 4)))
    assert effective_size(blocks, 12) == pytest.approx(225, rel=0.5)
    assert effective_size(np.ones((60, 60)), 6) <= 900
    holes = np.where(rng.random((60, 60)) < 0.5, alone, np.nan)
    assert effective_size(holes, 6) <= np.isfinite(holes).sum()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_measured_detail_is_not_fooled_by_counting_noise(share):
    rng = np.random.default_rng(10)
    y, x = np.mgrid[:48, :48]
    smooth = 300 + 100 * np.sin(x / 12) * np.cos(y / 15)
    detail = 100 * np.sin(x * 1.1) * np.sin(y * 0.9)
    counts = rng.poisson(smooth + detail).astype(float)
    valid = np.ones(counts.shape, dtype=bool)
    found = detail_share(smooth + share * detail, counts, counts, valid, 2.0)
    assert found == pytest.approx(share, abs=0.1)
    flat = rng.poisson(smooth).astype(float)
    assert np.isnan(detail_share(smooth, flat, flat, valid, 2.0))
