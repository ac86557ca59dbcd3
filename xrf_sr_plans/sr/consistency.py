"""An estimate is held to the measured counts: contradictions are seen and repaired, totals kept.

Counts and residuals are on the measured grid (element, y, x), estimates on the fine grid
(element, Y, X), both in photons per measured pixel. The two are compared by
`physics.forward.degrade`, in units of the counting noise.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.forward import degrade
from xrf_sr_plans.physics.quantiles import quantiles
from xrf_sr_plans.physics.resample import upsample_filled

CONTRADICTION = 4.0
"""Standard deviations of counting noise by which a pixel may differ from the estimate."""
WORST_CHI2 = 2.0
"""Largest reduced chi-square of 5 x 5 coarse pixels that may be counting noise."""
ROUNDS = 3
"""Largest number of steps towards the counts."""
LEAST_SHARE = 0.001
"""Share of an element's pixels above `WORST_CHI2` below which a further step is not worth it."""
LARGEST_RESCALE = 0.2
"""Largest relative correction of an element's total; more means that something else is wrong."""


def deviation(counts: np.ndarray, estimate: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return how far the counts lie above the degraded estimate, in units of the counting noise.

    The unit is one standard deviation; the result is on the measured grid.
    """
    expected = degrade(estimate, measurement)
    return (counts - expected) / np.sqrt(expected + 0.5)


def project(counts: np.ndarray, estimate: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the estimate with contradictions taken back and each total as measured.

    The estimate isn't forced onto the measured counts, which would put their noise back. Where a
    measured pixel lies more than `CONTRADICTION` standard deviations off (a hot particle that was
    smoothed away) the excess is returned to its block. Where a whole neighbourhood deviates by
    more than counting noise can, `_reconciled` moves the estimate towards the counts.
    """
    expected = degrade(estimate, measurement)
    scale = np.sqrt(expected + 0.5)
    residual = (counts - expected) / scale
    contradicts = np.nonzero(np.abs(residual) > CONTRADICTION)
    if contradicts[0].size:
        size = residual[contradicts]
        excess = np.sign(size) * (np.abs(size) - CONTRADICTION) * scale[contradicts]
        estimate = _given_back(estimate, contradicts, excess, measurement.refinement)
        expected = degrade(estimate, measurement)
    estimate = _reconciled(counts, estimate, expected, measurement)
    total, measured = (maps.mean(axis=(-2, -1), dtype=float) for maps in (estimate, counts))
    rescale = np.divide(measured, total, out=np.ones_like(total), where=total > 0)
    rescale = np.clip(rescale, 1 - LARGEST_RESCALE, 1 + LARGEST_RESCALE)
    return estimate * rescale[:, None, None].astype(estimate.dtype)


def _given_back(
    estimate: np.ndarray,
    places: tuple[np.ndarray, ...],
    photons: np.ndarray,
    refinement: tuple[int, int],
) -> np.ndarray:
    """Return an estimate with photons per measured pixel added to the blocks of a few of them."""
    rows, columns = refinement
    made = np.array(estimate, order="C")
    # (element, measured y, fine y within it, measured x, fine x within it), a view.
    n_elements, height, width = made.shape
    blocks = made.reshape(n_elements, height // rows, rows, width // columns, columns)
    element, y, x = places
    changed = blocks[element, y, :, x, :] + photons[:, None, None]
    blocks[element, y, :, x, :] = np.clip(changed, 0, None)
    return made


def _reconciled(
    counts: np.ndarray, estimate: np.ndarray, expected: np.ndarray, measurement: Measurement
) -> np.ndarray:
    """Return an estimate that is nearer to the counts where it is further off than their noise.

    Weighted back-projection (M. Irani, S. Peleg 1991, DOI 10.1016/1049-9652(91)90045-L): of a
    local reduced chi-square, `WORST_CHI2` may be noise and the rest is the estimate's error. It
    matters from some 1000 counts on, where the network is wrong by more than the noise.
    `expected` is the estimate degraded to the measured grid.
    """
    for number in range(ROUNDS):
        left = counts - expected
        chi2 = _local_mean(np.square(left) / (expected + 0.5), 5, measurement)
        if np.count_nonzero(chi2 > WORST_CHI2) < LEAST_SHARE * chi2.size:
            break
        # The share, 0 to 1, of each measured pixel's residual that is no noise.
        left *= np.clip(1 - WORST_CHI2 / np.maximum(chi2, 1e-9), 0, None)
        moved = upsample_filled(left, measurement.refinement)
        moved += estimate
        estimate = np.clip(moved, 0, None, out=moved)
        if number + 1 < ROUNDS:
            expected = degrade(estimate, measurement)
    return estimate


def local_chi2(
    counts: np.ndarray,
    estimate: np.ndarray,
    measurement: Measurement,
    *,
    tolerance: float = 0.03,
    size: int = 5,
) -> np.ndarray:
    """Return the reduced chi-square of `size` x `size` coarse pixels around each, (element, y, x).

    A difference counts against the counting noise *and* against `tolerance` of the element's
    range, because where there are 10^5 counts every model is wrong by more than the noise.
    """
    expected = degrade(estimate, measurement)
    # The robust range of each element's expected counts, (element, 1, 1).
    spans = [np.ptp(quantiles(plane, (0.01, 0.99))) for plane in expected]
    span = np.array(spans, dtype=expected.dtype)[:, None, None]
    residual = (counts - expected) / np.sqrt(expected + 0.5 + (tolerance * span) ** 2)
    return _local_mean(np.square(residual), size, measurement)


def _local_mean(maps: np.ndarray, size: int, measurement: Measurement) -> np.ndarray:
    """Return the mean over `size` x `size` coarse pixels around each of maps (element, y, x)."""
    # An odd number of measured pixels has a middle one.
    along_x = size * measurement.fast_pixels // 2 * 2 + 1
    return np.stack(
        [ndimage.uniform_filter(plane, (size, along_x), mode="nearest") for plane in maps]
    )
