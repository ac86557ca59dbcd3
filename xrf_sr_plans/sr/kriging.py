"""Kriging: the posterior mean of a Gaussian process with a linear drift, from nearby pixels.

G. Matheron, Adv. Appl. Prob. 5 (1973) 439, DOI 10.2307/1425829 (universal kriging). The
covariance is a stretched exponential that is fitted to the map's own variogram by weighted least
squares (N. Cressie, Math. Geol. 17 (1985) 563, DOI 10.1007/BF01032109). Since it depends on the
distance only and the noise is alike everywhere, all fine pixels with the same place within their
measured pixel have the same weights: kriging with a local neighbourhood is a convolution for each
place.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import linalg, ndimage

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import stabilise, unstabilise_mean

REACH_STEPS = 4
"""Pixels up to so many coarse steps away take part, along each axis."""
LAGS_STEPS = 6
"""Largest distance, in coarse steps, at which the variogram is looked at."""
RANGES_STEPS = tuple(np.geomspace(0.4, 40.0, 24))
"""Ranges of the covariance to choose from, in coarse steps."""
POWERS = (0.5, 1.0, 1.5, 1.9)
"""Powers in the exponent of the covariance to choose from; 2 would be a Gaussian."""
NOISE_SHARES = (1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Shares of noise in the variance to choose from, where only so many covariances are told apart."""
KRIGED = (4, 4)
"""What is measured where kriging is ahead of interpolation: rows four fine pixels apart."""
UNKNOWN = -1
"""In place of the number of a covariance."""
_JITTER = 1e-6
"""Share of the variance that is added to the noise, so that the equations can always be solved."""


@dataclass(frozen=True)
class Covariance:
    """Covariance ``sill * exp(-(h / range_steps) ** power)`` at the distance h, and the noise.

    `sill` and `noise` are variances, distances are in coarse steps.
    """

    sill: float
    range_steps: float
    power: float
    noise: float

    def __call__(self, distance: np.ndarray) -> np.ndarray:
        """Return the covariance at distances in coarse steps."""
        return self.sill * np.exp(-((distance / self.range_steps) ** self.power))


