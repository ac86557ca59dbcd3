"""`Template`: a fine map that is measured again with the pixels of a coarse one, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.physics.forward import AVERAGES

PAD_PX = 12
"""Pixels by which border values continue beyond the border."""


@dataclass(frozen=True)
class Layout:
    """How the pixels of a coarse map lie in those of the fine map, where nothing is displaced.

    Both maps have the same outer edges. Places are in indices of fine pixels.

    Parameters
    ----------
    shape
        Rows and pixels of a row of the coarse map.
    ratio
        Fine pixels per pixel of the coarse map along (y, x).
    sampling
        What a coarse pixel averages over.
    """

    shape: tuple[int, int]
    ratio: tuple[int, int]
    sampling: Sampling

    @property
    def box_px(self) -> tuple[int, int]:
        """Fine pixels that a coarse pixel averages over along (y, x)."""
        averages = AVERAGES[self.sampling]
        return tuple(n if mean else 1 for n, mean in zip(self.ratio, averages, strict=True))  # type: ignore[return-value]  # of two

    @property
    def fine_shape(self) -> tuple[int, int]:
        """Rows and pixels of a row of the fine map."""
        return self.shape[0] * self.ratio[0], self.shape[1] * self.ratio[1]

    def centers_px(self, axis: int) -> np.ndarray:
        """Return the centers of the coarse pixels along y (0) or x (1)."""
        return self.ratio[axis] * np.arange(self.shape[axis]) + (self.ratio[axis] - 1) / 2

    def middle_px(self, axis: int) -> float:
        """Return the middle of both maps along y (0) or x (1)."""
        return (self.fine_shape[axis] - 1) / 2


@dataclass(frozen=True, eq=False)
class Warp:
    """How a coarse map is displaced from a fine one, in fine pixels.

    Parameters
    ----------
    rows_px
        How far along x and y what each row of the coarse map shows lies from where it is in the
        fine map (row, 2).
    row_shift_px
        What is to be added along x in rows 1, 3, ...
    stretch
        By which fraction lengths along x are longer in the coarse map.
    """

    rows_px: np.ndarray
    row_shift_px: float = 0.0
    stretch: float = 0.0

    @property
    def displacement_px(self) -> np.ndarray:
        """Displacement (row, 2) of each row along x and y, row shift included."""
        made = np.array(self.rows_px, dtype=float)
        made[1::2, 0] += self.row_shift_px
        return made

    @property
    def parameters(self) -> np.ndarray:
        """All numbers in one array (2 row + 2,): along x, along y, row shift, stretch."""
        return np.concatenate([self.rows_px.T.ravel(), [self.row_shift_px, self.stretch]])

    @classmethod
    def of(cls, parameters: np.ndarray) -> Warp:
        """Return the warp of `parameters`."""
        rows = parameters[:-2].reshape(2, -1).T
        return cls(rows, float(parameters[-2]), float(parameters[-1]))


@dataclass(frozen=True, eq=False)
class Expected:
    """What a coarse map would show, each (element, y, x) but `inside` and `across_px`.

    Parameters
    ----------
    values
        Counts in the unit of the fine map.
    by_x, by_y
        Their derivatives by the place in the fine map.
    by_xx, by_yy
        Their second derivatives.
    rows_px, across_px
        Where rows (y,), and their pixels along x (y, x), lie in the fine map.
    inside
        Which pixels lie in the fine map (y, x).
    """

    values: np.ndarray
    by_x: np.ndarray
    by_y: np.ndarray
    by_xx: np.ndarray
    by_yy: np.ndarray
    rows_px: np.ndarray
    across_px: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True, eq=False)
class Template:
    """Cubic splines through a fine map, averaged over what a coarse pixel averages over.

    Where nothing is displaced it gives what `physics.forward.coarsen` gives, but that between rows
    a spline takes the place of cubic convolution.

    Parameters
    ----------
    coefficients
        B-spline coefficients (element, y, x), padded by `PAD_PX`.
    layout
        The pixels of the coarse map.
    """

    coefficients: np.ndarray
    layout: Layout

    @classmethod
    def of(cls, fine: np.ndarray, layout: Layout) -> Template:
        """Build from a fine map (element, y, x) without gaps, smoothed against its noise."""
        for axis, wide in enumerate(layout.box_px):
            windows = np.lib.stride_tricks.sliding_window_view(fine, wide, axis=axis + 1)
            fine = windows.mean(axis=-1)
        padded = np.pad(fine, ((0, 0), (PAD_PX, PAD_PX), (PAD_PX, PAD_PX)), mode="edge")
        for axis in (1, 2):
            padded = ndimage.spline_filter1d(padded, 3, axis=axis, mode="mirror")
        return cls(padded, layout)

    def places_px(self, warp: Warp) -> tuple[np.ndarray, np.ndarray]:
        """Return where rows (y,) and their pixels along x (y, x) lie in the fine map."""
        middle, moved = self.layout.middle_px(1), warp.displacement_px
        across = self.layout.centers_px(1) - middle - moved[:, :1]
        return self.layout.centers_px(0) - moved[:, 1], across / (1 + warp.stretch) + middle

    def values(self, warp: Warp, every: int = 1) -> np.ndarray:
        """Return what every so many pixels of each row would show, (element, y, x)."""
        rows, across = self.places_px(warp)
        index, weights, *_ = self._taps(rows, 0)
        strip = _mixed_rows(weights, self.coefficients[:, index])
        index, weights, *_ = self._taps(across[:, ::every], 1)
        return _mixed(weights, strip[:, np.arange(len(rows))[:, None, None], index])

    def expected(self, warp: Warp) -> Expected:
        """Return what the coarse map would show, with its derivatives."""
        rows, across = self.places_px(warp)
        index, *by_y = self._taps(rows, 0)
        near = self.coefficients[:, index]
        # Values, slopes and bends along y, each (element, y, fine x).
        strips = [_mixed_rows(weights, near) for weights in by_y]
        index, *by_x = self._taps(across, 1)
        row = np.arange(len(rows))[:, None, None]
        near, sloped, bent = (strip[:, row, index] for strip in strips)
        weights, slopes, bends = by_x
        last = np.array(self.layout.fine_shape) - 0.5
        inside = ((rows > -0.5) & (rows < last[0]))[:, None] & (across > -0.5) & (across < last[1])
        return Expected(
            values=_mixed(weights, near),
            by_x=_mixed(slopes, near),
            by_y=_mixed(weights, sloped),
            by_xx=_mixed(bends, near),
            by_yy=_mixed(weights, bent),
            rows_px=rows,
            across_px=across,
            inside=inside,
        )

    def _taps(self, places_px: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
        # A mean over several pixels stands for the middle of them.
        first = (self.layout.box_px[axis] - 1) / 2 - PAD_PX
        return _taps(places_px - first, self.coefficients.shape[axis + 1])


def _mixed_rows(weights: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the sums of the rows `near` (element, y, tap, x) with weights (y, tap)."""
    return np.einsum("yt,eytx->eyx", weights, near)


def _mixed(weights: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the sums of the pixels `near` (element, y, x, tap) with weights (y, x, tap)."""
    return np.einsum("yxt,eyxt->eyx", weights, near)


def _taps(position: np.ndarray, num: int) -> tuple[np.ndarray, ...]:
    """Return indices (..., 4), and the weights of cubic B-splines and of their two derivatives."""
    position = np.clip(position, 1.0, num - 2.001)
    base = np.floor(position).astype(int)
    t = position - base
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    slopes = (-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2)
    bends = (1 - t, 3 * t - 2, 1 - 3 * t, t)
    index = base[..., None] + np.arange(-1, 3)
    return index, np.stack(weights, -1) / 6, np.stack(slopes, -1) / 2, np.stack(bends, -1)
