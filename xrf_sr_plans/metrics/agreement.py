"""`compare`: how well a prediction agrees with the fine map that was measured afterwards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.metrics.calibration import covered
from xrf_sr_plans.metrics.common_pixels import CommonPlanes, common_planes
from xrf_sr_plans.metrics.image import data_range, psnr_db
from xrf_sr_plans.physics.resample import fill_unmeasured


@dataclass(frozen=True)
class Agreement:
    """Comparison of one element's prediction and measurement, over the pixels that both have.

    Parameters
    ----------
    element
        Name of the element.
    pixels
        Number of pixels that were compared.
    coverage_90
        Share of the measured pixels that lie inside the predicted 90 % interval, widened by the
        counting noise of the measurement. A perfect prediction has 0.90.
    coverage_90_trusted
        The same over the pixels that the prediction called trusted; NaN where there are none.
    trusted_share
        Share of the pixels that the prediction called trusted.
    psnr_enhanced_db, psnr_baseline_db
        PSNR of the prediction, and of bicubic, against the *noisy* measurement.
    psnr_ceiling_db
        PSNR that a perfect prediction would have, given the noise of the measurement.
    bias
        (sum of the prediction) / (sum of the measurement) - 1.
    chi2
        Mean squared deviation in units of the predicted variance plus that of counting. A perfect
        prediction has 1.
    scale
        Median factor by which the fine counts were multiplied to allow for dwell time and I0.
    effective_pixels
        How many independent pixels the coverage is worth, as neighbors are right or wrong together.
    detail_enhanced, detail_baseline
        Share of the measured fine detail that the prediction, and bicubic, have (see
        `detail_share`): 1 is as sharp as measured, and less is blurred.
    """

    element: str
    pixels: int
    coverage_90: float
    coverage_90_trusted: float
    trusted_share: float
    psnr_enhanced_db: float
    psnr_baseline_db: float
    psnr_ceiling_db: float
    bias: float
    chi2: float
    scale: float = 1.0
    effective_pixels: float = float("nan")
    detail_enhanced: float = float("nan")
    detail_baseline: float = float("nan")

    @property
    def gain_db(self) -> float:
        """PSNR of the prediction minus that of bicubic, in dB."""
        return self.psnr_enhanced_db - self.psnr_baseline_db

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `gain_db` as JSON types."""
        return {**asdict(self), "gain_db": self.gain_db}


def compare(
    enhanced: EnhancedMaps, fine: ElementalMaps, coarse: ElementalMaps | None = None
) -> dict[str, Agreement]:
    """Compare a prediction with a fine measurement of the same area, or of a part of it.

    Both are averaged over the pixels of whichever map has the larger step, or over those of the
    fine map where the steps are equal. Only pixels that lie wholly inside both maps count.

    Parameters
    ----------
    enhanced
        The prediction.
    fine
        The map that was measured afterwards. Its counts are scaled to the dwell time and I0 of a
        coarse pixel (see `fine_count_scale`).
    coarse
        The map that the prediction was made from, whose dwell time and I0 are used if given.

    Returns
    -------
    dict
        The comparison by element, for the elements of which both maps have measured pixels.

    Raises
    ------
    AssemblyError
        The maps have no element in common, or don't overlap.
    """
    agreements: dict[str, Agreement] = {}
    for planes in common_planes(enhanced, fine, coarse):
        agreement = _agreement(planes)
        if agreement is not None:
            agreements[planes.element] = agreement
    if not agreements:
        raise AssemblyError(
            "prediction and measurement share no measured pixel: predicted"
            f" {enhanced.grid.extents_um}, measured {fine.grid.extents_um} um"
        )
    return agreements


