"""Interpolation and smoothing of maps as products with banded matrices, block by block.

A linear operation along one axis of a map is a product with a matrix. Where it is local, the
matrix is zero but for a band along the diagonal. The band is cut into blocks of rows, each with
the columns that it needs: these small products run at the speed of the processor's matrix
multiplication, in time proportional to the map, and in single precision where the map is. Beyond
the border of a map the value of its last pixel continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BLOCK_ROWS = 32
"""Rows of a block: more are more work on zeros, fewer are too little for one product."""

PRODUCT = 2**18
"""Multiplications up to which OpenBLAS doesn't share a product among threads, which for so small
ones would wait for each other longer than they work."""


@dataclass(frozen=True, eq=False)
class Banded:
    """A matrix that works along one axis of maps without gaps; a NaN would spread to its block."""

    blocks: tuple[tuple[slice, slice, np.ndarray], ...]
    """Rows of the matrix, its columns that are not zero there, and the values (row, column)."""
    num: int
    """Rows of the matrix: pixels along the axis that it makes."""

    @classmethod
    def of(cls, matrix: np.ndarray, dtype: type[np.floating] = np.float64) -> Banded:
        """Cut a matrix (pixel made, pixel) into blocks, without the zeros beside its band."""
        blocks = []
        for rows in _rows(len(matrix)):
            used = np.flatnonzero((matrix[rows] != 0).any(axis=0))
            columns = slice(int(used[0]), int(used[-1]) + 1)
            blocks.append((rows, columns, np.ascontiguousarray(matrix[rows, columns], dtype)))
        return cls(tuple(blocks), len(matrix))

    @classmethod
    def from_taps(
        cls, source: np.ndarray, weight: np.ndarray, dtype: type[np.floating] = np.float64
    ) -> Banded:
        """Make each pixel of those at `source` times `weight`, both (pixel made, tap)."""
        blocks = []
        for rows in _rows(len(source)):
            low = int(source[rows].min())
            block = np.zeros((rows.stop - rows.start, int(source[rows].max()) + 1 - low))
            np.add.at(block, (np.arange(len(block))[:, None], source[rows] - low), weight[rows])
            blocks.append((rows, slice(low, low + block.shape[1]), block.astype(dtype)))
        return cls(tuple(blocks), len(source))

    def along_y(self, maps: np.ndarray) -> np.ndarray:
        """Return maps (..., y, x) with another y axis."""
        made = np.empty((*maps.shape[:-2], self.num, maps.shape[-1]), self._dtype(maps))
        for lines, wide in self._parts(maps.shape[-1]):
            # (..., part of the lines, y, x within the part), views.
            few, out = (
                _split(values[..., lines], -1, wide).swapaxes(-3, -2) for values in (maps, made)
            )
            for rows, columns, block in self.blocks:
                np.matmul(block, few[..., columns, :], out=out[..., rows, :])
        return made

    def along_x(self, maps: np.ndarray) -> np.ndarray:
        """Return maps (..., y, x) with another x axis."""
        made = np.empty((*maps.shape[:-1], self.num), self._dtype(maps))
        for lines, wide in self._parts(maps.shape[-2]):
            # (..., part of the lines, y within the part, x), views.
            few, out = (_split(values[..., lines, :], -2, wide) for values in (maps, made))
            for rows, columns, block in self.blocks:
                np.matmul(few[..., columns], block.T, out=out[..., rows])
        return made

    def _parts(self, num: int) -> Iterator[tuple[slice, int]]:
        """Yield some of `num` lines, and how many of them belong to one product with a block."""
        largest = max(block.size for *_, block in self.blocks)
        wide = min(num, max(16, PRODUCT // largest // 16 * 16))
        whole = num // wide * wide
        yield slice(0, whole), wide
        if whole < num:
            yield slice(whole, num), num - whole

    def _dtype(self, maps: np.ndarray) -> np.dtype:
        return np.result_type(maps.dtype, self.blocks[0][2].dtype)


def _rows(num: int) -> list[slice]:
    return [slice(low, min(low + BLOCK_ROWS, num)) for low in range(0, num, BLOCK_ROWS)]


def _split(maps: np.ndarray, axis: int, wide: int) -> np.ndarray:
    """Return a view of maps whose axis, -1 or -2, is split into parts so wide."""
    shape = list(maps.shape)
    shape[axis : axis + 1 or None] = [maps.shape[axis] // wide, wide]
    return maps.reshape(shape)


@lru_cache(maxsize=64)
def _gaussian_bands(num: int, sigma_px: float, truncate: float) -> Banded:
    """Return `scipy.ndimage.gaussian_filter1d` with the mode "nearest", in single precision."""
    reach = int(truncate * sigma_px + 0.5)
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * np.square(offset / sigma_px))
    source = np.clip(np.arange(num)[:, None] + offset, 0, num - 1)
    weight = np.broadcast_to(weight / weight.sum(), source.shape)
    return Banded.from_taps(source, weight, np.float32)


def gaussian_single(
    maps: np.ndarray, sigma_px: tuple[float, float], truncate: float = 4.0
) -> np.ndarray:
    """Return float32 maps (..., y, x) without gaps, smoothed by a Gaussian.

    It is `scipy.ndimage.gaussian_filter` with the mode "nearest", up to rounding. `sigma_px` are
    the standard deviations along y and x, and `truncate` is where the Gaussian ends, in these.
    """
    along_y, along_x = sigma_px
    if along_y > 0:
        maps = _gaussian_bands(maps.shape[-2], along_y, truncate).along_y(maps)
    if along_x > 0:
        maps = _gaussian_bands(maps.shape[-1], along_x, truncate).along_x(maps)
    return maps
