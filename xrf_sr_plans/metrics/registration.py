"""How far a coarse map and a fine map of the same area are displaced against each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.physics.resample import block_mean, fill_unmeasured

MIN_PIXELS = 4
"""An axis with fewer coarse pixels says nothing about a displacement along it."""
_SUBPIXEL = 50


@dataclass(frozen=True)
class Registration:
    """Where the coarse map shows what the fine map shows: ``x_coarse = x_fine + dx_um``.

    `error` is the normalised root mean square difference after shifting (0: equal up to a
    factor). NaN where the maps are too small to say.
    """

    factor: int
    dx_um: float
    dy_um: float
    error: float

    def to_dict(self) -> dict[str, float | int]:
        """Return JSON types."""
        return asdict(self)


def register(coarse: ElementalMaps, fine: ElementalMaps) -> Registration:
    """Return the displacement between two maps with the same outer edges, to 1/50 pixel.

    The fine map is averaged onto the coarse pixels; both are variance-stabilised, summed over
    elements and cross-correlated (M. Guizar-Sicairos et al., Opt. Lett. 33 (2008) 156, DOI
    10.1364/OL.33.000156). Unmeasured pixels take the value of their nearest neighbour.

    Raises
    ------
    GridError
        Grids that don't nest, or different elements.
    """
    factor = fine.grid.fast.num // coarse.grid.fast.num
    if factor < 1 or fine.grid.shape != tuple(factor * num for num in coarse.grid.shape):
        raise GridError(
            f"a fine map of {fine.grid.shape} pixels doesn't nest in {coarse.grid.shape}"
        )
    if coarse.elements != fine.elements:
        raise GridError(f"elements {coarse.elements} and {fine.elements} differ")
    nan = float("nan")
    if min(coarse.grid.shape) < MIN_PIXELS:
        return Registration(factor, nan, nan, nan)
    shift_px, error = _displacement(_image(coarse, 1), _image(fine, factor))
    dy_um, dx_um = shift_px * (coarse.grid.slow.step_um, coarse.grid.fast.step_um)
    return Registration(factor, float(dx_um), float(dy_um), error)


def _displacement(reference: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, float]:
    from skimage.registration import phase_cross_correlation

    # The correlation is cyclic: tapering keeps the edges from matching each other. But a taper
    # pulls the result towards 0, hence once more with what the first round has found taken out.
    window = np.outer(*(np.hanning(num + 2)[1:-1] for num in reference.shape))
    total, error = np.zeros(2), float("nan")
    for _ in range(3):
        moved = ndimage.shift(moving, total, mode="nearest")
        found, error, _ = phase_cross_correlation(
            reference * window,
            moved * window,
            upsample_factor=_SUBPIXEL,
            normalization=None,  # type: ignore[arg-type]  # its stub forgets None
        )
        total = total + found
    return total, float(error)


def _image(maps: ElementalMaps, factor: int) -> np.ndarray:
    counts = block_mean(fill_unmeasured(maps.counts.values), factor)
    image = stabilise(counts).sum(axis=0)
    return image - image.mean()
