"""The measured counts have the last word: totals are kept, contradictions seen and repaired."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.physics.forward import coarsen, probe_blur
from xrf_sr_plans.schema import Sampling

CONTRADICTION = 4.0
"""Standard deviations of counting noise by which a coarse pixel may differ from the estimate."""
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
    """Return the estimate with contradicted pixels pulled back and each total as measured.

    The estimate isn't forced onto the measured counts, which would put their noise back: only
    where a coarse pixel lies more than `CONTRADICTION` standard deviations off (a hot particle
    that was smoothed away) is the excess returned to its block.
    """
    residual = deviation(counts, estimate, factor, sampling, probe)
    excess = np.sign(residual) * np.clip(np.abs(residual) - CONTRADICTION, 0, None)
    if excess.any():
        scale = np.sqrt(degrade(estimate, factor, sampling, probe) + 0.5)
        back = (excess * scale).repeat(factor, axis=-2).repeat(factor, axis=-1)
        estimate = np.clip(estimate + back, 0, None)
    total, measured = estimate.mean(axis=(-2, -1)), counts.mean(axis=(-2, -1))
    rescale = np.divide(measured, total, out=np.ones_like(total), where=total > 0)
    rescale = np.clip(rescale, 1 - LARGEST_RESCALE, 1 + LARGEST_RESCALE)
    return estimate * rescale[:, None, None]


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
