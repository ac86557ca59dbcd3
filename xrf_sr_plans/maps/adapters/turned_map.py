"""How the pixels of a map average, and maps that were scanned column by column."""

from __future__ import annotations

import re

import numpy as np

from xrf_sr_plans.maps.adapters.adapted_map import FlownRow
from xrf_sr_plans.maps.adapters.scan_lines import PlacedMap, SaidScan
from xrf_sr_plans.maps.encoders import place_row
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import Factor, Sampling

_ROWS: tuple[Factor, ...] = (2, 4)
_ROWS_TOLERANCE = 0.01


def sampling_of(said: SaidScan, grid: ScanGrid) -> tuple[Sampling, Factor]:
    """Return how a pixel was measured, and the pixels per distance of two rows."""
    if not said.is_flown:
        return "point", 1
    for pixels in _ROWS:
        if _is_rows(grid, pixels):
            return "rows", pixels
    return "fly", 1


def _is_rows(grid: ScanGrid, pixels: int) -> bool:
    if grid.slow.num < 2 or grid.fast.num < 2:
        return False
    return abs(pixels * grid.fast.step_um / grid.slow.step_um - 1) < _ROWS_TOLERANCE


def is_upright(said: SaidScan) -> bool:
    """Return whether the fast axis is the sample's y and the slow one its x, by their names."""
    fast, slow = (_letter(axis.name) for axis in (said.fast, said.slow))
    return (fast, slow) in (("y", "x"), ("y", "z"))


def _letter(name: str) -> str:
    """Return the last letter of a motor's name that stands for an axis: "x" of nano_stage_sx."""
    word = re.sub(r"(?:[_.-]?(?:user_?)?(?:readback|setpoint|val|rbv))+$", "", name.lower())
    word = re.sub(r"[^a-z]+$", "", word)
    return word[-1:] if word[-1:] in "xyz" else ""


def turned(
    said: SaidScan, grid: ScanGrid, rows: dict[int, FlownRow], notes: list[str]
) -> PlacedMap:
    """Return a map that was scanned column by column, so that its x is the sample's x.

    A fly scan averages along y then, which no sampling of ours says: it counts as the average over
    the area of a pixel. Rows of finer pixels stay as they were flown.
    """
    sampling, fast_pixels = sampling_of(said, grid)
    if sampling == "rows":
        note = f"{grid.fast.name} is the fast axis: x of this map is {grid.fast.name}"
        return PlacedMap(grid, rows, sampling, fast_pixels, (*notes, note))
    columns = grid.shape[0]
    n_elements = max((len(row.counts) for row in rows.values()), default=0)
    across = ScanGrid(fast=grid.slow, slow=grid.fast)
    columns_of = (
        {y: FlownRow.empty(n_elements, columns, 1) for y in range(grid.fast.num)} if rows else {}
    )
    for x, row in rows.items():
        index = place_row(row.fast_um, grid.fast, row.direction).x
        for frame in np.flatnonzero((index >= 0) & (index < grid.fast.num)).tolist():
            to = columns_of[int(index[frame])]
            to.counts[:, x] = row.counts[:, frame]
            to.i0[x], to.live_time[x] = row.i0[frame], row.live_time[frame]
            to.fast_um[x], to.slow_um[x] = row.slow_um[frame], row.fast_um[frame]
            to.time = max(to.time, row.time)
    if sampling == "fly":
        notes = [*notes, f"flown along {grid.fast.name}: pixels count as averages over their area"]
    return PlacedMap(across, columns_of, "area" if sampling == "fly" else sampling, 1, tuple(notes))
