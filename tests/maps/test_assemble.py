"""Documents in every shape a row can take: no pixel lost, doubled or misplaced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.row_documents import (
    ELEMENTS,
    KEYS,
    as_page,
    descriptor_document,
    row_event,
    small_grid,
    start_document,
    truth,
)
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.encoders import place_frames


def builder_for(grid, events, page=None):
    builder = MapBuilder(start_document(grid))
    builder.descriptor(descriptor_document())
    for event in events:
        if page is None:
            builder.event(event)
        else:
            builder.event_page(as_page([event], arrays=page == "arrays"))
    return builder


def all_rows(grid, counts, **changed):
    return [row_event(grid, counts, row, **changed) for row in range(grid.slow.num)]


@pytest.mark.parametrize("page", [None, "lists", "arrays"])
@pytest.mark.parametrize("snake", [True, False])
@pytest.mark.parametrize("shape", [(4, 5), (1, 7), (6, 1), (1, 1)])
def test_a_map_comes_out_as_it_was_flown(page, snake, shape):
    grid = small_grid(*shape, snake=snake)
    counts = truth(grid)
    builder = builder_for(grid, all_rows(grid, counts), page)
    maps = builder.maps()
    np.testing.assert_array_equal(maps.counts, counts)
    assert (maps.coverage.values == 1).all()
    assert builder.complete
    assert builder.rows_used == list(range(shape[0]))
    assert maps.elements == list(ELEMENTS)
    assert maps.attrs["source_uid"] == "source-run"


def test_without_encoders_order_and_direction_decide():
    grid = small_grid()
    counts = truth(grid)
    lost = [np.nan] * grid.fast.num
    builder = builder_for(grid, all_rows(grid, counts, fast_um=lost, slow_um=lost))
    np.testing.assert_array_equal(builder.maps().counts, counts)


def test_single_encoder_readings_that_are_missing_cost_no_pixel():
    grid = small_grid()
    counts = truth(grid)
    events = all_rows(grid, counts)
    for event in events:
        event["data"][KEYS["fast_um"]][2] = None
    np.testing.assert_array_equal(builder_for(grid, events).maps().counts, counts)


def test_a_short_row_leaves_its_end_unmeasured_and_not_zero():
    grid = small_grid(snake=False)
    counts = truth(grid)
    events = all_rows(grid, counts)
    events[1] = row_event(grid, counts, 1, frames=[0, 1, 2])
    builder = builder_for(grid, events)
    maps = builder.maps()
    assert np.isnan(maps.counts.values[:, 1, 3:]).all()
    assert maps.coverage.values[1].tolist() == [1, 1, 1, 0, 0]
    assert not builder.complete, "complete counts pixels, not rows"


def test_a_row_that_lost_its_first_triggers_is_placed_by_encoder():
    grid = small_grid(snake=False)
    counts = truth(grid)
    builder = builder_for(grid, [row_event(grid, counts, 0, frames=[2, 3, 4])])
    maps = builder.maps()
    np.testing.assert_array_equal(maps.counts.values[:, 0, 2:], counts[:, 0, 2:])
    assert maps.coverage.values[0].tolist() == [0, 0, 1, 1, 1]


def test_a_missing_row_makes_the_map_incomplete_whatever_the_exit_status():
    grid = small_grid()
    counts = truth(grid)
    builder = builder_for(grid, [row_event(grid, counts, row) for row in (0, 1, 3)])
    assert not builder.complete
    assert builder.rows_used == [0, 1, 3]
    assert np.isnan(builder.maps().counts.values[:, 2]).all()


def test_of_two_attempts_the_last_wins_as_a_whole_row():
    grid = small_grid(snake=False)
    counts = truth(grid)
    first = row_event(grid, counts + 1000, 0, attempt=0)
    second = row_event(grid, counts, 0, attempt=1, frames=[0, 1, 2])
    for order in ([first, second], [second, first]):
        maps = builder_for(grid, order).maps()
        np.testing.assert_array_equal(maps.counts.values[:, 0, :3], counts[:, 0, :3])
        assert np.isnan(maps.counts.values[:, 0, 3:]).all(), "attempts must not be mixed"


def test_two_frames_in_a_pixel_are_averaged_and_counted():
    grid = small_grid(snake=False)
    counts = truth(grid)
    event = row_event(grid, counts, 0, frames=[0, 1, 1, 2, 3, 4])
    event["data"][KEYS["counts"]][0][2] += 10
    maps = builder_for(grid, [event]).maps()
    assert maps.coverage.values[0].tolist() == [1, 2, 1, 1, 1]
    assert maps.counts.values[0, 0, 1] == counts[0, 0, 1] + 5
    assert maps.counts.values[1, 0, 1] == counts[1, 0, 1]


def test_a_row_shifted_by_a_pixel_is_put_back_by_its_encoder():
    grid = small_grid(snake=False)
    counts = truth(grid)
    shifted = (grid.fast.centers_um + grid.fast.step_um).tolist()
    maps = builder_for(grid, [row_event(grid, counts, 0, fast_um=shifted)]).maps()
    np.testing.assert_array_equal(maps.counts.values[:, 0, 1:], counts[:, 0, :-1])
    assert maps.coverage.values[0].tolist() == [0, 1, 1, 1, 1]


def test_half_a_pixel_of_backlash_with_encoder_noise_moves_nothing():
    grid = small_grid(2, 40)
    counts = truth(grid)
    noise = np.random.default_rng(1).normal(0, 0.1, 40)
    noise -= np.median(noise)
    events = all_rows(grid, counts)
    for event in events:
        place = np.asarray(event["data"][KEYS["fast_um"]]) + (0.5 + noise) * grid.fast.step_um
        event["data"][KEYS["fast_um"]] = place.tolist()
    np.testing.assert_array_equal(builder_for(grid, events).maps().counts, counts)


def test_a_wrong_direction_in_the_ledger_is_overruled_by_the_encoder():
    grid = small_grid(snake=False)
    counts = truth(grid)
    maps = builder_for(grid, [row_event(grid, counts, 0, direction=-1)]).maps()
    np.testing.assert_array_equal(maps.counts.values[:, 0], counts[:, 0])


def test_a_row_flown_in_another_rows_place_is_left_out():
    grid = small_grid(snake=False)
    counts = truth(grid)
    elsewhere = [grid.slow.centers_um[0]] * grid.fast.num
    builder = builder_for(grid, [row_event(grid, counts, 1, slow_um=elsewhere)])
    assert np.isnan(builder.maps().counts.values).all()
    assert builder.rows_used == []
    assert "another row" in builder.maps().attrs["notes"][0]


def test_pixels_without_beam_or_live_time_are_unmeasured_not_dark():
    grid = small_grid(snake=False)
    counts = truth(grid)
    event = row_event(grid, counts, 0)
    event["data"][KEYS["i0"]][1] = 0.0
    event["data"][KEYS["live_time"]][3] = 0.0
    maps = builder_for(grid, [event]).maps()
    assert maps.coverage.values[0].tolist() == [1, 0, 1, 0, 1]
    assert np.isnan(maps.counts.values[:, 0, [1, 3]]).all()


def test_a_row_without_any_beam_costs_that_row_and_no_other():
    grid = small_grid()
    counts = truth(grid)
    events = [
        row_event(grid, counts, row, **({"i0": [0.0] * grid.fast.num} if row == 1 else {}))
        for row in range(grid.slow.num)
    ]
    builder = builder_for(grid, events)
    maps = builder.maps()
    assert np.isnan(maps.counts.values[:, 1]).all()
    np.testing.assert_array_equal(maps.coverage.values[1], 0)
    for row in (0, 2, 3):
        np.testing.assert_array_equal(maps.counts.values[:, row], counts[:, row])


@pytest.mark.parametrize("reading", [0.0, None])
def test_a_monitor_that_never_counted_masks_nothing(reading):
    grid = small_grid()
    counts = truth(grid)
    builder = builder_for(grid, all_rows(grid, counts, i0=[reading] * grid.fast.num))
    np.testing.assert_array_equal(builder.maps().counts, counts)


def test_scalers_shorter_than_the_spectra_cost_no_counts():
    grid = small_grid()
    counts = truth(grid)
    builder = builder_for(grid, all_rows(grid, counts, i0=[1e5, 1e5], live_time=[]))
    np.testing.assert_array_equal(builder.maps().counts, counts)


def test_what_is_no_row_is_noted_and_costs_nothing_else():
    grid = small_grid()
    counts = truth(grid)
    broken = row_event(grid, counts, 0)
    broken["data"][KEYS["counts"]] = [[1.0], [1.0, 2.0], [3.0]]
    outside = row_event(grid, counts, 1)
    outside["data"][KEYS["row"]] = 17
    foreign = {**row_event(grid, counts, 1), "descriptor": "of another stream"}
    builder = builder_for(grid, [broken, outside, foreign, *all_rows(grid, counts)])
    np.testing.assert_array_equal(builder.maps().counts, counts)
    assert len(builder.problems) == 2


def test_a_start_document_without_a_map_is_refused_by_name():
    with pytest.raises(AssemblyError, match="run abc"):
        MapBuilder({"uid": "abc"})


@settings(max_examples=60)
@given(data=st.data())
def test_no_pixel_is_lost_doubled_or_misplaced(data):
    """Rows in any order, re-flown, repeated, cut at either end, in any form of document."""
    ny, nx = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 8))
    grid = small_grid(ny, nx, snake=data.draw(st.booleans()))
    counts = truth(grid)
    deliveries, last = [], {}
    for row in range(ny):
        for attempt in range(data.draw(st.integers(0, 3))):
            low = data.draw(st.integers(0, nx - 1))
            high = data.draw(st.integers(low + 1, nx))
            order = list(range(low, high))[:: grid.direction(row)]
            value = counts + 1e4 * attempt
            deliveries += [row_event(grid, value, row, attempt=attempt, frames=order)]
            last[row] = (value[:, row], low, high)
    deliveries += [delivery for delivery in deliveries if data.draw(st.booleans())]
    deliveries = data.draw(st.permutations(deliveries))
    builder = builder_for(grid, deliveries, data.draw(st.sampled_from([None, "lists", "arrays"])))
    expected = np.full(counts.shape, np.nan)
    for row, (value, low, high) in last.items():
        expected[:, row, low:high] = value[:, low:high]
    maps = builder.maps()
    np.testing.assert_array_equal(maps.counts, expected)
    np.testing.assert_array_equal(maps.coverage, np.isfinite(expected[0]))
    assert builder.complete == np.isfinite(expected).all()


@settings(max_examples=100)
@given(
    num=st.integers(1, 30),
    direction=st.sampled_from([1, -1]),
    shift=st.floats(-0.45, 0.45),
    seed=st.integers(0, 2**32 - 1),
    lost=st.floats(0, 1),
)
def test_encoder_noise_and_backlash_never_swap_or_merge_frames(num, direction, shift, seed, lost):
    axis = small_grid(1, num).fast
    rng = np.random.default_rng(seed)
    order = np.arange(num)[::direction]
    noise = rng.uniform(-0.04, 0.04, num)
    encoder = axis.centers_um[order] + (shift + noise) * axis.step_um
    encoder[rng.random(num) < lost] = np.nan
    np.testing.assert_array_equal(place_frames(encoder, axis, direction), order)
