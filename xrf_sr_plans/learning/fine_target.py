"""`fine_on_coarse`: the fine map of a pair where the coarse map shows the same things."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.registration.pair_registration import PairRegistration


def fine_on_coarse(
    fine: ElementalMaps, coarse: ScanGrid, registration: PairRegistration
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts (element, Y, X) of the fine map in the coarse map's frame.

    The fine map is shifted by whole fine pixels, so that its noise stays that of photons.

    Returns
    -------
    tuple
        The counts and their variances (element, Y, X), and where there are some (Y, X).

    Raises
    ------
    GridError
        The displacement isn't known, or the grids don't nest.
    """
    ratio = fine.grid.slow.num / coarse.slow.num, fine.grid.fast.num / coarse.fast.num
    if any(not one.is_integer() or one < 1 for one in ratio):
        raise GridError(f"{fine.grid.shape} pixels don't nest in {coarse.shape}")
    moved_um = registration.dy_um, registration.dx_um
    steps_um = fine.grid.slow.step_um, fine.grid.fast.step_um
    if not np.isfinite(moved_um).all():
        raise GridError(f"the displacement isn't known: {registration.problem}")
    shift = [round(um / step) for um, step in zip(moved_um, steps_um, strict=True)]
    counts = usable_counts_of(fine).counts
    moved = np.full_like(counts, np.nan)
    source, target = [], []
    for by, size in zip(shift, fine.grid.shape, strict=True):
        low, high = max(0, by), min(size, size + by)
        target.append(slice(low, max(low, high)))
        source.append(slice(low - by, max(low, high) - by))
    moved[(slice(None), *target)] = counts[(slice(None), *source)]
    measured = np.asarray(np.isfinite(moved).all(axis=0))
    filled = np.where(measured, moved, 0.0)
    return filled, np.maximum(filled, 0.0), measured
