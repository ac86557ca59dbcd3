"""Where pixels are: counted, centred, refined and indexed without off-by-half errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid

axes = st.builds(
    AxisGrid,
    st.just("x"),
    st.floats(-1e5, 1e5),
    st.floats(1e-3, 1e3),
    st.integers(1, 300),
)


@pytest.mark.parametrize(
    ("width", "step", "num"),
    [(200, 2, 100), (200, 0.1, 2000), (1, 0.3, 4), (0.3, 0.1, 3), (0.05, 0.1, 1)],
)
def test_the_area_asked_for_is_covered_with_whole_pixels(width, step, num) -> None:
    grid = ScanGrid.from_center(
        x_center_um=5, y_center_um=-5, width_um=width, height_um=width, step_um=step
    )
    assert grid.shape == (num, num)
    assert grid.fast.high_um - grid.fast.low_um >= width - 1e-9
    assert math.isclose((grid.fast.low_um + grid.fast.high_um) / 2, 5)
    assert math.isclose((grid.slow.low_um + grid.slow.high_um) / 2, -5)


@given(axes, st.sampled_from([2, 3, 4]))
def test_refining_keeps_the_outer_edges_and_centres_blocks(axis: AxisGrid, factor: int) -> None:
    fine = axis.refined(factor)
    tolerance = 1e-9 * (1 + abs(axis.start_um) + axis.num * axis.step_um)
    assert abs(fine.low_um - axis.low_um) < tolerance
    assert abs(fine.high_um - axis.high_um) < tolerance
    blocks = fine.centers_um.reshape(-1, factor).mean(axis=1)
    np.testing.assert_allclose(blocks, axis.centers_um, atol=tolerance)


@given(axes)
def test_every_centre_lies_in_its_own_pixel(axis: AxisGrid) -> None:
    np.testing.assert_array_equal(axis.index_of(axis.centers_um), np.arange(axis.num))


def test_a_position_outside_is_not_clipped_and_nan_is_no_pixel() -> None:
    axis = AxisGrid("x", 0.0, 1.0, 4)
    assert axis.index_of([-0.6, 3.4, 3.6, np.nan]).tolist() == [-1, 3, 4, -1]


def test_start_and_stop_are_pixel_centres_in_either_order() -> None:
    grid = ScanGrid.from_start_stop(3, 0, 4, 0, 1, 3)
    assert grid.fast.centers_um.tolist() == [0, 1, 2, 3]
    assert grid.slow.centers_um.tolist() == [0, 0.5, 1]
    assert grid.extents_um == [[-0.25, 1.25], [-0.5, 3.5]]
    assert grid.end_centers_um == [[0, 1], [0, 3]]


@given(axes, axes, st.booleans())
def test_a_grid_survives_its_start_document(fast: AxisGrid, slow: AxisGrid, snake: bool) -> None:
    grid = ScanGrid(fast, AxisGrid("y", slow.start_um, slow.step_um, slow.num), snake, 0.5)
    assert ScanGrid.from_dict(grid.to_dict()) == grid


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width_um": math.nan}, "size is nan"),
        ({"height_um": -1}, "size is -1"),
        ({"step_um": 0}, "step is 0"),
        ({"x_center_um": math.inf}, "start_um is inf"),
        ({"run_up_um": -1}, "run_up_um is -1"),
        ({"slow": "x"}, "both 'x'"),
    ],
)
def test_a_grid_that_cannot_be_flown_is_refused_by_name_and_value(change, says) -> None:
    good = {"x_center_um": 0, "y_center_um": 0, "width_um": 4, "height_um": 4, "step_um": 1}
    with pytest.raises(GridError, match=says):
        ScanGrid.from_center(**{**good, **change})


def test_a_snake_turns_round_on_every_second_row() -> None:
    grid = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=2, height_um=3, step_um=1)
    assert [grid.direction(row) for row in range(3)] == [1, -1, 1]
