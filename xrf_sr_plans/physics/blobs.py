"""Finding round bright features of a known size: difference of Gaussians, then local maxima.

The filter of T. Lindeberg, Int. J. Comput. Vis. 30 (1998) 79, DOI 10.1023/A:1008045108935.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from xrf_sr_plans.physics.banded import gaussian_single


@dataclass(frozen=True)
class DiscFilter:
    """A difference of two Gaussians that answers a disc of one radius with the disc's height.

    The narrow Gaussian smooths over the disc, the wide one, of twice the width, over the disc and
    its surroundings.

    Parameters
    ----------
    radius_px
        Radius of the disc in pixels.
    least_sigma_px
        Smallest standard deviation of the narrow Gaussian, for discs smaller than a pixel.
    truncate
        Standard deviations at which the Gaussians end.
    cascaded
        True: `surroundings` smooths further what is smooth already, which saves most of the time
        where filters of several sizes follow each other. False: it smooths the map itself. Both
        are the same but for the sampling of narrow Gaussians. Published figures depend on which.
    """

    radius_px: float
    least_sigma_px: float = 0.0
    truncate: float = 4.0
    cascaded: bool = False

    @property
    def sigma_px(self) -> float:
        """Standard deviation of the narrow Gaussian: the one to which the disc stands out most."""
        return max(self.radius_px / math.sqrt(2), self.least_sigma_px)

    def smooth(self, maps: np.ndarray) -> np.ndarray:
        """Return maps (..., y, x) smoothed by the narrow Gaussian."""
        return self._smoothed(maps, self.sigma_px)

    def surroundings(self, maps: np.ndarray, smooth: np.ndarray) -> np.ndarray:
        """Return maps (..., y, x) smoothed by the wide Gaussian; `smooth` is what `smooth` gave."""
        wide = 2 * self.sigma_px
        if self.cascaded:
            return self._smoothed(smooth, math.sqrt(wide**2 - self.sigma_px**2))
        return self._smoothed(maps, wide)

    def heights(self, smooth: np.ndarray, surroundings: np.ndarray) -> np.ndarray:
        """Return at every pixel how high a disc centred there stands above its surroundings."""
        return (smooth - surroundings) / _gain(self)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Return the `heights` of maps (..., y, x)."""
        smooth = self.smooth(maps)
        return self.heights(smooth, self.surroundings(maps, smooth))

    def _smoothed(self, maps: np.ndarray, sigma_px: float) -> np.ndarray:
        if maps.dtype == np.float32:
            return gaussian_single(maps, (sigma_px, sigma_px), self.truncate)
        sigmas = (*(0.0,) * (maps.ndim - 2), sigma_px, sigma_px)
        return ndimage.gaussian_filter(maps, sigmas, mode="nearest", truncate=self.truncate)


@lru_cache(maxsize=64)
def _gain(disc_filter: DiscFilter) -> float:
    """Return the difference of Gaussians at the centre of a disc of height 1."""
    radius = disc_filter.radius_px
    size = 2 * math.ceil(6 * radius + 6) + 1
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    # A disc with a soft rim, so that its area is right for radii between whole pixels too.
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    smooth = disc_filter.smooth(disc)
    surroundings = disc_filter.surroundings(disc, smooth)
    return float((smooth - surroundings)[size // 2, size // 2])


def is_peak(response: np.ndarray, window_px: int, threshold: float = 0.0) -> np.ndarray:
    """Return where maps (..., y, x) are above a threshold and highest in a square around (bool)."""
    if window_px == 3:
        highest = _highest_of_nine(response)
    else:
        window = (*(1,) * (response.ndim - 2), window_px, window_px)
        highest = ndimage.maximum_filter(response, size=window)
    return (highest == response) & (response > threshold)


def _highest_of_nine(maps: np.ndarray) -> np.ndarray:
    """Return the largest of a pixel and its neighbours in maps (..., y, x)."""
    tall = maps.copy()
    np.maximum(tall[..., 1:, :], maps[..., :-1, :], out=tall[..., 1:, :])
    np.maximum(tall[..., :-1, :], maps[..., 1:, :], out=tall[..., :-1, :])
    whole = tall.copy()
    np.maximum(whole[..., 1:], tall[..., :-1], out=whole[..., 1:])
    np.maximum(whole[..., :-1], tall[..., 1:], out=whole[..., :-1])
    return whole
