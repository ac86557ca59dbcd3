"""The forward model of `physics.forward` as matrices, for methods that need it to be linear.

Each axis has one matrix: a fine map ``M`` of shape (Y, X) becomes the coarse map
``rows @ M @ columns.T``. The matrices are what the array functions of `physics.forward` make of
the identity, so there is one definition of phase, borders and interpolation. Only the cut of
negative values is left out. Two forms exist because the counts that a map is compared with must
not be negative, while adjoints, back-projection and gradients need a linear operator.
`tests/physics/test_one_forward_model.py` holds them together.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.forward import AVERAGES, probe_blur, sample_axis


def measure_again(estimate: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return an estimate (..., Y, X) degraded to the coarse grid (..., y, x), noise-free.

    This is `physics.forward.degrade` without its cut of negative values, so it is linear.
    """
    rows, columns = forward_matrices(estimate.shape[-2:], measurement)
    return rows @ estimate @ columns.T


def forward_matrices(
    shape: tuple[int, ...], measurement: Measurement
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices (y, Y) and (x, X) from a fine grid of `shape` (..., Y, X) to the coarse.

    They blur by the probe that the estimate is freed of, then sample at the coarse step.
    """
    fwhm_px = measurement.removed_probe_steps * measurement.factor
    (rows, columns), (slow, fast) = measurement.refinement, AVERAGES[measurement.sampling]
    return (
        _forward_matrix(shape[-2], rows, slow, fwhm_px),
        _forward_matrix(shape[-1], columns, fast, fwhm_px),
    )


def blur_matrices(
    shape: tuple[int, ...], measurement: Measurement
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices (Y, Y) and (X, X) that blur a fine grid as a coarse pixel does.

    Every fine pixel gets the mean over one coarse step around it along the axes on which a coarse
    pixel averages, and the probe's blur; nothing is sampled.
    """
    fwhm_px = measurement.removed_probe_steps * measurement.factor
    (rows, columns), (slow, fast) = measurement.refinement, AVERAGES[measurement.sampling]
    return (
        _blur_matrix(shape[-2], rows, slow, fwhm_px),
        _blur_matrix(shape[-1], columns, fast, fwhm_px),
    )


@lru_cache(maxsize=32)
def _forward_matrix(num_fine: int, factor: int, averages: bool, fwhm_px: float) -> np.ndarray:
    # (coarse, fine): each row holds the weights of the fine pixels in one coarse pixel.
    kept = num_fine // factor * factor
    matrix = sample_axis(np.eye(num_fine)[:kept], factor, -2, averages=averages)
    if fwhm_px > 0:
        matrix = matrix @ probe_blur(np.eye(num_fine), 1.0, (fwhm_px, 0.0))
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=32)
def _blur_matrix(num_fine: int, factor: int, averages: bool, fwhm_px: float) -> np.ndarray:
    # (fine, fine): each row holds the weights with which the pixels around one are averaged.
    matrix = np.eye(num_fine)
    if averages:
        # A box of an even number of pixels would shift the map by half a pixel. One pixel more,
        # with half the weight at both ends, is as wide and stays centred.
        ends = 0.5 if factor % 2 == 0 else 1.0
        box = np.ones(factor + (ends < 1))
        box[[0, -1]] = ends
        matrix = ndimage.convolve1d(matrix, box / box.sum(), axis=0, mode="nearest")
    if fwhm_px > 0:
        matrix = probe_blur(matrix, 1.0, (fwhm_px, 0.0))
    matrix.setflags(write=False)
    return matrix