def variogram(plane: np.ndarray, fast_pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lags in coarse steps, half the mean square differences, and their numbers of pairs.

    `plane` (y, x) has `fast_pixels` pixels per coarse step along x.
    """
    lags, halves, pairs = [], [], []
    for axis, pixels in ((0, 1), (1, fast_pixels)):
        for lag in range(1, min(LAGS_STEPS * pixels, plane.shape[axis] - 1) + 1):
            along = np.moveaxis(plane, axis, 0)
            difference = along[lag:] - along[:-lag]
            lags.append(lag / pixels)
            halves.append(0.5 * np.square(difference).mean())
            pairs.append(difference.size)
    return np.array(lags), np.array(halves), np.array(pairs)


def _shapes() -> list[tuple[float, float]]:
    """Return range and power of each covariance that may be chosen."""
    return list(itertools.product(RANGES_STEPS, POWERS))


def fitted(plane: np.ndarray, fast_pixels: int, noise: float) -> Covariance:
    """Return the covariance that fits a map's variogram best; `noise` is its variance at most."""
    return _fitted(plane, fast_pixels, noise)[1]


def _fitted(plane: np.ndarray, fast_pixels: int, noise: float) -> tuple[int, Covariance]:
    """Return the number of the best of `_shapes`, and the covariance."""
    lags, halves, pairs = variogram(plane, fast_pixels)
    if not lags.size or halves.max() <= 0:
        return 0, Covariance(0.0, 1.0, 1.0, max(noise, 1.0))
    # Below about one photon the noise of stabilised counts is smaller than 1.
    noise = min(noise, float(halves.min()))
    weight = pairs / np.square(np.maximum(halves, 1e-3 * halves.max()))
    lengths, powers = (np.array(values)[:, None] for values in zip(*_shapes(), strict=True))
    # What the variogram is of the sill at each lag, (shape, lag).
    rise = 1 - np.exp(-((lags / lengths) ** powers))
    above = halves - noise
    sills = np.maximum(0.0, (weight * rise * above).sum(1) / (weight * rise**2).sum(1))
    left = (weight * np.square(above - sills[:, None] * rise)).sum(1)
    best = int(left.argmin())
    length, power = _shapes()[best]
    return best, Covariance(float(sills[best]), float(length), power, noise)


def chosen_covariances(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return which of the covariances that `kernels` knows fits each map best, (...), integer.

    `counts` (..., y, x) are photons per measured pixel, without gaps.
    """
    flat = np.asarray(counts, dtype=np.float32).reshape(-1, *np.shape(counts)[-2:])
    chosen = []
    for plane in stabilise(flat):
        shape, covariance = _fitted(plane, measurement.fast_pixels, 1.0)
        share = covariance.noise / max(covariance.sill + covariance.noise, 1e-12)
        level = np.abs(np.log(np.array(NOISE_SHARES) / max(share, 1e-12))).argmin()
        chosen.append(shape * len(NOISE_SHARES) + int(level))
    return np.reshape(chosen, np.shape(counts)[:-2])


def kriging_choice(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return `chosen_covariances` where networks are told of kriging (`KRIGED`), else -1."""
    if measurement.reading != KRIGED:
        return np.full(np.shape(counts)[:-2], UNKNOWN)
    return chosen_covariances(counts, measurement)


@lru_cache(maxsize=2048)
def kernels(chosen: int, factor: int, fast_pixels: int) -> np.ndarray:
    """Return the weights of one of `chosen_covariances` for each fine row within a coarse step.

    Returns
    -------
    np.ndarray
        (row, 2 reach + 1, 2 reach + 1), single precision, for maps with as many pixels along x as
        the fine map. It is cached, hence read-only.
    """
    length, power = _shapes()[chosen // len(NOISE_SHARES)]
    share = NOISE_SHARES[chosen % len(NOISE_SHARES)]
    covariance = Covariance(1 - share, float(length), power, share)
    reach = REACH_STEPS, REACH_STEPS * fast_pixels
    places = [((row + 0.5) / factor - 0.5, 0.0) for row in range(factor)]
    made = weights(covariance, places, fast_pixels, reach).astype(np.float32)
    # Mirrored to the last bit, so that mirrored maps give mirrored results.
    made = (made + made[::-1, ::-1]) / 2
    made = (made + made[..., ::-1]) / 2
    made.setflags(write=False)
    return made


def weights(
    covariance: Covariance,
    places: Sequence[tuple[float, float]],
    fast_pixels: int,
    reach: tuple[int, int],
) -> np.ndarray:
    """Return the weights of the pixels around some places.

    Parameters
    ----------
    covariance
        Of the map.
    places
        (y, x) from the centre of the middle pixel, in coarse steps.
    fast_pixels
        Pixels per coarse step along x.
    reach
        Pixels on each side of the middle one, along (y, x).

    Returns
    -------
    np.ndarray
        (place, 2 reach + 1, 2 reach + 1). Those of a place sum to 1, and a linear ramp stays one.
    """
    y, x = (axis.ravel() for axis in np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1])
    at = np.column_stack([y, x / fast_pixels]).astype(float)
    apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    # Relative to the variance, so that the drift's equations are of the same size.
    unit = covariance.sill + covariance.noise
    among = covariance(apart) / unit + (covariance.noise / unit + _JITTER) * np.eye(len(at))
    drift = np.column_stack([np.ones(len(at)), at])
    system = np.block([[among, drift], [drift.T, np.zeros((3, 3))]])
    towards = covariance(np.hypot(*(at[:, None] - np.array(places)[None]).T)).T / unit
    known = np.column_stack([np.ones(len(places)), places]).T
    solved = linalg.solve(system, np.concatenate([towards, known]), assume_a="sym")
    return solved[: len(at)].T.reshape(len(places), 2 * reach[0] + 1, 2 * reach[1] + 1)


def kriging(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the map predicted by kriging on the fine grid.

    With counting noise it works on stabilised counts, whose noise is alike everywhere.

    Parameters
    ----------
    counts
        Photons per measured pixel (element, y, x), without gaps.
    measurement
        How the map was measured.

    Returns
    -------
    np.ndarray
        Photons per measured pixel, (element, Y, X).
    """
    noisy = measurement.noisy
    made = []
    for plane in counts:
        values = stabilise(plane) if noisy else plane
        fine = _predicted(
            values, measurement, fitted(values, measurement.fast_pixels, float(noisy))
        )
        made.append(unstabilise_mean(fine) if noisy else fine)
    return np.stack(made)


def _predicted(plane: np.ndarray, measurement: Measurement, covariance: Covariance) -> np.ndarray:
    """Return one map (y, x) on the fine grid, (Y, X)."""
    (rows, columns), pixels = measurement.refinement, measurement.fast_pixels
    reach = REACH_STEPS, REACH_STEPS * pixels
    fine = np.empty((plane.shape[0] * rows, plane.shape[1] * columns))
    within = list(itertools.product(range(rows), range(columns)))
    places = [
        ((row + 0.5) / rows - 0.5, ((column + 0.5) / columns - 0.5) / pixels)
        for row, column in within
    ]
    of_places = weights(covariance, places, pixels, reach)
    for (row, column), kernel in zip(within, of_places, strict=True):
        fine[row::rows, column::columns] = ndimage.correlate(plane, kernel, mode="nearest")
    return fine
