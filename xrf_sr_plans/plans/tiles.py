"""Tiles: a survey cut into maps that the flyer can reach, on one pixel lattice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid

MOST_TILES = 1000
"""Largest number of tiles. More would take weeks, and already their design would take minutes."""


@dataclass(frozen=True)
class Tile:
    """One map of a survey, with row and column of its first pixel in the survey's grid."""

    grid: ScanGrid
    first_row: int
    first_column: int


def split_into_tiles(grid: ScanGrid, reach_um: tuple[float, float] | None) -> list[Tile]:
    """Cut a grid into tiles.

    Every pixel is in exactly one tile, all tiles share the grid's lattice, and their sizes differ
    by at most one pixel along each axis. They are ordered as a serpentine, so that each tile lies
    beside the one before.

    Parameters
    ----------
    grid
        The pixels of the whole survey.
    reach_um
        Largest width and height of a tile in um. None means that everything is one tile.

    Raises
    ------
    GridError
        If the reach is less than one pixel or is not finite, or if there were more than
        `MOST_TILES`.
    """
    if reach_um is None:
        return [Tile(grid, 0, 0)]
    number = math.prod(
        math.ceil(axis.num / _most(axis, reach))
        for axis, reach in ((grid.fast, reach_um[0]), (grid.slow, reach_um[1]))
    )
    if number > MOST_TILES:
        raise GridError(
            f"{number} tiles of at most {reach_um[0]:g} x {reach_um[1]:g} um would be needed;"
            f" a survey has at most {MOST_TILES}"
        )
    columns = _spans(grid.fast, reach_um[0])
    rows = _spans(grid.slow, reach_um[1])
    tiles = []
    for number, (row, height) in enumerate(rows):
        for column, width in reversed(columns) if number % 2 else columns:
            part = replace(
                grid, fast=_part(grid.fast, column, width), slow=_part(grid.slow, row, height)
            )
            tiles.append(Tile(part, row, column))
    return tiles


def _spans(axis: AxisGrid, reach_um: float) -> list[tuple[int, int]]:
    """Return first pixel and number of pixels of each tile along one axis."""
    count = math.ceil(axis.num / _most(axis, reach_um))
    edges = [axis.num * index // count for index in range(count + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _most(axis: AxisGrid, reach_um: float) -> int:
    """Return how many pixels a tile has at most along one axis."""
    if not (math.isfinite(reach_um) and reach_um > 0):
        raise GridError(f"axis {axis.name!r}: a tile of {reach_um} um; it must be above 0")
    most = math.floor(reach_um / axis.step_um + 1e-6)
    if most < 1:
        raise GridError(
            f"axis {axis.name!r}: a tile of {reach_um:g} um is smaller than the step"
            f" {axis.step_um:g} um"
        )
    return most


def _part(axis: AxisGrid, first: int, num: int) -> AxisGrid:
    return AxisGrid(axis.name, axis.start_um + first * axis.step_um, axis.step_um, num)
