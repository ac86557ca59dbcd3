"""How large the errors of a prediction are, behind the noise of the measurement that shows them."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import optimize, special

from xrf_sr_plans.metrics.calibration import EXACT_BELOW, Z_90

SCALES = np.geomspace(0.02, 12.0, 16)
"""Widths of the normal distributions that make up the errors; 1: as the intervals say."""
FIRST_SPREAD = 0.8
"""Of the logarithms of the scales that the search for a mixture begins with."""
GROUPS = 4
LEAST_GROUP = 50
_NODES = (np.arange(16) + 0.5) / 16
_ITERATIONS = 300
_CHUNK = 2000
_LEAST_NOISE = 0.3


def hidden_coverage(
    counts: np.ndarray,
    estimate: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    stretch: np.ndarray | float = 1.0,
    unit: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return which share of the truth lies in 90 % intervals made `stretch` times as wide.

    What is known of the truth is a noisy measurement. The truth is taken to lie around the
    estimate by a mixture of two-sided normal distributions, each as wide as the pixel's interval
    times one of `SCALES`; the measurement adds its Poisson noise. The shares are those of largest
    likelihood (empirical Bayes, M. Stephens, Biostatistics 18 (2017) 275,
    DOI 10.1093/biostatistics/kxw041; here without its penalty). Unlike a single width, a mixture
    can hold many small and few large errors. Pixels whose interval is wide compared with the
    noise tell more than others and often err differently, so the mixture is inferred in `GROUPS`
    of pixels by that ratio. One map at a time: in a mixture for several maps those with many
    photons would speak for those with few.

    Parameters
    ----------
    counts, estimate, lower, upper, unit
        As of `metrics.calibration.covered`, one-dimensional. Pixels that aren't finite don't
        count; where none is left the coverage is NaN.
    """
    unit = np.broadcast_to(np.asarray(unit, dtype=float), np.shape(counts))
    planes = np.array([counts, estimate / unit, lower / unit, upper / unit], dtype=float)
    planes = planes[:, np.isfinite(planes).all(axis=0)]
    if not planes.size:
        return np.full(np.shape(stretch), np.nan)
    parts = _groups(planes)
    found = [part.shape[1] * _coverage(_shares(part), stretch) for part in parts]
    return np.sum(found, axis=0) / planes.shape[1]


def _groups(planes: np.ndarray) -> list[np.ndarray]:
    _, mean, lower, upper = planes
    if planes.shape[1] < GROUPS * LEAST_GROUP:
        return [planes]
    clear = (upper - lower) / np.sqrt(np.maximum(mean, _LEAST_NOISE))
    order = np.argsort(clear, kind="stable")
    return [planes[:, part] for part in np.array_split(order, GROUPS)]


def _shares(planes: np.ndarray) -> np.ndarray:
    """Return the share of the errors that belongs to each of `SCALES`; the sum is 1."""
    chunks = range(0, planes.shape[1], _CHUNK)
    likely = np.concatenate([_likelihood(*planes[:, low : low + _CHUNK]) for low in chunks])
    shares = _first_shares()
    for _ in range(_ITERATIONS):
        shares = shares * ((1 / (likely @ shares)) @ likely) / len(likely)
    return shares


@cache
def _first_shares() -> np.ndarray:
    """Return errors as the intervals say, of many scales; where noise hides all they stay so."""

    def shares(centre: float) -> np.ndarray:
        found = np.exp(-0.5 * ((np.log(SCALES) - centre) / FIRST_SPREAD) ** 2)
        return found / found.sum()

    centre = optimize.brentq(lambda x: float(_coverage(shares(x), 1.0)) - 0.9, -3.0, 1.0)
    return shares(float(centre))


def _coverage(shares: np.ndarray, stretch: np.ndarray | float) -> np.ndarray:
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
