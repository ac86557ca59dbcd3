"""The forward model: what a fly-scanned microprobe counts of a given sample.

``y_e = Poisson(T * I0(t) * S * B_fast * P_probe * x_e + background_e)``: the probe PSF P blurs
the sample, B averages along the path flown during one pixel, S samples at the step, T is the
dwell. Noise is independent per element; I0 and dead time are shared. The simulated detector
measures with these functions and the training data are degraded with them: there is no second
model of the instrument.

Arrays are ordered (..., y, x); rates are detected photons per second at nominal flux.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.physics.resample import block_mean

FWHM_PER_SIGMA = 2.3548200450309493


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
        Input rate per element above which the electronics return nothing useful.
    """

    n_elements: int = 4
    dead_time_us: float = 0.5
    background_cps: float = 0.0
    saturation_cps: float = 2.0e6


def probe_blur(
    maps: np.ndarray,
    pixel_um: float,
    probe_fwhm_um: float | tuple[float, float] | None,
    psf: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve maps (..., y, x) with the probe: a Gaussian of given FWHM (y, x), or a measured PSF.

    `psf` is an odd-sized 2-D array on the same pixels; it is normalised to sum 1 and used instead
    of the Gaussian. Borders replicate.
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

    Positions are in pixels, 0 being the lower *edge* of the first pixel; beyond the ends the
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
    integral = np.concatenate([np.zeros((*wide.shape[:-1], 1)), np.cumsum(wide, axis=-1)], -1)

    def integral_at(position: np.ndarray) -> np.ndarray:
        position = np.clip(position + pad, 0, wide.shape[-1])
        base = np.minimum(position.astype(int), wide.shape[-1] - 1)
        rest = position - base
        return integral[..., base] * (1 - rest) + integral[..., base + 1] * rest

    return (integral_at(stops) - integral_at(starts)) / (stops - starts)


def row_profile(maps: np.ndarray, row_px: float) -> np.ndarray:
    """Return what a beam at height `row_px` crosses of maps (..., y, x): shape (..., x).

    `row_px` is in rows, 0 being the *centre* of the first one. Between rows: cubic convolution
    (a = -1/2), which half-way is what `coarsen` uses; beyond the ends the border value continues.
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
    """Sample a fine map (..., y, x) at a step `factor` times coarser, noise-free.

    The coarse pixel is always centred on its block of fine pixels (the phase that
    `resample.upsample` assumes). ``area``: mean of the block. ``fly``: mean along the fast path,
    and along the slow axis the value at the row's height, half-way between fine rows where the
    factor is even (cubic interpolation). ``point``: the value at the centre.
    Rows and columns that don't fill a block are dropped.
    """
    fine = np.asarray(fine, dtype=float)
    height, width = (size // factor * factor for size in fine.shape[-2:])
    fine = fine[..., :height, :width]
    if sampling == "area":
        return block_mean(fine, factor)
    centres_y = _value_at_block_centres(fine, factor, axis=-2)
    if sampling == "point":
        return _value_at_block_centres(centres_y, factor, axis=-1)
    return centres_y.reshape(*centres_y.shape[:-1], width // factor, factor).mean(-1)


def _value_at_block_centres(maps: np.ndarray, factor: int, axis: int) -> np.ndarray:
    num = maps.shape[axis] // factor
    position = factor * np.arange(num) + (factor - 1) / 2
    if factor % 2:
        return np.take(maps, position.astype(int), axis)
    # Four-point cubic interpolation half-way between samples: weights -1, 9, 9, -1 (/16).
    low = np.floor(position).astype(int)
    last = maps.shape[axis] - 1
    parts = [
        weight * np.take(maps, np.clip(low + shift, 0, last), axis)
        for shift, weight in ((-1, -1 / 16), (0, 9 / 16), (1, 9 / 16), (2, -1 / 16))
    ]
    return np.clip(sum(parts), 0, None)


def shift_rows(maps: np.ndarray, shift_px: float, rows: int = 1) -> np.ndarray:
    """Shift every second group of `rows` rows along the fast axis by `shift_px` (may be broken).

    It is what backlash, or a trigger that comes late in both directions of a snake, does to a
    map. Linear interpolation; borders replicate. Maps are (..., y, x).
    """
    maps = np.array(maps, dtype=float)
    edges = np.arange(maps.shape[-1] + 1) - shift_px
    backward = np.arange(maps.shape[-2]) // rows % 2 == 1
    maps[..., backward, :] = path_average(maps[..., backward, :], edges[:-1], edges[1:])
    return maps


def i0_ripple(num: int, rms: float, rng: np.random.Generator, correlation_px: float = 8.0):
    """Return relative beam intensity over `num` successive pixels: 1 + slow ripple of given RMS."""
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
