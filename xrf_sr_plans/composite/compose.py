"""`compose`: the enhanced tiles and the fine maps of a survey as one map.

Photons are never averaged but added up. Every fine map shares its counts, and the exposures behind
them, out to the pixels of the composite map (`sharing`), and a value is all photons over all
exposure. So overlapping rescans have the weights of their exposures, which are the inverse
variances of Poisson counts at one rate, without the bias of variances taken from the counts
themselves. Where grids agree the counts are as measured.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.composite.composite_map import MOST_SOURCES, CompositeMap, FinePlacement
from xrf_sr_plans.composite.displacement import Displacement, displacement
from xrf_sr_plans.composite.sharing import Part, Shares, variance_of_moving
from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.mosaic import mosaic
from xrf_sr_plans.maps.usable import UsableCounts, usable_counts_of
from xrf_sr_plans.metrics.common_pixels import fine_count_scale
from xrf_sr_plans.sr.prepare import memory_bytes

SIGNIFICANT = 3.0
"""Number of standard deviations from which a displacement is corrected."""
LEAST_CORRECTION_PX = 0.05
"""Displacements below this part of a pixel of the composite map are left alone: to correct them
would only mix the counts of neighbors."""
BYTES = 140
"""Memory that the maps of all tiles take per pixel and element while they are put together."""
NOT_FINER = 0.99
"""A map whose step is at least this part of the survey's has nothing to add."""


@dataclass(frozen=True, eq=False)
class FineMap:
    """A fine map of a survey, with the uid of its run."""

    uid: str
    maps: ElementalMaps


def compose(
    tiles: Sequence[EnhancedMaps],
    fine_maps: Sequence[FineMap],
    *,
    displacements: MutableMapping[str, Displacement] | None = None,
    further_notes: Sequence[str] = (),
    **attributes: Any,
) -> CompositeMap:
    """Return one map of a survey: measured where it was rescanned, estimated elsewhere.

    Fine maps are shifted to where the prediction says that they are, where that is significant.

    Parameters
    ----------
    tiles
        The enhanced tiles, on one lattice. The attributes ``dwell_ms`` and ``i0_median`` say what
        their counts mean; tiles are brought to the beam intensity of the first one.
    fine_maps
        The fine maps, in the order in which they were flown.
    displacements
        Displacements by uid of the fine map that are known already, for the same tiles; those of
        the others are added. To find one takes longer than all the rest.
    further_notes
        What a reader must know of the survey besides, in words.
    **attributes
        Further attributes of the result, such as ``survey_uid``.

    Raises
    ------
    GridError
        There is no tile, the tiles don't belong together (see `maps.mosaic.mosaic`), there are
        more than `MOST_SOURCES` fine maps, or this machine's memory doesn't hold the whole.
    """
    if len(fine_maps) > MOST_SOURCES:
        raise GridError(f"{len(fine_maps)} fine maps in one composite map; at most {MOST_SOURCES}")
    _refuse_what_no_memory_holds(tiles)
    predicted = mosaic(_at_one_beam(tiles))
    photons = _Photons(predicted.grid, predicted.elements)
    known = {} if displacements is None else displacements
    placements = [
        _placed(predicted, fine, photons, number, known)
        for number, fine in enumerate(fine_maps, start=1)
    ]
    notes = [*further_notes, *(predicted.dataset.attrs.get("notes") or ())]
    notes += [f"fine map {one.fine_uid}: {one.note}" for one in placements if one.note]
    facts = {
        key: predicted.dataset.attrs.get(key)
        for key in ("model", "factor", "fallback", "dwell_ms", "i0_median")
    }
    facts |= {
        "sampling": predicted.sampling,
        "tile_uids": [str(tile.dataset.attrs.get("source_uid", "")) for tile in tiles],
        "rescan_uids": [fine.uid for fine in fine_maps],
        "placements": [one.to_dict() for one in placements],
        "notes": list(dict.fromkeys(notes)),
    }
    fields = photons.over(predicted)
    return CompositeMap.from_arrays(
        predicted.grid, predicted.elements, fields, **{**facts, **attributes}
    )


