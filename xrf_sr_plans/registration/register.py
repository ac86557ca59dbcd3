"""`register`: how a coarse and a fine map of the same area lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.measurement import Sampling, checked_sampling
from xrf_sr_plans.physics.resample import block_mean, fill_unmeasured
from xrf_sr_plans.registration.checks import (
    AFTER,
    BEFORE,
    FATAL,
    MIN_PIXELS,
    MOST_ROW_ERROR_PX,
    Evidence,
    first_problem,
    row_errors_px,
)
from xrf_sr_plans.registration.denoised import denoised
from xrf_sr_plans.registration.fit import Fiducial, Fit, fit
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.registration.row_shift import row_shift_px
from xrf_sr_plans.registration.search import whole_shift_px
from xrf_sr_plans.registration.shifted import rows_shifted_back
from xrf_sr_plans.registration.template import Layout

__all__ = ["MIN_PIXELS", "Place", "register"]

Place = tuple[float, float, float, float]
"""Where a feature is: x and y in the fine map, then x and y in the coarse map, in um."""
_LEAST_SEEN = 0.75
"""Share of a coarse pixel that has to be measured in the fine map for the pixel to be compared."""


def register(
    coarse: ElementalMaps, fine: ElementalMaps, *, fiducials: Sequence[Place] | None = None
) -> PairRegistration:
    """Return how two maps with the same outer edges lie on each other.

    All elements are compared together, in photons, at the pixels of the coarse map. Found are the
    shift, the scale along x, a drift that is smooth from row to row, and the row shift of either
    map; how, and which of them the data can tell, is in `registration.fit`. A drift along y that is
    the same everywhere can't be told from a scale along y and is called one.

    Parameters
    ----------
    coarse
        The map with the larger step: squares, or rows of pixels as long as those of `fine`.
    fine
        The map whose pixels nest in those of `coarse`, with the same elements.
    fiducials
        Features that somebody found in both maps, which are trusted.

    Returns
    -------
    PairRegistration
        Its `problem` says why nothing can be learnt from the pair, where that is so.

    Raises
    ------
    GridError
        The grids don't nest, or the elements differ.
    """
    layout = layout_of(coarse, fine)
    pair = Evidence(
        elements=coarse.elements,
        coarse=np.asarray(coarse.counts.values, dtype=float),
        fine=np.asarray(fine.counts.values, dtype=float),
        layout=layout,
        gain=_gain(coarse, fine),
    )
    factor, nan = max(layout.ratio), float("nan")
    if problem := first_problem(pair, FATAL):
        return PairRegistration(factor, nan, nan, problem=problem)
    problem = first_problem(pair, BEFORE)
    coarse_counts = usable_counts_of(coarse).counts
    seen = usable_counts_of(fine).counts
    fine_counts = fill_unmeasured(seen)
    fine_shift = row_shift_px(fine_counts)
    fine_counts = rows_shifted_back(fine_counts, fine_shift)
    marks = [_fiducial(place, fine) for place in fiducials or ()]
    if marks:
        start = np.mean([np.subtract(mark.coarse_px, mark.fine_px) for mark in marks], axis=0)
    else:
        start = whole_shift_px(fill_unmeasured(coarse_counts), fine_counts, layout)
    coarse_counts = _without_unseen(coarse_counts, seen, layout, start)
    found = fit(coarse_counts, denoised(fine_counts, layout.box_px), layout, start, marks)
    pair = replace(pair, coarse=coarse_counts, fine=fine_counts, fit=found)
    made = _registration(fine, layout, pair, found, fine_shift)
    return replace(made, problem=problem or made.problem)


def layout_of(coarse: ElementalMaps, fine: ElementalMaps) -> Layout:
    """Return how the pixels of two maps nest.

    Raises
    ------
    GridError
        They don't nest, or the elements differ.
    """
    ratio = fine.grid.slow.num // coarse.grid.slow.num, fine.grid.fast.num // coarse.grid.fast.num
    nested = tuple(times * num for times, num in zip(ratio, coarse.grid.shape, strict=True))
    if min(ratio) < 1 or fine.grid.shape != nested:
        raise GridError(
            f"a fine map of {fine.grid.shape} pixels doesn't nest in {coarse.grid.shape}"
        )
    if coarse.elements != fine.elements:
        raise GridError(f"elements {coarse.elements} and {fine.elements} differ")
    named = checked_sampling(str(coarse.attrs.get("sampling") or "fly"))
    squares: Sampling = "fly" if named == "rows" else named
    return Layout(coarse.grid.shape, ratio, "rows" if ratio[1] < ratio[0] else squares)


def _gain(coarse: ElementalMaps, fine: ElementalMaps) -> float | None:
    """Return how many photons of a coarse pixel one of a fine pixel stands for; None: unknown."""
    times = [maps.attrs.get("dwell_ms") for maps in (coarse, fine)]
    known = [time for time in times if time is not None and np.isfinite(time) and time > 0]
    return float(known[0] / known[1]) if len(known) == 2 else None


def _fiducial(place: Place, fine: ElementalMaps) -> Fiducial:
    """Return a place in um as indices of fine pixels, which both maps count from one corner."""
    x, y = fine.grid.fast, fine.grid.slow
    marks = [
        ((across - x.start_um) / x.step_um, (along - y.start_um) / y.step_um)
        for across, along in (place[:2], place[2:])
    ]
    return Fiducial(*marks)


def _without_unseen(
    coarse: np.ndarray, fine: np.ndarray, layout: Layout, start_px: np.ndarray
) -> np.ndarray:
    """Return coarse counts, NaN where the fine map that shows the same isn't measured."""
    measured = np.isfinite(fine).all(axis=0)
    if measured.all():
        return coarse
    share = block_mean(measured.astype(float), layout.ratio)
    rows, columns = (
        np.clip(np.arange(num) - int(np.rint(start_px[1 - axis] / layout.ratio[axis])), 0, num - 1)
        for axis, num in enumerate(layout.shape)
    )
    return np.where(share[np.ix_(rows, columns)] >= _LEAST_SEEN, coarse, np.nan)


def _registration(
    fine: ElementalMaps, layout: Layout, pair: Evidence, found: Fit, fine_shift: float
) -> PairRegistration:
    """Return what was found, in um."""
    step_x, step_y = fine.grid.fast.step_um, fine.grid.slow.step_um
    along_x, along_y = found.warp.rows_px.T
    # Of the drift along y, the part that is linear is a scale.
    centers = layout.centers_px(0) - layout.middle_px(0)
    slope, shift_y = np.polyfit(centers, along_y, 1)
    scale_y = 1 / (1 - slope)
    drift_y = scale_y * (along_y - slope * centers - shift_y)
    errors = row_errors_px(found)
    told = errors <= MOST_ROW_ERROR_PX
    agreement = pair.agreement
    return PairRegistration(
        factor=max(layout.ratio),
        dx_um=float(along_x.mean() * step_x),
        dy_um=float(scale_y * shift_y * step_y),
        scale_x=1 + found.warp.stretch,
        scale_y=float(scale_y),
        drift_x_um=tuple(((along_x - along_x.mean()) * step_x).tolist()),
        drift_y_um=tuple((drift_y * step_y).tolist()),
        coarse_row_shift_um=found.warp.row_shift_px * step_x,
        fine_row_shift_um=fine_shift * step_x,
        row_error_px=tuple(errors.tolist()),
        error_px=float(np.sqrt(np.mean(np.square(errors[told] if told.any() else errors)))),
        correlation=float(np.max(agreement.correlation)),
        problem=first_problem(pair, AFTER),
    )
