"""How close an image is to a reference: PSNR and SSIM with a stated data range.

Every figure of this package uses the data range p99.9 - p0.1 of the *reference*, per element,
so that figures of different methods and runs can be put side by side. SSIM of a sparse map is
mostly background; it is always given over the foreground as well.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.physics.resample import fill_unmeasured

FOREGROUND_LEVEL = 0.1
SPIKE_RATIO = 4.0


def _finite_pair(estimate: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    estimate, reference = np.asarray(estimate, dtype=float), np.asarray(reference, dtype=float)
    if estimate.shape != reference.shape:
        raise GridError(f"estimate has the shape {estimate.shape}, reference {reference.shape}")
    return estimate, reference


def data_range(reference: np.ndarray) -> float:
    """Return p99.9 - p0.1 of the finite values; 0.0 where there are none."""
    values = np.asarray(reference, dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0
    low, high = np.percentile(values, [0.1, 99.9])
    return float(high - low)


def psnr_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of one element's map, in dB.

    The peak is `data_range(reference)`. Pixels that are NaN in either map don't count.
    NaN where the reference is constant or nothing is left; inf where both agree exactly.

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
    """Return where the element is: above p0.1 + `level` x data range of the reference."""
    reference = np.asarray(reference, dtype=float)
    finite = reference[np.isfinite(reference)]
    if not finite.size:
        return np.zeros(reference.shape, dtype=bool)
    threshold = np.percentile(finite, 0.1) + level * data_range(reference)
    return np.nan_to_num(reference, nan=-np.inf) > threshold


def ssim(
    estimate: np.ndarray, reference: np.ndarray, *, foreground: np.ndarray | None = None
) -> float:
    """Structural similarity of one element's map (Wang et al. 2004, DOI 10.1109/TIP.2003.819861).

    Gaussian window of sigma 1.5 px, data range of the reference.

    Parameters
    ----------
    foreground
        Boolean mask (y, x): average only there; None: over the whole map. See `foreground`.

    Returns
    -------
    float
        NaN where the reference is constant, the mask is empty, or a side is below 11 px.
    """
    estimate, reference = _finite_pair(estimate, reference)
    chosen = np.isfinite(estimate) & np.isfinite(reference)
    if foreground is not None:
        chosen &= foreground
    local = _local_ssim(estimate, reference) if chosen.any() else None
    return float("nan") if local is None else float(local[chosen].mean())


def ssim_whole_and_foreground(estimate: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return `ssim` over the whole map and over the `foreground` of the reference, in one go."""
    estimate, reference = _finite_pair(estimate, reference)
    valid = np.isfinite(estimate) & np.isfinite(reference)
    local = _local_ssim(estimate, reference) if valid.any() else None
    if local is None:
        return float("nan"), float("nan")
    front = valid & foreground(reference)
    return float(local[valid].mean()), float(local[front].mean()) if front.any() else float("nan")


def _local_ssim(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """Return SSIM pixel by pixel; None where it has no meaning."""
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
    """Cut one-pixel spikes of maps (..., y, x): the one rule that holds for every method.

    A pixel above p99.9 of its map that is more than `ratio` times as high as each of its eight
    neighbours is lowered to `ratio` times the highest of them, or to p99.9 if that is more.
    NaN stays.
    """
    maps = np.array(maps, dtype=float)
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    for plane in maps.reshape(-1, *maps.shape[-2:]):
        finite = np.isfinite(plane)
        if not finite.any():
            continue
        filled = np.where(finite, plane, np.min(plane[finite]))
        neighbours = ndimage.maximum_filter(filled, footprint=ring, mode="nearest")
        cap = np.maximum(ratio * neighbours, np.percentile(plane[finite], 99.9))
        plane[:] = np.where(finite, np.minimum(plane, cap), plane)
    return maps
