"""The measured counts have the last word: totals are kept, contradictions seen and repaired."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.physics.forward import coarsen, probe_blur
from xrf_sr_plans.physics.resample import upsample

CONTRADICTION = 4.0
"""Standard deviations of counting noise by which a coarse pixel may differ from the estimate."""
WORST_CHI2 = 2.0
"""Reduced chi-square of 5 x 5 coarse pixels that may be counting noise."""
ROUNDS = 3
LEAST_SHARE = 0.001
"""Share of an element's pixels above `WORST_CHI2` from which on it is worth the time."""
LARGEST_RESCALE = 0.2
"""Largest relative correction of an element's total; more means that something else is wrong."""


def degrade(estimate: np.ndarray, factor: int, sampling: Sampling, probe: float) -> np.ndarray:
    """Measure an estimate (element, y, x) again, without noise.

    `probe` is the FWHM, in coarse steps, that the estimate has been freed of (0: none).
    """
    return coarsen(probe_blur(estimate, 1.0, probe * factor), factor, sampling)


def deviation(
    counts: np.ndarray, estimate: np.ndarray, factor: int, sampling: Sampling, probe: float
) -> np.ndarray:
    """Return (measured - re-degraded estimate) in standard deviations of the counting noise."""
    expected = degrade(estimate, factor, sampling, probe)
    return (counts - expected) / np.sqrt(expected + 0.5)


def project(
    counts: np.ndarray, estimate: np.ndarray, factor: int, sampling: Sampling, probe: float
) -> np.ndarray:
    """Return the estimate with contradictions taken back and each total as measured.

    The estimate isn't forced onto the measured counts, which would put their noise back. Where a
    coarse pixel lies more than `CONTRADICTION` standard deviations off (a hot particle that was
    smoothed away) the excess is returned to its block; where a whole neighbourhood deviates by
    more than counting noise can, see `_reconciled`.
    """
    expected = degrade(estimate, factor, sampling, probe)
    scale = np.sqrt(expected + 0.5)
    residual = (counts - expected) / scale
    excess = np.sign(residual) * np.clip(np.abs(residual) - CONTRADICTION, 0, None)
    if excess.any():
        back = (excess * scale).repeat(factor, axis=-2).repeat(factor, axis=-1)
        estimate = np.clip(estimate + back, 0, None)
        expected = degrade(estimate, factor, sampling, probe)
    estimate = _reconciled(counts, estimate, expected, factor, sampling, probe)
    total, measured = estimate.mean(axis=(-2, -1)), counts.mean(axis=(-2, -1))
    rescale = np.divide(measured, total, out=np.ones_like(total), where=total > 0)
    rescale = np.clip(rescale, 1 - LARGEST_RESCALE, 1 + LARGEST_RESCALE)
    return estimate * rescale[:, None, None]


def _reconciled(
    counts: np.ndarray,
    estimate: np.ndarray,
    expected: np.ndarray,
    factor: int,
    sampling: Sampling,
    probe: float,
) -> np.ndarray:
    """Return an estimate that is nearer to the counts where it is further off than their noise.

    Back-projection (M. Irani, S. Peleg 1991, DOI 10.1016/1049-9652(91)90045-L), weighted: of a
    local reduced chi-square, `WORST_CHI2` may be noise, the rest is the estimate's error. It
    matters from some 1000 counts on, where the network is wrong by more than the noise.
    """
    for number in range(ROUNDS):
        left = counts - expected
        square = np.square(left) / (expected + 0.5)
        chi2 = np.stack([ndimage.uniform_filter(one, 5, mode="nearest") for one in square])
        weight = np.clip(1 - WORST_CHI2 / np.maximum(chi2, 1e-9), 0, None)
        if (weight > 0).mean() < LEAST_SHARE:
            break
        estimate = np.clip(estimate + upsample(weight * left, factor), 0, None)
        if number + 1 < ROUNDS:
            expected = degrade(estimate, factor, sampling, probe)
    return estimate


def local_chi2(
    counts: np.ndarray,
    estimate: np.ndarray,
    factor: int,
    sampling: Sampling,
    probe: float,
    *,
    tolerance: float = 0.03,
    size: int = 5,
) -> np.ndarray:
    """Return the reduced chi-square around each coarse pixel, (element, y, x).

    A difference counts against the counting noise *and* `tolerance` of the element's range:
    where there are 10^5 counts every model is wrong by more than the noise.
    """
    expected = degrade(estimate, factor, sampling, probe)
    span = np.ptp(np.quantile(expected, (0.01, 0.99), axis=(-2, -1)), axis=0)[:, None, None]
    residual = (counts - expected) / np.sqrt(expected + 0.5 + (tolerance * span) ** 2)
    plane = [ndimage.uniform_filter(one, size, mode="nearest") for one in np.square(residual)]
    return np.stack(plane)
