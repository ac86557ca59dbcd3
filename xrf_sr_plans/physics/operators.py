"""The forward model as matrices: what a coarse scan makes of a fine map, linear and noise-free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.physics.forward import FWHM_PER_SIGMA

NOISE_FREE_COUNTS = 1e5


"""Level to which a map without counting noise is scaled wherever methods are compared: the
models work in photons."""


_CENTRE = ((0, 1.0),)


_HALF_WAY = ((-1, -1 / 16), (0, 9 / 16), (1, 9 / 16), (2, -1 / 16))  # four-point cubic


@dataclass(frozen=True)
class Coarse:
    """How the coarse map was measured: what a method may know besides the counts.

    Parameters
    ----------
    factor
        Fine pixels per coarse pixel, along each axis.
    sampling
        As in `physics.forward.coarsen`.
    probe_px
        Probe FWHM in *coarse* pixels.
    noisy
        False: counts are expected values without Poisson noise; nothing needs smoothing.
    """

    factor: int
    sampling: Sampling = "fly"
    probe_px: float = 0.0
    noisy: bool = True


def measure_again(estimate: np.ndarray, coarse: Coarse) -> np.ndarray:
    """Degrade an estimate (..., Y, X) to the coarse grid, noise-free: the linear forward model.

    The same as ``coarsen(probe_blur(...))`` of `physics.forward`, but without its clipping of
    negative values, so that it stays linear.
    """
    rows, columns = forward_matrices(estimate.shape[-2:], coarse)
    return rows @ estimate @ columns.T


def forward_matrices(shape: tuple[int, ...], coarse: Coarse) -> tuple[np.ndarray, np.ndarray]:
    """Return R (y, Y) and C (x, X) of the forward model ``R @ map @ C.T`` for a fine `shape`."""
    slow = "box" if coarse.sampling == "area" else "centre"
    fast = "centre" if coarse.sampling == "point" else "box"
    sigma = coarse.probe_px * coarse.factor / FWHM_PER_SIGMA
    return (
        _axis_matrix(shape[-2], coarse.factor, slow, sigma),
        _axis_matrix(shape[-1], coarse.factor, fast, sigma),
    )


@lru_cache(maxsize=32)
def _axis_matrix(num_fine: int, factor: int, sampled: str, sigma_px: float) -> np.ndarray:
    num = num_fine // factor
    if sampled == "box":
        matrix = np.repeat(np.eye(num), factor, axis=1) / factor
    else:
        matrix = np.zeros((num, num_fine))
        position = factor * np.arange(num) + (factor - 1) / 2
        for shift, weight in _CENTRE if factor % 2 else _HALF_WAY:
            source = np.clip(position.astype(int) + shift, 0, num_fine - 1)
            np.add.at(matrix, (np.arange(num), source), weight)
    if sigma_px > 0:
        blur = ndimage.gaussian_filter1d(np.eye(num_fine), sigma_px, axis=0, mode="nearest")
        matrix = matrix @ blur
    matrix.setflags(write=False)
    return matrix
