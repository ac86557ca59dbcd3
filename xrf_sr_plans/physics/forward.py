"""The forward model: what a fly-scanned microprobe counts of a given sample.

``y_e = Poisson(T * I0(t) * S * B_fast * P_probe * x_e + background_e)``: the probe PSF P blurs
the sample, B averages along the path flown during one pixel, S samples at the step, and T is the
dwell time. Noise is independent for each element, while I0 and dead time are shared. The
simulated detector measures with these functions and the training data are degraded with them, so
there is no second model of the instrument. `operators` has the same model as matrices.

Arrays are ordered (..., y, x). Rates are detected photons per second at nominal flux.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Measurement, Sampling
from xrf_sr_plans.physics.banded import Banded, gaussian_single
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.ranges import ZERO_OR_MORE, Range, check, range_flaws

FWHM_PER_SIGMA = 2.3548200450309493
"""Full width at half maximum of a Gaussian, in units of its standard deviation."""
AVERAGES: dict[Sampling, tuple[bool, bool]] = {
    "fly": (False, True),
    "area": (True, True),
    "point": (False, False),
    "rows": (False, True),
}
"""Whether a measured pixel averages over its step along the (slow, fast) axis."""
_HALF_WAY = ((-1, -1 / 16), (0, 9 / 16), (1, 9 / 16), (2, -1 / 16))
"""Shift and weight of the four samples that cubic convolution takes half-way between two."""


@dataclass(frozen=True)
class Detector:
    """A multi-element fluorescence detector.

    Parameters
    ----------
    n_elements
        Detector elements that share the signal equally.
    dead_time_us
        Non-paralysable dead time of one element per photon.
    background_cps
        Background per elemental map, summed over detector elements.
    saturation_cps
        Input rate per element above which the electronics return nothing useful; infinity: none.

    Raises
    ------
    ConfigError
        A number is NaN, negative or infinite, or there is no detector element.
    """

    n_elements: int = 4
    dead_time_us: float = 0.5
    background_cps: float = 0.0
    saturation_cps: float = 2.0e6

    def __post_init__(self) -> None:
        ranges = {
            "n_elements": Range(1, 10_000, whole=True),
            "dead_time_us": ZERO_OR_MORE,
            "background_cps": ZERO_OR_MORE,
        }
        check("detector", *range_flaws(vars(self), ranges))
        if not self.saturation_cps > 0:
            check("detector", f"saturation_cps is {self.saturation_cps}; it must be above 0")


def probe_blur(
    maps: np.ndarray,
    pixel_um: float,
    probe_fwhm_um: float | tuple[float, float] | None,
    psf: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve maps (..., y, x) with the probe: a Gaussian of given FWHM (y, x), or a measured PSF.

    `psf` is an odd-sized 2-D array on the same pixels, which is normalised to sum 1 and used
    instead of the Gaussian. Beyond the border the border values continue.
    """
    maps = np.asarray(maps, dtype=float)
    if psf is not None:
        kernel = np.asarray(psf, dtype=float)
        kernel = kernel / kernel.sum()
        flat = maps.reshape(-1, *maps.shape[-2:])
        blurred = [ndimage.convolve(plane, kernel, mode="nearest") for plane in flat]
        return np.reshape(blurred, maps.shape)
    if not probe_fwhm_um:
        return maps
    fwhm_y, fwhm_x = np.broadcast_to(np.asarray(probe_fwhm_um, dtype=float), 2)
    sigma = (0,) * (maps.ndim - 2) + (
        fwhm_y / FWHM_PER_SIGMA / pixel_um,
        fwhm_x / FWHM_PER_SIGMA / pixel_um,
    )
    return ndimage.gaussian_filter(maps, sigma, mode="nearest")


def path_average(profile: np.ndarray, starts_px: np.ndarray, stops_px: np.ndarray) -> np.ndarray:
    """Average a profile (..., x) exactly over the paths from `starts_px` to `stops_px`.

    Positions are in pixels, 0 being the lower *edge* of the first pixel. Beyond the ends the
    border value continues. The profile counts as constant within a pixel. A path of no length
    gives the value at its place.
    """
    starts, stops = np.minimum(starts_px, stops_px), np.maximum(starts_px, stops_px)
    starts, stops = np.where(stops - starts < 1e-9, (starts - 5e-7, stops + 5e-7), (starts, stops))
    num = profile.shape[-1]
    pad = int(np.ceil(max(1.0, -starts.min(), stops.max() - num)))
    wide = np.concatenate(
        [np.repeat(profile[..., :1], pad, -1), profile, np.repeat(profile[..., -1:], pad, -1)], -1
    )
    # The integral of the profile from its lower end up to each edge between two pixels.
    integral = np.concatenate([np.zeros((*wide.shape[:-1], 1)), np.cumsum(wide, axis=-1)], -1)

    def integral_at(position: np.ndarray) -> np.ndarray:
        position = np.clip(position + pad, 0, wide.shape[-1])
        base = np.minimum(position.astype(int), wide.shape[-1] - 1)
        rest = position - base
        return integral[..., base] * (1 - rest) + integral[..., base + 1] * rest

    return (integral_at(stops) - integral_at(starts)) / (stops - starts)


