"""Classical methods with which the super-resolution network is compared.

They are what a user would do instead. Every method takes measured counts (element, y, x), squares
or rows, and returns the map on the fine grid, in the same units and in the phase of
`physics.resample`, which keeps a linear ramp as it is. On the same grid (factor 1) what is left of
them is that they remove noise and blur.

A parameter that decides how much to smooth is chosen per element from the coarse counts alone, by
thinning. The counts are split binomially into two independent maps, and the value is taken whose
result from the larger part predicts the smaller part best (A. Neufeld et al., J. Mach. Learn. Res.
25 (2024) no. 57, arXiv 2301.07276). So each method is as good as its user could make it without
knowing the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import SAME_GRID, Measurement
from xrf_sr_plans.physics.counting import stabilise, unstabilise_mean
from xrf_sr_plans.physics.forward import AVERAGES, FWHM_PER_SIGMA
from xrf_sr_plans.physics.operators import blur_matrices, measure_again
from xrf_sr_plans.physics.resample import Kernel, upsample
from xrf_sr_plans.physics.smoothing import smoothed
from xrf_sr_plans.sr.kriging import kriging
from xrf_sr_plans.sr.scale import per_coarse_pixel

GAUSSIAN_SIGMAS = (0.0, 0.35, 0.45, 0.55, 0.7, 0.85, 1.0, 1.25, 1.6, 2.0, 3.0)
"""Standard deviations of the Gaussian filter, in coarse pixels, of which one is chosen."""
ITERATIONS = (0, 1, 2, 4, 8, 16, 32)
"""Numbers of iterations of which one is chosen."""
NLM_STRENGTHS = (0.0, 0.5, 0.8, 1.1)
"""Strengths of non-local means, in standard deviations of the noise, of which one is chosen."""
WAVELET_STRENGTHS = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Thresholds of wavelets, in standard deviations of the noise, of which one is chosen."""
WAVELET_SCALES = 4
"""Number of scales, each twice the one before."""
_KEPT = 0.8
"""Share of the counts in the larger part of a split."""
_SPLITS = 2
"""Number of splits over which the error of a prediction is summed."""
_SEED = 20230
"""Seed of the splits."""
_MTF_FLOOR = 0.15
"""Smallest transfer by which the Wiener filter divides."""


Method = Callable[[np.ndarray, Measurement], np.ndarray]
"""Takes measured counts (element, y, x) and returns the map (element, Y, X) on the fine grid."""


def _choose(
    plane: np.ndarray,
    candidates: Callable[[np.ndarray], Sequence[np.ndarray]],
) -> int:
    """Return the index of the candidate that predicts held-out counts of one map best.

    Parameters
    ----------
    plane
        Photons (y, x) of one element.
    candidates
        Function that takes counts (y, x) and returns the prediction of each candidate, (y, x) on
        the *measured* grid.
    """
    rng = np.random.default_rng(_SEED)
    counts = np.rint(np.clip(plane, 0, None)).astype(int)
    loss = 0.0
    for _ in range(_SPLITS):
        kept = rng.binomial(counts, _KEPT)
        predictions = candidates(kept / _KEPT)
        held = (counts - kept) / (1 - _KEPT)
        loss = loss + np.array([np.mean((guess - held) ** 2) for guess in predictions])
    return int(np.argmin(loss))