def _refuse_what_no_memory_holds(tiles: Sequence[EnhancedMaps]) -> None:
    memory = memory_bytes()
    needed = BYTES * sum(tile.estimate.size for tile in tiles)
    if memory is not None and needed > memory:
        raise GridError(
            f"a composite map of {len(tiles)} tiles needs {needed / 2**30:.1f} GiB; this machine"
            f" has {memory / 2**30:.1f} GiB"
        )


def _at_one_beam(tiles: Sequence[EnhancedMaps]) -> list[EnhancedMaps]:
    """Return the tiles at the beam intensity of the first one, as far as it is known."""
    wanted = tiles[0].dataset.attrs.get("i0_median") if tiles else None
    scaled = []
    for tile in tiles:
        own = tile.dataset.attrs.get("i0_median")
        ratio = float(wanted) / float(own) if wanted and own else 1.0
        if ratio != 1.0:
            names = ("estimate", "sigma", "lower", "upper", "baseline")
            planes = {name: tile.dataset[name] * ratio for name in names}
            tile = EnhancedMaps(tile.dataset.assign(planes), tile.grid)
        scaled.append(tile)
    return scaled


def _placed(
    predicted: EnhancedMaps,
    fine: FineMap,
    photons: _Photons,
    number: int,
    known: MutableMapping[str, Displacement],
) -> FinePlacement:
    """Find where a fine map lies, add its photons, and return what was done."""
    nan = float("nan")
    unknown = FinePlacement(fine.uid, nan, nan, nan, nan)
    if not set(predicted.elements) & set(fine.maps.elements):
        return replace(unknown, note="not used: it has none of the elements of the survey")
    if problem := _too_coarse(predicted, fine.maps.grid):
        return replace(unknown, note=f"not used: {problem}")
    usable = usable_counts_of(fine.maps)
    scale = fine_count_scale(predicted, fine.maps)
    if fine.uid not in known:
        known[fine.uid] = displacement(predicted, fine.maps, usable, scale)
    found = known[fine.uid]
    move = _Move() if found.problem else _Move.of(found, predicted.grid)
    pixels = photons.add(number, fine.maps, usable, scale, move)
    note = f"where it lies is not known better: {found.problem}" if found.problem else ""
    if move:
        note = f"moved by {move.dx_um:+.3f}, {move.dy_um:+.3f} um (x, y)"
    if not pixels:
        note = "; ".join(filter(None, ["it covers no pixel of the survey as a whole", note]))
    return FinePlacement(
        fine.uid,
        found.dx_um,
        found.dy_um,
        max(found.error_x_um, found.error_y_um),
        found.correlation,
        move.dx_um,
        move.dy_um,
        pixels,
        note,
    )


def _too_coarse(predicted: EnhancedMaps, grid: ScanGrid) -> str:
    for own, whole in ((grid.fast, predicted.grid.fast), (grid.slow, predicted.grid.slow)):
        coarse_um = whole.step_um * predicted.factor
        if own.step_um >= NOT_FINER * coarse_um:
            return f"its step of {own.step_um:g} um is not finer than the survey's {coarse_um:g} um"
    return ""


@dataclass(frozen=True)
class _Move:
    """How far a fine map is moved, with one standard deviation of it."""

    dx_um: float = 0.0
    dy_um: float = 0.0
    error_x_um: float = 0.0
    error_y_um: float = 0.0

    @classmethod
    def of(cls, found: Displacement, grid: ScanGrid) -> _Move:
        """Return the significant part of a displacement."""
        dx_um, error_x_um = _significant(found.dx_um, found.error_x_um, grid.fast)
        dy_um, error_y_um = _significant(found.dy_um, found.error_y_um, grid.slow)
        return cls(dx_um, dy_um, error_x_um, error_y_um)

    def __bool__(self) -> bool:
        return bool(self.dx_um or self.dy_um)

    def error_px(self, grid: ScanGrid) -> tuple[float, float]:
        """Return the errors (y, x) in pixels of a grid."""
        return self.error_y_um / grid.slow.step_um, self.error_x_um / grid.fast.step_um