def row_profile(maps: np.ndarray, row_px: float) -> np.ndarray:
    """Return what a beam at height `row_px` crosses of maps (..., y, x): shape (..., x).

    `row_px` is in rows, 0 being the *centre* of the first one. Between rows it is interpolated by
    cubic convolution (a = -1/2), whose weights half-way are those of `sample_axis`. Beyond the
    ends the border value continues.
    """
    last = maps.shape[-2] - 1
    base = int(np.floor(row_px))
    t = float(row_px) - base
    weights = (
        -0.5 * t**3 + t**2 - 0.5 * t,
        1.5 * t**3 - 2.5 * t**2 + 1,
        -1.5 * t**3 + 2 * t**2 + 0.5 * t,
        0.5 * t**3 - 0.5 * t**2,
    )
    rows = (maps[..., min(max(base + k, 0), last), :] for k in range(-1, 3))
    profile = sum(weight * row for weight, row in zip(weights, rows, strict=True))
    return np.clip(profile, 0, None)


def coarsen(fine: np.ndarray, factor: int, sampling: Sampling = "fly") -> np.ndarray:
    """Return a fine map (..., Y, X) sampled at a step `factor` times larger, noise-free.

    Rows (`sampling`) are that far apart along the slow axis only; along the fast axis their pixels
    are those of the fine map. A coarse pixel is always centred on its block of fine pixels, which
    is the phase that `resample.upsample` assumes. Along the axes on which the `sampling` averages
    (`AVERAGES`) it is the mean over the block, along the others the value at the block's centre.
    Values are never negative. Rows and columns that don't fill a block are dropped.
    """
    fine = np.asarray(fine, dtype=float)
    height, width = (size // factor * factor for size in fine.shape[-2:])
    coarse = fine[..., :height, :width]
    if all(AVERAGES[sampling]):
        # One sum over each block: along one axis after the other it would be rounded otherwise.
        return block_mean(coarse, factor)
    steps = Measurement(factor, sampling).refinement
    for axis, step, averages in zip((-2, -1), steps, AVERAGES[sampling], strict=True):
        if step == 1:
            continue
        coarse = sample_axis(coarse, step, axis, averages=averages)
        if not averages:
            # The interpolation undershoots beside bright pixels.
            coarse = np.clip(coarse, 0, None)
    return coarse


def sample_axis(maps: np.ndarray, factor: int, axis: int, *, averages: bool) -> np.ndarray:
    """Return maps sampled along one axis, `factor` fine pixels to a coarse one; it is linear.

    The number of fine pixels is a multiple of `factor`. With `averages` a coarse pixel is the mean
    of its fine ones. Else it is the value at their centre, which for an even factor lies half-way
    between two of them and is interpolated from four.
    """
    axis %= maps.ndim
    num = maps.shape[axis] // factor
    if averages:
        # (..., coarse, fine within the coarse pixel, ...)
        blocks = (*maps.shape[:axis], num, factor, *maps.shape[axis + 1 :])
        return maps.reshape(blocks).mean(axis + 1)
    position = factor * np.arange(num) + (factor - 1) / 2
    base = position.astype(int)
    if factor % 2:
        return np.take(maps, base, axis)
    last = maps.shape[axis] - 1
    before, low, high, after = (
        weight * np.take(maps, np.clip(base + shift, 0, last), axis) for shift, weight in _HALF_WAY
    )
    return before + low + high + after


def degrade(fine: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the counts (..., y, x) that a fine map (..., Y, X) would give, without noise.

    The map is blurred by the probe that it is free of, then sampled at the coarse step. This is
    the forward model; `operators.measure_again` is its linear form. A map without gaps of whole
    coarse pixels in float32 is computed in single precision, up to rounding the same.
    """
    fwhm_px = measurement.removed_probe_steps * measurement.factor
    if np.asarray(fine).dtype == np.float32:
        return _degrade_single(fine, fwhm_px, measurement)
    return coarsen(probe_blur(fine, 1.0, fwhm_px), measurement.factor, measurement.sampling)


def _degrade_single(fine: np.ndarray, fwhm_px: float, measurement: Measurement) -> np.ndarray:
    """Return `degrade` of a float32 map without gaps, as products with banded matrices."""
    sigma_px = fwhm_px / FWHM_PER_SIGMA
    fine = gaussian_single(fine, (sigma_px, sigma_px))
    averages = AVERAGES[measurement.sampling]
    for axis, step, mean in zip((-2, -1), measurement.refinement, averages, strict=True):
        if step == 1:
            continue
        bands = _sampling_bands(fine.shape[axis] // step, step, mean)
        fine = bands.along_y(fine) if axis == -2 else bands.along_x(fine)
        if not mean:
            # The interpolation undershoots beside bright pixels.
            np.clip(fine, 0, None, out=fine)
    return fine


@lru_cache(maxsize=32)
def _sampling_bands(num: int, factor: int, averages: bool) -> Banded:
    """Return `sample_axis` for `num` coarse pixels as a banded matrix."""
    first = factor * np.arange(num)[:, None]
    if averages:
        source = first + np.arange(factor)
        return Banded.from_taps(source, np.full(source.shape, 1 / factor), np.float32)
    if factor % 2:
        return Banded.from_taps(first + factor // 2, np.ones(first.shape), np.float32)
    shifts, weights = (np.array(column) for column in zip(*_HALF_WAY, strict=True))
    source = np.clip(first + (factor - 1) // 2 + shifts, 0, factor * num - 1)
    return Banded.from_taps(source, np.broadcast_to(weights, source.shape), np.float32)


def shift_rows(maps: np.ndarray, shift_px: float, rows: int = 1) -> np.ndarray:
    """Shift every second group of `rows` rows along the fast axis by `shift_px` (may be broken).

    It is what backlash, or a trigger that comes late in both directions of a snake, does to a
    map (..., y, x). Values between pixels are interpolated linearly, and beyond the border the
    border value continues.
    """
    maps = np.array(maps, dtype=float)
    edges = np.arange(maps.shape[-1] + 1) - shift_px
    backward = np.arange(maps.shape[-2]) // rows % 2 == 1
    maps[..., backward, :] = path_average(maps[..., backward, :], edges[:-1], edges[1:])
    return maps


def i0_ripple(
    num: int, rms: float, rng: np.random.Generator, correlation_px: float = 8.0
) -> np.ndarray:
    """Return the relative beam intensity over `num` successive pixels, 1 with a slow ripple.

    The ripple has the given root mean square; `correlation_px` is how slowly it changes.
    """
    margin = math.ceil(4 * correlation_px)
    noise = ndimage.gaussian_filter1d(rng.standard_normal(num + 2 * margin), correlation_px)
    # The spread of smoothed white noise, not that of these pixels: over a row much shorter than
    # the correlation the beam hardly changes, and its own spread says nothing.
    spread = 1 / math.sqrt(2 * correlation_px * math.sqrt(math.pi))
    return 1.0 + rms * noise[margin : margin + num] / spread


def live_fraction(total_cps: np.ndarray, detector: Detector) -> np.ndarray:
    """Return the live share of time at a total input rate (non-paralysable dead time)."""
    per_element = np.asarray(total_cps, dtype=float) / detector.n_elements
    return 1.0 / (1.0 + per_element * detector.dead_time_us * 1e-6)


def detect(
    rate_cps: np.ndarray,
    dwell_s: float | np.ndarray,
    rng: np.random.Generator,
    *,
    i0_relative: float | np.ndarray = 1.0,
    detector: Detector | None = None,
    alive: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Count photons.

    Parameters
    ----------
    rate_cps
        (element, ...) expected photons per second of each elemental line, all detector elements
        together, at nominal flux.
    dwell_s
        Real time per pixel.
    i0_relative
        Beam intensity relative to nominal, broadcast against (...).
    alive
        Weight of each detector element (1 alive, 0 dead, above 1 hot), shape (n_elements,).

    Returns
    -------
    counts
        (n_elements, element, ...) detected photons per detector element; sum over axis 0 for
        the map.
    live_time_s
        (...) live time of one detector element; 0, like the counts, where it is saturated.
    """
    detector = detector or Detector()
    alive = np.ones(detector.n_elements) if alive is None else np.asarray(alive, dtype=float)
    rate = np.asarray(rate_cps, dtype=float) * i0_relative + detector.background_cps
    total = rate.sum(axis=0)
    overloaded = total / detector.n_elements > detector.saturation_cps
    live = np.where(overloaded, 0.0, np.asarray(dwell_s) * live_fraction(total, detector))
    share = alive.reshape(-1, *([1] * rate.ndim)) / detector.n_elements
    counts = rng.poisson(np.clip(share * rate * live, 0, None)).astype(float)
    return counts, np.broadcast_to(live, rate.shape[1:]).copy()
