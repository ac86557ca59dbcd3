"""What the analysis returns when the network can't: bicubic, with an error bar that says so."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr.prepare import prepare

BICUBIC_MODEL = {"name": "bicubic", "sha256": "", "calibration": ""}


def bicubic_sigma(counts: np.ndarray, baseline: np.ndarray, factor: int) -> np.ndarray:
    """Return how wrong bicubic may be, per fine pixel: counting noise and unseen structure.

    The counting noise of an interpolated value is that of one pixel at most; what lies between
    the pixels is as uncertain as the map changes from one pixel to the next.
    """
    slopes = np.gradient(counts, axis=(-2, -1)) if min(counts.shape[-2:]) > 1 else [0 * counts]
    change = np.sqrt(sum(np.square(slope) for slope in slopes))
    structure = np.clip(upsample(change, factor, "bilinear"), 0, None)
    return np.sqrt(np.clip(baseline, 0, None) + 1.0 + (0.5 * structure) ** 2)


def enhance_bicubic(maps: ElementalMaps, factor: int, reason: str) -> EnhancedMaps:
    """Interpolate measured maps bicubically, at the right phase; needs no torch.

    Parameters
    ----------
    maps
        Measured maps; NaN pixels stay NaN.
    factor
        How many times finer, along each axis.
    reason
        Why the model was not used; kept as the attribute ``fallback``.

    Returns
    -------
    EnhancedMaps
        Photons per coarse pixel. The interval is that of a normal distribution and has not
        been calibrated. Measured pixels are marked trusted: bicubic doesn't invent anything.
    """
    ready = prepare(maps.counts.values, maps.i0.values)
    raw = upsample(ready.counts, factor)
    baseline = np.clip(raw, 0, None)
    sigma = bicubic_sigma(ready.counts, baseline, factor)
    measured = ready.fine_mask(factor)

    def masked(values: np.ndarray) -> np.ndarray:
        return np.where(measured, values, np.nan)

    return EnhancedMaps.from_arrays(
        maps.grid.refined(factor),
        maps.elements,
        estimate=masked(baseline),
        sigma=masked(sigma),
        lower=masked(np.clip(baseline - NORMAL_90 * sigma, 0, None)),
        upper=masked(baseline + NORMAL_90 * sigma),
        baseline=masked(baseline),
        trusted=measured,
        factor=factor,
        model=dict(BICUBIC_MODEL),
        source_uid=str(maps.attrs.get("source_uid", "")),
        fallback=reason,
        notes=["interval not calibrated"],
    )