def _interpolate(kernel: Kernel) -> Method:
    """Return the method that interpolates with a kernel."""

    def method(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
        return upsample(counts, measurement.refinement, kernel)

    return method


def bicubic_gaussian(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the measured map smoothed by a Gaussian filter and then interpolated bicubically.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.
    measurement
        How the map was measured. Without counting noise nothing is smoothed, otherwise the width
        of the filter is chosen by thinning.

    Returns
    -------
    np.ndarray
        Photons per measured pixel, (element, Y, X) on the fine grid.
    """
    pixels = measurement.fast_pixels

    def filtered(plane: np.ndarray) -> list[np.ndarray]:
        return [
            ndimage.gaussian_filter(plane, (s, s * pixels), mode="nearest") for s in GAUSSIAN_SIGMAS
        ]

    return _denoised(counts, measurement, filtered)


def _denoised(
    counts: np.ndarray,
    measurement: Measurement,
    candidates: Callable[[np.ndarray], Sequence[np.ndarray]],
) -> np.ndarray:
    """Return the best candidate of each element, interpolated; without noise, the map itself."""
    if measurement.noisy:
        counts = np.stack([candidates(plane)[_choose(plane, candidates)] for plane in counts])
    return upsample(counts, measurement.refinement)


def wavelet_bicubic(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the measured map denoised by thresholds on wavelets, then interpolated bicubically.

    Undecimated isotropic wavelets of cubic splines on stabilised counts (J.-L. Starck, J. Fadili,
    F. Murtagh, IEEE Trans. Image Process. 16 (2007) 297, DOI 10.1109/TIP.2006.887733), cut softly.
    The parameters and the result are those of `bicubic_gaussian`.
    """

    def denoised(plane: np.ndarray) -> list[np.ndarray]:
        *details, rest = _wavelets(stabilise(plane))
        deviations = _wavelet_noise()
        made = [plane]
        for strength in WAVELET_STRENGTHS[1:]:
            kept = rest.copy()
            for detail, deviation in zip(details, deviations, strict=True):
                cut = strength * deviation
                kept += np.sign(detail) * np.clip(np.abs(detail) - cut, 0, None)
            made.append(unstabilise_mean(kept))
        return made

    return _denoised(counts, measurement, denoised)


def _wavelets(plane: np.ndarray) -> list[np.ndarray]:
    """Return the details of each scale, finest first, and what is left; they sum to the map."""
    parts = []
    for scale in range(WAVELET_SCALES):
        kernel = np.zeros(4 * 2**scale + 1)
        kernel[:: 2**scale] = np.array([1, 4, 6, 4, 1]) / 16
        smooth = ndimage.convolve1d(plane, kernel, axis=0, mode="nearest")
        smooth = ndimage.convolve1d(smooth, kernel, axis=1, mode="nearest")
        parts.append(plane - smooth)
        plane = smooth
    return [*parts, plane]


@lru_cache(maxsize=1)
def _wavelet_noise() -> tuple[float, ...]:
    """Return the standard deviation that noise of variance 1 has on each scale."""
    impulse = np.zeros((129, 129))
    impulse[64, 64] = 1.0
    return tuple(float(np.sqrt(np.square(detail).sum())) for detail in _wavelets(impulse)[:-1])


def smoothed_map(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the map interpolated and smoothed as much as its counts ask for.

    `physics.smoothing` chooses the width without splitting the counts. Without noise it is
    interpolation alone.
    """
    widths = None if measurement.noisy else np.zeros(len(counts), dtype=int)
    return smoothed(counts, measurement, widths)


def nlm_bicubic(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the measured map denoised by non-local means and then interpolated bicubically.

    Non-local means (A. Buades, B. Coll, J.-M. Morel, CVPR 2005, DOI 10.1109/CVPR.2005.38) work on
    stabilized counts.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.
    measurement
        How the map was measured. Without counting noise nothing is denoised, otherwise the
        strength is chosen by thinning.

    Returns
    -------
    np.ndarray
        Photons per measured pixel, (element, Y, X) on the fine grid.
    """
    from skimage.restoration import denoise_nl_means

    def denoised(plane: np.ndarray) -> list[np.ndarray]:
        stabilised = stabilise(plane)
        out = [plane]
        for strength in NLM_STRENGTHS[1:]:
            smooth = denoise_nl_means(
                stabilised, patch_size=5, patch_distance=6, h=strength, sigma=1.0, fast_mode=True
            )
            out.append(unstabilise_mean(smooth))
        return out

    return _denoised(counts, measurement, denoised)


def wiener(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the measured map deblurred by a Wiener filter and then interpolated bicubically.

    The filter takes back the blur by the probe and by the path of a pixel, and suppresses Poisson
    noise. It works in the cosine basis, which mirrors the map at its borders and shifts no phase.
    The power of the signal in a ring of frequencies is what the map shows there, less the power
    of the noise, which is the mean count.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.
    measurement
        How the map was measured: probe, sampling, factor, and whether there is counting noise.

    Returns
    -------
    np.ndarray
        Photons per measured pixel, (element, Y, X) on the fine grid.
    """
    (height, width), pixels = counts.shape[-2:], measurement.fast_pixels
    # Frequencies of the cosines in periods per coarse step, (y, 1) and (x,).
    fy, fx = np.arange(height)[:, None] / (2 * height), pixels * np.arange(width) / (2 * width)
    sigma = measurement.removed_probe_steps / FWHM_PER_SIGMA
    # What probe and path leave of each frequency, (y frequency, x frequency).
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    averaged = zip((fy, fx), measurement.refinement, AVERAGES[measurement.sampling], strict=True)
    for frequency, finer, averages in averaged:
        # A path as short as a fine pixel is what the estimate shows, too.
        transfer = transfer * np.sinc(frequency) if averages and finer > 1 else transfer
    # Index of the ring of similar frequencies that each one lies in.
    ring = np.rint(np.hypot(fy, fx) * 64).astype(int)
    rings = int(ring.max()) + 1
    out = []
    for plane in counts:
        spectrum = np.asarray(fft.dctn(plane, norm="ortho"))
        power = np.bincount(ring.ravel(), spectrum.ravel() ** 2, minlength=rings)
        power = (power / np.maximum(np.bincount(ring.ravel(), minlength=rings), 1))[ring]
        noise = max(float(plane.mean()), 0.0) if measurement.noisy else 0.0
        # The factor by which each cosine is multiplied.
        keep = np.clip(power - noise, 0, None) / np.maximum(power, 1e-30)
        keep = np.where(power > 1e-24, keep, 1.0) / np.maximum(transfer, _MTF_FLOOR)
        keep[0, 0] = 1.0
        out.append(fft.idctn(spectrum * keep, norm="ortho"))
    return upsample(np.stack(out), measurement.refinement)


Advance = Callable[[np.ndarray], np.ndarray]
"""Takes one iterate (Y, X) on the fine grid and returns the next one."""


def _iterate(start: Callable[[np.ndarray, Measurement], Advance]) -> Method:
    """Return the method that iterates on the fine grid, beginning with the bicubic map.

    The number of iterations is chosen by thinning. Without counting noise it is the largest of
    `ITERATIONS`.

    Parameters
    ----------
    start
        Function of a measured map (y, x) and its measurement. It returns the function from one
        iterate to the next.
    """

    def iterates(plane: np.ndarray, measurement: Measurement, last: int) -> list[np.ndarray]:
        advance = start(plane, measurement)
        current = np.clip(upsample(plane, measurement.refinement), 0, None)
        kept = [current]
        for number in range(1, last + 1):
            current = advance(current)
            if number in ITERATIONS:
                kept.append(current)
        return kept

    def expected(plane: np.ndarray, measurement: Measurement) -> list[np.ndarray]:
        return [measure_again(x, measurement) for x in iterates(plane, measurement, ITERATIONS[-1])]

    def method(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
        out = []
        for plane in counts:
            best = len(ITERATIONS) - 1
            if measurement.noisy:
                best = _choose(plane, lambda part: expected(part, measurement))
            out.append(iterates(plane, measurement, ITERATIONS[best])[-1])
        return np.stack(out)

    return method


def _richardson_lucy(plane: np.ndarray, measurement: Measurement) -> Advance:
    """Return the step of Richardson and Lucy, which corrects by the ratio of measured to expected.

    W. H. Richardson, J. Opt. Soc. Am. 62 (1972) 55, DOI 10.1364/JOSA.62.000055, and L. B. Lucy,
    Astron. J. 79 (1974) 745, DOI 10.1086/111605.
    """
    measured = np.clip(upsample(plane, measurement.refinement), 0, None)
    rows, columns = blur_matrices(measured.shape, measurement)
    norm = rows.sum(axis=0)[:, None] * columns.sum(axis=0)
    floor = 1e-6 * max(float(measured.max()), 1e-12)

    def advance(current: np.ndarray) -> np.ndarray:
        ratio = measured / np.maximum(rows @ current @ columns.T, floor)
        return current * (rows.T @ ratio @ columns) / norm

    return advance


def _back_projection(plane: np.ndarray, measurement: Measurement) -> Advance:
    """Return the step that adds the interpolated difference of measured and expected counts.

    M. Irani and S. Peleg, CVGIP 53 (1991) 231, DOI 10.1016/1049-9652(91)90045-L.
    """

    def advance(current: np.ndarray) -> np.ndarray:
        difference = plane - measure_again(current, measurement)
        return np.clip(current + upsample(difference, measurement.refinement), 0, None)

    return advance


def squares_bicubic(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return the bicubic map of rows whose pixels are summed over each step, per measured pixel.

    It is what a fly scan of squares would have given in the same time, at the same dose.
    """
    squares = per_coarse_pixel(counts, measurement)
    return upsample(squares, measurement.factor) / measurement.fast_pixels


BICUBIC, SQUARES_BICUBIC = "bicubic", "bicubic of squares"
METHODS: dict[str, Method] = {
    "nearest": _interpolate("nearest"),
    "bilinear": _interpolate("bilinear"),
    BICUBIC: _interpolate("bicubic"),
    "Lanczos": _interpolate("lanczos"),
    "bicubic + Gaussian": bicubic_gaussian,
    "Richardson-Lucy + bicubic": _iterate(_richardson_lucy),
    "Wiener + bicubic": wiener,
    "back-projection": _iterate(_back_projection),
    "NLM + bicubic": nlm_bicubic,
    "wavelets + bicubic": wavelet_bicubic,
    "interpolated, smoothed": smoothed_map,
    "kriging": kriging,
    SQUARES_BICUBIC: squares_bicubic,
}
"""The classical methods by the names that tables give them."""
INTERPOLATIONS = ("nearest", "bilinear", "Lanczos")
"""Methods that on the same grid are what bicubic is: the counts as they are."""


def reference_of(measurement: Measurement) -> str:
    """Return the method over which gains are counted: bicubic of the squares.

    Rows have to be worth more than the squares that were flown in the same time.
    """
    return SQUARES_BICUBIC if measurement.fast_pixels > 1 else BICUBIC


def methods_for(measurement: Measurement) -> tuple[str, ...]:
    """Return the methods that differ from each other on such a map, the reference first."""
    reference = reference_of(measurement)
    alike = {SQUARES_BICUBIC} if measurement.fast_pixels == 1 else set()
    alike |= set(INTERPOLATIONS) if measurement.factor == SAME_GRID else set()
    others = [name for name in METHODS if name not in alike and name != reference]
    return reference, *others


def upscale(counts: np.ndarray, measurement: Measurement, method: str) -> np.ndarray:
    """Enhance a measured map with one of `METHODS`.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.
    measurement
        How the map was measured, and by which factor it is to be enhanced.
    method
        One of the names in `METHODS`.

    Returns
    -------
    np.ndarray
        Photons per measured pixel, (element, Y, X) on the fine grid. Negative values are set to 0.

    Raises
    ------
    ConfigError
        There is no such method.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; allowed: {', '.join(METHODS)}")
    return np.clip(METHODS[method](np.asarray(counts, dtype=float), measurement), 0, None)
