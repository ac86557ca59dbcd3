"""The field of grains: real ones, apart from each other, and no two fields alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.grains import GRAIN_FROM, SMALLEST_PX, cut_out, grains
from xrf_sr_plans.devices.sim.sample import zagami
from xrf_sr_plans.errors import ConfigError


@pytest.mark.parametrize("element", GRAIN_FROM)
def test_a_grain_has_the_shape_and_all_elements_of_the_measured_map(element: str) -> None:
    whole = zagami()
    for grain in cut_out(element):
        assert grain.inside.sum() >= SMALLEST_PX
        assert (grain.rates_cps[:, ~grain.inside] == 0).all()
        brightest = grain.rates_cps[whole.elements.index(element)].max()
        here = np.argwhere(whole.rates_cps[whole.elements.index(element)] == brightest)
        spectrum = grain.rates_cps.reshape(len(whole.elements), -1)
        column = spectrum[:, spectrum[whole.elements.index(element)].argmax()]
        assert any((whole.rates_cps[:, y, x] == column).all() for y, x in here)


def test_the_grains_lie_apart_and_are_as_many_as_asked_for() -> None:
    sample = grains((200, 300), n_targets=6, n_others=5, seed=7)
    brightness = sample.rates_cps.sum(axis=0)
    # Grains that hang together over their gaps would be fewer.
    _, number = ndimage.label(ndimage.binary_dilation(brightness > 6000, iterations=2))
    assert number == 11


def test_a_seed_gives_one_field_and_another_seed_another() -> None:
    first, again, other = (grains((128, 128), 2, 2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rates_cps, again.rates_cps)
    assert not np.array_equal(first.rates_cps, other.rates_cps)


def test_a_field_that_has_no_place_for_its_grains_is_refused() -> None:
    with pytest.raises(ConfigError, match="find no free place in 64 x 64"):
        grains((64, 64), n_targets=50)


@pytest.mark.parametrize("wrong", [{"shape": (10, 400)}, {"n_targets": -1}, {"seed": -1}])
def test_a_number_that_can_not_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        grains(**wrong)  # type: ignore[arg-type]


def test_the_beamline_knows_the_field_by_name() -> None:
    assert make_beamline("grains").microscope.sample.name == "grains"
