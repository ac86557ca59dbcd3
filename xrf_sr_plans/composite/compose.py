"""`compose`: the enhanced tiles and the fine maps of a survey as one map.

Photons are never averaged but added up. Every fine map shares its counts, and the exposures behind
them, out to the pixels of the composite map, and a value is all photons over all exposure. So
overlapping rescans have the weights of their exposures, which are the inverse variances of Poisson
counts at one rate, without the bias of variances taken from the counts themselves. Where grids
agree the counts are as measured. Where a map is moved by a part of a pixel, it is shared out with
the cubic weights of R. Keys, IEEE Trans. ASSP 29 (1981) 1153, DOI 10.1109/TASSP.1981.1163711: by
the areas in common it would be blurred, by many times its counting noise where it is bright. Those
areas are the shares where steps differ. Either way each count is given away exactly once,
except for those at the edge of a map.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.composite.composite_map import MOST_SOURCES, CompositeMap, Placement
from xrf_sr_plans.composite.displacement import displacement
from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.mosaic import mosaic
from xrf_sr_plans.maps.usable import UsableCounts, usable_counts_of
from xrf_sr_plans.metrics.common_pixels import fine_count_scale

logger = logging.getLogger(__name__)

SIGNIFICANT = 3.0
"""Number of standard deviations from which a displacement is corrected."""
LEAST_CORRECTION_PX = 0.05
"""Displacements below this part of a pixel of the composite map are left alone: to correct them
would only mix the counts of neighbors."""
WHOLE = 0.999
"""Share of a pixel that a fine map must have measured to have a part in it."""
SAME_STEP = 1e-3
"""Difference in pixels up to which steps, and places on a lattice, are the same."""
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
    further_notes
        What a reader must know of the survey besides, in words.
    **attributes
        Further attributes of the result, such as ``survey_uid``.

    Raises
    ------
    GridError
        There is no tile, the tiles don't belong together (see `maps.mosaic.mosaic`), or there are
        more than `MOST_SOURCES` fine maps.
    """
    if len(fine_maps) > MOST_SOURCES:
        raise GridError(f"{len(fine_maps)} fine maps in one composite map; at most {MOST_SOURCES}")
    predicted = mosaic(_at_one_beam(tiles))
    photons = _Photons(predicted.grid, predicted.elements)
    placements = [
        _placed(predicted, fine, photons, number) for number, fine in enumerate(fine_maps, start=1)
    ]
    notes = [*further_notes, *(predicted.dataset.attrs.get("notes") or ())]
    notes += [f"fine map {one.fine_uid}: {one.note}" for one in placements if one.note]
    facts = {
        key: predicted.dataset.attrs.get(key)
        for key in ("model", "factor", "fallback", "dwell_ms", "i0_median")
    }
    facts |= {
        "tile_uids": [str(tile.dataset.attrs.get("source_uid", "")) for tile in tiles],
        "rescan_uids": [fine.uid for fine in fine_maps],
        "placements": [one.to_dict() for one in placements],
        "notes": list(dict.fromkeys(notes)),
    }
    fields = photons.over(predicted)
    return CompositeMap.from_arrays(
        predicted.grid, predicted.elements, fields, **{**facts, **attributes}
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


def _placed(predicted: EnhancedMaps, fine: FineMap, photons: _Photons, number: int) -> Placement:
    """Find where a fine map lies, add its photons, and return what was done."""
    nan = float("nan")
    unknown = Placement(fine.uid, nan, nan, nan, nan)
    if not set(predicted.elements) & set(fine.maps.elements):
        return replace(unknown, note="not used: it has none of the elements of the survey")
    if problem := _too_coarse(predicted, fine.maps.grid):
        return replace(unknown, note=f"not used: {problem}")
    usable = usable_counts_of(fine.maps)
    scale = fine_count_scale(predicted, fine.maps)
    found = displacement(predicted, fine.maps, usable, scale)
    corrected = [0.0, 0.0]
    if not found.problem:
        corrected = [
            _correction(found.dx_um, found.error_x_um, predicted.grid.fast),
            _correction(found.dy_um, found.error_y_um, predicted.grid.slow),
        ]
    pixels = photons.add(number, fine.maps, usable, scale, corrected[0], corrected[1])
    note = f"where it lies is not known better: {found.problem}" if found.problem else ""
    if any(corrected):
        note = f"moved by {corrected[0]:+.3f}, {corrected[1]:+.3f} um (x, y)"
    if not pixels:
        note = "; ".join(filter(None, ["it covers no pixel of the survey as a whole", note]))
    return Placement(
        fine.uid,
        found.dx_um,
        found.dy_um,
        max(found.error_x_um, found.error_y_um),
        found.correlation,
        corrected[0],
        corrected[1],
        pixels,
        note,
    )


def _too_coarse(predicted: EnhancedMaps, grid: ScanGrid) -> str:
    for own, whole in ((grid.fast, predicted.grid.fast), (grid.slow, predicted.grid.slow)):
        coarse_um = whole.step_um * predicted.factor
        if own.step_um >= NOT_FINER * coarse_um:
            return f"its step of {own.step_um:g} um is not finer than the survey's {coarse_um:g} um"
    return ""


def _correction(shift_um: float, error_um: float, axis: AxisGrid) -> float:
    """Return what to add to the positions along one axis; 0 where it is not significant."""
    if not math.isfinite(shift_um) or not abs(shift_um) > SIGNIFICANT * error_um:
        return 0.0
    return shift_um if abs(shift_um) > LEAST_CORRECTION_PX * axis.step_um else 0.0


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
        dx_um: float,
        dy_um: float,
    ) -> int:
        """Add a fine map, moved by (dx_um, dy_um); return in how many pixels it has a part."""
        rows = _Shares.of(maps.grid.slow, self._grid.slow, dy_um)
        columns = _Shares.of(maps.grid.fast, self._grid.fast, dx_um)
        if rows is None or columns is None:
            return 0
        touched = np.zeros(self._grid.shape, dtype=bool)
        lit = np.isfinite(scale) & (scale > 0)
        for index, name in enumerate(self._elements):
            if name not in maps.elements:
                continue
            own = maps.elements.index(name)
            counts = usable.counts[own]
            known = np.isfinite(counts) & lit
            here = (index, rows.place, columns.place)
            part = _Part.of(counts, scale, known, rows, columns)
            self._photons[here] += part.photons
            self._variance[here] += part.variance
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


