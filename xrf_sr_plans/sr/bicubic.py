"""Bicubic interpolation with an error bar, for maps on which the network can't be run."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr.prepare import (
    prepare_maps,
    refuse_what_no_memory_holds,
    without_background,
)

BICUBIC_MODEL = {"name": "bicubic", "sha256": "", "calibration": ""}
"""What enhanced maps name as their model where they are bicubic."""


def bicubic_sigma(counts: np.ndarray, baseline: np.ndarray, factor: int) -> np.ndarray:
    """Return one standard deviation of a bicubic map, for counting noise and unseen structure.

    The counting noise of an interpolated value is at most that of one coarse pixel. The structure
    between the pixels is as uncertain as the map changes from one pixel to the next.

    Parameters
    ----------
    counts
        Photons (..., y, x) on the coarse grid, without gaps.
    baseline
        The same map interpolated, (..., Y, X) on the fine grid.
    factor
        How many times finer the fine grid is along each axis.

    Returns
    -------
    np.ndarray
        Standard deviation in photons per coarse pixel, (..., Y, X).
    """
    slopes = np.gradient(counts, axis=(-2, -1)) if min(counts.shape[-2:]) > 1 else [0 * counts]
    # Length of the gradient in photons per coarse step, (..., y, x).
    change = np.sqrt(sum(np.square(slope) for slope in slopes))
    structure = np.clip(upsample(change, factor, "bilinear"), 0, None)
    return np.sqrt(np.clip(baseline, 0, None) + 1.0 + (0.5 * structure) ** 2)


def enhance_bicubic(maps: ElementalMaps, factor: int, reason: str) -> EnhancedMaps:
    """Interpolate measured maps bicubically, at the right phase and without torch.

    Parameters
    ----------
    maps
        Measured maps. Pixels that are NaN stay NaN.
    factor
        How many times finer the result is along each axis.
    reason
        Why the model was not used. It is kept as the attribute ``fallback``.

    Returns
    -------
    EnhancedMaps
        Photons per coarse pixel, as float32. The interval is that of a normal distribution and
        has not been calibrated. Measured pixels are marked trusted, because bicubic interpolation
        doesn't invent anything.

    Raises
    ------
    GridError
        The results alone exceed this machine's memory.
    """
    refuse_what_no_memory_holds(maps.counts.values, factor)
    ready = prepare_maps(maps)
    grid = maps.grid.refined(factor)
    # Of float32, and element by element: several fine maps of all elements in float64 would take
    # more memory than there is.
    fields = {
        name: np.empty((len(maps.elements), *grid.shape), np.float32)
        for name in ("estimate", "sigma", "lower", "upper")
    }
    measured = ready.fine_mask(factor)
    for index, counts in enumerate(ready.counts):
        for name, values in _one_element(counts, factor).items():
            fields[name][index] = np.where(measured[index], values, np.nan)
    without_background(fields, ready.background)
    return EnhancedMaps.from_arrays(
        grid,
        maps.elements,
        **fields,
        baseline=fields["estimate"],
        trusted=measured,
        factor=factor,
        model=dict(BICUBIC_MODEL),
        source_uid=str(maps.attrs.get("source_uid", "")),
        fallback=reason,
        notes=["interval not calibrated", *ready.notes],
        data_notes=list(ready.notes),
    )


def _one_element(counts: np.ndarray, factor: int) -> dict[str, np.ndarray]:
    """Return the fields of one element (Y, X), from its photons (y, x) without gaps."""
    baseline = np.clip(upsample(counts, factor), 0, None)
    sigma = bicubic_sigma(counts, baseline, factor)
    return {
        "estimate": baseline,
        "sigma": sigma,
        "lower": np.clip(baseline - NORMAL_90 * sigma, 0, None),
        "upper": baseline + NORMAL_90 * sigma,
    }
