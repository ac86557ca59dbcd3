"""Patterns that may be aliases are found; what isn't periodic is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.metrics.standards import dots, grating
from xrf_sr_plans.sr.aliasing import LEAST_SIDE, regular
from xrf_sr_plans.training.phantoms import phantom
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

LIMIT = 0.4


def counted(sample, factor, counts=200.0):
    simulation = Simulation.plain(Measurement(factor, "fly", 0.3), counts, len(sample))
    return simulate(sample, simulation, np.random.default_rng(0)).counts


@pytest.mark.parametrize("period", [1.2, 1.5, 1.9])
@pytest.mark.parametrize("angle", [0.0, 0.6, np.pi / 2])
def test_gratings_finer_than_two_steps_are_found(period, angle):
    counts = counted(grating(48 * 4, period * 4, 0.8, angle)[None], 4)
    assert regular(counts, LIMIT).mean() > 0.95


@pytest.mark.parametrize("family", ["cells", "particles", "tissue", "cathode"])
def test_ordinary_samples_are_left_alone(family):
    sample = phantom(family, 1_700_000, size=128)
    assert regular(counted(sample, 2), LIMIT).mean() < 0.01


def test_noise_edges_and_scattered_dots_are_not_regular():
    rng = np.random.default_rng(0)
    plane = np.full((3, 64, 64), 5.0)
    plane[1, :, 30:] = 500.0
    plane[2] = 200 * dots(64, 2.0, 0.8, rng, n_elements=1).maps[0]
    assert not regular(rng.poisson(plane).astype(float), LIMIT).any()
    assert not regular(np.zeros((1, 64, 64)), LIMIT).any()


def test_only_the_part_with_the_pattern_is_marked():
    plane = np.full((1, 64, 160), 50.0)
    plane[0, :, 80:] *= 1 + 0.8 * np.sin(np.arange(80) * 2 * np.pi / 3)
    found = regular(np.random.default_rng(0).poisson(plane).astype(float), LIMIT)[0]
    assert found[:, 100:].all()
    assert not found[:, :64].any()


def test_maps_of_any_shape_are_taken():
    for shape in ((1, 1), (LEAST_SIDE - 1, 90), (LEAST_SIDE, 90), (33, 65), (100, 47)):
        found = regular(np.ones((2, *shape)), LIMIT)
        assert found.shape == (2, *shape)
        assert not found.any()
    stripes = np.tile(100 + 80 * np.sin(np.arange(90) * 2.1), (1, LEAST_SIDE, 1))
    assert regular(stripes, LIMIT).all()
