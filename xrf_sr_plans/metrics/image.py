"""PSNR and SSIM: how close an image is to a reference.

All figures of this package use the data range of the *reference*, from the 0.1th to the 99.9th
percentile and for each element by itself, so that figures of different methods and runs can be
compared. SSIM of a sparse map is mostly that of its background, and is therefore always given over
the foreground as well.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.physics.resample import fill_unmeasured

FOREGROUND_LEVEL = 0.1
"""Height above the background from which a pixel is foreground, as a part of the data range."""
SPIKE_RATIO = 4.0
"""How many times higher than its neighbors a pixel may be."""


def _finite_pair(estimate: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    estimate, reference = np.asarray(estimate, dtype=float), np.asarray(reference, dtype=float)
    if estimate.shape != reference.shape:
        raise GridError(f"estimate has the shape {estimate.shape}, reference {reference.shape}")
    return estimate, reference


def data_range(reference: np.ndarray) -> float:
    """Return the 99.9th minus the 0.1th percentile of the finite values, or 0 if there are none."""
    values = np.asarray(reference, dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0
    low, high = np.percentile(values, [0.1, 99.9])
    return float(high - low)


def psnr_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of one element's map, in dB.

    The peak is the `data_range` of the reference. Pixels that are NaN in either map don't count.

    Returns
    -------
    float
        NaN where the reference is constant or no pixel counts, and inf where both maps are equal.

    Raises
    ------
    GridError
        The shapes differ.
    """
    estimate, reference = _finite_pair(estimate, reference)
    squared = (estimate - reference) ** 2
    span, squared = data_range(reference), squared[np.isfinite(squared)]
    if not squared.size or span <= 0:
        return float("nan")
    error = float(squared.mean())
    return float("inf") if error == 0 else float(10 * np.log10(span**2 / error))


def foreground(reference: np.ndarray, level: float = FOREGROUND_LEVEL) -> np.ndarray:
    """Return the pixels (y, x) in which the element stands out from the background.

    They lie above the 0.1th percentile of the reference by more than `level` times its data range.
    """
    reference = np.asarray(reference, dtype=float)
    finite = reference[np.isfinite(reference)]
    if not finite.size:
        return np.zeros(reference.shape, dtype=bool)
    threshold = np.percentile(finite, 0.1) + level * data_range(reference)
    return np.nan_to_num(reference, nan=-np.inf) > threshold


def ssim(
    estimate: np.ndarray, reference: np.ndarray, *, foreground: np.ndarray | None = None
) -> float:
    """Return the structural similarity of one element's map.

    The window is a Gaussian with a sigma of 1.5 pixels (Z. Wang et al., IEEE Trans. Image Process.
    13 (2004) 600, DOI 10.1109/TIP.2003.819861).

    Parameters
    ----------
    estimate, reference
        Maps (y, x). Pixels that are NaN in either don't count.
    foreground
        Mask (y, x) of the pixels to average over, as from `foreground`; with None, the whole map.

    Returns
    -------
    float
        NaN where the reference is constant, no pixel counts, or a side is below 11 pixels.

    Raises
    ------
    GridError
        The shapes differ.
    """
    estimate, reference = _finite_pair(estimate, reference)
    chosen = np.isfinite(estimate) & np.isfinite(reference)
    if foreground is not None:
        chosen &= foreground
    local = _local_ssim(estimate, reference) if chosen.any() else None
    return float("nan") if local is None else float(local[chosen].mean())


def ssim_whole_and_foreground(estimate: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return the `ssim` over the whole map, and that over the `foreground` of the reference."""
    estimate, reference = _finite_pair(estimate, reference)
    valid = np.isfinite(estimate) & np.isfinite(reference)
    local = _local_ssim(estimate, reference) if valid.any() else None
    if local is None:
        return float("nan"), float("nan")
    front = valid & foreground(reference)
    return float(local[valid].mean()), float(local[front].mean()) if front.any() else float("nan")


def _local_ssim(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """Return the SSIM of each pixel (y, x), or None where it has no meaning."""
    from skimage.metrics import structural_similarity

    span = data_range(reference)
    if span <= 0 or min(reference.shape) < 11:
        return None
    _, local = structural_similarity(  # type: ignore[misc]  # a pair with full=True
        fill_unmeasured(reference),
        fill_unmeasured(estimate),
        data_range=span,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(local)


def winsorise(maps: np.ndarray, ratio: float = SPIKE_RATIO) -> np.ndarray:
    """Cut the one-pixel spikes of maps, by the same rule for whatever the maps are used for.

    A pixel above the 99.9th percentile of its map that is more than `ratio` times as high as each
    of its eight neighbors is lowered to `ratio` times the highest of them, or to the percentile
    if that is higher.

    Parameters
    ----------
    maps
        Maps (..., y, x), in which NaN stays as it is.
    ratio
        How many times higher than its neighbors a pixel may be.
    """
    maps = np.array(maps, dtype=float)
    # The eight neighbors, without the pixel itself.
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    for plane in maps.reshape(-1, *maps.shape[-2:]):
        finite = np.isfinite(plane)
        if not finite.any():
            continue
        filled = np.where(finite, plane, np.min(plane[finite]))
        neighbors = ndimage.maximum_filter(filled, footprint=ring, mode="nearest")
        cap = np.maximum(ratio * neighbors, np.percentile(plane[finite], 99.9))
        plane[:] = np.where(finite, np.minimum(plane, cap), plane)
    return maps
