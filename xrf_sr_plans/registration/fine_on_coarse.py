"""`fine_on_coarse`: a fine map on the refined pixels of a coarse one, as its network should see it.

What is known of the displacements is taken out of the fine map: shift, scales, drift, and its own
row shift. The coarse map's row shift is not put into it, because undoing that is part of what is
learnt. First each row of the fine map is moved as a whole along x, by a part of a pixel, then rows
are moved along y. Moving by parts of a pixel mixes neighbors, which takes noise off: the variance
of each value is therefore given along with it, from those of the counts that it is made of. What
isn't given is that the noise of neighbors is no longer independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.physics.resample import fill_unmeasured
from xrf_sr_plans.registration.checks import MOST_ROW_ERROR_PX
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.registration.shifted import lanczos_taps

MOST_UNMEASURED = 0.1
"""Share of a value's weights that may lie on pixels which weren't measured."""
LEAST_VARIANCE = 0.25
"""Smallest variance of a count, in photons squared: where none was counted some may be expected."""


@dataclass(frozen=True, eq=False)
class FineOnCoarse:
    """A fine map in the frame of a coarse one.

    Parameters
    ----------
    counts
        Photons of a fine pixel (element, y, x); NaN where they aren't known. They may be below 0,
        as values between pixels are.
    variance
        Variance of their counting noise (element, y, x); NaN likewise.
    measured
        Where they are known (y, x).
    """

    counts: np.ndarray
    variance: np.ndarray
    measured: np.ndarray


def fine_on_coarse(
    fine: ElementalMaps, coarse_grid: ScanGrid, registration: PairRegistration
) -> FineOnCoarse:
    """Return a fine map on the fine pixels of the coarse map's frame.

    These are those of `fine.grid`, which refine `coarse_grid`. Rows of the coarse map whose
    displacement isn't known well enough (`checks.MOST_ROW_ERROR_PX`) count as not measured.

    Raises
    ------
    GridError
        The displacement isn't known, or it is known of another number of rows.
    """
    if not (np.isfinite(registration.dx_um) and np.isfinite(registration.dy_um)):
        raise GridError(f"the pair isn't registered: {registration.problem or 'no displacement'}")
    rows_um, trusted = _fine_rows_um(coarse_grid, fine.grid, registration)
    seen = usable_counts_of(fine).counts
    planes = np.concatenate([fill_unmeasured(seen), np.isfinite(seen).all(axis=0, keepdims=True)])
    counts, variance = _moved(planes, fine.grid, registration, rows_um)
    unmeasured = 1 - counts[-1]
    inside = _inside(fine.grid, registration, rows_um)
    measured = inside & trusted[:, None] & (np.abs(unmeasured) <= MOST_UNMEASURED)
    return FineOnCoarse(
        np.where(measured, counts[:-1], np.nan),
        np.where(measured, variance[:-1], np.nan),
        measured,
    )


def _fine_rows_um(
    coarse: ScanGrid, fine: ScanGrid, registration: PairRegistration
) -> tuple[np.ndarray, np.ndarray]:
    """Return the displacement (fine row, 2) at each row of the target, and whether it is known."""
    middle = (fine.slow.low_um + fine.slow.high_um) / 2
    rows = registration.row_displacements_um(coarse.slow.num)
    place, target = coarse.slow.centers_um - middle, fine.slow.centers_um - middle
    along = [np.interp(target, place, rows[:, axis]) for axis in range(2)]
    errors = np.array(registration.row_error_px or [0.0] * coarse.slow.num)
    if len(errors) != coarse.slow.num:
        raise GridError(f"errors of {len(errors)} rows; the map has {coarse.slow.num}")
    nearest = np.clip(coarse.slow.index_of(fine.slow.centers_um), 0, coarse.slow.num - 1)
    return np.stack(along, axis=1), errors[nearest] <= MOST_ROW_ERROR_PX


def _moved(
    planes: np.ndarray, grid: ScanGrid, registration: PairRegistration, rows_um: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (plane, y, x) in the coarse map's frame, and the variances of their counts."""
    middle_y, middle_x = _middles(grid)
    target_y, target_x = grid.slow.centers_um - middle_y, grid.fast.centers_um - middle_x
    source_y = (target_y - rows_um[:, 1]) / registration.scale_y
    # Each row of the fine map is moved by what the row of the target is that it ends up in.
    along_x = np.interp(target_y, source_y, rows_um[:, 0])
    source_x = (target_x - along_x[:, None]) / registration.scale_x
    source_x[1::2] += registration.fine_row_shift_um
    index, weights = lanczos_taps(
        (source_x + middle_x - grid.fast.start_um) / grid.fast.step_um, grid.fast.num
    )
    row = np.arange(grid.slow.num)[:, None, None]
    near = planes[:, row, index]
    noise = np.maximum(near, LEAST_VARIANCE)
    values = np.einsum("yxt,pyxt->pyx", weights, near)
    variance = np.einsum("yxt,pyxt->pyx", weights**2, noise)
    index, weights = lanczos_taps(
        (source_y + middle_y - grid.slow.start_um) / grid.slow.step_um, grid.slow.num
    )
    return (
        np.einsum("yt,pytx->pyx", weights, values[:, index]),
        np.einsum("yt,pytx->pyx", weights**2, variance[:, index]),
    )


def _inside(grid: ScanGrid, registration: PairRegistration, rows_um: np.ndarray) -> np.ndarray:
    """Return which pixels of the target (y, x) lie in the fine map."""
    middle_y, middle_x = _middles(grid)
    y = (grid.slow.centers_um - middle_y - rows_um[:, 1]) / registration.scale_y
    x = (grid.fast.centers_um - middle_x - rows_um[:, :1]) / registration.scale_x
    half_y, half_x = ((axis.high_um - axis.low_um) / 2 for axis in (grid.slow, grid.fast))
    return (np.abs(y) <= half_y)[:, None] & (np.abs(x) <= half_x)


def _middles(grid: ScanGrid) -> tuple[float, float]:
    """Return the middle of a map along y and x, in um."""
    return (
        (grid.slow.low_um + grid.slow.high_um) / 2,
        (grid.fast.low_um + grid.fast.high_um) / 2,
    )
