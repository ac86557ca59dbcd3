"""Classical peers of the super-resolution network: what a user would do instead.

Every method takes coarse counts (element, y, x) and returns the map on the grid `factor` times
finer, in the same units and in the phase of `physics.resample` (a linear ramp stays that ramp).
A parameter that decides how much to smooth is chosen per element from the coarse counts alone,
by thinning: the counts are split binomially into two independent maps, and the value is taken
whose result from the larger part predicts the smaller part best (A. Neufeld et al., J. Mach.
Learn. Res. 25 (2024) no. 57, arXiv 2301.07276). So each peer is as strong as its user could make it
without knowing the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft, ndimage

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import stabilise, unstabilise_mean
from xrf_sr_plans.physics.forward import AVERAGES, FWHM_PER_SIGMA
from xrf_sr_plans.physics.operators import blur_matrices, measure_again
from xrf_sr_plans.physics.resample import Kernel, upsample

GAUSSIAN_SIGMAS = (0.0, 0.35, 0.45, 0.55, 0.7, 0.85, 1.0, 1.25, 1.6, 2.0, 3.0)
ITERATIONS = (0, 1, 2, 4, 8, 16, 32)
NLM_STRENGTHS = (0.0, 0.5, 0.8, 1.1)
_KEPT = 0.8
_SPLITS = 2
_SEED = 20230
_MTF_FLOOR = 0.15


Method = Callable[[np.ndarray, Measurement], np.ndarray]


def _choose(
    plane: np.ndarray,
    candidates: Callable[[np.ndarray], Sequence[np.ndarray]],
) -> int:
    """Return the index of the candidate that predicts held-out counts of one map best.

    `candidates(counts)` gives each candidate's *coarse* prediction from those counts.
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
    def method(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
        return upsample(counts, measurement.factor, kernel)

    return method


def bicubic_gaussian(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Gaussian smoothing of the coarse map, sigma chosen by thinning, then bicubic."""

    def smoothed(plane: np.ndarray) -> list[np.ndarray]:
        return [ndimage.gaussian_filter(plane, s, mode="nearest") for s in GAUSSIAN_SIGMAS]

    if not measurement.noisy:
        return upsample(counts, measurement.factor)
    best = [smoothed(plane)[_choose(plane, smoothed)] for plane in counts]
    return upsample(np.stack(best), measurement.factor)


def nlm_bicubic(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Non-local means on stabilised counts, strength chosen by thinning, then bicubic.

    A. Buades, B. Coll, J.-M. Morel, CVPR 2005, DOI 10.1109/CVPR.2005.38.
    """
    from skimage.restoration import denoise_nl_means

    def denoised(plane: np.ndarray) -> list[np.ndarray]:
        root = stabilise(plane)
        out = [plane]
        for strength in NLM_STRENGTHS[1:]:
            smooth = denoise_nl_means(
                root, patch_size=5, patch_distance=6, h=strength, sigma=1.0, fast_mode=True
            )
            out.append(unstabilise_mean(smooth))
        return out

    if not measurement.noisy:
        return upsample(counts, measurement.factor)
    best = [denoised(plane)[_choose(plane, denoised)] for plane in counts]
    return upsample(np.stack(best), measurement.factor)


def wiener(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Wiener filter for probe, path and Poisson noise on the coarse grid, then bicubic.

    In the cosine basis (mirrored borders, no shift of phase). Signal power per ring of frequency
    is what the map shows there less the noise, whose power is the mean count.
    """
    height, width = counts.shape[-2:]
    fy, fx = np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width)
    sigma = measurement.removed_probe_steps / FWHM_PER_SIGMA
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    for frequency, averages in zip((fx, fy), AVERAGES[measurement.sampling][::-1], strict=True):
        transfer = transfer * np.sinc(frequency) if averages else transfer
    ring = np.minimum(np.rint(np.hypot(fy, fx) * 64).astype(int), 46)
    out = []
    for plane in counts:
        spectrum = np.asarray(fft.dctn(plane, norm="ortho"))
        power = np.bincount(ring.ravel(), spectrum.ravel() ** 2, minlength=47)
        power = (power / np.maximum(np.bincount(ring.ravel(), minlength=47), 1))[ring]
        noise = max(float(plane.mean()), 0.0) if measurement.noisy else 0.0
        keep = np.clip(power - noise, 0, None) / np.maximum(power, 1e-30)
        keep = np.where(power > 1e-24, keep, 1.0) / np.maximum(transfer, _MTF_FLOOR)
        keep[0, 0] = 1.0
        out.append(fft.idctn(spectrum * keep, norm="ortho"))
    return upsample(np.stack(out), measurement.factor)


Advance = Callable[[np.ndarray], np.ndarray]


def _iterate(start: Callable[[np.ndarray, Measurement], Advance]) -> Method:
    """Make a method of an iteration on the fine grid that begins with bicubic.

    `start(plane, measurement)` gives the function from one iterate to the next. The number of
    iterations is chosen by thinning; without noise it is the largest.
    """

    def iterates(plane: np.ndarray, measurement: Measurement, last: int) -> list[np.ndarray]:
        advance = start(plane, measurement)
        current = np.clip(upsample(plane, measurement.factor), 0, None)
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
    # W. H. Richardson 1972, DOI 10.1364/JOSA.62.000055; L. B. Lucy 1974, DOI 10.1086/111605.
    measured = np.clip(upsample(plane, measurement.factor), 0, None)
    rows, columns = blur_matrices(measured.shape, measurement)
    norm = rows.sum(axis=0)[:, None] * columns.sum(axis=0)
    floor = 1e-6 * max(float(measured.max()), 1e-12)

    def advance(current: np.ndarray) -> np.ndarray:
        ratio = measured / np.maximum(rows @ current @ columns.T, floor)
        return current * (rows.T @ ratio @ columns) / norm

    return advance


def _back_projection(plane: np.ndarray, measurement: Measurement) -> Advance:
    # M. Irani and S. Peleg, CVGIP 53 (1991) 231, DOI 10.1016/1049-9652(91)90045-L.
    def advance(current: np.ndarray) -> np.ndarray:
        left = plane - measure_again(current, measurement)
        return np.clip(current + upsample(left, measurement.factor), 0, None)

    return advance


METHODS: dict[str, Method] = {
    "nearest": _interpolate("nearest"),
    "bilinear": _interpolate("bilinear"),
    "bicubic": _interpolate("bicubic"),
    "Lanczos": _interpolate("lanczos"),
    "bicubic + Gaussian": bicubic_gaussian,
    "Richardson-Lucy + bicubic": _iterate(_richardson_lucy),
    "Wiener + bicubic": wiener,
    "back-projection": _iterate(_back_projection),
    "NLM + bicubic": nlm_bicubic,
}
"""The peers by the names that tables give them."""


def upscale(counts: np.ndarray, measurement: Measurement, method: str) -> np.ndarray:
    """Run one of `METHODS` on coarse counts (element, y, x); negative results become 0.

    Raises
    ------
    ConfigError
        There is no such method.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; allowed: {', '.join(METHODS)}")
    return np.clip(METHODS[method](np.asarray(counts, dtype=float), measurement), 0, None)
