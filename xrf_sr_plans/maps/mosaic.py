"""`mosaic`: the enhanced tiles of a survey as one map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid, check_size

LATTICE_SLACK = 0.05
"""How far a tile may lie off the lattice of the first one, in fine pixels."""
_VALUES = ("estimate", "sigma", "lower", "upper", "baseline")


def mosaic(tiles: Sequence[EnhancedMaps]) -> EnhancedMaps:
    """Return the enhanced tiles of one survey as one map, on the lattice that they share.

    Where tiles overlap, each pixel has the value of the tile in which it lies farther from the
    edge, as a prediction is better where more of its surroundings was measured. Pixels that no
    tile has are NaN and not trusted. A single tile is returned as it is.

    Parameters
    ----------
    tiles
        Enhanced maps with the same elements, factor and steps, in the order of flight.

    Returns
    -------
    EnhancedMaps
        Its attributes are those of the first tile that the model enhanced, apart from ``notes``
        and ``data_notes``, which are those of all tiles; ``fallback``, which says why any tile is
        bicubic; ``complete``; and ``source_uids``, which lists the tiles' runs.

    Raises
    ------
    GridError
        There is no tile, the tiles differ in elements, factor, sampling, axes or steps or share
        no lattice,
        or the whole has more values than are held in memory.
    """
    if not tiles:
        raise GridError("a mosaic of no tiles: at least one enhanced map is needed")
    first = tiles[0]
    for number, tile in enumerate(tiles[1:], start=2):
        _refuse_another_kind(first, tile, number)
    if len(tiles) == 1:
        return first
    grid = _joined([tile.grid for tile in tiles])
    check_size(grid, len(first.elements))
    shape = (len(first.elements), *grid.shape)
    kind = np.result_type(*(tile.estimate.dtype for tile in tiles))
    fields = {name: np.full(shape, np.nan, dtype=kind) for name in _VALUES}
    fields["trusted"] = np.zeros(shape, dtype=bool)
    # How far from the edge of its tile each value lies, in pixels; 0: no tile has the pixel.
    depth = np.zeros(shape, dtype=np.int32)
    for tile in tiles:
        _lay(fields, depth, tile, _place(grid, tile.grid))
    return EnhancedMaps.from_arrays(grid, first.elements, **fields, **_attributes(tiles))


def _refuse_another_kind(first: EnhancedMaps, tile: EnhancedMaps, number: int) -> None:
    for what, one, other in (
        ("elements", first.elements, tile.elements),
        ("factor", first.factor, tile.factor),
        ("sampling", first.sampling, tile.sampling),
        ("axes", _names(first.grid), _names(tile.grid)),
    ):
        if one != other:
            raise GridError(f"tile {number} of the mosaic: {what} {other}; the first has {one}")
    for one, other in zip(_axes(first.grid), _axes(tile.grid), strict=True):
        if abs(one.step_um - other.step_um) > 1e-6 * one.step_um:
            raise GridError(
                f"tile {number} of the mosaic, axis {other.name!r}: step {other.step_um:g} um;"
                f" the first has {one.step_um:g} um"
            )
        offset = (other.start_um - one.start_um) / one.step_um
        if abs(offset - round(offset)) > LATTICE_SLACK:
            raise GridError(
                f"tile {number} of the mosaic, axis {other.name!r}: it begins {offset:.3f} pixels"
                " after the first one; a whole number is needed"
            )


def _axes(grid: ScanGrid) -> tuple[AxisGrid, AxisGrid]:
    return grid.slow, grid.fast


def _names(grid: ScanGrid) -> list[str]:
    return [axis.name for axis in _axes(grid)]


def _joined(grids: Sequence[ScanGrid]) -> ScanGrid:
    """Return the smallest grid on the lattice of the first one that holds all of them."""
    slow, fast = (
        reduce(_span, axes) for axes in zip(*(_axes(grid) for grid in grids), strict=True)
    )
    return replace(grids[0], slow=slow, fast=fast)


def _span(one: AxisGrid, other: AxisGrid) -> AxisGrid:
    before = max(0, round((one.start_um - other.start_um) / one.step_um))
    after = max(0, round((other.stop_um - one.stop_um) / one.step_um))
    start_um = other.start_um if before else one.start_um
    return replace(one, start_um=start_um, num=before + one.num + after)


def _place(whole: ScanGrid, part: ScanGrid) -> tuple[slice, slice]:
    """Return the rows and columns of `whole` that are those of `part`."""
    slices = []
    for outer, inner in zip(_axes(whole), _axes(part), strict=True):
        first = round((inner.start_um - outer.start_um) / outer.step_um)
        slices.append(slice(first, first + inner.num))
    return slices[0], slices[1]


def _lay(
    fields: dict[str, np.ndarray],
    depth: np.ndarray,
    tile: EnhancedMaps,
    place: tuple[slice, slice],
) -> None:
    """Take, in place, the values of a tile where no other tile has the pixel deeper inside."""
    rows, columns = (np.arange(num) for num in tile.grid.shape)
    from_edge = [np.minimum(index, index[::-1]) + 1 for index in (rows, columns)]
    inside = np.minimum(from_edge[0][:, None], from_edge[1])
    # Per element: where one is not known in the deeper tile, the other one has it.
    own_depth = np.where(np.isfinite(tile.estimate.values), inside, 0)
    here = (slice(None), *place)
    better = own_depth > depth[here]
    depth[here][better] = own_depth[better]
    for name, values in fields.items():
        values[here][better] = tile.dataset[name].values[better]


def _attributes(tiles: Sequence[EnhancedMaps]) -> dict[str, Any]:
    by_model = [tile for tile in tiles if not tile.fallback]
    attributes = dict((by_model or tiles)[0].dataset.attrs)
    # A forecast is about the regions of one tile.
    attributes.pop("forecast", None)
    for key in ("notes", "data_notes"):
        attributes[key] = _once_each(
            note for tile in tiles for note in tile.dataset.attrs.get(key) or ()
        )
    attributes["fallback"] = "; ".join(_once_each(filter(None, (tile.fallback for tile in tiles))))
    attributes["complete"] = all(tile.dataset.attrs.get("complete", True) for tile in tiles)
    attributes["source_uids"] = [str(tile.dataset.attrs.get("source_uid", "")) for tile in tiles]
    return attributes


def _once_each(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