def _significant(shift_um: float, error_um: float, axis: AxisGrid) -> tuple[float, float]:
    """Return what to add to the positions along one axis, and its error; 0 where not to move."""
    if not math.isfinite(shift_um) or not abs(shift_um) > SIGNIFICANT * error_um:
        return 0.0, 0.0
    is_large = abs(shift_um) > LEAST_CORRECTION_PX * axis.step_um
    return (shift_um, error_um) if is_large else (0.0, 0.0)


class _Photons:
    """Photons and exposures of all fine maps, on the pixels of the composite map.

    All arrays are (element, y, x). The exposure of a pixel is in units of that of a coarse pixel.
    """

    def __init__(self, grid: ScanGrid, elements: Sequence[str]) -> None:
        self._grid = grid
        self._elements = list(elements)
        shape = (len(elements), *grid.shape)
        self._photons = np.zeros(shape)
        self._variance = np.zeros(shape)
        self._exposure = np.zeros(shape)
        self._background = np.zeros(shape)
        # What one photon typically adds: 1, or less where photons are shared out.
        self._unit = np.zeros(shape)
        self._most = np.zeros(shape)
        self._source = np.zeros(shape, dtype=np.uint16)

    def add(
        self,
        number: int,
        maps: ElementalMaps,
        usable: UsableCounts,
        scale: np.ndarray,
        move: _Move,
    ) -> int:
        """Add a fine map, moved; return in how many pixels it has a part."""
        shares, by_area = (
            (
                Shares.of(maps.grid.slow, self._grid.slow, move.dy_um, sharp=sharp),
                Shares.of(maps.grid.fast, self._grid.fast, move.dx_um, sharp=sharp),
            )
            for sharp in (True, False)
        )
        if shares[0] is None or shares[1] is None or by_area[0] is None or by_area[1] is None:
            return 0
        rows, columns = shares[0], shares[1]
        touched = np.zeros(self._grid.shape, dtype=bool)
        lit = np.isfinite(scale) & (scale > 0)
        for index, name in enumerate(self._elements):
            if name not in maps.elements:
                continue
            own = maps.elements.index(name)
            counts = usable.counts[own]
            known = np.isfinite(counts) & lit
            here = (index, rows.place, columns.place)
            part = Part.of(counts, scale, known, rows, columns)
            self._photons[here] += part.photons
            self._variance[here] += part.variance
            if move:
                self._variance[here] += variance_of_moving(
                    counts,
                    scale,
                    known,
                    (rows, columns),
                    (by_area[0], by_area[1]),
                    move.error_px(self._grid),
                )
            self._exposure[here] += part.exposure
            self._background[here] += part.whole * part.shared * usable.background[own]
            self._unit[here] = np.maximum(self._unit[here], part.unit)
            more = part.exposure > self._most[here]
            self._most[here] = np.where(more, part.exposure, self._most[here])
            self._source[here] = np.where(more, number, self._source[here])
            touched[rows.place, columns.place] |= part.whole
        return int(touched.sum())

    def over(self, predicted: EnhancedMaps) -> dict[str, np.ndarray]:
        """Return the fields of a composite map: measured where there is exposure."""
        measured = self._exposure > 0
        exposure = np.where(measured, self._exposure, 1.0)
        value = (self._photons - self._background) / exposure
        # One photon more than was counted: no count at all is not known without error.
        sigma = np.sqrt(self._variance + self._unit**2) / exposure
        kind = predicted.estimate.dtype
        return {
            "value": np.where(measured, value, predicted.estimate.values).astype(kind),
            "sigma": np.where(measured, sigma, predicted.sigma.values).astype(kind),
            "measured": measured,
            "trusted": measured | predicted.trusted.values.astype(bool),
            "source": self._source,
        }
