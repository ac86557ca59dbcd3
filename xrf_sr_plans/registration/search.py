"""Where to begin: the shift of the whole map, and rough displacements of its rows.

The fit of `fit` finds the nearest hill of the likelihood. Here the whole landscape is looked over:
first by cross-correlation, over any shift; then row by row on a grid of displacements, of which the
likeliest smooth path is found by dynamic programming (R. Bellman; for images, H. Sakoe and S.
Chiba, IEEE Trans. Acoust. 26 (1978) 43, DOI 10.1109/TASSP.1978.1163055).
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.registration.template import Layout, Template, Warp

SEARCH_PX = np.arange(-4.0, 5.0)
"""Displacements that are tried around the shift of the whole map, in fine pixels."""
STEP_PX = 0.35
"""How far a row typically lies from where the row before it lies, in fine pixels."""
ROW_SHIFTS_PX = (-1.0, 0.0, 1.0)
"""Row shifts that are tried; they are steps of `SEARCH_PX`."""
_MOST_PULL = 16.0
"""Square of the standard deviations that a pixel counts for at most."""
_MOST_VALUES = 40_000
"""Values of a map that are compared; of larger maps some columns are left out."""
_SMOOTH_ROWS = 3.0


def whole_shift_px(coarse: np.ndarray, fine: np.ndarray, layout: Layout) -> np.ndarray:
    """Return by how many fine pixels along (x, y) a coarse map lies beside a fine one.

    It is the highest correlation of both at the resolution of the coarse map, of all elements
    together, each in stabilized counts, so that noise is alike in all.

    Parameters
    ----------
    coarse, fine
        Photons (element, y, x) without gaps.
    layout
        How both lie on each other where nothing is displaced.
    """
    height, width = layout.shape
    size = [fft.next_fast_len(2 * num, real=True) for num in layout.shape]
    window = np.outer(*(np.hanning(num + 2)[1:-1] for num in layout.shape))
    spectra = []
    for maps in (coarse, block_mean(fine, layout.ratio)):
        image = stabilise(maps)
        image = (image - image.mean(axis=(1, 2), keepdims=True)) * window
        spectra.append(fft.rfft2(image, size))
    likeness = fft.irfft2((spectra[0] * np.conj(spectra[1])).sum(axis=0), size)
    # Shifts by more than half of the map are left out: too little is seen in both.
    reach = height // 2, width // 2
    likeness = np.roll(likeness, reach, axis=(0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    y, x = np.unravel_index(int(likeness.argmax()), likeness.shape)
    return np.array(
        [(int(x) - reach[1]) * layout.ratio[1], (int(y) - reach[0]) * layout.ratio[0]], dtype=float
    )


def rough_warp(coarse: np.ndarray, template: Template, start_px: np.ndarray) -> Warp:
    """Return the likeliest smooth path of the rows on a grid around a shift (x, y).

    `coarse` is (element, y, x), NaN where nothing was measured.
    """
    by_x, by_y = (grid.ravel() for grid in np.meshgrid(SEARCH_PX, SEARCH_PX, indexing="ij"))
    cost = _row_costs(coarse, template, start_px + np.stack([by_x, by_y], axis=1))
    way = (by_x[:, None] - by_x) ** 2 + (by_y[:, None] - by_y) ** 2
    way = way / (2 * STEP_PX**2)
    by_shift = cost.reshape(len(SEARCH_PX), len(SEARCH_PX), -1)
    found = []
    for shift in ROW_SHIFTS_PX:
        steps = np.arange(len(SEARCH_PX)) + int(shift / (SEARCH_PX[1] - SEARCH_PX[0]))
        moved = by_shift.copy()
        moved[:, :, 1::2] = by_shift[np.clip(steps, 0, len(SEARCH_PX) - 1)][:, :, 1::2]
        total, path = _cheapest_path(moved.reshape(len(by_x), -1), way)
        found.append((total, shift, path))
    _, shift, path = min(found, key=lambda one: one[0])
    rows = start_px + np.stack([by_x[path], by_y[path]], axis=1)
    return Warp(ndimage.gaussian_filter1d(rows, _SMOOTH_ROWS, axis=0, mode="nearest"), shift)


def _row_costs(coarse: np.ndarray, template: Template, shifts_px: np.ndarray) -> np.ndarray:
    """Return by how much each row disagrees if displaced by each shift, (shift, row)."""
    every = max(1, coarse.size // _MOST_VALUES)
    used = np.isfinite(coarse[..., ::every])
    counts = np.where(used, coarse[..., ::every], 0.0)
    floor = 0.05 * counts.mean((1, 2), keepdims=True) + 0.05
    rows = coarse.shape[1]
    costs, gain = np.zeros((len(shifts_px), rows)), None
    for number, shift in enumerate(shifts_px):
        seen = np.clip(template.values(Warp(np.tile(shift, (rows, 1))), every), 0, None) * used
        if gain is None:
            gain = counts.sum((1, 2)) / np.maximum(seen.sum((1, 2)), 1e-9)
        expected = gain[:, None, None] * seen
        squares = (counts - expected) ** 2 / (expected + floor)
        costs[number] = np.minimum(squares, _MOST_PULL).sum(axis=(0, 2)) / 2
    return costs


def _cheapest_path(costs: np.ndarray, way: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the cost of the cheapest path through places (place, row), and its places (row,)."""
    total, back = costs[:, 0], []
    for row in range(1, costs.shape[1]):
        reached = total[:, None] + way
        back.append(reached.argmin(axis=0))
        total = reached.min(axis=0) + costs[:, row]
    path = [int(total.argmin())]
    for came_from in reversed(back):
        path.append(int(came_from[path[-1]]))
    return float(total.min()), np.array(path[::-1])
