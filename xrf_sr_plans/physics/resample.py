"""The one pair of operators between a coarse grid and the grid `factor` times finer.

Both grids share their outer edges, so that fine pixel j of coarse pixel k is centered on
``k + (j - (factor - 1) / 2) / factor`` in coarse pixels. Every baseline, the training and the
network's skip connection use these operators. Interpolation evaluated with another phase would
lose 4 to 15 dB and make any network look good (docs/explanation/phase.md). A test holds
``upsample(ramp) == ramp`` away from the border.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from xrf_sr_plans.physics.banded import Banded

Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos"]


# Each kernel gives the weight of a coarse pixel at the signed distance t, in coarse pixels, from
# the place that is interpolated.


def _nearest(t: np.ndarray) -> np.ndarray:
    # Half open, so that a place half-way between two pixels belongs to exactly one of them.
    return ((t >= -0.5) & (t < 0.5)).astype(float)


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


_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "nearest": (_nearest, 1),
    "bilinear": (_bilinear, 1),
    "bicubic": (_bicubic, 2),
    "lanczos": (_lanczos, 3),
}
"""Kernel and its reach, which is the distance in coarse pixels beyond which it is zero."""


@lru_cache(maxsize=64)
def _taps(num: int, factor: int, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Return the coarse pixels that each fine pixel is made of, and their weights.

    Both arrays have the shape (num * factor, taps); the weights of a fine pixel sum to 1.
    """
    function, reach = _KERNELS[kernel]
    # Center of each fine pixel in coarse pixels, 0 being the center of the first coarse pixel.
    position = (np.arange(num * factor) + 0.5) / factor - 0.5
    source = np.floor(position).astype(int)[:, None] + np.arange(-reach, reach + 1)
    weight = function(position[:, None] - source)
    # Taps that no fine pixel uses would only cost time.
    used = (weight != 0).any(axis=0)
    source, weight = source[:, used], weight[:, used]
    weight = weight / weight.sum(axis=1, keepdims=True)
    # Beyond the border the value of the last coarse pixel continues.
    return np.clip(source, 0, num - 1), weight


@lru_cache(maxsize=64)
def upsample_matrix(num: int, factor: int, kernel: Kernel = "bicubic") -> np.ndarray:
    """Return the interpolation of `upsample` along one axis, as a matrix.

    Its shape is (num * factor, num) and its rows sum to 1. It is cached, hence read-only.
    """
    source, weight = _taps(num, factor, kernel)
    matrix = np.zeros((num * factor, num))
    np.add.at(matrix, (np.arange(num * factor)[:, None], source), weight)
    matrix.setflags(write=False)
    return matrix


def upsample(
    maps: np.ndarray, factor: int | tuple[int, int], kernel: Kernel = "bicubic"
) -> np.ndarray:
    """Interpolate maps (..., y, x) onto the grid that is `factor` times finer along y and x.

    A pair of factors is for y and x (`Measurement.refinement`). Values keep their unit: counts
    per coarse pixel stay counts per coarse pixel. Beyond the border the last value continues. A
    NaN spreads to every fine pixel that it touches (see `fill_unmeasured`).
    """
    maps = np.asarray(maps, dtype=float)
    along_y, along_x = (factor, factor) if isinstance(factor, int) else factor
    for axis, times in ((-1, along_x), (-2, along_y)):
        if times == 1:
            continue
        source, weight = _taps(maps.shape[axis], times, kernel)
        # Weights run along y or along x, so that they broadcast against (..., y, x).
        shape = (-1, 1) if axis == -2 else (-1,)
        # A sum over taps takes time and memory in proportion to the map, which the product with
        # a matrix would not.
        finer = weight[:, 0].reshape(shape) * np.take(maps, source[:, 0], axis)
        for tap in range(1, weight.shape[1]):
            finer += weight[:, tap].reshape(shape) * np.take(maps, source[:, tap], axis)
        maps = finer
    return maps


@lru_cache(maxsize=32)
def _upsample_bands(num: int, factor: int, single: bool) -> Banded:
    """Return bicubic interpolation along one axis, in single or double precision."""
    return Banded.from_taps(*_taps(num, factor, "bicubic"), np.float32 if single else np.float64)


def upsample_filled(maps: np.ndarray, factor: int | tuple[int, int]) -> np.ndarray:
    """Return bicubic `upsample` of maps (..., y, x) without gaps, many times faster.

    It is computed in single precision where the maps are float32, else in double, and differs from
    `upsample` by rounding.
    """
    single = np.asarray(maps).dtype == np.float32
    maps = np.asarray(maps, dtype=np.float32 if single else float)
    along_y, along_x = (factor, factor) if isinstance(factor, int) else factor
    if along_x > 1:
        maps = _upsample_bands(maps.shape[-1], along_x, single).along_x(maps)
    if along_y > 1:
        maps = _upsample_bands(maps.shape[-2], along_y, single).along_y(maps)
    return maps


def block_mean(maps: np.ndarray, factor: int | tuple[int, int]) -> np.ndarray:
    """Average maps (..., y, x) over the `factor` x `factor` fine pixels of each coarse pixel.

    A pair of factors is for y and x. Height and width must be multiples of them, as NumPy's
    ValueError says otherwise.
    """
    *lead, height, width = np.shape(maps)
    along_y, along_x = (factor, factor) if isinstance(factor, int) else factor
    # Axes of the blocks: (..., coarse y, fine y within it, coarse x, fine x within it).
    blocks = np.reshape(maps, (*lead, height // along_y, along_y, width // along_x, along_x))
    return blocks.mean(axis=(-3, -1))


def repeat(maps: np.ndarray, factor: tuple[int, int]) -> np.ndarray:
    """Return maps (..., y, x) with each pixel repeated so many times along y and x."""
    *lead, height, width = np.shape(maps)
    rows, columns = factor
    made = np.empty((*lead, height, rows, width, columns), dtype=maps.dtype)
    made[:] = maps[..., :, None, :, None]
    return made.reshape(*lead, height * rows, width * columns)


def fill_unmeasured(maps: np.ndarray) -> np.ndarray:
    """Replace each NaN pixel by its nearest measured neighbor in the same map (..., y, x).

    A filter that can't skip pixels needs a value there, and callers mask the pixels again
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
