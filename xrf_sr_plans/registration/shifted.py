"""Shifts of whole rows by parts of a pixel, with what they do to the noise."""

from __future__ import annotations

import numpy as np

REACH = 3
"""Pixels to either side that a shifted value is made of."""


def lanczos_taps(position_px: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and weights (..., 6) for values between pixels, whose weights sum to 1.

    Lanczos' kernel keeps more of the noise, and of the finest structure, than cubic interpolation:
    half-way between two pixels, where each takes off most, it leaves 79 % of the variance.

    Parameters
    ----------
    position_px
        Places, in indices of pixels.
    num
        Number of pixels; beyond the ends their values continue.
    """
    base = np.floor(position_px).astype(int)
    offsets = np.arange(1 - REACH, REACH + 1)
    distance = np.asarray(position_px - base)[..., None] - offsets
    weights = np.sinc(distance) * np.sinc(distance / REACH)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.clip(base[..., None] + offsets, 0, num - 1), weights


def rows_shifted_back(counts: np.ndarray, shift_px: float) -> np.ndarray:
    """Return a map (element, y, x) whose rows 1, 3, ... lie `shift_px` too far along x, put right.

    No value becomes negative.
    """
    if not shift_px:
        return counts
    made = np.array(counts, dtype=float)
    index, weights = lanczos_taps(np.arange(made.shape[-1]) + shift_px, made.shape[-1])
    made[:, 1::2] = np.clip((made[:, 1::2][..., index] * weights).sum(axis=-1), 0, None)
    return made
