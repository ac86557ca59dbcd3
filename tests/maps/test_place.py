"""Frames of files go where their positions say, whatever way rows and axes run."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.place import placed

# No symmetry: mirrored, turned or shifted maps are noticed.
TRUTH = np.arange(12 * 17.0).reshape(12, 17) ** 1.5
X = 1000 + 2.0 * np.arange(17)
Y = -40 + 3.0 * np.arange(12)
PLANES = np.meshgrid(X, Y)


def assert_placed(place, values, truth=TRUTH):
    np.testing.assert_allclose(place.move(values), truth, equal_nan=True)
    np.testing.assert_allclose(place.x_um, X, atol=0.02)
    np.testing.assert_allclose(place.y_um, Y, atol=0.03)


@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("as_planes", [False, True])
def test_axes_that_descend_do_not_mirror_the_map(flip_x, flip_y, as_planes):
    x, y = X[:: -1 if flip_x else 1], Y[:: -1 if flip_y else 1]
    values = TRUTH[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    if as_planes:
        x, y = np.meshgrid(x, y)
    assert_placed(placed(x, y, TRUTH.shape, "a file"), values)


def test_rows_that_run_to_and_fro_as_they_were_flown():
    x, values = PLANES[0].copy(), TRUTH.copy()
    x[1::2], values[1::2] = x[1::2, ::-1], values[1::2, ::-1]
    assert_placed(placed(x, PLANES[1], TRUTH.shape, "a file"), values)


def test_a_map_whose_fast_axis_is_y_is_turned():
    place = placed(PLANES[0].T, PLANES[1].T, TRUTH.T.shape, "a file")
    assert_placed(place, TRUTH.T)
    assert "the fast axis is y: turned" in place.notes


def test_a_lost_row_leaves_a_hole_and_moves_no_other():
    kept = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    truth = TRUTH.copy()
    truth[3:5] = np.nan
    place = placed(PLANES[0][kept], PLANES[1][kept], (10, 17), "a file")
    assert_placed(place, TRUTH[kept], truth)
    assert (place.frames()[3:5] == 0).all()


def test_rows_that_were_never_flown_have_zeros_for_positions():
    x, y = (plane.copy() for plane in PLANES)
    x[-4:], y[-4:] = 0, 0
    place = placed(x, y, TRUTH.shape, "a file")
    assert_placed(place, TRUTH)
    assert place.unplaced[-4:].all()
    assert not place.unplaced[:-4].any()


def test_encoders_that_jitter_make_no_holes():
    rng = np.random.default_rng(0)
    x = PLANES[0] + rng.normal(0, 0.4, TRUTH.shape)
    y = PLANES[1] + rng.normal(0, 0.3, TRUTH.shape)
    np.testing.assert_allclose(placed(x, y, TRUTH.shape, "a file").move(TRUTH), TRUTH)


def test_one_wild_position_moves_nothing():
    wild = X.copy()
    wild[7] = 1e6
    assert_placed(placed(wild, Y, TRUTH.shape, "a file"), TRUTH)


def test_a_row_that_lies_elsewhere_is_put_there():
    x = PLANES[0].copy()
    x[4] += 4
    place = placed(x, PLANES[1], TRUTH.shape, "a file")
    moved = place.move(TRUTH)
    assert moved.shape == (12, 19)
    np.testing.assert_allclose(moved[4, 2:], TRUTH[4])
    assert "1 of 12 lines lie elsewhere along the axis" in place.notes


def test_an_axis_may_be_longer_than_a_map_whose_last_columns_were_cut_off():
    longer = 1000 + 2.0 * np.arange(19)
    assert_placed(placed(longer, Y, TRUTH.shape, "a file"), TRUTH)
    with pytest.raises(FileFormatError, match=r"a file: x positions have the shape \(9,\)"):
        placed(X[:9], Y, TRUTH.shape, "a file")


def test_positions_that_are_no_grid_are_refused():
    with pytest.raises(FileFormatError, match="a file: x positions are not evenly spaced"):
        placed(np.cumsum(np.arange(17.0) ** 2), Y, TRUTH.shape, "a file")
