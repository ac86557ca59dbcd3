"""`draw_pair`: a stored pair as a picture, the coarse map beside the fine one and what differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.physics.resample import block_mean, fill_unmeasured
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs import StoredMap, StoredPair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MOST_ELEMENTS = 6
"""So many elements are drawn at most, those with the most photons."""
_SIGMAS = 5.0


@dataclass(frozen=True, eq=False)
class Difference:
    """How a coarse map differs from the fine one, registered and at the coarse resolution.

    Parameters
    ----------
    sigmas
        The difference (element, y, x) in standard deviations of the counting noise of both; NaN
        where nothing was measured.
    scale
        Photons in a coarse pixel for one in a fine pixel of the same place (element,).
    """

    sigmas: np.ndarray
    scale: np.ndarray


def difference(coarse: StoredMap, fine: StoredMap, registered: PairRegistration) -> Difference:
    """Return how a coarse map differs from the fine one of its pair.

    The fine map is averaged over the coarse pixels, moved by the displacement of the whole map
    (not by its drift within), and scaled to the total counts of the coarse one.

    Parameters
    ----------
    coarse, fine
        Maps whose pixels nest.
    registered
        How they lie on each other; a displacement that is NaN counts as none.
    """
    grid = coarse.maps.grid
    ratio = fine.maps.grid.slow.num // grid.slow.num, fine.maps.grid.fast.num // grid.fast.num
    shift = np.nan_to_num([registered.dy_um, registered.dx_um])
    shift = (0.0, *(shift / (fine.maps.grid.slow.step_um, fine.maps.grid.fast.step_um)))
    names = fine.maps.elements
    order = [names.index(name) for name in coarse.maps.elements]
    counts = np.asarray(fine.maps.counts.values)[order]
    measured = np.isfinite(counts)
    filled = fill_unmeasured(counts)
    mean = block_mean(ndimage.shift(filled, shift, order=1, mode="nearest"), ratio)
    share = block_mean(ndimage.shift(measured.astype(float), shift, order=1, mode="nearest"), ratio)
    of_coarse = np.where(share > 0.5, coarse.maps.counts.values, np.nan)
    totals = np.nansum(np.where(np.isfinite(of_coarse), mean, np.nan), axis=(1, 2))
    scale = np.nansum(of_coarse, axis=(1, 2)) / np.where(totals > 0, totals, np.nan)
    scale = np.nan_to_num(scale, nan=1.0)
    expected = scale[:, None, None] * mean
    noise = expected + scale[:, None, None] ** 2 * mean / np.prod(ratio)
    return Difference((of_coarse - expected) / np.sqrt(np.maximum(noise, 1.0)), scale)


def draw_pair(pair: StoredPair, path: Path | str, position: int | None = None) -> Path:
    """Save a picture of a pair: for each element the coarse map, the fine one and their difference.

    Parameters
    ----------
    pair
        What to draw.
    path
        Name of the PNG file. Its folder is made if need be.
    position
        Which coarse map to draw; None: the first one that is registered without a problem.

    Returns
    -------
    pathlib.Path
        The file that was written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    coarse = _chosen(pair, position)
    nan = float("nan")
    registered = pair.registration.get(coarse.position, PairRegistration(coarse.factor, nan, nan))
    common = [name for name in coarse.maps.elements if name in pair.fine.maps.elements]
    totals = {name: float(np.nansum(coarse.maps.counts.sel(element=name))) for name in common}
    drawn = sorted(common, key=lambda name: -totals[name])[:MOST_ELEMENTS]
    found = difference(coarse, pair.fine, registered) if len(common) == len(totals) else None
    figure = Figure(figsize=(10, 0.8 + 2.8 * max(len(drawn), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(len(drawn), 1), 3, squeeze=False)
    for row, name in zip(axes, drawn, strict=False):
        index = coarse.maps.elements.index(name)
        places = ((coarse, f"{name}, coarse {coarse.factor}x"), (pair.fine, f"{name}, fine"))
        for axis, (stored, title) in zip(row, places, strict=False):
            image = _draw(axis, stored.maps.counts.sel(element=name).values, stored.maps.grid)
            axis.set_title(title, fontsize=8)
            figure.colorbar(image, ax=axis, shrink=0.85).set_label("photons", fontsize=8)
        if found is not None:
            image = _draw(row[2], found.sigmas[index], coarse.maps.grid, _SIGMAS)
            row[2].set_title("coarse - fine, registered", fontsize=8)
            figure.colorbar(image, ax=row[2], shrink=0.85).set_label("σ of the noise", fontsize=8)
    words = f"{registered.dx_um:+.2f}, {registered.dy_um:+.2f} um (x, y)"
    problem = pair.problem or registered.problem
    figure.suptitle(
        f"pair {pair.pair_uid[:8]} of {pair.sample}, displaced by {words}"
        + (f"\nnot learnt from: {problem}" if problem else ""),
        fontsize=9,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _chosen(pair: StoredPair, position: int | None) -> StoredMap:
    if position is not None:
        return next(one for one in pair.coarse if one.position == position)
    good = [
        one
        for one in pair.coarse
        if one.position in pair.registration and not pair.registration[one.position].problem
    ]
    return (good or list(pair.coarse))[0]


def _draw(axis: Axes, values: np.ndarray, grid: ScanGrid, sigmas: float | None = None) -> AxesImage:
    image = axis.imshow(
        values,
        origin="lower",
        extent=(grid.fast.low_um, grid.fast.high_um, grid.slow.low_um, grid.slow.high_um),
        cmap="viridis" if sigmas is None else "RdBu_r",
        vmin=None if sigmas is None else -sigmas,
        vmax=sigmas,
        interpolation="nearest",
    )
    axis.tick_params(labelsize=7)
    return image