def _agreement(common: CommonPlanes) -> Agreement | None:
    planes, value, variance, unit = common.predicted, common.value, common.variance, common.unit
    valid = np.isfinite(value) & np.isfinite(unit) & (unit > 0)
    for plane in planes.values():
        valid &= np.isfinite(plane)
    if not valid.any():
        return None
    details = [
        detail_share(planes[name], value, variance, valid, common.coarse_px)
        for name in ("estimate", "baseline")
    ]
    # From here on everything is (pixel,), over the valid pixels.
    value, variance, unit = value[valid], variance[valid], unit[valid]
    predicted = {key: plane[valid] for key, plane in planes.items()}
    estimate = predicted["estimate"]
    inside = covered(value / unit, estimate, predicted["lower"], predicted["upper"], unit)
    inside_plane = np.full(valid.shape, np.nan)
    inside_plane[valid] = inside
    trusted = predicted["trusted"] > 0.5
    span, noise, total = data_range(value), float(variance.mean()), float(value.sum())
    deviation = (estimate - value) ** 2
    # Counting variance of what is predicted, at least that of a thousandth of a photon.
    expected = predicted["sigma"] ** 2 + np.maximum(estimate * unit, unit**2 * 1e-3)
    return Agreement(
        element=common.element,
        pixels=int(valid.sum()),
        coverage_90=float(inside.mean()),
        coverage_90_trusted=float(inside[trusted].mean()) if trusted.any() else float("nan"),
        trusted_share=float(trusted.mean()),
        psnr_enhanced_db=psnr_db(estimate, value),
        psnr_baseline_db=psnr_db(predicted["baseline"], value),
        psnr_ceiling_db=float(10 * np.log10(span**2 / noise)) if span * noise > 0 else np.inf,
        bias=float(estimate.sum() / total - 1) if total > 0 else float("nan"),
        chi2=float((deviation / expected).mean()),
        scale=common.scale,
        effective_pixels=effective_size(inside_plane, 3 * common.coarse_px),
        detail_enhanced=details[0],
        detail_baseline=details[1],
    )


def effective_size(values: np.ndarray, reach_px: float) -> float:
    """Return how many independent values the mean of a map is worth.

    The number follows from the autocorrelation of the map. It is corrected for the mean having
    been taken from the same map, and never larger than the number of values.

    Parameters
    ----------
    values
        The map (y, x), with NaN where there is no value.
    reach_px
        Largest distance of correlated pixels, which is cut to a third of the map.
    """
    valid = np.isfinite(values)
    number = float(valid.sum())
    if number < 2:
        return number
    centered = np.where(valid, values - values[valid].mean(), 0.0)
    reach = [max(1, min(int(reach_px), side // 3)) for side in values.shape]
    # Padded by the reach, so that the cyclic correlation doesn't wrap around the map.
    size = [side + most for side, most in zip(values.shape, reach, strict=True)]

    def autocorrelation(plane: np.ndarray) -> np.ndarray:
        # Lags (dy, dx) from -reach to +reach, not normalized.
        every = np.fft.irfft2(np.abs(np.fft.rfft2(plane, size)) ** 2, size)
        rows, columns = (np.arange(-most, most + 1) for most in reach)
        return every[rows[:, None], columns]

    variance = float(np.square(centered).sum())
    if variance <= 1e-9 * number:
        # All values are equal, so that nothing is known about their correlation. A neighborhood
        # the size of a coarse pixel then counts as one value.
        return max(1.0, number / max(1.0, reach_px / 3) ** 2)
    # Share of all pairs of pixels that lie within the reach: so much of the correlation went into
    # the mean that was taken off.
    pairs_in_reach = float(autocorrelation(valid.astype(float)).sum()) / number**2
    correlated = float(autocorrelation(centered).sum()) / variance / max(1 - pairs_in_reach, 0.1)
    return number / max(1.0, correlated)


def detail_share(
    predicted: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    valid: np.ndarray,
    coarse_px: float,
) -> float:
    """Return the share of a measurement's fine detail that a prediction has.

    It is the regression of predicted on measured Fourier coefficients with periods below four
    coarse pixels, with the power of the counting noise taken off that of the measurement.

    Parameters
    ----------
    predicted, value, variance
        Prediction, measurement and variance of the measurement's counting noise (y, x).
    valid
        Pixels that count (bool).
    coarse_px
        Coarse step in pixels of these maps.

    Returns
    -------
    float
        NaN where the measured detail is less than 4 standard deviations above its noise, a side of
        the valid area is below 8 pixels, or less than 80 % of that area is valid.
    """
    rows, columns = (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = valid[box]
    if min(inside.shape) < 8 or inside.mean() < 0.8:
        return float("nan")
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in inside.shape))
    predicted, value, variance = (
        fill_unmeasured(np.where(inside, plane[box], np.nan))
        for plane in (predicted, value, variance)
    )
    # Fourier coefficients (ky, kx), and their frequencies in 1 / pixel.
    predicted_waves, measured_waves = (
        np.fft.fft2((plane - plane.mean()) * window) for plane in (predicted, value)
    )
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, inside.shape), indexing="ij"))
    band = (frequency > 0.25 / coarse_px) & (frequency <= 0.5)
    # Counting noise is white: every coefficient has the same mean power.
    noise = float((variance * np.square(window)).sum())
    signal = float(np.square(np.abs(measured_waves[band])).sum()) - band.sum() * noise
    if not signal > 4 * noise * np.sqrt(2 * band.sum()):
        return float("nan")
    return float((predicted_waves[band] * measured_waves[band].conj()).real.sum() / signal)
