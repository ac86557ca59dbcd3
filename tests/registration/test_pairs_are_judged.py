"""Pairs that nothing can be learnt from are recognised, and the reason is told."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.physics.forward import probe_blur
from xrf_sr_plans.physics.resample import block_mean, repeat
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.registration.simulated_pair import (
    Flown,
    SimulatedPair,
    fine_sample,
    simulated_pair,
)
from xrf_sr_plans.training.phantoms import VALIDATION_SEED, phantom

FLOWN = Flown(2, coarse_px=32, drift_px=1.0)


@cache
def made(family: str = "thin_section") -> SimulatedPair:
    maps = phantom(family, VALIDATION_SEED + 700_000, size=FLOWN.sample_px, n_elements=3)
    levels = np.array([1.0, 0.7, 0.5])[:, None, None]
    return simulated_pair(fine_sample(maps) * levels, FLOWN, np.random.default_rng(1))


def problem_of(coarse: np.ndarray, fine: np.ndarray) -> str:
    maps = [
        ElementalMaps.from_arrays(counts, one.grid, one.elements, **one.attrs)
        for counts, one in zip((coarse, fine), (made().coarse, made().fine), strict=True)
    ]
    return register(*maps).problem


def counts() -> tuple[np.ndarray, np.ndarray]:
    return made().coarse.counts.values.copy(), made().fine.counts.values.copy()


def clipped(maps: np.ndarray) -> np.ndarray:
    return np.minimum(maps, np.round(0.4 * maps.max(axis=(1, 2), keepdims=True)))


def shuffled(maps: np.ndarray) -> np.ndarray:
    return maps[:, np.random.default_rng(0).permutation(maps.shape[1])]


def without(maps: np.ndarray, share: float) -> np.ndarray:
    lost = np.random.default_rng(0).random(maps.shape[1:]) < share
    return np.where(lost, np.nan, maps)


def interpolated(maps: np.ndarray) -> np.ndarray:
    finer = ndimage.zoom(maps, (1, 2, 2), order=3, grid_mode=True, mode="nearest")
    return np.clip(finer, 0, None)


@pytest.mark.parametrize(
    ("poison", "word"),
    [
        (lambda c, f: (c, 0 * f), "the fine map has no photons"),
        (lambda c, f: (0 * c, f), "the coarse map has no photons"),
        (lambda c, f: (c, 0 * f + 7), "the same value everywhere"),
        (lambda c, f: (c, without(f, 0.6)), "of the fine map is measured"),
        (lambda c, f: (c, f * np.array([0, 1, 1])[:, None, None]), "E0 has 0 photons"),
        (lambda c, f: (c, f[[1, 0, 2]]), "elements are swapped"),
        (lambda c, f: (c, 1000 * f), "multiples of 1000"),
        (lambda c, f: (100 * c, 100 * f), "multiples of 100"),
        (lambda c, f: (c / 5, f), "photons"),
        (lambda c, f: (c, clipped(f)), "of the fine map is"),
        (lambda c, f: (clipped(c), f), "of the coarse map is"),
        (lambda c, f: (c, repeat(c, (2, 2))), "have equal pixels"),
        (lambda c, f: (c, interpolated(c)), "photons"),
        (lambda c, f: (block_mean(f, 2), f), "one was computed from the other"),
        (lambda c, f: (block_mean(f, 2).round(), f), "one was computed from the other"),
        (lambda c, f: (f[:, ::2, ::2], f), "one was computed from the other"),
        (lambda c, f: (c, f[:, :, ::-1]), "mirrored along x"),
        (lambda c, f: (c, f[:, ::-1]), "mirrored along y"),
        (lambda c, f: (c, f.swapaxes(1, 2)), "transposed"),
        (lambda c, f: (c, np.rot90(f, 1, (1, 2))), "turned by"),
        (lambda c, f: (c, shuffled(f)), "isn't what the fine one predicts"),
        (lambda c, f: (shuffled(c), f), "isn't what the fine one predicts"),
        (lambda c, f: (np.where(c > 0.6 * c.max(), 0, c), f), "should be the brightest"),
    ],
)
def test_a_poisoned_pair_is_recognised(poison, word):
    assert word in problem_of(*poison(*counts()))


def test_another_sample_and_another_probe_are_recognised():
    coarse, fine = counts()
    other = made("cathode").fine.counts.values
    assert problem_of(coarse, other)
    rng = np.random.default_rng(0)
    blurred = rng.poisson(probe_blur(coarse, 1.0, (5.0, 5.0))).astype(float)
    assert problem_of(blurred, fine)


@pytest.mark.parametrize("times", [1.1, 0.5])
def test_a_wrong_step_is_recognised(times):
    coarse, fine = counts()
    places = [(axis - 15.5) * times + 15.5 for axis in np.mgrid[:32, :32]]
    zoomed = [ndimage.map_coordinates(one, places, order=0, mode="nearest") for one in coarse]
    assert problem_of(np.array(zoomed), fine)


def test_a_pair_that_counts_another_rate_is_recognised():
    pair = made()
    fine = ElementalMaps.from_arrays(
        pair.fine.counts.values, pair.fine.grid, pair.fine.elements, dwell_ms=100.0
    )
    assert "times as many photons a second" in register(pair.coarse, fine).problem


@pytest.mark.parametrize("family", ["thin_section", "cathode", "tissue", "gratings", "texture"])
def test_good_pairs_are_not_refused(family):
    pair = made(family)
    found = register(pair.coarse, pair.fine)
    assert found.problem == ""
    assert found.correlation > 0.7


def test_too_few_pixels_say_so():
    pair = made()
    grid = ScanGrid.from_dict(pair.coarse.grid.to_dict())
    small = [
        ElementalMaps.from_arrays(
            one.counts.values[:, : 2 * times],
            ScanGrid(one.grid.fast, type(grid.slow)("y", 1.0, 2.0 / times, 2 * times)),
            one.elements,
        )
        for one, times in ((pair.coarse, 1), (pair.fine, 2))
    ]
    found = register(*small)
    assert "too small" in found.problem
    assert np.isnan(found.dx_um)
