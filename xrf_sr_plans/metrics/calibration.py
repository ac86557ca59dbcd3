"""Whether predicted intervals cover, and stated uncertainties rank, the errors of a prediction.

What the errors are is told by a later measurement, which is itself noisy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import special

from xrf_sr_plans.physics.counting import NORMAL_90

_NODES = 20
EXACT_BELOW = 50.0
"""Expected counts below which a Poisson distribution isn't approximated by a normal one."""


def covered(
    counts: np.ndarray,
    estimate: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    unit: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return how far each pixel's 90 % interval covers its measurement, from 0 to 1.

    The mean over all pixels is the coverage, which for a perfectly calibrated prediction is 0.90 at
    any number of counts.

    A measurement differs from the truth by its own counting noise, so an interval for the truth
    can't be compared with it directly. Here the prediction is widened by the Poisson noise of the
    measurement. Because counts are whole numbers, each one spreads its probability evenly over the
    step that it makes in the predicted distribution. This is the non-randomized PIT of C. Czado,
    T. Gneiting and L. Held, Biometrics 65 (2009) 1254, DOI 10.1111/j.1541-0420.2009.01191.x.

    Parameters
    ----------
    counts
        Detected photons.
    estimate, lower, upper
        Prediction for the *mean* of `counts` times `unit`, and the ends of its 90 % interval.
    unit
        Value of one photon in the unit of `estimate`, which differs from 1 where dwell time, I0 or
        pixel size do.

    Returns
    -------
    numpy.ndarray
        One share per pixel, in the shape of `counts`; NaN where something isn't finite.
    """
    unit = np.broadcast_to(np.asarray(unit, dtype=float), np.shape(counts))
    mean = np.clip(estimate / unit, 0, None)
    down = np.clip((estimate - lower) / unit, 0, None) / NORMAL_90
    up = np.clip((upper - estimate) / unit, 0, None) / NORMAL_90
    counts = np.asarray(counts, dtype=float)
    share = _normal_coverage(counts, mean, down, up)
    exact = mean < EXACT_BELOW
    if exact.any():
        share[exact] = _poisson_coverage(counts[exact], mean[exact], down[exact], up[exact])
    known = np.isfinite(counts) & np.isfinite(mean) & np.isfinite(down) & np.isfinite(up)
    return np.where(known, share, np.nan)


def _overlap(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return the share of each interval [below, above] that lies in [0.05, 0.95]."""
    inside = np.clip(np.minimum(above, 0.95) - np.maximum(below, 0.05), 0, None)
    width = above - below
    # An interval without width is inside or outside as a whole.
    is_inside = (above > 0.05) & (above < 0.95)
    return np.where(width > 1e-12, inside / np.maximum(width, 1e-12), is_inside)


def _normal_coverage(
    counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """Return the coverage where counts are so many that their distribution is a normal one.

    `mean`, `down` and `up` are the predicted mean and its standard deviations to either side, in
    photons.
    """

    def cdf(value: np.ndarray) -> np.ndarray:
        spread = np.where(value < mean, down, up)
        return special.ndtr((value - mean) / np.sqrt(spread**2 + np.maximum(mean, 1e-12)))

    return _overlap(cdf(counts - 0.5), cdf(counts + 0.5))


def _poisson_coverage(
    counts: np.ndarray, mean: np.ndarray, down: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """Return the coverage for few counts, from Poisson distributions of uncertain mean.

    They are averaged over nodes of equal probability of the mean, whose distribution is a normal
    one of different widths to either side. The probabilities of 5 % and 95 % fall half-way between
    two nodes.
    """
    deviates = special.ndtri((np.arange(_NODES) + 0.5) / _NODES)
    below, above = np.zeros_like(mean), np.zeros_like(mean)
    for deviate in deviates:
        rate = np.clip(mean + deviate * (down if deviate < 0 else up), 1e-12, None)
        above += special.gammaincc(counts + 1, rate)
        below += np.where(counts > 0, special.gammaincc(np.maximum(counts, 1e-12), rate), 0.0)
    return _overlap(below / _NODES, above / _NODES)


def error_ranking(error: np.ndarray, sigma: np.ndarray, drop: float = 0.2) -> float:
    """Return how well the stated uncertainty ranks the errors: 1 is perfect, and 0 is as chance.

    The mean squared error falls if the pixels with the largest `sigma` are dropped. The result is
    this fall as a share of what dropping the largest errors themselves would bring.

    Parameters
    ----------
    error
        Errors of the pixels, of any shape.
    sigma
        Stated standard deviations of the same pixels.
    drop
        Share of the pixels that are dropped.

    Returns
    -------
    float
        NaN where there are no errors.
    """
    square, sigma = np.square(np.ravel(error)), np.ravel(sigma)
    valid = np.isfinite(square) & np.isfinite(sigma)
    square, sigma = square[valid], sigma[valid]
    kept = round(square.size * (1 - drop))
    if not kept or not square.any():
        return float("nan")
    whole = square.mean()
    # A stable sort, so that pixels of equal sigma are dropped in a defined order.
    ours = square[np.argsort(sigma, kind="stable")[:kept]].mean()
    oracle = np.sort(square)[:kept].mean()
    return float((whole - ours) / (whole - oracle)) if whole > oracle else float("nan")


@dataclass(frozen=True)
class Sparsification:
    """How the error of a map falls as the most uncertain pixels are dropped.

    The method is that of E. Ilg et al., ECCV 2018, DOI 10.1007/978-3-030-01234-2_40. All arrays
    have one value per step of dropping.
    """

    dropped: np.ndarray
    """Share of the pixels that are dropped, from 0 up."""
    stated: np.ndarray
    """Root mean square error of the pixels left, relative to that of all pixels, where those of the
    largest stated uncertainty are dropped."""
    oracle: np.ndarray
    """The same, where those of the largest errors are dropped."""

    @property
    def ause(self) -> float:
        """Area between both curves.

        It is 0 where the uncertainty ranks the errors perfectly, and 1 minus the area below
        `oracle` where pixels are dropped at random.
        """
        gap = self.stated - self.oracle
        return float(np.mean((gap[1:] + gap[:-1]) / 2))


def sparsification(error: np.ndarray, sigma: np.ndarray, steps: int = 100) -> Sparsification:
    """Return how the error of a map falls as the most uncertain pixels are dropped.

    Both curves are NaN where there are no errors.

    Parameters
    ----------
    error
        Errors of the pixels, of any shape.
    sigma
        Stated standard deviations of the same pixels.
    steps
        Number of points of the curves.
    """
    square, sigma = np.square(np.ravel(error)), np.ravel(sigma)
    valid = np.isfinite(square) & np.isfinite(sigma)
    square, sigma = square[valid], sigma[valid]
    dropped = np.arange(steps) / steps
    if not square.any():
        nothing = np.full(steps, np.nan)
        return Sparsification(dropped, nothing, nothing)
    kept = np.maximum(1, np.round(square.size * (1 - dropped)).astype(int))

    def error_left(order: np.ndarray) -> np.ndarray:
        # `order` lists the pixels, the one that is kept longest first.
        return np.sqrt(np.cumsum(square[order])[kept - 1] / kept / square.mean())

    # A stable sort, so that pixels of equal sigma are dropped in a defined order.
    stated = error_left(np.argsort(sigma, kind="stable"))
    return Sparsification(dropped, stated, error_left(np.argsort(square)))


def coverage_by_counts(
    inside: np.ndarray, counts: np.ndarray, edges: tuple[float, ...] = (1, 10, 100, 1000, 10_000)
) -> dict[str, tuple[float, int]]:
    """Return the coverage and the number of pixels for each range of expected counts.

    Parameters
    ----------
    inside
        Coverage of each pixel, as from `covered`.
    counts
        Expected counts of the same pixels.
    edges
        Limits between the ranges.

    Returns
    -------
    dict
        By range, such as "<1" and "1-10". Ranges without pixels are left out.
    """
    valid = np.isfinite(counts)
    group = np.digitize(np.where(valid, counts, 0), edges)
    names = [f"<{edges[0]:g}"]
    names += [f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges)]
    names.append(f">{edges[-1]:g}")
    coverage = {}
    for index, name in enumerate(names):
        chosen = inside[valid & (group == index)]
        if chosen.size:
            coverage[name] = (float(chosen.mean()), int(chosen.size))
    return coverage
