"""Registration finds where each row of a coarse map lies, and says how well it knows it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.physics.forward import coarsen
from xrf_sr_plans.registration.checks import MOST_ROW_ERROR_PX
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.registration.row_shift import row_shift_px
from xrf_sr_plans.registration.simulated_pair import (
    Flown,
    SimulatedPair,
    fine_sample,
    simulated_pair,
)
from xrf_sr_plans.registration.template import Layout, Template, Warp
from xrf_sr_plans.training.phantoms import VALIDATION_SEED, phantom

SMALL = {"coarse_px": 32}
DRIFTING = {"drift_px": 2.0, "row_shift_px": 1.0}


@lru_cache(maxsize=8)
def made(flown: Flown, family: str = "thin_section", seed: int = 0) -> SimulatedPair:
    maps = phantom(family, VALIDATION_SEED + 700_000 + seed, size=flown.sample_px, n_elements=3)
    rng = np.random.default_rng([seed, flown.factor, flown.rows])
    return simulated_pair(fine_sample(maps), flown, rng)


def errors_of(pair: SimulatedPair, found: PairRegistration) -> np.ndarray:
    told = np.array(found.row_error_px) <= MOST_ROW_ERROR_PX
    return np.abs(pair.errors_px(found)[told])


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("rows", [False, True])
def test_drift_and_the_row_shifts_of_both_maps_are_found(factor, rows):
    pair = made(Flown(factor, rows, **SMALL, **DRIFTING))
    found = register(pair.coarse, pair.fine)
    assert found.problem == ""
    assert found.factor == factor
    errors = errors_of(pair, found)
    assert np.median(errors) < 0.1
    assert np.quantile(errors, 0.99) < 0.3
    assert found.coarse_row_shift_um == pytest.approx(pair.coarse_row_shift_px, abs=0.1)
    assert found.fine_row_shift_um == pytest.approx(pair.fine_row_shift_px, abs=0.1)
    assert found.scale_x == pytest.approx(1, abs=0.002)


def test_without_drift_and_with_few_photons_none_is_invented():
    pair = made(Flown(4, peak=30.0, **SMALL))
    found = register(pair.coarse, pair.fine)
    rows = found.row_displacements_um(32)
    assert np.ptp(rows, axis=0).max() < 0.3
    assert abs(found.coarse_row_shift_um) < 0.15
    assert np.abs(pair.errors_px(found)).max() < 0.3


def test_the_error_that_is_told_is_the_one_that_is_made():
    ratios = []
    for family in ("thin_section", "cathode", "tissue"):
        pair = made(Flown(2, **SMALL, **DRIFTING), family)
        found = register(pair.coarse, pair.fine)
        ratios.append(np.abs(pair.errors_px(found)).max(axis=1) / np.array(found.row_error_px))
    assert 0.4 < np.sqrt(np.mean(np.square(ratios))) < 2


def test_fewer_photons_make_a_larger_error():
    errors = [
        register(pair.coarse, pair.fine).error_px
        for pair in (made(Flown(2, peak=peak, **SMALL)) for peak in (1000.0, 30.0))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_shift_by_many_pixels_is_found():
    pair = made(Flown(2, **SMALL))
    # Both maps see the same area of a stage that moved: the edges of the fine map see other things.
    moved = np.roll(pair.fine.counts.values, (10, -14), axis=(1, 2))
    fine = ElementalMaps.from_arrays(moved, pair.fine.grid, pair.fine.elements, **pair.fine.attrs)
    found = register(pair.coarse, fine)
    expected = pair.displacement_px.mean(axis=0) + np.array([14, -10])
    np.testing.assert_allclose([found.dx_um, found.dy_um], expected, atol=0.2)


def test_fiducials_say_where_to_look():
    pair = made(Flown(2, **SMALL))
    far = np.roll(pair.fine.counts.values, 24, axis=2)
    fine = ElementalMaps.from_arrays(far, pair.fine.grid, pair.fine.elements, **pair.fine.attrs)
    shift = pair.displacement_px.mean(axis=0)
    marks = [(50.0, y, 26.0 + shift[0], y + shift[1]) for y in (20.0, 40.0)]
    found = register(pair.coarse, fine, fiducials=marks)
    assert found.dx_um == pytest.approx(shift[0] - 24, abs=0.5)
    wrong = [(x, y, x + 20.0, y) for x, y, *_ in marks]
    assert register(pair.coarse, fine, fiducials=wrong).problem


def test_an_empty_field_is_told_to_be_unknown():
    pair = made(Flown(2, **SMALL))
    rng = np.random.default_rng(0)
    maps = [
        ElementalMaps.from_arrays(
            rng.poisson(5.0, one.counts.shape).astype(float), one.grid, one.elements, **one.attrs
        )
        for one in (pair.coarse, pair.fine)
    ]
    found = register(*maps)
    assert "rows are placed" in found.problem
    assert found.error_px > 0.3


def test_unmeasured_rows_of_either_map_are_left_out():
    pair = made(Flown(2, **SMALL, **DRIFTING))
    maps = []
    for one, rows in ((pair.coarse, slice(4, 8)), (pair.fine, slice(40, 48))):
        counts = one.counts.values.copy()
        counts[:, rows] = np.nan
        maps.append(ElementalMaps.from_arrays(counts, one.grid, one.elements, **one.attrs))
    found = register(*maps)
    assert found.problem == ""
    assert np.quantile(errors_of(pair, found), 0.99) < 0.35


@pytest.mark.parametrize(
    ("sampling", "ratio"), [("fly", (4, 4)), ("rows", (4, 1)), ("area", (2, 2))]
)
def test_a_template_that_is_not_displaced_is_what_the_forward_model_measures(sampling, ratio):
    y, x = np.mgrid[:48, :64]
    fine = 5 + np.sin(y / 5)[None] * np.cos(x / 7)
    layout = Layout((48 // ratio[0], 64 // ratio[1]), ratio, sampling)
    told = Template.of(fine, layout).values(Warp(np.zeros((layout.shape[0], 2))))
    expected = coarsen(fine, ratio[0], sampling)
    np.testing.assert_allclose(told[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=2e-3)


def test_the_row_shift_of_a_map_is_found_in_itself():
    pair = made(Flown(2, **SMALL, **DRIFTING))
    shift = row_shift_px(pair.fine.counts.values)
    assert shift == pytest.approx(pair.fine_row_shift_px, abs=0.1)
    straight = made(Flown(2, **SMALL))
    assert abs(row_shift_px(straight.fine.counts.values)) < 0.03


def test_maps_that_do_not_nest_are_refused():
    pair = made(Flown(2, **SMALL))
    with pytest.raises(GridError, match="nest"):
        register(pair.fine, pair.coarse)


def test_a_registration_survives_being_written_and_read():
    pair = made(Flown(2, **SMALL, **DRIFTING))
    found = register(pair.coarse, pair.fine)
    assert PairRegistration.from_dict(found.to_dict()) == found
    assert PairRegistration.from_dict(replace(found, row_error_px=()).to_dict()).row_error_px == ()
