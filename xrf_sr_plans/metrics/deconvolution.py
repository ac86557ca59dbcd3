"""`hidden_coverage`: the coverage of intervals, although the measurement that tells it is noisy."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import optimize, special

from xrf_sr_plans.metrics.calibration import EXACT_BELOW
from xrf_sr_plans.physics.counting import NORMAL_90

SCALES = np.geomspace(0.02, 12.0, 16)
"""Widths of the normal distributions that make up the errors, in units of the intervals' own."""
FIRST_SPREAD = 0.8
"""Spread of the logarithms of the scales in the mixture that the search begins with."""
GROUPS = 4
"""Number of groups of pixels, each of which has a mixture of its own."""
LEAST_GROUP = 50
"""Smallest mean number of pixels in a group; with fewer, all pixels form one group."""
_NODES = (np.arange(16) + 0.5) / 16
"""Probabilities at which the distribution of a mean is sampled for few counts."""
_ITERATIONS = 300
"""Iterations of the search for the mixture of largest likelihood."""
_CHUNK = 2000
"""Pixels whose likelihoods are computed at a time, which limits the memory for few counts."""
_LEAST_NOISE = 0.3
"""Smallest expected count in the noise that an interval is compared with."""


def hidden_coverage(
    counts: np.ndarray,
    estimate: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    stretch: np.ndarray | float = 1.0,
    unit: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return the share of the true values that lie in 90 % intervals stretched by a factor.

    Of the true values only a noisy measurement is known. They are taken to be distributed around
    the estimates as a mixture of normal distributions of different widths to either side, each as
    wide as the pixel's interval times one of `SCALES`. The measurement adds Poisson noise. The
    shares of the mixture are those of largest likelihood. This is empirical Bayes as in
    M. Stephens, Biostatistics 18 (2017) 275, DOI 10.1093/biostatistics/kxw041, without its penalty.

    Unlike a single width, a mixture can hold many small errors and a few large ones. Pixels whose
    interval is wide compared with the noise tell more than others, and often err differently, so
    there is a mixture for each of `GROUPS` groups of pixels by that ratio. Give one map at a time:
    among several maps, those with many photons would decide for those with few.

    Parameters
    ----------
    counts, estimate, lower, upper
        Measurement and prediction (pixel,) as for `metrics.calibration.covered`. Pixels that
        aren't finite don't count.
    stretch
        Factors by which the intervals are stretched.
    unit
        Value of one photon, as for `metrics.calibration.covered`.

    Returns
    -------
    numpy.ndarray
        The share for each factor, in the shape of `stretch`; NaN where no pixel counts.
    """
    unit = np.broadcast_to(np.asarray(unit, dtype=float), np.shape(counts))
    # (4, pixel) in photons: counts, estimate, and lower and upper end of the interval.
    pixels = np.array([counts, estimate / unit, lower / unit, upper / unit], dtype=float)
    pixels = pixels[:, np.isfinite(pixels).all(axis=0)]
    if not pixels.size:
        return np.full(np.shape(stretch), np.nan)
    covered = [group.shape[1] * _coverage(_mixture(group), stretch) for group in _groups(pixels)]
    return np.sum(covered, axis=0) / pixels.shape[1]


def _groups(pixels: np.ndarray) -> list[np.ndarray]:
    """Split pixels (4, pixel) by the ratio of their interval to the noise of the measurement."""
    _, mean, lower, upper = pixels
    if pixels.shape[1] < GROUPS * LEAST_GROUP:
        return [pixels]
    ratio = (upper - lower) / np.sqrt(np.maximum(mean, _LEAST_NOISE))
    order = np.argsort(ratio, kind="stable")
    return [pixels[:, part] for part in np.array_split(order, GROUPS)]


def _mixture(pixels: np.ndarray) -> np.ndarray:
    """Return the share of the errors that belongs to each of `SCALES`; their sum is 1.

    The search is expectation maximization, in which a share never becomes negative.
    """
    chunks = range(0, pixels.shape[1], _CHUNK)
    # (pixel, scale)
    likely = np.concatenate([_likelihood(*pixels[:, low : low + _CHUNK]) for low in chunks])
    shares = _first_mixture()
    for _ in range(_ITERATIONS):
        shares = shares * ((1 / (likely @ shares)) @ likely) / len(likely)
    return shares


@cache
def _first_mixture() -> np.ndarray:
    """Return a broad mixture with which the intervals cover 90 %.

    Where noise hides the errors altogether, the search leaves it as it is.
    """

    def mixture(center: float) -> np.ndarray:
        shares = np.exp(-0.5 * ((np.log(SCALES) - center) / FIRST_SPREAD) ** 2)
        return shares / shares.sum()

    center = optimize.brentq(lambda x: float(_coverage(mixture(x), 1.0)) - 0.9, -3.0, 1.0)
    return mixture(float(center))


def _coverage(shares: np.ndarray, stretch: np.ndarray | float) -> np.ndarray:
    """Return the share of the errors that lie in intervals stretched by each factor."""
    within = NORMAL_90 * np.asarray(stretch, dtype=float)[..., None] / SCALES
    return (special.erf(within / np.sqrt(2)) * shares).sum(axis=-1)


def _likelihood(
    counts: np.ndarray, estimate: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Return how likely each pixel's counts are with each of `SCALES`, up to a factor per pixel.

    The result is an array (pixel, scale).
    """
    mean = np.clip(estimate, 0, None)
    spread = np.array([np.clip(estimate - lower, 0, None), np.clip(upper - estimate, 0, None)])
    spread = spread[..., None] / NORMAL_90 * SCALES
    log = _normal(counts[:, None], mean[:, None], *spread)
    few = mean < EXACT_BELOW
    if few.any():
        log[few] = _poisson(counts[few, None], mean[few, None], *spread[:, few])
    return np.exp(log - log.max(axis=1, keepdims=True))


def _normal(counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the logarithm of the likelihood (pixel, scale) for many counts."""
    noise = np.maximum(mean, 1e-12)
    down, up = (np.sqrt(side**2 + noise) for side in (down, up))
    deviation = (counts - mean) / np.where(counts < mean, down, up)
    return -np.square(deviation) / 2 - np.log(down + up)


def _poisson(counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the logarithm of the likelihood (pixel, scale) for few counts.

    Poisson distributions are averaged over nodes of the mean, so arrays are (pixel, scale, node).
    """
    deviates = special.ndtri(_NODES)
    rate = mean[..., None] + np.where(deviates < 0, down[..., None], up[..., None]) * deviates
    rate = np.clip(rate, 1e-3, None)
    logs = special.xlogy(counts[..., None], rate) - rate
    return special.logsumexp(logs, axis=-1)
