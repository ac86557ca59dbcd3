"""The one pair of operators between a coarse grid and the grid `factor` times finer.

Both grids share their outer edges: fine pixel j of coarse pixel k is centred on
``k + (j - (factor - 1) / 2) / factor`` in coarse pixels. Every baseline, the training and the
network's skip use these, because interpolation evaluated with another phase loses 4-15 dB and
makes any network look good (docs/explanation/phase.md). ``upsample(ramp) == ramp`` away from
the border is a test.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def _bilinear(t: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.abs(t), 0, None)


def _bicubic(t: np.ndarray) -> np.ndarray:
    # R. Keys, IEEE Trans. ASSP 29 (1981) 1153, DOI 10.1109/TASSP.1981.1163711, a = -1/2.
    t = np.abs(t)
    inner = 1.5 * t**3 - 2.5 * t**2 + 1
    outer = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


def _lanczos(t: np.ndarray) -> np.ndarray:
    return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)


def _nearest(t: np.ndarray) -> np.ndarray:
    return ((t >= -0.5) & (t < 0.5)).astype(float)


_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "nearest": (_nearest, 1),
    "bilinear": (_bilinear, 1),
    "bicubic": (_bicubic, 2),
    "lanczos": (_lanczos, 3),
}


@lru_cache(maxsize=64)
def _taps(num: int, factor: int, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each fine pixel, the coarse pixels it is made of and their weights."""
    function, reach = _KERNELS[kernel]
    position = (np.arange(num * factor) + 0.5) / factor - 0.5
    source = np.floor(position).astype(int)[:, None] + np.arange(-reach, reach + 1)
    weight = function(position[:, None] - source)
    used = (weight != 0).any(axis=0)
    source, weight = source[:, used], weight[:, used]
    weight = weight / weight.sum(axis=1, keepdims=True)
    return np.clip(source, 0, num - 1), weight


@lru_cache(maxsize=64)
def upsample_matrix(num: int, factor: int, kernel: Kernel = "bicubic") -> np.ndarray:
    """Return the (num * factor, num) interpolation matrix; rows sum to 1, borders replicate."""
    source, weight = _taps(num, factor, kernel)
    matrix = np.zeros((num * factor, num))
    np.add.at(matrix, (np.arange(num * factor)[:, None], source), weight)
    matrix.setflags(write=False)
    return matrix


def upsample(maps: np.ndarray, factor: int, kernel: Kernel = "bicubic") -> np.ndarray:
    """Interpolate maps (..., y, x) onto the grid `factor` times finer; units stay per pixel.

    NaN spreads to every fine pixel that it touches; see `fill_unmeasured`.
    """
    maps = np.asarray(maps, dtype=float)
    for axis in (-1, -2):
        source, weight = _taps(maps.shape[axis], factor, kernel)
        shape = (-1, 1) if axis == -2 else (-1,)
        # Tap by tap: time and memory grow with the map, as those of a matrix would not.
        made = weight[:, 0].reshape(shape) * np.take(maps, source[:, 0], axis)
        for tap in range(1, weight.shape[1]):
            made += weight[:, tap].reshape(shape) * np.take(maps, source[:, tap], axis)
        maps = made
    return maps


def block_mean(maps: np.ndarray, factor: int) -> np.ndarray:
    """Average maps (..., y, x) over the `factor` x `factor` fine pixels of each coarse pixel."""
    *lead, height, width = np.shape(maps)
    blocks = np.reshape(maps, (*lead, height // factor, factor, width // factor, factor))
    return blocks.mean(axis=(-3, -1))


def fill_unmeasured(maps: np.ndarray) -> np.ndarray:
    """Replace NaN pixels by their nearest measured neighbour, per map (..., y, x).

    A filter that can't skip pixels needs a value there; callers mask the pixels again
    afterwards. A map without any measured pixel becomes 0.
    """
    from scipy import ndimage

    maps = np.array(maps, dtype=float)
    for plane in maps.reshape(-1, *maps.shape[-2:]):
        missing = ~np.isfinite(plane)
        if missing.all():
            plane[:] = 0.0
        elif missing.any():
            nearest = ndimage.distance_transform_edt(
                missing, return_distances=False, return_indices=True
            )
            plane[:] = plane[tuple(np.asarray(nearest))]
    return maps
