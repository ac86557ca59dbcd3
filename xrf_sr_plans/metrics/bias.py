"""Do the quantities that scientists read off a map survive: totals, ratios, measured counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def count_bias(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return (sum of the estimate) / (sum of the reference) - 1, over pixels finite in both.

    NaN where the reference sums to 0. Maps of different sizes compare by their means (both are
    in counts per coarse pixel), each over its own finite pixels.
    """
    estimate, reference = np.asarray(estimate, dtype=float), np.asarray(reference, dtype=float)
    if estimate.shape == reference.shape:
        valid = np.isfinite(estimate) & np.isfinite(reference)
        estimate, reference = estimate[valid], reference[valid]
    estimate, reference = estimate[np.isfinite(estimate)], reference[np.isfinite(reference)]
    if not reference.size or not estimate.size or reference.mean() <= 0:
        return float("nan")
    return float(estimate.mean() / reference.mean() - 1)


def ratio_bias(
    estimate: np.ndarray,
    reference: np.ndarray,
    other_estimate: np.ndarray,
    other_reference: np.ndarray,
) -> float:
    """Return the relative error of the ratio of two elements' total counts."""
    mine = 1 + count_bias(estimate, reference)
    others = 1 + count_bias(other_estimate, other_reference)
    return float(mine / others - 1) if others > 0 else float("nan")


def worst_ratio_bias(
    estimate: np.ndarray | Sequence[np.ndarray], reference: np.ndarray | Sequence[np.ndarray]
) -> float:
    """Return the largest relative error of any element-to-element ratio of totals.

    For maps (y, x) in the order of the elements; elements without counts are left out. NaN where
    fewer than two are left.
    """
    biases = [count_bias(mine, true) for mine, true in zip(estimate, reference, strict=True)]
    shares = np.array([1 + bias for bias in biases if np.isfinite(bias) and bias > -1])
    return float(shares.max() / shares.min() - 1) if shares.size > 1 else float("nan")


def reduced_chi2(measured: np.ndarray, expected: np.ndarray, *, min_counts: float = 0.5) -> float:
    """Return the mean of (measured - expected)^2 / expected over pixels with enough counts.

    `expected` is the estimate degraded by the forward model to the coarse grid. About 1: the
    estimate explains the measurement within counting noise; well below 1: it follows the noise;
    above: it contradicts what was measured. Pixels expecting fewer than `min_counts` photons are
    left out: there the ratio has a tail that drowns the rest. NaN where none is left.
    """
    measured, expected = np.asarray(measured, dtype=float), np.asarray(expected, dtype=float)
    valid = np.isfinite(measured) & np.isfinite(expected) & (expected >= min_counts)
    if not valid.any():
        return float("nan")
    return float(((measured[valid] - expected[valid]) ** 2 / expected[valid]).mean())
