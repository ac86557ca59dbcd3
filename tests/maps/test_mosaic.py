"""The tiles of a survey as one map: every pixel where it was measured, from the better tile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.mosaic import mosaic
from xrf_sr_plans.plans.tiles import split_into_tiles

FIELDS = ("estimate", "sigma", "lower", "upper", "baseline", "trusted")
SURVEY = ScanGrid.from_center(
    x_center_um=3.3, y_center_um=-7.1, width_um=11, height_um=9, step_um=0.7
)


def enhanced(grid: ScanGrid, seed: int = 0, **attributes: Any) -> EnhancedMaps:
    """Return a map of two elements in which every pixel of every field differs."""
    rng = np.random.default_rng(seed)
    fields = {
        name: rng.uniform(1, 100, (2, *grid.shape)).astype(np.float32) for name in FIELDS[:-1]
    }
    model = {"name": "test", "sha256": "ab", "calibration": "c"}
    facts = {"factor": 2, "model": model, "source_uid": f"run {seed}", "fallback": ""}
    trusted = rng.uniform(size=(2, *grid.shape)) > 0.3
    return EnhancedMaps.from_arrays(
        grid, ["Fe", "Zn"], **fields, trusted=trusted, **{**facts, **attributes}
    )


def cut(whole: EnhancedMaps, rows: slice, columns: slice, **attributes: Any) -> EnhancedMaps:
    """Return a part of a map as a map."""
    axes = {}
    for key, part in (("slow", rows), ("fast", columns)):
        axis: AxisGrid = getattr(whole.grid, key)
        first, after, _ = part.indices(axis.num)
        start_um = float(axis.centers_um[first])
        axes[key] = AxisGrid(axis.name, start_um, axis.step_um, after - first)
    fields = {name: whole.dataset[name].values[:, rows, columns] for name in FIELDS}
    facts = {**whole.dataset.attrs, **attributes}
    return EnhancedMaps.from_arrays(replace(whole.grid, **axes), whole.elements, **fields, **facts)


def same(one: EnhancedMaps, other: EnhancedMaps) -> None:
    for axis in ("slow", "fast"):
        first, second = getattr(one.grid, axis), getattr(other.grid, axis)
        np.testing.assert_allclose(first.centers_um, second.centers_um)
    for name in FIELDS:
        values = one.dataset[name].values
        np.testing.assert_array_equal(values, other.dataset[name].values)
        assert values.dtype == other.dataset[name].values.dtype


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("reach_um", [(3.0, 4.0), (20.0, 2.0), (5.0, 30.0)])
def test_the_tiles_of_a_survey_are_the_survey_again(factor, reach_um) -> None:
    whole = enhanced(SURVEY.refined(factor), factor=factor)
    tiles = []
    for tile in split_into_tiles(SURVEY, reach_um):
        rows, columns = (
            slice(first * factor, (first + num) * factor)
            for first, num in (
                (tile.first_row, tile.grid.slow.num),
                (tile.first_column, tile.grid.fast.num),
            )
        )
        part = cut(whole, rows, columns)
        # What the analysis makes of the tile's own grid.
        tiles.append(EnhancedMaps(part.dataset, tile.grid.refined(factor)))
    assert len(tiles) > 1
    same(mosaic(tiles), whole)
    same(mosaic(tiles[::-1]), whole)


def test_a_single_tile_is_returned_as_it_is() -> None:
    tile = enhanced(SURVEY.refined(2))
    assert mosaic([tile]) is tile


def test_an_overlap_has_the_values_of_the_tile_in_which_it_lies_deeper() -> None:
    grid = SURVEY.refined(2)
    one = cut(enhanced(grid, 1), slice(None), slice(0, 20))
    other = cut(enhanced(grid, 2), slice(None), slice(12, None))
    joined = mosaic([one, other])
    # Columns 12 to 19 are in both; the middle row lies farther from the other edges than that.
    row = grid.slow.num // 2
    for name in FIELDS:
        values = joined.dataset[name].values
        np.testing.assert_array_equal(
            values[:, row, :16], enhanced(grid, 1).dataset[name].values[:, row, :16]
        )
        np.testing.assert_array_equal(
            values[:, row, 16:], enhanced(grid, 2).dataset[name].values[:, row, 16:]
        )


def test_a_pixel_that_the_deeper_tile_does_not_know_comes_from_the_other() -> None:
    grid = SURVEY.refined(2)
    one, other = enhanced(grid, 1), enhanced(grid, 2)
    one.estimate.values[0, 10, 10] = np.nan
    other_part = cut(other, slice(5, 16), slice(5, 16))
    joined = mosaic([one, other_part])
    assert joined.estimate.values[0, 10, 10] == other.estimate.values[0, 10, 10]
    assert joined.estimate.values[1, 10, 10] == one.estimate.values[1, 10, 10]


def test_what_no_tile_has_is_unknown_and_not_trusted() -> None:
    whole = enhanced(SURVEY.refined(2))
    corner, far = cut(whole, slice(0, 4), slice(0, 6)), cut(whole, slice(8, None), slice(10, None))
    joined = mosaic([corner, far])
    assert joined.grid.shape == whole.grid.shape
    known = np.zeros(whole.grid.shape, dtype=bool)
    known[0:4, 0:6] = known[8:, 10:] = True
    for name in FIELDS[:-1]:
        np.testing.assert_array_equal(
            np.isfinite(joined.dataset[name].values), np.broadcast_to(known, (2, *known.shape))
        )
    assert not joined.trusted.values[:, ~known].any()


def test_the_attributes_tell_of_all_tiles() -> None:
    whole = enhanced(SURVEY.refined(2))
    parts = slice(0, 10), slice(10, None)
    bicubic = {"name": "bicubic", "sha256": "", "calibration": ""}
    tiles = [
        cut(
            whole,
            slice(None),
            parts[0],
            model=bicubic,
            fallback="too late",
            notes=["a", "b"],
            complete=True,
            source_uid="one",
            forecast={"targets": 1.0},
        ),
        cut(
            whole,
            slice(None),
            parts[1],
            notes=["b", "c"],
            data_notes=["d"],
            complete=False,
            source_uid="two",
        ),
    ]
    attributes = mosaic(tiles).dataset.attrs
    assert attributes["model"]["name"] == "test"
    assert attributes["fallback"] == "too late"
    assert attributes["notes"] == ["a", "b", "c"]
    assert attributes["data_notes"] == ["d"]
    assert attributes["complete"] is False
    assert attributes["source_uids"] == ["one", "two"]
    assert "forecast" not in attributes


def test_tiles_that_do_not_belong_together_are_refused_by_name() -> None:
    grid = SURVEY.refined(2)
    tile = enhanced(grid)
    shifted = replace(grid, fast=replace(grid.fast, start_um=grid.fast.start_um + 0.1))
    coarser = replace(grid, slow=replace(grid.slow, step_um=0.5))
    others = {
        "axis 'x': it begins 0.286 pixels after": enhanced(shifted),
        "axis 'y': step 0.5 um; the first has 0.35 um": enhanced(coarser),
        "factor 4; the first has 2": enhanced(grid, factor=4),
        r"axes \['row', 'x'\]": enhanced(replace(grid, slow=replace(grid.slow, name="row"))),
        r"elements \['Fe', 'Cu'\]": EnhancedMaps(
            tile.dataset.assign_coords(element=["Fe", "Cu"]), grid
        ),
    }
    for message, other in others.items():
        with pytest.raises(GridError, match=message):
            mosaic([tile, other])
    with pytest.raises(GridError, match="no tiles"):
        mosaic([])


def test_tiles_that_lie_too_far_apart_are_refused_before_memory_is_taken() -> None:
    grid = SURVEY.refined(2)
    far_away = replace(
        grid, fast=replace(grid.fast, start_um=grid.fast.start_um + 1e9 * grid.fast.step_um)
    )
    with pytest.raises(GridError, match="held in memory"):
        mosaic([enhanced(grid), enhanced(far_away)])
