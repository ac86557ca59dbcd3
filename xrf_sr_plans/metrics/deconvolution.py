"""How large the errors of a prediction are, behind the noise of the measurement that shows them."""

from __future__ import annotations

import numpy as np
from scipy import special

from xrf_sr_plans.metrics.calibration import EXACT_BELOW, Z_90

SCALES = np.geomspace(0.02, 12.0, 16)
"""Widths of the normal distributions that make up the errors; 1: as the intervals say."""
_NODES = (np.arange(16) + 0.5) / 16
_ITERATIONS = 500
_CHUNK = 2000


def error_scales(
    counts: np.ndarray,
    estimate: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    unit: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return the share of a map's errors that belongs to each of `SCALES`; the sum is 1.

    The truth is taken to lie around the estimate by a mixture of two-sided normal distributions,
    each as wide as the pixel's interval times one of the scales; the measurement adds its Poisson
    noise. The shares are those of largest likelihood (empirical Bayes, M. Stephens, Biostatistics
    18 (2017) 275, DOI 10.1093/biostatistics/kxw041; here without its penalty). Unlike a single
    width, a mixture can hold many small and few large errors. One map at a time: in a mixture for
    several maps those with many photons would speak for those with few.

    Parameters
    ----------
    counts, estimate, lower, upper, unit
        As of `metrics.calibration.covered`, one-dimensional. Pixels that aren't finite don't
        count.
    """
    unit = np.broadcast_to(np.asarray(unit, dtype=float), np.shape(counts))
    planes = np.array([counts, estimate / unit, lower / unit, upper / unit], dtype=float)
    planes = planes[:, np.isfinite(planes).all(axis=0)]
    chunks = range(0, planes.shape[1], _CHUNK)
    likely = np.concatenate([_likelihood(*planes[:, low : low + _CHUNK]) for low in chunks])
    shares = np.full(SCALES.size, 1 / SCALES.size)
    for _ in range(_ITERATIONS):
        shares = shares * ((1 / (likely @ shares)) @ likely) / len(likely)
    return shares


def true_coverage(shares: np.ndarray, stretch: np.ndarray | float) -> np.ndarray:
    """Return which share of the truth lies in 90 % intervals made `stretch` times as wide."""
    within = Z_90 * np.asarray(stretch, dtype=float)[..., None] / SCALES
    return (special.erf(within / np.sqrt(2)) * shares).sum(axis=-1)


def _likelihood(
    counts: np.ndarray, estimate: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Return (pixel, scale): how likely the counts are, up to a factor per pixel."""
    mean = np.clip(estimate, 0, None)
    spread = np.array([np.clip(estimate - lower, 0, None), np.clip(upper - estimate, 0, None)])
    spread = spread[..., None] / Z_90 * SCALES
    log = _normal(counts[:, None], mean[:, None], *spread)
    few = mean < EXACT_BELOW
    if few.any():
        log[few] = _poisson(counts[few, None], mean[few, None], *spread[:, few])
    return np.exp(log - log.max(axis=1, keepdims=True))


def _normal(counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    noise = np.maximum(mean, 1e-12)
    down, up = (np.sqrt(side**2 + noise) for side in (down, up))
    deviation = (counts - mean) / np.where(counts < mean, down, up)
    return -np.square(deviation) / 2 - np.log(down + up)


def _poisson(counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    deviates = special.ndtri(_NODES)
    rate = mean[..., None] + np.where(deviates < 0, down[..., None], up[..., None]) * deviates
    rate = np.clip(rate, 1e-3, None)
    logs = special.xlogy(counts[..., None], rate) - rate
    return special.logsumexp(logs, axis=-1)