@dataclass(frozen=True, eq=False)
class _Shares:
    """How the pixels of a fine map share out to those of the composite map along one axis."""

    place: slice
    """The pixels of the composite map that it reaches."""
    shares: np.ndarray
    """Share of each fine pixel that lies in each of them [composite pixel, fine pixel]."""
    covers: np.ndarray
    """Share of each of them that each fine pixel covers [composite pixel, fine pixel]."""

    @classmethod
    def of(cls, fine: AxisGrid, whole: AxisGrid, shift_um: float) -> _Shares | None:
        """Return the shares of a moved fine axis; None where it reaches no pixel."""
        low_um, high_um = fine.low_um + shift_um, fine.high_um + shift_um
        slack = 1e-6 * whole.step_um
        first = max(math.floor((low_um + slack - whole.low_um) / whole.step_um), 0)
        after = min(math.ceil((high_um - slack - whole.low_um) / whole.step_um), whole.num)
        if first >= after:
            return None
        edges = whole.low_um + whole.step_um * np.arange(first, after + 1)
        own = fine.edges_um + shift_um
        low = np.maximum(edges[:-1, None], own[None, :-1])
        high = np.minimum(edges[1:, None], own[None, 1:])
        common_um = np.clip(high - low, 0, None)
        # Rounding errors of positions leave slivers that are no real overlap.
        common_um[common_um < 1e-6 * min(whole.step_um, fine.step_um)] = 0.0
        shares = common_um / fine.step_um
        shares[shares > 1 - 1e-6] = 1.0
        covers = common_um / whole.step_um
        if abs(fine.step_um / whole.step_um - 1) < SAME_STEP:
            places = (own[:-1] - whole.low_um) / whole.step_um - first
            if (np.abs(places - np.rint(places)) > SAME_STEP).any():
                _sharpen(shares, covers, places)
        return cls(slice(first, after), shares, covers)


def _sharpen(shares: np.ndarray, covers: np.ndarray, places: np.ndarray) -> None:
    """Replace, in place, shares by area by cubic ones that don't blur, wherever those are known.

    Parameters
    ----------
    shares, covers
        As in `_Shares`.
    places
        Where each fine pixel begins, in pixels of the composite map; they lie 1 apart.
    """
    distance = np.abs(np.arange(len(shares))[:, None] - places[None, :])
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    cubic = np.where(distance <= 1, inner, np.where(distance < 2, outer, 0.0))
    # The outermost pixels have too few neighbors, and keep their shares by area.
    known = np.abs(cubic.sum(axis=1) - 1) < 1e-6
    shares[known] = cubic[known]
    weights = np.abs(cubic[known])
    covers[known] = weights / weights.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class _Part:
    """What one fine map gives of one element, 0 where it has not measured the whole pixel."""

    photons: np.ndarray
    variance: np.ndarray
    exposure: np.ndarray
    shared: np.ndarray
    """How many fine pixels' worth it is."""
    unit: np.ndarray
    whole: np.ndarray
    """Where the whole pixel was measured (bool)."""

    @classmethod
    def of(
        cls,
        counts: np.ndarray,
        scale: np.ndarray,
        known: np.ndarray,
        rows: _Shares,
        columns: _Shares,
    ) -> _Part:
        safe = np.where(known, counts, 0.0)
        exposure = np.where(known, 1.0 / np.where(known, scale, 1.0), 0.0)

        def shared(plane: np.ndarray, power: int = 1) -> np.ndarray:
            return rows.shares**power @ plane @ (columns.shares**power).T

        whole = rows.covers @ known.astype(float) @ columns.covers.T > WHOLE
        weight, squared = shared(known.astype(float)), shared(known.astype(float), 2)
        return cls(
            photons=np.where(whole, shared(safe), 0.0),
            variance=np.where(whole, shared(safe, 2), 0.0),
            exposure=np.where(whole, shared(exposure), 0.0),
            shared=weight,
            unit=np.where(whole, squared / np.maximum(weight, 1e-12), 0.0),
            whole=whole,
        )
