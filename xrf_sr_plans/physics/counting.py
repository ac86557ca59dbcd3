"""Conversion between photon counts and stabilized counts.

Counting noise grows with the square root of the counts. In stabilized counts its variance is 1
everywhere, whatever the counts are. The transform is that of F. J. Anscombe, Biometrika 35
(1948) 246, DOI 10.1093/biomet/35.3-4.246. All functions take arrays of any shape.
"""

from __future__ import annotations

import numpy as np
from scipy import special

OFFSET = 0.375
"""The constant 3/8 of Anscombe's transform, in counts."""
# As scipy.stats.norm.ppf, whose import takes a second.
NORMAL_90 = float(special.ndtri(0.95))
"""Half-width of the central 90 % of a normal distribution, in standard deviations."""
NORMAL_QUARTILE = float(special.ndtri(0.875))
"""75 % quantile of the absolute value of a standard normal variable."""
NOISE_FREE_COUNTS = 1e5
"""Photons to which a map without counting noise is scaled where methods are compared, since the
models work in photons."""


def stabilise(counts: np.ndarray) -> np.ndarray:
    """Return ``2 sqrt(counts + 3/8)``, taking negative counts as zero."""
    made = np.asarray(np.maximum(counts, 0.0))
    made += OFFSET
    np.sqrt(made, out=made)
    made *= 2.0
    return made[()]


def unstabilise(stabilised: np.ndarray) -> np.ndarray:
    """Return the algebraic inverse of `stabilise`, in counts; it is never below zero."""
    made = np.asarray(np.maximum(stabilised, 0.0))
    np.square(made, out=made)
    made /= 4.0
    made -= OFFSET
    return np.maximum(made, 0.0, out=made)[()]


def unstabilise_mean(stabilised: np.ndarray) -> np.ndarray:
    """Return the counts that a *mean* of stabilized counts stands for.

    The mean of stabilized counts lies below the stabilized mean, so that the algebraic inverse
    would be biased at low counts. This is the closed-form approximation of the exact unbiased
    inverse: M. Makitalo and A. Foi, IEEE Trans. Image Process. 20 (2011) 2697,
    DOI 10.1109/TIP.2011.2121085.
    """
    # The smallest value that `stabilise` can give: below it the polynomial in 1/z blows up.
    z = np.clip(stabilised, 2 * np.sqrt(OFFSET), None)
    root = np.sqrt(1.5)
    value = z**2 / 4 + root / (4 * z) - 11 / (8 * z**2) + 5 * root / (8 * z**3) - 1 / 8
    return np.clip(value, 0, None)
