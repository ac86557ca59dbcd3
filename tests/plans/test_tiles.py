"""Tiles: every pixel once, all on one lattice, none larger than what the flyer reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.plans.tiles import split_into_tiles

steps = st.sampled_from([0.05, 0.1, 0.3, 1.0, 2.0, 1 / 3])
places = st.floats(-5e3, 5e3)


@settings(max_examples=60)
@given(
    columns=st.integers(1, 30),
    rows=st.integers(1, 30),
    step=steps,
    x=places,
    y=places,
    reach=st.tuples(st.floats(1.0, 40.0), st.floats(1.0, 40.0)),
)
def test_every_pixel_is_in_exactly_one_tile_and_stays_where_it_was(
    columns, rows, step, x, y, reach
):
    grid = ScanGrid(AxisGrid("x", x, step, columns), AxisGrid("y", y, step, rows))
    in_steps = reach[0] * step, reach[1] * step
    times = np.zeros(grid.shape, int)
    for tile in split_into_tiles(grid, in_steps):
        height, width = tile.grid.shape
        here = (
            slice(tile.first_row, tile.first_row + height),
            slice(tile.first_column, tile.first_column + width),
        )
        times[here] += 1
        np.testing.assert_allclose(
            tile.grid.fast.centers_um, grid.fast.centers_um[here[1]], atol=1e-9
        )
        np.testing.assert_allclose(
            tile.grid.slow.centers_um, grid.slow.centers_um[here[0]], atol=1e-9
        )
        assert width * step <= in_steps[0] * (1 + 1e-5)
        assert height * step <= in_steps[1] * (1 + 1e-5)
    assert (times == 1).all()


@given(num=st.integers(1, 300), reach=st.integers(1, 300))
def test_tiles_differ_by_one_pixel_at_most_and_there_are_no_more_than_needed(num, reach):
    grid = ScanGrid(AxisGrid("x", 0.0, 1.0, num), AxisGrid("y", 0.0, 1.0, 1))
    widths = [tile.grid.fast.num for tile in split_into_tiles(grid, (reach, 1.0))]
    assert max(widths) - min(widths) <= 1
    assert len(widths) == -(-num // reach)


def test_a_reach_that_is_a_whole_number_of_pixels_is_used_in_full():
    grid = ScanGrid(AxisGrid("x", 0.0, 0.1, 200), AxisGrid("y", 0.0, 0.1, 1))
    assert len(split_into_tiles(grid, (10.0, 0.1))) == 2


def test_tiles_follow_each_other_as_a_serpentine():
    grid = ScanGrid(AxisGrid("x", 0.0, 1.0, 6), AxisGrid("y", 0.0, 1.0, 4))
    order = [(tile.first_row, tile.first_column) for tile in split_into_tiles(grid, (2.0, 2.0))]
    assert order == [(0, 0), (0, 2), (0, 4), (2, 4), (2, 2), (2, 0)]


def test_without_a_reach_there_is_one_tile():
    grid = ScanGrid(AxisGrid("x", 0.0, 1.0, 6), AxisGrid("y", 0.0, 1.0, 4))
    (tile,) = split_into_tiles(grid, None)
    assert tile.grid == grid


@pytest.mark.parametrize("reach", [0.0, -1.0, float("nan"), 0.4])
def test_a_reach_below_one_pixel_is_refused(reach):
    grid = ScanGrid(AxisGrid("x", 0.0, 1.0, 6), AxisGrid("y", 0.0, 1.0, 4))
    with pytest.raises(GridError, match="'x'"):
        split_into_tiles(grid, (reach, 2.0))
