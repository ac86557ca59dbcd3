"""`usable_counts`: what of a map can be taken for photons; whatever uses counts asks here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.defects import find_defects
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.net_counts import gross_counts

LARGEST_COUNT = 1e12
"""Largest value that is a count. Real files hold 1.8e308 where a fit failed."""


@dataclass(frozen=True, eq=False)
class UsableCounts:
    """The counts of a map without its defects, on top of the background that was subtracted.

    Parameters
    ----------
    counts
        Photons (element, y, x), nowhere negative; NaN where nothing was measured or the value is a
        defect.
    background
        Photons a pixel that were put under each element (element,), see `maps.net_counts`.
    notes
        What is odd about the values, in words.
    doubtful_pixels
        (element, row, column) of pixels that are particles or hot, see `maps.defects`.
    """

    counts: np.ndarray
    background: np.ndarray
    notes: tuple[str, ...]
    doubtful_pixels: tuple[tuple[int, int, int], ...] = ()


def usable_counts(
    counts: np.ndarray,
    elements: Sequence[str] | None = None,
    probe_steps: tuple[float, float] = (0.0, 0.0),
) -> UsableCounts:
    """Return the counts that can be taken for photons.

    Parameters
    ----------
    counts
        Detected photons (element, y, x) as measured, before any division by the beam intensity.
        NaN, infinite or absurd values (above `LARGEST_COUNT`) count as not measured.
    elements
        Element names, for the notes; None: their numbers.
    probe_steps
        Full width at half maximum of the probe along y and x, in steps; 0: unknown.
    """
    counts = np.array(counts, dtype=float)
    names = [f"element {n}" for n in range(len(counts))] if elements is None else list(elements)
    with np.errstate(invalid="ignore"):
        counts[~(np.isfinite(counts) & (np.abs(counts) < LARGEST_COUNT))] = np.nan
    defects = find_defects(counts, names, probe_steps)
    counts[defects.mask] = np.nan
    gross = gross_counts(counts, names)
    return UsableCounts(
        gross.counts,
        gross.background,
        (*defects.notes, *defects.doubts, *gross.notes),
        defects.doubtful_pixels,
    )


def probe_steps_of(maps: ElementalMaps) -> tuple[float, float]:
    """Return the width of the probe along y and x, in steps of a map; 0 where it is unknown."""
    width_um = float(maps.attrs.get("probe_fwhm_um") or 0.0)
    return width_um / maps.grid.slow.step_um, width_um / maps.grid.fast.step_um


def usable_counts_of(maps: ElementalMaps) -> UsableCounts:
    """Return the counts of a map that can be taken for photons."""
    return usable_counts(maps.counts.values, maps.elements, probe_steps_of(maps))
