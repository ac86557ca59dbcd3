"""`denoised`: a fine map freed of as much of its counting noise as its own structure allows.

A map that is compared with another one pulls at each of its own noise's slopes, as if they were
structure. So the noise has to go where there is nothing else, and structure has to stay. The map is
split into bands between Gaussians of growing width. Each band is weighed, place by place, by the
share of its energy that counting noise doesn't explain: the empirical Wiener filter of J.-S. Lee,
IEEE Trans. Pattern Anal. Mach. Intell. 2 (1980) 165, DOI 10.1109/TPAMI.1980.4766994, in bands.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

WIDTHS_PX = (0.0, 0.7, 1.1, 1.7, 2.6, 4.0, 6.0, 9.0)
"""Standard deviations of the Gaussians between which the bands lie, in fine pixels."""
NOISE_MARGIN = 2.0
"""How many times the expected noise is taken off: energy is measured in few pixels, and what is
left of noise does more harm than what is lost of weak structure."""
WINDOW = 1.5
"""Width of the window in which energy is measured, relative to that of a band's Gaussian."""
_LOCAL = 4
"""Which of the Gaussians gives the local mean, from which follows the noise that is left."""


@dataclass(frozen=True, eq=False)
class Denoised:
    """A fine map without most of its noise.

    Parameters
    ----------
    counts
        Expected photons (element, y, x), none below 0.
    slope_variance
        Variance of the noise that is left in the derivatives along x and y of `counts`, averaged
        over a coarse pixel: (element, 2, y, x).
    """

    counts: np.ndarray
    slope_variance: np.ndarray


def denoised(counts: np.ndarray, box_px: tuple[int, int] = (1, 1)) -> Denoised:
    """Return photons (element, y, x), without gaps, as `Denoised`.

    `box_px` is how many pixels along (y, x) are averaged before derivatives are taken.
    """
    made, slopes = [], []
    for plane in counts:
        smooth = [_smoothed(plane, width) for width in WIDTHS_PX]
        kept = np.array(
            [
                _signal_share(plane, wide - narrow, band)
                for band, (wide, narrow) in enumerate(itertools.pairwise(smooth))
            ]
        )
        bands = -np.diff(smooth, axis=0)
        made.append(np.clip(smooth[-1] + (kept * bands).sum(axis=0), 0, None))
        slopes.append(
            [
                smooth[_LOCAL] * np.einsum("byx,bc,cyx->yx", kept, energy, kept, optimize=True)
                for energy in (_slope_energies(axis, box_px) for axis in (1, 0))
            ]
        )
    return Denoised(np.array(made), np.array(slopes))


def _signal_share(plane: np.ndarray, band_values: np.ndarray, band: int) -> np.ndarray:
    """Return by which share of itself a band of a map (y, x) is more than noise, place by place."""
    width = WINDOW * max(WIDTHS_PX[band + 1], 1.0)
    energy = _smoothed(band_values**2, width)
    mean = _smoothed(plane, float(np.hypot(width, WIDTHS_PX[band + 1])))
    noise = NOISE_MARGIN * _energies()[band] * mean
    return np.clip(1 - noise / np.maximum(energy, 1e-12), 0, 1)


def _smoothed(plane: np.ndarray, width_px: float) -> np.ndarray:
    return ndimage.gaussian_filter(plane, width_px, mode="nearest") if width_px else plane


@lru_cache(maxsize=1)
def _kernels() -> np.ndarray:
    """Return what the bands make of a single photon, (band, y, x)."""
    half = int(4 * WIDTHS_PX[-1]) + 4
    photon = np.zeros((2 * half + 1, 2 * half + 1))
    photon[half, half] = 1
    return -np.diff([_smoothed(photon, width) for width in WIDTHS_PX], axis=0)


@lru_cache(maxsize=1)
def _energies() -> np.ndarray:
    """Return the variance of each band (band,) of white noise of variance 1."""
    return np.square(_kernels()).sum(axis=(1, 2))


@lru_cache(maxsize=32)
def _slope_energies(axis: int, box_px: tuple[int, int]) -> np.ndarray:
    """Return the covariance (band, band) of the bands' derivatives along y (0) or x (1)."""
    slopes = _kernels()
    for along, wide in enumerate(box_px):
        slopes = ndimage.convolve1d(slopes, np.full(wide, 1 / wide), axis=along + 1)
    slopes = np.gradient(slopes, axis=axis + 1).reshape(len(slopes), -1)
    return slopes @ slopes.T
