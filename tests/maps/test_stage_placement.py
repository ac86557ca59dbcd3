"""Maps flown by a fine stage: encoders in its own coordinates, the map on the sample."""

from __future__ import annotations

import numpy as np
import pytest

from support.row_documents import (
    KEYS,
    descriptor_document,
    row_event,
    small_grid,
    start_document,
    truth,
)
from xrf_sr_plans.errors import AssemblyError, GridError
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.stage_placement import AxisPlacement, StagePlacement

GRID = small_grid(6, 8)
COUNTS = truth(GRID)
PLACEMENTS = [
    StagePlacement(AxisPlacement("px", fast, 11.3), AxisPlacement("py", slow, -2.6))
    for fast in (1, -1)
    for slow in (1, -1)
]


def flown(placement: StagePlacement, row: int, scale: float = 1.0, shift_um: float = 0.0) -> dict:
    """Event of a row as the fine stage would write it: its own positions, its own direction."""
    event = row_event(GRID, COUNTS, row)
    data = event["data"]
    data[KEYS["fast_um"]] = [
        scale * placement.fast.to_axis_um(um + shift_um) for um in data[KEYS["fast_um"]]
    ]
    data[KEYS["slow_um"]] = [scale * placement.slow.to_axis_um(um) for um in data[KEYS["slow_um"]]]
    data[KEYS["direction"]] *= placement.fast.sign
    return event


def built(placement: StagePlacement, events: list[dict]) -> MapBuilder:
    builder = MapBuilder(start_document(GRID, placement=placement.to_dict()))
    builder.descriptor(descriptor_document())
    for event in events:
        builder.event(event)
    return builder


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_map_comes_out_on_the_sample_whichever_way_the_axes_run(placement):
    builder = built(placement, [flown(placement, row) for row in range(6)])
    np.testing.assert_array_equal(builder.maps().counts, COUNTS)
    assert builder.complete
    assert builder.notes == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_without_encoders_the_direction_of_the_axis_decides(placement):
    events = [flown(placement, row) for row in range(6)]
    for event in events:
        event["data"][KEYS["fast_um"]] = [np.nan] * 8
    np.testing.assert_array_equal(built(placement, events).maps().counts, COUNTS)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_fine_encoders_that_read_mm_are_told_from_their_own_zero(placement):
    builder = built(placement, [flown(placement, row, scale=1e-3) for row in range(6)])
    np.testing.assert_array_equal(builder.maps().counts, COUNTS)
    assert "the fast encoder reads mm: taken as such" in builder.notes
    assert "the slow encoder reads mm: taken as such" in builder.notes


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_fine_encoder_that_contradicts_the_request_is_named_in_um_of_the_sample(placement):
    builder = built(placement, [flown(placement, row, shift_um=40.0) for row in range(6)])
    assert not (builder.coverage > 0).any()
    assert any("the fast encoder is +40 um from where" in note for note in builder.notes)


def test_a_row_in_another_rows_place_is_seen_on_the_fine_encoder():
    placement = PLACEMENTS[3]
    events = [flown(placement, row) for row in range(6)]
    events[2]["data"][KEYS["slow_um"]] = events[5]["data"][KEYS["slow_um"]]
    builder = built(placement, events)
    assert not (builder.coverage[2] > 0).any()
    assert any("another row's place" in note for note in builder.notes)


def test_placement_and_dictionary_are_inverse_and_nonsense_is_refused():
    placement = PLACEMENTS[1]
    assert StagePlacement.from_dict(placement.to_dict()) == placement
    assert placement.grid_of_axes(GRID).fast.name == "px"
    for sign, origin_um in ((0, 1.0), (1, np.nan)):
        with pytest.raises(GridError):
            AxisPlacement("px", sign, origin_um)
    with pytest.raises(GridError, match="not a StagePlacement"):
        StagePlacement.from_dict({"fast": {}})
    with pytest.raises(AssemblyError, match="no map in its start document"):
        MapBuilder(start_document(GRID, placement={"fast": 3}))
