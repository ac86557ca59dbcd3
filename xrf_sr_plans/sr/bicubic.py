"""The best classical treatment with an error bar, for maps on which the network can't be run."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.measurement import SAME_GRID, Measurement
from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.physics.resample import upsample, upsample_filled
from xrf_sr_plans.physics.smoothing import smoothed
from xrf_sr_plans.sr.prepare import (
    prepare_maps,
    refuse_what_no_memory_holds,
    sampling_of,
    without_background,
)

BICUBIC_MODEL = {"name": "bicubic", "sha256": "", "calibration": ""}
"""What enhanced maps name as their model where they are bicubic."""
SMOOTHED_MODEL = {"name": "smoothed", "sha256": "", "calibration": ""}
"""What they name where they are interpolated and smoothed."""


def is_smoothed(measurement: Measurement) -> bool:
    """Return whether the baseline of a map is smoothed, not bicubic alone."""
    return measurement.fast_pixels > 1 or measurement.factor == SAME_GRID


def baseline_of(
    counts: np.ndarray, measurement: Measurement, widths: np.ndarray | None = None
) -> np.ndarray:
    """Return what a map is without any network, (element, Y, X) on the fine grid.

    Squares are interpolated bicubically. Rows, and maps that keep their grid, are interpolated
    and smoothed as much as their counts ask for (`physics.smoothing`).

    Parameters
    ----------
    counts
        Photons per measured pixel (element, y, x), without gaps.
    measurement
        How they were measured.
    widths
        `physics.smoothing.chosen_widths` of the map, where they are known.

    Returns
    -------
    np.ndarray
        Photons per measured pixel, nowhere negative; float32 where the counts are, else float64.
    """
    if is_smoothed(measurement):
        return np.clip(smoothed(counts, measurement, widths), 0, None)
    return np.clip(upsample_filled(counts, measurement.refinement), 0, None)


def bicubic_sigma(
    counts: np.ndarray, baseline: np.ndarray, refinement: tuple[int, int]
) -> np.ndarray:
    """Return one standard deviation of a baseline, for counting noise and unseen structure.

    The counting noise of an interpolated value is at most that of one measured pixel. The structure
    between the pixels is as uncertain as the map changes from one pixel to the next.

    Parameters
    ----------
    counts
        Photons (..., y, x) on the measured grid, without gaps.
    baseline
        The same map interpolated, (..., Y, X) on the fine grid.
    refinement
        How many times finer the fine grid is along y and x.

    Returns
    -------
    np.ndarray
        Standard deviation in photons per measured pixel, (..., Y, X).
    """
    slopes = np.gradient(counts, axis=(-2, -1)) if min(counts.shape[-2:]) > 1 else [0 * counts]
    # Length of the gradient in photons per pixel, (..., y, x).
    change = np.sqrt(sum(np.square(slope) for slope in slopes))
    structure = np.clip(upsample(change, refinement, "bilinear"), 0, None)
    return np.sqrt(np.clip(baseline, 0, None) + 1.0 + (0.5 * structure) ** 2)


def enhance_bicubic(maps: ElementalMaps, factor: int, reason: str) -> EnhancedMaps:
    """Return the baseline of measured maps (`baseline_of`), at the right phase, without torch.

    Parameters
    ----------
    maps
        Measured maps. Pixels that are NaN stay NaN. Rows say so in their attribute ``sampling``.
    factor
        Fine pixels per coarse step along each axis.
    reason
        Why the model was not used. It is kept as the attribute ``fallback``.

    Returns
    -------
    EnhancedMaps
        Photons per measured pixel, as float32. The interval is that of a normal distribution and
        has not been calibrated. Measured pixels are marked trusted, because interpolation doesn't
        invent anything.

    Raises
    ------
    ConfigError
        A factor or sampling that is not allowed.
    GridError
        The results alone exceed this machine's memory, or rows that are not those of the factor.
    """
    measurement = Measurement(factor, sampling_of(maps, factor))
    refuse_what_no_memory_holds(maps.counts.values, measurement)
    ready = prepare_maps(maps)
    grid = maps.grid.refined(measurement.refinement)
    # Of float32, and element by element: several fine maps of all elements in float64 would take
    # more memory than there is.
    fields = {
        name: np.empty((len(maps.elements), *grid.shape), np.float32)
        for name in ("estimate", "sigma", "lower", "upper")
    }
    measured = ready.fine_mask(measurement.refinement)
    for index, counts in enumerate(ready.counts):
        for name, values in _one_element(counts, measurement).items():
            fields[name][index] = np.where(measured[index], values, np.nan)
    without_background(fields, ready.background)
    return EnhancedMaps.from_arrays(
        grid,
        maps.elements,
        **fields,
        baseline=fields["estimate"],
        trusted=measured,
        factor=factor,
        sampling=measurement.sampling,
        model=dict(SMOOTHED_MODEL if is_smoothed(measurement) else BICUBIC_MODEL),
        source_uid=str(maps.attrs.get("source_uid", "")),
        fallback=reason,
        notes=["interval not calibrated", *ready.notes],
        data_notes=list(ready.notes),
    )


def _one_element(counts: np.ndarray, measurement: Measurement) -> dict[str, np.ndarray]:
    """Return the fields of one element (Y, X), from its photons (y, x) without gaps."""
    baseline = baseline_of(counts, measurement)
    sigma = bicubic_sigma(counts, baseline, measurement.refinement)
    return {
        "estimate": baseline,
        "sigma": sigma,
        "lower": np.clip(baseline - NORMAL_90 * sigma, 0, None),
        "upper": baseline + NORMAL_90 * sigma,
    }
