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
    noise = np.clip(flat, 0, None)
    (rows, columns), averages = measurement.refinement, AVERAGES[measurement.sampling]
    slow = _on_measured_grid(flat.shape[-2], rows, measurement.factor, averages[0])
    fast = _on_measured_grid(flat.shape[-1], columns, measurement.factor, averages[1])
    risks = []
    for along_y, along_x in zip(slow, fast, strict=True):
        left = along_y @ flat @ along_x.T - flat
        own = np.diagonal(along_y) @ noise @ np.diagonal(along_x)
        risks.append(np.square(left).sum(axis=(-2, -1), dtype=float) + 2.0 * own)
    return np.argmin(risks, axis=0).reshape(np.shape(counts)[:-2])


def smoothed(
    counts: np.ndarray, measurement: Measurement, widths: np.ndarray | None = None
) -> np.ndarray:
    """Return counts (..., y, x) interpolated to the fine grid and smoothed, (..., Y, X).

    Parameters
    ----------
    counts
        Photons per measured pixel, without gaps.
    measurement
        How they were measured.
    widths
        Index into `WIDTHS_STEPS` of each map (...); None: `chosen_widths`.
    """
    lead = np.shape(counts)[:-2]
    flat = np.asarray(counts, dtype=float).reshape(-1, *np.shape(counts)[-2:])
    widths = chosen_widths(counts, measurement) if widths is None else widths
    rows, columns = measurement.refinement
    slow = smoothing_matrices(flat.shape[-2], rows, measurement.factor)
    fast = smoothing_matrices(flat.shape[-1], columns, measurement.factor)
    made = [
        slow[width] @ plane @ fast[width].T
        for plane, width in zip(flat, np.ravel(widths), strict=True)
    ]
    return np.reshape(made, (*lead, slow.shape[1], fast.shape[1]))
