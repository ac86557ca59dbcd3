"""`posterior`: which displacements of the rows a comparison makes likely, and how likely.

Drift is taken for a Gaussian process along the rows: smooth, with an amplitude and a length that
nobody knows. So several of each are tried, no drift at all among them, and likewise row shift and
stretch with and without. Each combination gives a result of its own. They are averaged by how
likely they make the data (their evidence), so that what the data can't tell stays at nothing, and
what they can't decide widens the error: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes
for Machine Learning (2006), ch. 5, DOI 10.7551/mitpress/3206.001.0001.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

AMPLITUDES_PX = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Root mean squares of the drift along x or y that are tried, in fine pixels."""
LENGTHS = (0.2, 0.5, 1.0)
"""Lengths over which drift changes that are tried, in heights of the map."""
SHIFT_PX, ROW_SHIFT_PX, STRETCH = 30.0, 0.5, 0.01
"""One standard deviation of what is expected beforehand of the shift of the whole map, and, where
they are there, of the row shift (both in fine pixels) and of the stretch."""
_KEPT = 1e-4
"""Weight below which a combination adds nothing to the covariance."""
_VARIANCE_KEPT = 1e-5
"""Share of the variance of the drift that is left out as too quick."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """Mean and covariance of `Warp.parameters`."""

    mean: np.ndarray
    covariance: np.ndarray


def posterior(information: np.ndarray, score: np.ndarray, parameters: np.ndarray) -> Posterior:
    """Return what is likely, where information and score at `parameters` are known.

    Parameters
    ----------
    information
        Second derivatives of the log-likelihood, their sign changed, (parameter, parameter).
    score
        First derivatives (parameter,).
    parameters
        Those of `Warp`, (2 row + 2,).
    """
    rows = len(parameters) // 2 - 1
    toward = information @ parameters + score
    ways = [_Ways.of(rows, length, information, toward) for length in LENGTHS]
    best = max(way.evidence.max() for way in ways)
    weights = [np.exp(way.evidence - best) for way in ways]
    total = sum(weight.sum() for weight in weights)
    mean = sum(
        (weight / total) @ way.means @ way.basis.T
        for way, weight in zip(ways, weights, strict=True)
    )
    covariance = np.zeros_like(information)
    for way, weight in zip(ways, weights, strict=True):
        covariance += way.spread(weight / total, np.asarray(mean))
    return Posterior(np.asarray(mean), covariance)


@dataclass(frozen=True, eq=False)
class _Ways:
    """All combinations of one length.

    Parameters
    ----------
    basis
        What each coefficient adds to the parameters (parameter, coefficient).
    spreads
        One standard deviation of each coefficient beforehand (combination, coefficient).
    precisions
        Of the coefficients in units of these, (combination, coefficient, coefficient).
    means
        Of the coefficients (combination, coefficient).
    evidence
        Logarithm of the likelihood of each combination.
    """

    basis: np.ndarray
    spreads: np.ndarray
    precisions: np.ndarray
    means: np.ndarray
    evidence: np.ndarray

    @classmethod
    def of(cls, rows: int, length: float, information: np.ndarray, toward: np.ndarray) -> _Ways:
        basis, spreads = _basis(rows, length), _spreads(rows, length)
        own = basis.T @ information @ basis
        right = spreads * (basis.T @ toward)
        precisions = np.eye(len(own)) + spreads[:, :, None] * own * spreads[:, None, :]
        solved = np.linalg.solve(precisions, right[..., None])[..., 0]
        evidence = 0.5 * (right * solved).sum(axis=1) - 0.5 * np.linalg.slogdet(precisions)[1]
        return cls(basis, spreads, precisions, spreads * solved, evidence)

    def spread(self, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return what these combinations add to the covariance of the parameters."""
        kept = weights > _KEPT
        if not kept.any():
            return np.zeros((len(mean), len(mean)))
        within = np.linalg.inv(self.precisions[kept])
        within = np.einsum(
            "o,oi,oij,oj->ij", weights[kept], self.spreads[kept], within, self.spreads[kept]
        )
        off = self.means[kept] @ self.basis.T - mean
        return self.basis @ within @ self.basis.T + (weights[kept, None] * off).T @ off


@lru_cache(maxsize=32)
def _waves(rows: int, length: float) -> np.ndarray:
    """Return the main components (row, wave) of a drift with mean 0 and root mean square 1."""
    y = (np.arange(rows) + 0.5) / rows
    covariance = np.exp(-0.5 * np.square((y[:, None] - y) / length))
    free = np.eye(rows) - 1 / rows
    values, vectors = np.linalg.eigh(free @ covariance @ free)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > _VARIANCE_KEPT * values.sum()
    return vectors[:, kept] * np.sqrt(values[kept] * rows / values.sum())


@lru_cache(maxsize=32)
def _basis(rows: int, length: float) -> np.ndarray:
    waves = _waves(rows, length)
    along = np.concatenate([np.ones((rows, 1)), waves], axis=1)
    count = along.shape[1]
    made = np.zeros((2 * rows + 2, 2 * count + 2))
    made[:rows, :count] = made[rows : 2 * rows, count : 2 * count] = along
    made[-2, -2] = made[-1, -1] = 1
    return made


@lru_cache(maxsize=32)
def _spreads(rows: int, length: float) -> np.ndarray:
    count = _waves(rows, length).shape[1]
    return np.array(
        [
            [SHIFT_PX, *[along_x] * count, SHIFT_PX, *[along_y] * count, row_shift, stretch]
            for along_x, along_y, row_shift, stretch in itertools.product(
                AMPLITUDES_PX, AMPLITUDES_PX, (0.0, ROW_SHIFT_PX), (0.0, STRETCH)
            )
        ]
    )
