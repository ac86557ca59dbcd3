"""A channel that says nothing masks nothing, one that contradicts costs what it spoils; named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.row_documents import (
    KEYS,
    descriptor_document,
    row_event,
    small_grid,
    start_document,
    truth,
)
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.encoders import place_row, wild_readings
from xrf_sr_plans.maps.monitors import judge_i0

NY, NX = 8, 20
GRID = small_grid(NY, NX)
COUNTS = truth(GRID) + 3
RNG = np.random.default_rng(4)
Change = Callable[[int, list[float]], list[float]]


def flown(key: str, change: Change) -> MapBuilder:
    builder = MapBuilder(start_document(GRID))
    builder.descriptor(descriptor_document())
    for row in range(NY):
        event: dict[str, Any] = row_event(GRID, COUNTS, row)
        event["data"][KEYS[key]] = change(row, event["data"][KEYS[key]])
        builder.event(event)
    return builder


def measured(builder: MapBuilder) -> np.ndarray:
    return np.isfinite(builder.maps().counts.values).all(axis=0)


def noise(scale: float, level: float = 0.0) -> Change:
    rng = np.random.default_rng(1)
    return lambda row, values: (level + rng.normal(0, scale, len(values))).tolist()


SILENT: dict[str, tuple[str, Change]] = {
    "I0 not wired": ("i0", lambda row, values: [0.0] * NX),
    "I0 of the wrong sign": ("i0", lambda row, values: [-x for x in values]),
    "I0 that is noise around zero": ("i0", noise(3.0)),
    "I0 that is noise a little above zero": ("i0", noise(3.0, 5.0)),
    "I0 of dark counts": ("i0", lambda row, values: RNG.poisson(0.7, NX).astype(float).tolist()),
    "I0 that is NaN": ("i0", lambda row, values: [np.nan] * NX),
    "live time not wired": ("live_time", lambda row, values: [0.0] * NX),
    "live time below zero": ("live_time", lambda row, values: [-1.0] * NX),
    "fast encoder not wired": ("fast_um", lambda row, values: [np.nan] * NX),
    "slow encoder not wired": ("slow_um", lambda row, values: [np.nan] * NX),
    "fast encoder in mm": ("fast_um", lambda row, values: [x / 1e3 for x in values]),
    "fast encoder in nm": ("fast_um", lambda row, values: [x * 1e3 for x in values]),
    "slow encoder in mm": ("slow_um", lambda row, values: [x / 1e3 for x in values]),
    "I0 dead from mid-map on": ("i0", lambda row, values: values if row < 4 else [0.0] * NX),
    "I0 noise from mid-map on": (
        "i0",
        lambda row, values: values if row < 4 else RNG.normal(0, 5, NX).tolist(),
    ),
    "I0 NaN from mid-map on": ("i0", lambda row, values: values if row < 4 else [np.nan] * NX),
    "live time dead from mid-map on": (
        "live_time",
        lambda row, values: values if row < 4 else [0.0] * NX,
    ),
    "one wild I0": ("i0", lambda row, values: [1e12, *values[1:]] if row == 2 else values),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_channel_that_says_nothing_costs_no_pixel_and_is_named(name: str) -> None:
    key, change = SILENT[name]
    builder = flown(key, change)
    np.testing.assert_array_equal(builder.maps().counts, COUNTS)
    assert builder.complete
    named = {"i0": "I0", "live_time": "live time", "fast_um": "fast encoder"}
    assert named.get(key, "slow encoder") in "; ".join(builder.notes)


@pytest.mark.parametrize("name", [name for name in SILENT if "I0" in name])
def test_where_the_flux_monitor_says_nothing_nothing_is_normalized(name: str) -> None:
    relative = flown(*SILENT[name]).maps().beam().relative
    np.testing.assert_allclose(relative, 1.0, rtol=1e-6)


SPOILED: dict[str, tuple[str, Change, int]] = {
    "fast encoder stuck at 0": ("fast_um", lambda row, values: [0.0] * NX, 0),
    "fast stage that stands still": ("fast_um", lambda row, values: [values[7]] * NX, 0),
    "fast stage that trembles in one place": ("fast_um", noise(0.1, GRID.fast.centers_um[3]), 0),
    "fast encoder of another origin": ("fast_um", lambda row, values: [x + 500 for x in values], 0),
    "fast encoder half a map away": ("fast_um", lambda row, values: [x + 20 for x in values], 0),
    "fast encoder of no length": ("fast_um", lambda row, values: [x * 7.7 for x in values], 0),
    "fast encoder that is noise": ("fast_um", noise(10, GRID.fast.centers_um[10]), 0),
    "fast encoder dead from mid-map on": (
        "fast_um",
        lambda row, values: values if row < 4 else [values[0]] * NX,
        4 * NX,
    ),
    "slow encoder of another origin": ("slow_um", lambda row, values: [x + 70 for x in values], 0),
    "slow stage that stands still": (
        "slow_um",
        lambda row, values: [GRID.slow.centers_um[2]] * NX,
        NX,
    ),
    "slow stage that stands still from mid-map on": (
        "slow_um",
        lambda row, values: [min(x, GRID.slow.centers_um[3]) for x in values],
        4 * NX,
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_an_encoder_that_contradicts_the_request_is_named_and_places_nothing(name: str) -> None:
    key, change, right = SPOILED[name]
    builder = flown(key, change)
    mask = measured(builder)
    assert mask.sum() == right
    np.testing.assert_array_equal(builder.maps().counts.values[:, mask], COUNTS[:, mask])
    assert not builder.complete
    axis = "fast" if key == "fast_um" else "slow"
    assert f"{axis} encoder" in "; ".join(builder.notes)


@pytest.mark.parametrize("row", [2, 3])
@pytest.mark.parametrize("frame", [0, 1, 10, NX - 2, NX - 1])
@pytest.mark.parametrize("reading", [-1e9, 1e30, 4, 11.5, np.inf])
def test_one_wild_reading_costs_one_frame_at_most(row: int, frame: int, reading: float) -> None:
    place = reading if abs(reading) > 1e3 else GRID.fast.centers_um[int(reading)]
    wild = flown(
        "fast_um",
        lambda at, values: [place if at == row and i == frame else x for i, x in enumerate(values)],
    )
    mask = measured(wild)
    assert mask.sum() >= NY * NX - 1
    np.testing.assert_array_equal(wild.maps().counts.values[:, mask], COUNTS[:, mask])


def test_a_beam_dump_stays_unmeasured_and_a_dead_monitor_beside_it_does_not() -> None:
    counts = COUNTS.copy()
    counts[:, 2:4] = 0
    builder = MapBuilder(start_document(GRID))
    builder.descriptor(descriptor_document())
    for row in range(NY):
        dark = row in (2, 3) or row >= 6
        changed = {"i0": RNG.normal(0, 2, NX).tolist()} if dark else {}
        builder.event(row_event(GRID, counts, row, **changed))
    expected = np.ones((NY, NX), dtype=bool)
    expected[2:4] = False
    np.testing.assert_array_equal(measured(builder), expected)
    notes = "; ".join(builder.notes)
    assert "I0 is dead in" in notes
    assert "rows 6-7" in notes
    assert "rows 2-3" in notes


def test_a_beam_dump_over_most_of_the_map_is_no_silent_monitor() -> None:
    photons = np.where(np.arange(200) < 30, 400.0, 0.0)
    i0 = np.where(np.arange(200) < 30, 1e5, RNG.normal(0, 10, 200))
    judged = judge_i0(i0, photons)
    np.testing.assert_array_equal(judged.nothing, photons == 0)


def test_a_standstill_within_a_row_leaves_its_frames_out() -> None:
    builder = flown(
        "fast_um",
        lambda row, values: [*values[:10], *[values[9]] * 10] if row == 1 else values,
    )
    assert measured(builder).sum() == NY * NX - 10
    assert "stood still" in "; ".join(builder.notes)


def test_triggers_that_were_lost_are_no_wild_readings() -> None:
    for lost in ([5], [3, 4, 11], [0], [NX - 2], [1, 2, NX - 2]):
        frames = [pixel for pixel in range(NX) if pixel not in lost]
        places = place_row(GRID.fast.centers_um[frames], GRID.fast, 1)
        np.testing.assert_array_equal(places.x, frames)
        assert places.wild == 0


@settings(max_examples=200)
@given(
    num=st.integers(4, 40),
    per_pixel=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    seed=st.integers(0, 2**32 - 1),
    back=st.booleans(),
)
def test_a_stage_that_moves_one_way_has_no_wild_readings(
    num: int, per_pixel: float, seed: int, back: bool
) -> None:
    rng = np.random.default_rng(seed)
    position = np.cumsum(per_pixel * (1 + rng.uniform(-0.3, 0.3, num)))
    assert not wild_readings(-position if back else position).any()


def test_rows_that_were_never_flown_say_nothing_about_the_monitor() -> None:
    builder = MapBuilder(start_document(GRID))
    builder.descriptor(descriptor_document())
    for row in range(4):
        builder.event(row_event(GRID, COUNTS, row))
    beam = builder.maps().beam()
    assert beam.notes == ()
    np.testing.assert_array_equal(beam.relative, 1.0)
