"""Whether predicted intervals cover what a later, itself noisy, measurement found."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import special

Z_90 = 1.6448536269514722
_NODES = 20
EXACT_BELOW = 50.0
"""Expected counts below which Poisson distributions aren't taken for normal ones."""


def covered(
    counts: np.ndarray,
    estimate: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    unit: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return each pixel's share of coverage, 0..1; its mean is the coverage of 90 % intervals.

    A measurement differs from the truth by its own counting noise, so an interval for the truth
    can't be compared with it directly. Here the prediction is widened by the Poisson noise of
    the measurement; and because counts are whole numbers, each spreads its probability evenly
    over the step it makes in the predicted distribution (the non-randomised PIT of Czado,
    Gneiting and Held, Biometrics 65 (2009) 1254, DOI 10.1111/j.1541-0420.2009.01191.x). A
    perfectly calibrated prediction gets 0.90 on average at any number of counts.

    Parameters
    ----------
    counts
        Detected photons.
    estimate, lower, upper
        Prediction and the ends of its 90 % interval for the *mean* of `counts` x `unit`.
    unit
        Value of one photon in the units of `estimate` (dwell, I0 and pixel size differ).
    """
    unit = np.broadcast_to(np.asarray(unit, dtype=float), np.shape(counts))
    mean = np.clip(estimate / unit, 0, None)
    down = np.clip((estimate - lower) / unit, 0, None) / Z_90
    up = np.clip((upper - estimate) / unit, 0, None) / Z_90
    counts = np.asarray(counts, dtype=float)
    share = _normal_coverage(counts, mean, down, up)
    exact = mean < EXACT_BELOW
    if exact.any():
        share[exact] = _poisson_coverage(counts[exact], mean[exact], down[exact], up[exact])
    known = np.isfinite(counts) & np.isfinite(mean) & np.isfinite(down) & np.isfinite(up)
    return np.where(known, share, np.nan)


def _overlap(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return which share of [below, above] lies in [0.05, 0.95]."""
    inside = np.clip(np.minimum(above, 0.95) - np.maximum(below, 0.05), 0, None)
    width = above - below
    plain = (above > 0.05) & (above < 0.95)
    return np.where(width > 1e-12, inside / np.maximum(width, 1e-12), plain)


def _normal_coverage(
    counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray
) -> np.ndarray:
    def cdf(value: np.ndarray) -> np.ndarray:
        spread = np.where(value < mean, down, up)
        return special.ndtr((value - mean) / np.sqrt(spread**2 + np.maximum(mean, 1e-12)))

    return _overlap(cdf(counts - 0.5), cdf(counts + 0.5))


def _poisson_coverage(
    counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """Few counts: average Poisson distributions over a two-sided normal spread of the mean.

    The nodes have equal probability, and 5 % and 95 % fall half-way between two of them.
    """
    deviates = special.ndtri((np.arange(_NODES) + 0.5) / _NODES)
    below, above = np.zeros_like(mean), np.zeros_like(mean)
    for deviate in deviates:
        rate = np.clip(mean + deviate * (down if deviate < 0 else up), 1e-12, None)
        above += special.gammaincc(counts + 1, rate)
        below += np.where(counts > 0, special.gammaincc(np.maximum(counts, 1e-12), rate), 0.0)
    return _overlap(below / _NODES, above / _NODES)


def error_ranking(error: np.ndarray, sigma: np.ndarray, drop: float = 0.2) -> float:
    """Return how well the stated uncertainty ranks the errors, against knowing them: 1 is perfect.

    Without the share `drop` of pixels with the largest `sigma` the mean squared error falls; this
    is that fall as a share of what dropping the largest errors themselves would bring. 0: no
    better than dropping at random. NaN where nothing is wrong.
    """
    square, sigma = np.square(np.ravel(error)), np.ravel(sigma)
    valid = np.isfinite(square) & np.isfinite(sigma)
    square, sigma = square[valid], sigma[valid]
    kept = round(square.size * (1 - drop))
    if not kept or not square.any():
        return float("nan")
    whole = square.mean()
    # Stable, so that equal sigmas fall as they lie and not as the sort likes.
    ours = square[np.argsort(sigma, kind="stable")[:kept]].mean()
    oracle = np.sort(square)[:kept].mean()
    return float((whole - ours) / (whole - oracle)) if whole > oracle else float("nan")


@dataclass(frozen=True)
class Sparsification:
    """Error left as the most uncertain pixels are dropped (E. Ilg et al., ECCV 2018).

    See DOI 10.1007/978-3-030-01234-2_40.
    """

    dropped: np.ndarray
    """Shares of pixels that are dropped, 0 ... 0.99."""
    stated: np.ndarray
    """Root mean square error of the rest, of that of all pixels, dropped by stated uncertainty."""
    oracle: np.ndarray
    """The same, dropped by the errors themselves."""

    @property
    def ause(self) -> float:
        """Area between both curves: 0 is perfect; dropping at random gives 1 minus the oracle's."""
        gap = self.stated - self.oracle
        return float(np.mean((gap[1:] + gap[:-1]) / 2))


def sparsification(error: np.ndarray, sigma: np.ndarray, steps: int = 100) -> Sparsification:
    """Return how the error falls as pixels with the largest `sigma` are dropped.

    NaN everywhere where nothing is wrong.
    """
    square, sigma = np.square(np.ravel(error)), np.ravel(sigma)
    valid = np.isfinite(square) & np.isfinite(sigma)
    square, sigma = square[valid], sigma[valid]
    dropped = np.arange(steps) / steps
    if not square.any():
        nothing = np.full(steps, np.nan)
        return Sparsification(dropped, nothing, nothing)
    kept = np.maximum(1, np.round(square.size * (1 - dropped)).astype(int))

    def left(order: np.ndarray) -> np.ndarray:
        return np.sqrt(np.cumsum(square[order])[kept - 1] / kept / square.mean())

    # Stable, so that equal sigmas fall as they lie and not as the sort likes.
    return Sparsification(dropped, left(np.argsort(sigma, kind="stable")), left(np.argsort(square)))


def coverage_by_counts(
    inside: np.ndarray, counts: np.ndarray, edges: tuple[float, ...] = (1, 10, 100, 1000, 10_000)
) -> dict[str, tuple[float, int]]:
    """Return coverage and number of pixels per decade of expected counts.

    Keys are "<1", "1-10", ...; decades without pixels are left out.
    """
    valid = np.isfinite(counts)
    group = np.digitize(np.where(valid, counts, 0), edges)
    names = [f"<{edges[0]:g}"]
    names += [f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges)]
    names.append(f">{edges[-1]:g}")
    found = {}
    for index, name in enumerate(names):
        chosen = inside[valid & (group == index)]
        if chosen.size:
            found[name] = (float(chosen.mean()), int(chosen.size))
    return found
