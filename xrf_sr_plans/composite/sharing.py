"""`Shares` and `Part`: how the counts of a fine map are shared out to other pixels.

Every count is given away exactly once, except for those at the edge of a map. Where a map is moved
by a part of a pixel, the shares are the cubic weights of R. Keys, IEEE Trans. ASSP 29 (1981) 1153,
DOI 10.1109/TASSP.1981.1163711: by the areas in common it would be blurred, by many times its
counting noise where it is bright. Those areas are the shares where steps differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.maps.grid import AxisGrid

WHOLE = 0.999
"""Share of a pixel that a fine map must have measured to have a part in it."""
SAME_STEP = 1e-3
"""Difference in pixels up to which steps, and places on a lattice, are the same."""
INTERPOLATION = 4.0
"""Variance of the error of interpolated counts, in units of the squared difference that cubic
weights make to areas. A map whose details are narrower than its pixels can't be moved exactly."""


@dataclass(frozen=True, eq=False)
class Shares:
    """How the pixels of a fine map share out to those of the composite map along one axis."""

    place: slice
    """The pixels of the composite map that it reaches."""
    shares: np.ndarray
    """Share of each fine pixel that lies in each of them [composite pixel, fine pixel]."""
    covers: np.ndarray
    """Share of each of them that each fine pixel covers [composite pixel, fine pixel]."""

    @classmethod
    def of(
        cls, fine: AxisGrid, whole: AxisGrid, shift_um: float, *, sharp: bool = True
    ) -> Shares | None:
        """Return the shares of an axis of a fine map; None where it reaches no pixel.

        Parameters
        ----------
        fine
            The axis of the fine map.
        whole
            That of the composite map.
        shift_um
            How far the fine map is moved.
        sharp
            Whether to use cubic weights where the map is moved by a part of a pixel.
        """
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
        if sharp and abs(fine.step_um / whole.step_um - 1) < SAME_STEP:
            places = (own[:-1] - whole.low_um) / whole.step_um - first
            if (np.abs(places - np.rint(places)) > SAME_STEP).any():
                _sharpen(shares, covers, places)
        return cls(slice(first, after), shares, covers)


def _sharpen(shares: np.ndarray, covers: np.ndarray, places: np.ndarray) -> None:
    """Replace, in place, shares by area by cubic ones that don't blur, wherever those are known.

    Parameters
    ----------
    shares, covers
        As in `Shares`.
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
class Part:
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
        rows: Shares,
        columns: Shares,
    ) -> Part:
        """Share out the counts of one element.

        Parameters
        ----------
        counts
            Counts of the fine map (y, x).
        scale
            Factors (y, x) that turn them into photons per measured pixel.
        known
            Where both are known (y, x).
        rows, columns
            The shares along both axes.
        """
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


def variance_of_moving(
    counts: np.ndarray,
    scale: np.ndarray,
    known: np.ndarray,
    sharp: tuple[Shares, Shares],
    by_area: tuple[Shares, Shares],
    error_px: tuple[float, float],
) -> np.ndarray:
    """Return the variance, in photons^2, that moving adds to the photons of a part (y, x).

    It has two reasons: how far the map is to be moved is not known exactly, which matters where the
    counts are steep, and counts between the pixels are not known, which matters where they are
    rough. Both are averaged over 3 x 3 pixels, as roughness is known no better.

    Parameters
    ----------
    counts, scale, known
        As for `Part.of`.
    sharp, by_area
        The shares (rows, columns) with cubic weights, and those by area.
    error_px
        One standard deviation of the shift (y, x), in pixels of the composite map.
    """
    part, blurred = Part.of(counts, scale, known, *sharp), Part.of(counts, scale, known, *by_area)
    safe = np.where(known, counts, 0.0)
    weights = [(own.shares, other.shares) for own, other in zip(sharp, by_area, strict=True)]
    # What counting noise alone makes of the difference between the two.
    noise = (
        part.variance
        - 2 * (weights[0][0] * weights[0][1]) @ safe @ (weights[1][0] * weights[1][1]).T
        + blurred.variance
    )
    both = part.whole & blurred.whole
    rough = _averaged(INTERPOLATION * ((part.photons - blurred.photons) ** 2 - noise), both)
    # The slope is that of the blurred photons, in which there is less noise.
    slopes = np.gradient(np.where(both, blurred.photons, np.nan)) if min(both.shape) > 1 else ()
    steep = sum(
        (np.nan_to_num(slope * error) ** 2 for slope, error in zip(slopes, error_px, strict=False)),
        np.zeros(both.shape),
    )
    return np.where(part.whole, np.clip(rough, 0, None) + _averaged(steep, both), 0.0)


def _averaged(plane: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the mean over the 3 x 3 pixels around each, of those in a mask."""
    number = ndimage.uniform_filter(where.astype(float), 3, mode="constant")
    total = ndimage.uniform_filter(np.where(where, plane, 0.0), 3, mode="constant")
    return total / np.maximum(number, 1e-9)
