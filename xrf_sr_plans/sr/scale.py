"""`Scale`: what is to be known of each element as a whole, from the coarse map alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import NORMAL_QUARTILE, stabilise
from xrf_sr_plans.physics.quantiles import quantiles

SMALLEST_RANGE = 4.0
"""Range (in standard deviations of the noise) below which a map counts as noise."""


def per_coarse_pixel(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the photons (..., y, x) of each coarse pixel, summed over its measured ones."""
    pixels = measurement.fast_pixels
    if pixels == 1:
        return counts
    return counts.reshape(*counts.shape[:-1], counts.shape[-1] // pixels, pixels).sum(axis=-1)


@dataclass(frozen=True)
class Scale:
    """What is known of each element as a whole from the coarse map alone, in arrays (element,).

    All of it is about photons per coarse pixel (`per_coarse_pixel`).
    """

    low: np.ndarray
    """Low end of its stabilised counts."""
    span: np.ndarray
    """Robust range of its stabilised counts: in standard deviations of the counting noise."""
    fill: np.ndarray
    """Standard deviation, freed of noise, relative to the range: near 0.5 for two phases of sharp
    contrast, below 0.2 for textures with a few bright spots."""
    roughness: np.ndarray
    """Typical second difference, squared and freed of noise, relative to the variance: how
    much of the structure, everywhere, is as small as a coarse pixel. Near 0: smooth areas with
    edges. 1: every pixel on its own."""

    @classmethod
    def of(cls, counts: np.ndarray) -> Scale:
        """Take it from gap-free counts (..., y, x): range from the 1 % and 99.5 % quantiles."""
        stabilised = stabilise(counts)
        flat = stabilised.reshape(*counts.shape[:-2], -1)
        low, high = _quantiles(flat, (0.01, 0.995))
        span = np.maximum(high - low, SMALLEST_RANGE)
        variance = flat.var(axis=-1)
        spread = np.sqrt(np.clip(variance - 1, 0, None))
        return cls(low, span, spread / span, _roughness(stabilised, variance))

    def only(self, index: int) -> Scale:
        """Return that of one element, still with an element axis."""
        one = slice(index, index + 1)
        return Scale(self.low[one], self.span[one], self.fill[one], self.roughness[one])


def _quantiles(flat: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Return quantiles of maps (..., pixel), (share, ...)."""
    lead = flat.shape[:-1]
    found = [quantiles(one, shares) for one in flat.reshape(-1, flat.shape[-1])]
    return np.stack(found, axis=-1).reshape(len(shares), *lead)


def _roughness(stabilised: np.ndarray, variance: np.ndarray) -> np.ndarray:
    lead = stabilised.shape[:-2]
    parts = [
        np.abs(np.diff(stabilised, 2, axis=axis)).reshape(*lead, -1)
        for axis in (-2, -1)
        if stabilised.shape[axis] > 2
    ]
    if not parts:
        return np.zeros(lead)
    # The upper quartile, not the mean: a few edges on a smooth map don't make it rough. White
    # noise of unit variance has second differences of variance 1 + 4 + 1.
    typical = _quantiles(np.concatenate(parts, -1), (0.75,))[0] / NORMAL_QUARTILE
    excess = np.clip(np.square(typical) / 6 - 1, 0, None)
    return excess / np.clip(variance - 1, 0.3, None)
