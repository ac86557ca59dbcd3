"""The best linear treatment of a noisy map: interpolation and a Gaussian as wide as it needs.

How wide is told by the counts themselves. If they were split into two parts at random, one could
be smoothed and compared with the other, which has the same expected values and noise of its own.
The expected square difference of this comparison has a closed form, which needs no random
numbers: with one part taken ever smaller it becomes, up to a constant,
``|M n - n|^2 + 2 sum_j n_j M_jj`` for counts n and the smoothing M, the unbiased estimate of the
risk of a linear estimator of Poisson counts (H. M. Hudson, Ann. Stat. 6 (1978) 473,
DOI 10.1214/aos/1176344194).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.banded import Banded
from xrf_sr_plans.physics.forward import AVERAGES, sample_axis
from xrf_sr_plans.physics.resample import upsample_matrix

WIDTHS_STEPS = (0.0, 0.2, 0.3, 0.45, 0.65, 0.95, 1.4, 2.1)
"""Standard deviations of the Gaussians to choose from, in coarse steps."""


@lru_cache(maxsize=16)
def smoothing_matrices(num: int, factor: int, fine_per_step: int) -> np.ndarray:
    """Return interpolation and smoothing along one axis, one matrix for each of `WIDTHS_STEPS`.

    Parameters
    ----------
    num
        Measured pixels along the axis.
    factor
        Fine pixels per measured pixel; 1: nothing is interpolated.
    fine_per_step
        Fine pixels per coarse step, the unit of `WIDTHS_STEPS`.

    Returns
    -------
    np.ndarray
        (width, num * factor, num); rows sum to 1. It is cached, hence read-only.
    """
    finer = upsample_matrix(num, factor) if factor > 1 else np.eye(num)
    made = np.stack(
        [
            ndimage.gaussian_filter1d(finer, width * fine_per_step, axis=0, mode="nearest")
            if width > 0
            else finer
            for width in WIDTHS_STEPS
        ]
    )
    made.setflags(write=False)
    return made


@lru_cache(maxsize=16)
def _on_measured_grid(num: int, factor: int, fine_per_step: int, averages: bool) -> np.ndarray:
    """Return `smoothing_matrices`, measured again on the grid of the map: (width, num, num)."""
    made = smoothing_matrices(num, factor, fine_per_step)
    if factor > 1:
        made = sample_axis(made, factor, -2, averages=averages)
    # What interpolation alone gives at the measured pixels is what was measured.
    made = np.concatenate([np.eye(num)[None], made[1:]]).astype(np.float32)
    made.setflags(write=False)
    return made


@lru_cache(maxsize=16)
def _measured_again(
    num: int, factor: int, fine_per_step: int, averages: bool
) -> tuple[tuple[Banded, ...], np.ndarray]:
    """Return `_on_measured_grid` in bands, and its diagonals (width, num)."""
    made = _on_measured_grid(num, factor, fine_per_step, averages)
    bands = tuple(Banded.of(matrix, np.float32) for matrix in made)
    return bands, np.diagonal(made, axis1=-2, axis2=-1)


@lru_cache(maxsize=16)
def _smoothing_bands(num: int, factor: int, fine_per_step: int, single: bool) -> tuple[Banded, ...]:
    """Return `smoothing_matrices` in bands, of single or double precision."""
    dtype = np.float32 if single else np.float64
    return tuple(
        Banded.of(matrix, dtype) for matrix in smoothing_matrices(num, factor, fine_per_step)
    )


def chosen_widths(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the index into `WIDTHS_STEPS` that is best for each map, as its own counts say.

    Parameters
    ----------
    counts
        Photons (..., y, x), without gaps.
    measurement
        How they were measured.

    Returns
    -------
    np.ndarray
        Indices (...), integer.
    """
    flat = np.asarray(counts, dtype=np.float32).reshape(-1, *np.shape(counts)[-2:])
    (rows, columns), averages = measurement.refinement, AVERAGES[measurement.sampling]
    slow = _measured_again(flat.shape[-2], rows, measurement.factor, averages[0])
    fast = _measured_again(flat.shape[-1], columns, measurement.factor, averages[1])
    # One map after the other: all that is done with it finds it in the processor's cache.
    best = [_best_width(plane, slow, fast) for plane in flat]
    return np.reshape(best, np.shape(counts)[:-2])


def _best_width(
    plane: np.ndarray,
    slow: tuple[tuple[Banded, ...], np.ndarray],
    fast: tuple[tuple[Banded, ...], np.ndarray],
) -> int:
    """Return the index of the width with the least risk for counts (y, x), single precision."""
    (along_y, own_y), (along_x, own_x) = slow, fast
    # What each width takes of a pixel's own noise, summed over the map, (width,).
    own = np.sum(own_y @ np.clip(plane, 0, None) * own_x, axis=-1, dtype=float)
    # The first width leaves the counts as they are.
    risks = [2.0 * own[0]]
    for index in range(1, len(own)):
        left = along_x[index].along_x(along_y[index].along_y(plane))
        left -= plane
        risks.append(np.square(left, out=left).sum(dtype=float) + 2.0 * own[index])
    return int(np.argmin(risks))


def smoothed(
    counts: np.ndarray, measurement: Measurement, widths: np.ndarray | None = None
) -> np.ndarray:
    """Return counts (..., y, x) interpolated to the fine grid and smoothed, (..., Y, X).

    Parameters
    ----------
    counts
        Photons per measured pixel, without gaps. Computed in single precision where they are
        float32, else in double.
    measurement
        How they were measured.
    widths
        Index into `WIDTHS_STEPS` of each map (...); None: `chosen_widths`.
    """
    lead = np.shape(counts)[:-2]
    single = np.asarray(counts).dtype == np.float32
    flat = np.asarray(counts, dtype=np.float32 if single else float)
    flat = flat.reshape(-1, *np.shape(counts)[-2:])
    widths = chosen_widths(counts, measurement) if widths is None else widths
    rows, columns = measurement.refinement
    slow = _smoothing_bands(flat.shape[-2], rows, measurement.factor, single)
    fast = _smoothing_bands(flat.shape[-1], columns, measurement.factor, single)
    made = [
        fast[width].along_x(slow[width].along_y(plane))
        for plane, width in zip(flat, np.ravel(widths), strict=True)
    ]
    return np.reshape(made, (*lead, slow[0].num, fast[0].num))
