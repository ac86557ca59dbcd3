"""Invented, lost and leaked features are counted right."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import SAMPLINGS, Measurement
from xrf_sr_plans.metrics.hallucination import (
    FeatureRates,
    Rate,
    detect,
    detect_lines,
    feature_rates,
    match,
)
from xrf_sr_plans.metrics.standards import (
    dots,
    empty_field,
    grating,
    indistinguishable_pair,
    lines,
    siemens_star,
)
from xrf_sr_plans.physics.operators import measure_again
from xrf_sr_plans.sr.classical import upscale


def test_wilson_intervals_are_the_textbook_ones():
    assert Rate(10, 100).interval == pytest.approx((0.0552, 0.1744), abs=5e-4)
    assert Rate(0, 100).interval[0] == 0
    assert Rate(0, 100).interval[1] == pytest.approx(0.0370, abs=5e-4)
    assert Rate(5, 5).interval[1] == 1
    assert Rate(0, 0).interval == (0, 1)


@pytest.mark.parametrize("radius_px", [1.0, 2.0, 3.5])
def test_the_truth_has_neither_invented_nor_lost_features(radius_px):
    sample = dots(128, radius_px, 1.0, np.random.default_rng(0))
    assert len(sample.features) > 10
    rates = feature_rates(sample.maps, sample.features, radius_px=radius_px, contrast=1.0)
    assert rates.false.hits == rates.lost.hits == rates.leaked.hits == 0
    assert rates.lost.total == len(sample.features)


def test_detection_gives_a_dots_own_height_and_place():
    sample = dots(64, 2.5, 30.0, np.random.default_rng(1), n_elements=1)
    found = detect(sample.maps[0], 2.5, 15.0)
    assert len(found) == len(sample.features)
    np.testing.assert_allclose(found[:, 2], 30, rtol=0.15)


def test_detection_places_dots_between_the_pixels():
    sample = dots(128, 2.5, 30.0, np.random.default_rng(1), n_elements=1)
    found = detect(sample.maps[0], 2.5, 15.0)[:, :2]
    true = np.array([(f.y, f.x) for f in sample.features])
    gaps = np.hypot(*(found[:, None] - true[None]).transpose(2, 0, 1)).min(axis=1)
    rounded = np.hypot(*(np.rint(found)[:, None] - true[None]).transpose(2, 0, 1)).min(axis=1)
    assert gaps.max() < 0.3 < rounded.max()


def test_invented_and_erased_dots_are_counted():
    sample = dots(128, 2.0, 1.0, np.random.default_rng(2), n_elements=1)
    gone = sample.features[0]
    other = dots(128, 2.0, 1.0, np.random.default_rng(2), n_elements=1).maps
    y, x = (slice(int(c) - 6, int(c) + 7) for c in (gone.y, gone.x))
    other[0][y, x] = 0.2
    other[0][5:8, 5:8] += 1.0
    trusted = np.ones(other.shape, dtype=bool)
    trusted[0, :12, :12] = False
    rates = feature_rates(other, sample.features, radius_px=2.0, contrast=1.0, trusted=trusted)
    assert rates.lost == Rate(1, len(sample.features))
    assert rates.false == Rate(1, len(sample.features))
    assert rates.flagged == Rate(1, 1)


def test_a_dot_in_the_wrong_place_is_false_and_lost_but_not_invented():
    sample = dots(128, 2.0, 1.0, np.random.default_rng(2), n_elements=1)
    moved = np.roll(sample.maps, 3, axis=2)
    rates = feature_rates(moved, sample.features, radius_px=2.0, contrast=1.0)
    number = len(sample.features)
    assert rates.false == rates.lost == rates.misplaced == Rate(number, number)
    doubt = np.zeros(moved.shape, dtype=bool)
    rates = feature_rates(moved, sample.features, radius_px=2.0, contrast=1.0, trusted=doubt)
    assert rates.misplaced == Rate(0, 0)


def test_a_dot_that_shows_in_an_element_without_it_has_leaked():
    sample = dots(96, 2.0, 1.0, np.random.default_rng(3), only_element=0)
    leaky = sample.maps.copy()
    leaky[1] = 0.2 + 0.7 * (sample.maps[0] - 0.2)
    clean = feature_rates(sample.maps, sample.features, radius_px=2.0, contrast=1.0)
    assert clean.leaked == Rate(0, len(sample.features))
    rates = feature_rates(leaky, sample.features, radius_px=2.0, contrast=1.0)
    assert rates.leaked.value == 1
    assert rates.false.hits == len(sample.features)


def test_smooth_counting_noise_of_an_empty_field_invents_little_and_is_all_false():
    sample = empty_field(128)
    noisy = np.random.default_rng(0).poisson(20 * sample.maps + 30.0).astype(float)
    rates = feature_rates(noisy, sample.features, radius_px=2.0, contrast=40.0)
    assert rates.false.hits == 0
    lower = feature_rates(noisy, sample.features, radius_px=1.0, contrast=10.0)
    assert lower.false.value == 1
    assert lower.false_per_area.value < 1


def test_pairs_that_the_coarse_step_cannot_resolve_are_lost_by_bicubic():
    rng = np.random.default_rng(5)
    sample = dots(192, 2.0, 100.0, rng, n_elements=1, gap_px=2.0)
    measurement = Measurement(4, "area", noisy=False)
    estimate = upscale(measure_again(sample.maps, measurement), measurement, "bicubic")
    rates = feature_rates(estimate, sample.features, radius_px=2.0, contrast=100.0)
    assert rates.lost.value > 0.3


def test_matching_is_one_to_one():
    true = np.array([[10.0, 10.0], [10.0, 13.0]])
    found = np.array([[10.0, 11.5, 1.0]])
    assert len(match(found, true, 2.0)) == 1
    assert match(found, true, 1.0) == []
    assert match(np.zeros((0, 3)), true, 1.0) == []


def test_rates_add_up():
    one = FeatureRates(false=Rate(1, 10), lost=Rate(2, 5))
    total = one + one
    assert total.false == Rate(2, 20)
    assert total.lost.value == pytest.approx(0.4)
    assert np.isnan(FeatureRates().false.value)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_indistinguishable_pair_differs_and_measures_the_same(sampling):
    measurement = Measurement(4, sampling, probe_steps=0.3)
    base = 5 + siemens_star(64, 1.0)
    one, two = indistinguishable_pair(base, measurement, 0.3, np.random.default_rng(0))
    assert np.std(one - two) == pytest.approx(0.6, rel=0.01)
    first, second = (measure_again(sample, measurement) for sample in (one, two))
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_gratings_have_the_period_asked_for():
    spectrum = np.abs(np.fft.rfft(grating(128, 8.0, 1.0)[0] - 0.7))
    assert np.argmax(spectrum) == 16


def test_a_field_too_small_for_a_dot_is_refused():
    with pytest.raises(ConfigError, match="field of 16 px"):
        dots(16, 5.0, 1.0, np.random.default_rng(0))


@pytest.mark.parametrize("radius_px", [0.5, 1.0, 3.0])
def test_lines_are_found_with_their_own_height_and_none_beside_them(radius_px):
    sample = lines(128, radius_px, 20.0, 0.8, np.random.default_rng(1))
    one = sample.features[0]
    shape = (one.length_px, one.angle)
    rates = feature_rates(
        sample.maps, sample.features, radius_px=radius_px, contrast=0.8, line=shape
    )
    assert rates.lost == Rate(0, len(sample.features))
    assert rates.false.hits == rates.leaked.hits == 0
    heights = detect_lines(sample.maps[0], radius_px, *shape, 0.4)[:, 2]
    np.testing.assert_allclose(heights, 0.8, rtol=0.3 if radius_px < 1 else 0.12)
    across = feature_rates(
        sample.maps,
        sample.features,
        radius_px=radius_px,
        contrast=0.8,
        line=(one.length_px, one.angle + np.pi / 2),
    )
    assert across.lost.value > 0.9


def test_lines_in_noise_are_lost_and_invented():
    sample = lines(128, 1.0, 16.0, 0.3, np.random.default_rng(2), n_elements=1)
    one = sample.features[0]
    noisy = np.random.default_rng(0).poisson(4 * sample.maps) / 4.0
    rates = feature_rates(
        noisy,
        sample.features,
        radius_px=1.0,
        contrast=0.3,
        line=(one.length_px, one.angle),
    )
    assert rates.false.hits > 0
    with pytest.raises(ConfigError, match="field of 16 px"):
        lines(16, 2.0, 16.0, 0.3, np.random.default_rng(0))
