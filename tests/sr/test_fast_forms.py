"""Fast forms of what judges a map give what the plain ones give."""

import numpy as np
import pytest
from scipy import fft, ndimage

from xrf_sr_plans.maps.defects.chance import is_empty, joint, may_be_empty
from xrf_sr_plans.maps.defects.hot_pixels import (
    FAR_ABOVE,
    LEAST_HOT,
    _far_above,
    highest_neighbours,
)
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import NORMAL_90, OFFSET, stabilise, unstabilise
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.aliasing import _medians, _power
from xrf_sr_plans.sr.evidence import MIDDLE, _half_way
from xrf_sr_plans.sr.intervals import (
    BRIGHTNESS_EDGES,
    N_GROUPS,
    Calibration,
    Restated,
    groups,
    intervals,
)
from xrf_sr_plans.sr.scale import Scale

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def scene(*shape: int, level: float = 40.0) -> np.ndarray:
    rng = np.random.default_rng(2)
    mean = level * (1 + np.sin(np.arange(shape[-1]) / 5)) * np.ones(shape)
    return rng.poisson(mean).astype(float)


@pytest.mark.parametrize("share", [0.001, 0.2])
def test_pixels_far_above_the_median_around_them_are_found_one_by_one_too(share):
    rng = np.random.default_rng(3)
    filled = rng.poisson(2.0, (60, 45)).astype(float)
    bright = rng.random(filled.shape) < share
    filled[bright] = rng.integers(50, 900, int(bright.sum()))
    filled[0, 0], filled[-1, 20], filled[30, 30] = 500.0, 500.0, -np.inf
    around = ndimage.median_filter(np.where(np.isinf(filled), 0.0, filled), 5)
    plain = filled >= np.maximum(LEAST_HOT, FAR_ABOVE * np.clip(around, 1.0, None))
    assert plain.any()
    np.testing.assert_array_equal(_far_above(filled), plain)


def test_the_highest_neighbour_is_that_of_a_ring():
    filled = scene(31, 27)
    filled[4, 5] = -np.inf
    plain = ndimage.maximum_filter(filled, footprint=RING, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(highest_neighbours(filled), plain)


def test_photons_of_all_elements_leave_gaps_only_where_no_element_is_known():
    counts = scene(3, 20, 30) - 20
    counts[0, 3, 4] = counts[:, 5, 6] = np.nan
    known = np.isfinite(counts).any(axis=0)
    plain = np.where(known, np.nansum(np.clip(counts, 0, None), axis=0), np.nan)
    np.testing.assert_array_equal(joint(counts), plain)


def test_no_empty_line_is_passed_over():
    expected = scene(30, 40)
    lines = expected.copy()
    lines[::3] = 0.0
    lines[3, :2] = 4.0, np.nan
    plain = [is_empty(line, beside) for line, beside in zip(lines, expected, strict=True)]
    assert any(plain)
    assert not all(plain)
    suspects = may_be_empty(lines, expected)
    assert not (np.array(plain) & ~suspects).any()
    assert not suspects.all()


@pytest.mark.parametrize("side", [(32, 32), (24, 27)])
def test_half_of_the_spectrum_stands_for_all_of_it(side):
    blocks = np.random.default_rng(4).standard_normal((2, 3, *side))
    plain = np.square(np.abs(fft.fft2(blocks, axes=(-2, -1)))).reshape(2, 3, -1)
    found = _power(blocks).reshape(2, 3, -1)
    np.testing.assert_allclose(np.sort(found), np.sort(plain), rtol=1e-9)
    np.testing.assert_allclose(_medians(found), np.median(plain, axis=-1), rtol=1e-9)


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("gap", [1, 2])
def test_half_way_between_pixels_the_map_continues_beyond_its_border(axis, gap):
    maps = stabilise(scene(2, 17, 23)).astype(np.float32)
    length = maps.shape[axis]
    left = maps.astype(float)
    for weight, shift in zip(MIDDLE, (-3, -1, 1, 3), strict=True):
        places = np.clip(np.arange(length) + shift * gap, 0, length - 1)
        left -= weight * np.take(maps, places, axis)
    noise = 1 + sum(weight**2 for weight in MIDDLE)
    plain = np.square(left).mean(axis=(-2, -1)) - noise
    np.testing.assert_allclose(_half_way(maps, axis, gap, 1, None), plain, rtol=1e-4)


def test_intervals_in_single_precision_are_the_formulas_in_double():
    counts = scene(2, 64, 64, level=300.0)
    scale = Scale.of(counts)
    rng = np.random.default_rng(5)
    lower, upper = (rng.uniform(1, 3, N_GROUPS) for _ in range(2))
    sides = {"lower": {"2": lower.tolist()}, "upper": {"2": upper.tolist()}}
    calibration = Calibration(model_sha256="", **sides)
    restate = Restated(np.array([0.3, -0.2]), np.array([1.4, 0.8]), 0.6)
    stabilised, sigma = stabilise(counts), rng.uniform(0.2, 2.0, counts.shape)
    level = np.exp(restate.level)[:, None, None]
    wide = level * (sigma / level) ** 0.6 * restate.stretch[:, None, None]
    relative = (stabilised - scale.low[:, None, None]) / scale.span[:, None, None]
    group = groups(stabilised, scale)
    np.testing.assert_array_equal(group % N_GROUPS[2], np.digitize(relative, BRIGHTNESS_EDGES))
    down, up = lower.ravel()[group] * wide, upper.ravel()[group] * wide
    spread = (down + up) / (2 * NORMAL_90)
    root = np.sqrt(unstabilise(stabilised) + OFFSET)
    ends = intervals(
        calibration,
        Measurement(2),
        stabilised.astype(np.float32),
        sigma.astype(np.float32),
        scale,
        restate,
    )
    assert ends.lower.dtype == ends.upper.dtype == ends.sigma.dtype == np.float32
    np.testing.assert_allclose(ends.upper, unstabilise(stabilised + up), rtol=1e-5)
    np.testing.assert_allclose(ends.sigma, np.sqrt((root * spread) ** 2 + spread**4 / 8), rtol=1e-5)
    visible = ends.lower > 0
    plain = unstabilise(stabilised - down)
    np.testing.assert_allclose(ends.lower[visible], plain[visible], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sampling", ["fly", "rows"])
def test_a_contradiction_is_returned_to_its_block_and_nowhere_else(sampling):
    how = Measurement(2, sampling)
    shape = (1, 40, 80) if sampling == "rows" else (1, 40, 40)
    counts = np.full(shape, 100.0)
    counts[0, 20, 30] = 400.0
    estimate = np.full((1, 80, 80), 100.0)
    double = consistency.project(counts, estimate, how)
    single = consistency.project(counts.astype(np.float32), estimate.astype(np.float32), how)
    np.testing.assert_allclose(single, double, rtol=1e-5)
    assert estimate.max() == 100.0, "the caller's estimate is left alone"
    rows, columns = how.refinement
    block = double[0, 20 * rows : 21 * rows, 30 * columns : 31 * columns]
    assert block.min() > 1.5 * np.median(double)


def test_stabilised_numbers_come_back_as_numbers():
    assert unstabilise(stabilise(np.float64(7.0))) == pytest.approx(7.0)
    assert unstabilise(np.asarray(-1.0)) == 0.0
