"""Phantoms and the pairs made of them."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import SAMPLINGS, Measurement
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.training.phantoms import ALL_FAMILIES, FAMILIES, phantom
from xrf_sr_plans.training.simulated_pairs import (
    FACTOR_TURNS,
    Samples,
    Simulation,
    draw_simulation,
    random_batch,
    simulate,
)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_phantom_is_the_same_for_the_same_seed_and_has_all_its_elements(family):
    first, again = (phantom(family, 5, size=64, n_elements=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (4, 64, 64)
    assert (first >= 0).all()
    np.testing.assert_allclose(np.quantile(first, 0.999, axis=(1, 2)), 1.0, rtol=1e-6)
    assert not np.array_equal(first, phantom(family, 6, size=64, n_elements=4))


def test_elements_are_correlated_in_some_phantoms_and_not_in_others():
    found = []
    for seed in range(6):
        maps = phantom("thin_section", seed, size=64, n_elements=4).reshape(4, -1)
        found += list(np.corrcoef(maps)[np.triu_indices(4, 1)])
    assert min(found) < 0
    assert max(found) > 0.6


def test_an_unknown_family_is_refused_with_the_list():
    with pytest.raises(ConfigError, match="thin_section"):
        phantom("unicorns", 0)


def noise_free(factor: int, n99=(np.inf, np.inf), **changes) -> Simulation:
    return Simulation(Measurement(factor, "area", **changes), n99)


@pytest.mark.parametrize("factor", [2, 4])
def test_without_noise_an_area_scan_is_the_block_mean(factor):
    sample = phantom("cells", 0, size=64, n_elements=2)
    pair = simulate(sample, noise_free(factor), np.random.default_rng(0))
    np.testing.assert_allclose(pair.counts, block_mean(sample, factor), atol=1e-9)
    np.testing.assert_allclose(pair.truth, sample)


def test_counts_have_the_level_asked_for_and_poisson_noise():
    sample = np.ones((2, 128, 128))
    how = noise_free(2, n99=(30.0, 3.0))
    pair = simulate(sample, how, np.random.default_rng(0))
    np.testing.assert_allclose(pair.counts.mean((1, 2)), [30, 3], rtol=0.02)
    np.testing.assert_allclose(pair.counts.var((1, 2)), [30, 3], rtol=0.1)
    assert pair.truth.mean() == pytest.approx(16.5)


def test_the_truth_is_blurred_only_where_the_same_probe_is_the_target():
    sample = phantom("gratings", 1, size=64, n_elements=2)
    sharp = simulate(sample, noise_free(2, probe_steps=1.0), np.random.default_rng(0))
    kept = noise_free(2, probe_steps=1.0, deblur=False)
    same = simulate(sample, kept, np.random.default_rng(0))
    np.testing.assert_allclose(sharp.truth, sample)
    assert same.truth.std() < sharp.truth.std()
    np.testing.assert_array_equal(same.counts, sharp.counts)


def test_drawn_measurements_are_in_the_ranges_met_in_practice():
    rng = np.random.default_rng(0)
    drawn = [draw_simulation(rng, 2, 3) for _ in range(300)]
    measured = [one.measurement for one in drawn]
    assert {how.sampling for how in measured} == set(SAMPLINGS)
    widths = [how.probe_steps for how in measured]
    assert 0 <= min(widths) <= max(widths) <= 1.2
    levels = [level for one in drawn for level in one.n99]
    assert 2 <= min(levels) < 5
    assert 1e4 < max(levels) <= 2e5
    assert all(how.kept_probe_steps in (0.0, how.probe_steps) for how in measured)
    assert {how.deblur for how in measured if how.probe_steps} == {True, False}


def test_a_batch_is_a_function_of_its_number():
    samples = Samples.make(6, 0, size=64, n_elements=6)
    known = {"maps_per_batch": 6, "coarse_px": 12}
    first, again, other = (random_batch(samples, 3, n, **known) for n in (8, 8, 13))
    np.testing.assert_array_equal(first.counts, again.counts)
    assert not np.array_equal(first.truth, other.truth)
    sides = [random_batch(samples, 3, n, **known).truth.shape[-1] for n in range(5)]
    assert sides == [12 * factor for factor in FACTOR_TURNS]


@pytest.mark.parametrize("reads", [((2, 1), (4, 1)), ((4, 4),), ((1, 1), (2, 2))])
def test_only_what_a_network_reads_is_drawn(reads):
    samples = Samples.make(6, 0, size=64, n_elements=6)
    found = [
        how.reading
        for number in range(20)
        for how in random_batch(
            samples, 3, number, maps_per_batch=2, coarse_px=8, reads=reads
        ).measurements
    ]
    assert set(found) == set(reads)


def test_a_share_of_the_crops_is_smooth_and_as_bright():
    plain = Samples.make(6, 0, size=64)
    smooth = Samples.make(6, 0, size=64, smooth_share=1.0)

    def detail(samples):
        crops = [samples.crop(np.random.default_rng(k), 48, 2) for k in range(12)]
        assert all(crop.shape == (2, 48, 48) and crop.min() >= 0 for crop in crops)
        return np.mean([np.abs(np.diff(crop, axis=2)).mean() / crop.mean() for crop in crops])

    assert detail(smooth) < 0.6 * detail(plain)
    brightest = [smooth.crop(np.random.default_rng(k), 48, 2).max(axis=(1, 2)) for k in range(6)]
    np.testing.assert_allclose(brightest, 1.0)


@pytest.mark.parametrize("family", sorted(set(ALL_FAMILIES) - set(FAMILIES)))
def test_kinds_for_training_only_are_samples_like_any_other(family):
    maps = phantom(family, 3, size=96, n_elements=4)
    assert maps.shape == (4, 96, 96)
    assert maps.min() >= 0
    assert np.isfinite(maps).all()
    np.testing.assert_allclose(np.quantile(maps, 0.999, axis=(1, 2)), 1)
    np.testing.assert_array_equal(maps, phantom(family, 3, size=96, n_elements=4))


def test_some_crops_have_elements_that_share_nothing():
    seeds = np.random.default_rng(0)
    # Each sample has one value per element, so that a crop tells where it comes from.
    samples = Samples([np.full((3, 20, 20), float(number)) for number in range(1, 40)])
    crops = [samples.crop(seeds, 8, 3) for _ in range(300)]
    shared = [len({float(plane[0, 0]) for plane in crop.round(6)}) == 1 for crop in crops]
    assert 0.05 < 1 - np.mean(shared) < 0.6
