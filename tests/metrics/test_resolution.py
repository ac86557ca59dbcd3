"""Edge widths and Fourier ring correlation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.metrics.resolution import (
    boundary_fwhm_um,
    find_edges,
    fourier_ring_correlation,
)
from xrf_sr_plans.physics.forward import FWHM_PER_SIGMA


def grains(sigma_px, seed=0, angle=0.3):
    """A slanted interface between two grains, blurred."""
    y, x = np.mgrid[:96, :96]
    upper = 10 + 90 * (np.cos(angle) * (x - 48) + np.sin(angle) * (y - 48) > 0)
    return ndimage.gaussian_filter(upper.astype(float), sigma_px)


@pytest.mark.parametrize("sigma_px", [1.0, 1.7, 2.5])
def test_the_width_of_a_known_edge_is_found(sigma_px):
    expected = FWHM_PER_SIGMA * sigma_px * 0.2
    assert boundary_fwhm_um(grains(sigma_px), 0.2) == pytest.approx(expected, rel=0.08)


def test_noise_does_not_change_the_width_much():
    sharp = grains(1.5)
    noisy = np.random.default_rng(1).poisson(sharp).astype(float)
    edges = find_edges(sharp)
    expected = FWHM_PER_SIGMA * 1.5
    assert boundary_fwhm_um(noisy, 1.0, edges) == pytest.approx(expected, rel=0.25)


def test_with_a_partner_only_interfaces_between_the_two_elements_count():
    y, x = np.mgrid[:96, :96]
    iron = ((x > 30) * 1.0).astype(float)
    zinc = ((x < 30) | (y > 60)).astype(float)
    edges = find_edges(ndimage.gaussian_filter(iron, 1), partner=ndimage.gaussian_filter(zinc, 1))
    assert edges
    assert all(abs(edge.x - 30) < 2 and edge.y < 62 for edge in edges)


def test_the_next_grain_does_not_widen_an_edge():
    _, x = np.mgrid[:96, :96]
    stripes = ndimage.gaussian_filter(100.0 * ((x // 12) % 2), 1.2)
    edges = find_edges(stripes)
    assert edges
    assert all(4 <= edge.before_px <= 8 and 4 <= edge.after_px <= 8 for edge in edges)
    assert boundary_fwhm_um(stripes, 1.0, edges) == pytest.approx(FWHM_PER_SIGMA * 1.2, rel=0.08)


def test_a_map_without_edges_has_no_width():
    assert np.isnan(boundary_fwhm_um(np.full((64, 64), 3.0), 1.0))
    noise = np.random.default_rng(0).normal(size=(64, 64))
    width = boundary_fwhm_um(noise, 1.0)
    assert np.isnan(width) or width < 5


def test_ring_correlation_of_noise_is_nil_and_of_a_blurred_scene_ends_at_the_blur():
    rng = np.random.default_rng(0)
    noise = fourier_ring_correlation(*rng.normal(size=(2, 128, 128)), 0.5)
    assert abs(noise.correlation[8:].mean()) < 0.05
    scene = ndimage.gaussian_filter(rng.normal(size=(128, 128)), 2.0)
    scene /= scene.std()
    halves = [scene + 0.3 * rng.normal(size=scene.shape) for _ in range(2)]
    rings = fourier_ring_correlation(*halves, 0.5)
    assert rings.correlation[2] > 0.9
    resolution = rings.resolution_um()
    assert 2 * 0.5 < resolution < 10
    sharper = fourier_ring_correlation(scene, scene, 0.5)
    assert sharper.resolution_um() == pytest.approx(1.0)


def test_ring_correlation_needs_equal_shapes():
    with pytest.raises(GridError, match="equal ones"):
        fourier_ring_correlation(np.zeros((16, 16)), np.zeros((16, 17)), 1.0)
