"""`register`: how far a coarse and a fine map of the same area are displaced from each other."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.physics.resample import block_mean, fill_unmeasured
from xrf_sr_plans.registration.pair_registration import PairRegistration

MIN_PIXELS = 4
"""Fewest coarse pixels along an axis from which a displacement can be found."""
_SUBPIXEL = 50
"""Displacements are found to one part in this many of a coarse pixel."""


def register(coarse: ElementalMaps, fine: ElementalMaps) -> PairRegistration:
    """Return the displacement between two maps with the same outer edges, to 1/50 coarse pixel.

    The fine map is averaged onto the coarse pixels. Both are then variance-stabilized, summed over
    elements and cross-correlated (M. Guizar-Sicairos et al., Opt. Lett. 33 (2008) 156,
    DOI 10.1364/OL.33.000156). Pixels that weren't measured take the value of their nearest
    neighbor.

    Parameters
    ----------
    coarse
        The map with the larger step.
    fine
        The map whose pixels nest in those of `coarse`, with the same elements.

    Raises
    ------
    GridError
        The grids don't nest, or the elements differ.
    """
    # Fine pixels per pixel of the coarse map along each axis (y, x); fewer along x for rows.
    ratio = fine.grid.slow.num // coarse.grid.slow.num, fine.grid.fast.num // coarse.grid.fast.num
    nested = tuple(times * num for times, num in zip(ratio, coarse.grid.shape, strict=True))
    if min(ratio) < 1 or fine.grid.shape != nested:
        raise GridError(
            f"a fine map of {fine.grid.shape} pixels doesn't nest in {coarse.grid.shape}"
        )
    if coarse.elements != fine.elements:
        raise GridError(f"elements {coarse.elements} and {fine.elements} differ")
    factor, nan = max(ratio), float("nan")
    if min(coarse.grid.shape) < MIN_PIXELS:
        return PairRegistration(factor, nan, nan, problem="too small to be registered")
    shift_px, error = _displacement(_image(coarse, (1, 1)), _image(fine, ratio))
    dy_um, dx_um = shift_px * (coarse.grid.slow.step_um, coarse.grid.fast.step_um)
    return PairRegistration(factor, float(dx_um), float(dy_um), correlation=1 - error)


def _displacement(reference: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the shift (y, x) in pixels that puts `moving` on `reference`, and the error left."""
    from skimage.registration import phase_cross_correlation

    # The correlation is cyclic, and tapering keeps opposite edges from matching each other. But a
    # taper also pulls the result towards 0. Each round therefore begins with the shift so far.
    window = np.outer(*(np.hanning(num + 2)[1:-1] for num in reference.shape))
    total, error = np.zeros(2), float("nan")
    for _ in range(3):
        moved = ndimage.shift(moving, total, mode="nearest")
        further, error, _ = phase_cross_correlation(
            reference * window,
            moved * window,
            upsample_factor=_SUBPIXEL,
            normalization=None,  # type: ignore[arg-type]  # its stub forgets None
        )
        total = total + further
    return total, float(error)


def _image(maps: ElementalMaps, factor: tuple[int, int]) -> np.ndarray:
    """Return one image (y, x) for all elements, on pixels larger by factors (y, x)."""
    counts = block_mean(fill_unmeasured(usable_counts_of(maps).counts), factor)
    image = stabilise(counts).sum(axis=0)
    return image - image.mean()
