"""How far an estimate changes what is read off a map: totals, ratios, and the measured counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def count_bias(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return the relative error of a map's total counts, (estimate / reference) - 1.

    Maps of one shape are compared over the pixels that are finite in both. Maps of different shapes
    are compared by the means of their own finite pixels, as both are in counts per coarse pixel.

    Parameters
    ----------
    estimate, reference
        Maps (y, x) of one element.

    Returns
    -------
    float
        NaN where the reference sums to 0.
    """
    estimate, reference = np.asarray(estimate, dtype=float), np.asarray(reference, dtype=float)
    if estimate.shape == reference.shape:
        valid = np.isfinite(estimate) & np.isfinite(reference)
        estimate, reference = estimate[valid], reference[valid]
    estimate, reference = estimate[np.isfinite(estimate)], reference[np.isfinite(reference)]
    if not reference.size or not estimate.size or reference.mean() <= 0:
        return float("nan")
    return float(estimate.mean() / reference.mean() - 1)


def worst_ratio_bias(
    estimate: np.ndarray | Sequence[np.ndarray], reference: np.ndarray | Sequence[np.ndarray]
) -> float:
    """Return the largest relative error of the ratio of any two elements' total counts.

    Parameters
    ----------
    estimate, reference
        One map (y, x) per element, in the same order. Elements without counts are left out.

    Returns
    -------
    float
        NaN where fewer than two elements are left.
    """
    biases = [count_bias(*maps) for maps in zip(estimate, reference, strict=True)]
    # The error of a ratio of totals is the ratio of the errors of both.
    factors = np.array([1 + bias for bias in biases if np.isfinite(bias) and bias > -1])
    return float(factors.max() / factors.min() - 1) if factors.size > 1 else float("nan")


def reduced_chi2(measured: np.ndarray, expected: np.ndarray, *, min_counts: float = 0.5) -> float:
    """Return the mean of (measured - expected)^2 / expected.

    Near 1, the estimate explains the measurement within counting noise. Well below 1 it follows the
    noise, and well above 1 it contradicts what was measured.

    Parameters
    ----------
    measured
        Measured counts of the coarse pixels.
    expected
        Counts that the estimate means for the same pixels, by the forward model.
    min_counts
        Pixels with fewer expected counts are left out, as their ratios have a tail that drowns the
        others.

    Returns
    -------
    float
        NaN where no pixel is left.
    """
    measured, expected = np.asarray(measured, dtype=float), np.asarray(expected, dtype=float)
    valid = np.isfinite(measured) & np.isfinite(expected) & (expected >= min_counts)
    if not valid.any():
        return float("nan")
    return float(((measured[valid] - expected[valid]) ** 2 / expected[valid]).mean())
