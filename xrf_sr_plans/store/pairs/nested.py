"""`nested`: two maps of one area, cut so that fine pixels nest in coarse ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files.model import symbol
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.row_sums import rows_for
from xrf_sr_plans.measurement import COARSER_FACTORS

STEPS_ALIKE = 0.02
"""Relative difference of steps that are meant to be the same."""


@dataclass(frozen=True)
class NestedMaps:
    """A coarse and a fine map of the same area, with the same elements."""

    factor: int
    """How many times larger the step of the coarse map is."""
    coarse: ElementalMaps
    fine: ElementalMaps


def nested(
    coarse: ElementalMaps, fine: ElementalMaps, names: Sequence[str], least_pixels: int = 1
) -> NestedMaps:
    """Return both maps, cut to the coarse pixels that the fine map covers as a whole.

    The pixels of the fine map are moved by less than half of one, so that they nest. A displacement
    that is measured afterwards knows nothing of that, nor needs to.

    Parameters
    ----------
    coarse
        Squares, or rows with the attributes ``sampling`` and ``step_um``.
    fine
        A map of square pixels.
    names
        What to call both in messages.
    least_pixels
        Fewest coarse pixels along each axis that are enough.

    Raises
    ------
    ConfigError
        The maps share no element or too small an area, or their steps don't differ by a factor
        that pairs have.
    """
    factor = _factor(coarse.grid.slow.step_um, fine.grid.slow.step_um, names)
    coarse = rows_for(coarse, factor)
    along_row = coarse.grid.fast.step_um / fine.grid.fast.step_um
    times = next((t for t in (1, factor) if abs(along_row / t - 1) <= STEPS_ALIKE), None)
    if times is None:
        raise ConfigError(
            f"{names[0]} and {names[1]}: pixels along a row are {coarse.grid.fast.step_um:g} um and"
            f" {fine.grid.fast.step_um:g} um long; the first should be as long as the second, or"
            f" {factor} times as long"
        )
    slow = _shared(coarse.grid.slow, fine.grid.slow, factor, names, least_pixels)
    fast = _shared(coarse.grid.fast, fine.grid.fast, times, names, least_pixels)
    chosen = _in_both(coarse, fine, names)
    return NestedMaps(
        factor,
        *(
            _cut(maps, slow[place], fast[place], chosen, place)
            for place, maps in enumerate((coarse, fine))
        ),
    )


def plain_names(elements: Sequence[str]) -> list[str]:
    """Return the chemical symbols of channels, as far as each is that of one channel only."""
    symbols = [symbol(name) or name for name in elements]
    return [
        plain if symbols.count(plain) == 1 else name
        for plain, name in zip(symbols, elements, strict=True)
    ]


@dataclass(frozen=True)
class _Part:
    """Part of the pixels along an axis."""

    cut: slice
    grid: AxisGrid


def _factor(coarse_um: float, fine_um: float, names: Sequence[str]) -> int:
    ratio = coarse_um / fine_um
    for factor in COARSER_FACTORS:
        if abs(ratio / factor - 1) <= STEPS_ALIKE:
            return factor
    raise ConfigError(
        f"{names[0]} and {names[1]}: steps of {coarse_um:g} um and {fine_um:g} um, which is"
        f" {ratio:.3g} times finer; pairs have {' or '.join(map(str, COARSER_FACTORS))}"
    )


def _in_both(
    coarse: ElementalMaps, fine: ElementalMaps, names: Sequence[str]
) -> list[tuple[str, int, int]]:
    """Return the elements of both maps, with their indices in either."""
    of_fine = {name: index for index, name in enumerate(plain_names(fine.elements))}
    found = {
        name: (index, of_fine[name])
        for index, name in enumerate(plain_names(coarse.elements))
        if name in of_fine
    }
    if not found:
        raise ConfigError(
            f"{names[0]} has {', '.join(coarse.elements)}, {names[1]} has"
            f" {', '.join(fine.elements)}: no element is in both"
        )
    return [(name, *indices) for name, indices in found.items()]


def _shared(
    coarse: AxisGrid, fine: AxisGrid, times: int, names: Sequence[str], least_pixels: int
) -> tuple[_Part, _Part]:
    """Return which pixels of both maps cover the same part of an axis."""
    # Fine pixel at the lower end of the first coarse pixel, as a fraction: whole where they nest.
    begin = round((coarse.low_um - fine.low_um) / (coarse.step_um / times))
    low = max(0, math.ceil(-begin / times))
    high = min(coarse.num, (fine.num - begin) // times)
    if high - low < max(least_pixels, 1):
        raise ConfigError(
            f"{names[0]} and {names[1]}: share {max(high - low, 0)} coarse pixels along"
            f" {coarse.name}; at least {max(least_pixels, 1)} are needed"
        )
    start_um = coarse.start_um + low * coarse.step_um
    grid = AxisGrid(coarse.name, start_um, coarse.step_um, high - low)
    begins = begin + low * times
    return (
        _Part(slice(low, high), grid),
        _Part(slice(begins, begins + (high - low) * times), grid.refined(times)),
    )


def _cut(
    maps: ElementalMaps,
    slow: _Part,
    fast: _Part,
    chosen: Sequence[tuple[str, int, int]],
    place: int,
) -> ElementalMaps:
    grid: ScanGrid = replace(maps.grid, slow=slow.grid, fast=fast.grid)
    shared = {
        name: maps.dataset[name].values[slow.cut, fast.cut]
        for name in ("i0", "live_time_s", "coverage")
    }
    indices = [indices[place] for _, *indices in chosen]
    counts = np.asarray(maps.counts.values)[indices][:, slow.cut, fast.cut]
    return ElementalMaps.from_arrays(
        counts, grid, [name for name, *_ in chosen], **shared, **maps.attrs
    )
