"""How well a prediction agrees with the fine map that was measured afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.metrics.calibration import covered
from xrf_sr_plans.metrics.image import data_range, psnr_db
from xrf_sr_plans.physics.resample import fill_unmeasured

SAME_STEP = 0.99


@dataclass(frozen=True)
class Agreement:
    """One element's prediction against its measurement, over the pixels that both have.

    Parameters
    ----------
    pixels
        How many pixels were compared.
    coverage_90
        Share of measured pixels inside the predicted 90 % interval, once the interval is widened
        by the measurement's own counting noise; 0.90 is perfect.
    coverage_90_trusted, trusted_share
        The same over the pixels that the prediction called trusted, and their share.
    psnr_enhanced_db, psnr_baseline_db
        Prediction and bicubic against the *noisy* measurement.
    psnr_ceiling_db
        What a perfect prediction would get there, because of the measurement's noise.
    bias
        (sum of the prediction) / (sum of the measurement) - 1.
    chi2
        Mean squared deviation in units of predicted plus counting variance; 1 is perfect.
    scale
        Median factor by which fine counts were multiplied (dwell, I0).
    effective_pixels
        How many independent pixels the coverage is worth: neighbours are right or wrong together.
    detail_enhanced, detail_baseline
        Share of the measured fine detail (periods below four coarse pixels, counting noise taken
        off) that prediction and bicubic have: 1 is as sharp as measured, less is blurred. NaN
        where noise hides the detail or the area is too small.
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
        """PSNR of the prediction over that of bicubic."""
        return self.psnr_enhanced_db - self.psnr_baseline_db

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {**asdict(self), "gain_db": self.gain_db}


def overlap_matrix(source: AxisGrid, target: AxisGrid) -> np.ndarray:
    """Return (target.num, source.num) weights: the share of each source pixel in a target pixel.

    Rows of target pixels that reach beyond the source are NaN. With equal steps this is linear
    interpolation, and the identity where the grids are aligned.
    """
    low = np.maximum(target.edges_um[:-1, None], source.edges_um[None, :-1])
    high = np.minimum(target.edges_um[1:, None], source.edges_um[None, 1:])
    weights = np.clip(high - low, 0, None) / target.step_um
    # Encoders and repeated sums of steps leave slivers that are no real overlap.
    weights[weights < 1e-6] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 1 - 1e-3, weights / np.maximum(total, 1e-12), np.nan)


def dwell_scale(
    enhanced: EnhancedMaps, fine: ElementalMaps, coarse: ElementalMaps | None = None
) -> np.ndarray:
    """Return (y, x): what fine counts must be multiplied with to be counts of a coarse pixel.

    The ratio of dwell times, and of beam intensities (monitor counts per second). Those of the
    prediction come from the map it was made of, `coarse`, or from its attributes ``dwell_ms``
    and ``i0_median``. Where its beam intensity isn't known the fine map is at least brought to
    the median of its own. What is not known counts as equal.
    """
    mine, theirs = enhanced.dataset.attrs, fine.attrs
    dwell_ms, i0_median = mine.get("dwell_ms"), mine.get("i0_median")
    if coarse is not None:
        dwell_ms = coarse.attrs.get("dwell_ms")
        beam = np.asarray(coarse.i0.values, dtype=float)
        beam = beam[np.isfinite(beam) & (beam > 0)]
        i0_median = float(np.median(beam)) if beam.size else None
    scale = np.ones(fine.grid.shape)
    if dwell_ms and theirs.get("dwell_ms"):
        scale *= float(dwell_ms) / float(theirs["dwell_ms"])
    monitor = np.asarray(fine.i0.values, dtype=float)
    good = np.isfinite(monitor) & (monitor > 0)
    if good.any():
        nominal = float(i0_median or np.median(monitor[good]))
        scale *= np.where(good, nominal / np.where(good, monitor, 1.0), np.nan)
    return scale


def compare(
    enhanced: EnhancedMaps, fine: ElementalMaps, coarse: ElementalMaps | None = None
) -> dict[str, Agreement]:
    """Compare a prediction with a fine measurement of the same area or a part of it.

    Both are brought onto the pixels of whichever map is coarser (the fine map's own where the
    steps are equal), by exact overlap; only pixels lying wholly inside both count. Fine counts
    are scaled to the dwell and I0 of the coarse pixel (`dwell_scale`), which are known best where
    the `coarse` map behind the prediction is given.

    Returns
    -------
    dict
        By element, for the elements that both have and that share at least one measured pixel.

    Raises
    ------
    AssemblyError
        No element in common, or the areas don't overlap.
    """
    found: dict[str, Agreement] = {}
    for planes in common_planes(enhanced, fine, coarse):
        agreement = _agreement(planes)
        if agreement is not None:
            found[planes.element] = agreement
    if not found:
        raise AssemblyError(
            "prediction and measurement share no measured pixel: predicted"
            f" {enhanced.grid.extents_um}, measured {fine.grid.extents_um} um"
        )
    return found


@dataclass(frozen=True, eq=False)
class CommonPlanes:
    """One element's prediction and measurement on the pixels of the coarser one, (y, x).

    `predicted` holds ``estimate``, ``sigma``, ``lower``, ``upper``, ``baseline`` and ``trusted``;
    `value` is the measurement in the prediction's unit, `variance` that of its counting noise,
    `unit` the value of one photon in it. NaN where one of them isn't measured. `scale` is the
    median factor on the fine counts and `coarse_px` the coarse step in these pixels.
    """

    element: str
    predicted: dict[str, np.ndarray]
    value: np.ndarray
    variance: np.ndarray
    unit: np.ndarray
    scale: float
    coarse_px: float


def common_planes(
    enhanced: EnhancedMaps, fine: ElementalMaps, coarse: ElementalMaps | None = None
) -> Iterator[CommonPlanes]:
    """Bring prediction and measurement onto common pixels, element by element (see `compare`).

    Raises
    ------
    AssemblyError
        No element in common.
    """
    common = [name for name in enhanced.elements if name in fine.elements]
    if not common:
        raise AssemblyError(
            f"prediction has the elements {enhanced.elements}, measurement {fine.elements}:"
            " none in common"
        )
    predict, measure = _onto_common_pixels(enhanced.grid, fine.grid)
    scale = dwell_scale(enhanced, fine, coarse)
    for name in common:
        counts = fine.counts.sel(element=name).values
        yield CommonPlanes(
            name,
            {
                key: predict(enhanced.dataset[key].sel(element=name).values.astype(float))
                for key in ("estimate", "sigma", "lower", "upper", "baseline", "trusted")
            },
            measure(counts * scale),
            measure(counts * scale**2) * measure.spread,
            measure(scale) * measure.spread,
            float(np.nanmedian(scale)),
            enhanced.factor * enhanced.grid.fast.step_um / measure.step_um,
        )


class _Onto:
    """Average maps onto other pixels; `spread` is the sum of squared weights."""

    def __init__(self, source: ScanGrid, target: ScanGrid) -> None:
        self.step_um = target.fast.step_um
        self.rows = overlap_matrix(source.slow, target.slow)
        self.columns = overlap_matrix(source.fast, target.fast)
        inside = [np.isfinite(part).all(axis=1) for part in (self.rows, self.columns)]
        squares = [
            float((part[mask] ** 2).sum(axis=1).mean()) if mask.any() else 1.0
            for part, mask in zip((self.rows, self.columns), inside, strict=True)
        ]
        self.spread = squares[0] * squares[1]

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        # A zero weight times NaN is NaN: an unmeasured pixel must spoil only what it touches.
        missing = ~np.isfinite(plane)
        value = self.rows @ np.where(missing, 0.0, plane) @ self.columns.T
        return np.where(self.rows @ missing.astype(float) @ self.columns.T > 1e-9, np.nan, value)


def _onto_common_pixels(predicted: ScanGrid, measured: ScanGrid) -> tuple[_Onto, _Onto]:
    axes = {}
    for axis in ("fast", "slow"):
        ours, theirs = getattr(predicted, axis), getattr(measured, axis)
        axes[axis] = theirs if theirs.step_um >= SAME_STEP * ours.step_um else ours
    if axes["fast"].name == axes["slow"].name:
        axes["slow"] = AxisGrid(f"{axes['slow'].name} (slow)", *_numbers(axes["slow"]))
    target = ScanGrid(axes["fast"], axes["slow"])
    return _Onto(predicted, target), _Onto(measured, target)


def _numbers(axis: AxisGrid) -> tuple[float, float, int]:
    return axis.start_um, axis.step_um, axis.num


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
    value, variance, unit = value[valid], variance[valid], unit[valid]
    plane = {key: array[valid] for key, array in planes.items()}
    share = covered(value / unit, plane["estimate"], plane["lower"], plane["upper"], unit)
    shares = np.full(valid.shape, np.nan)
    shares[valid] = share
    trusted = plane["trusted"] > 0.5
    span, noise, total = data_range(value), float(variance.mean()), float(value.sum())
    deviation = (plane["estimate"] - value) ** 2
    expected = plane["sigma"] ** 2 + np.maximum(plane["estimate"] * unit, unit**2 * 1e-3)
    return Agreement(
        element=common.element,
        pixels=int(valid.sum()),
        coverage_90=float(share.mean()),
        coverage_90_trusted=float(share[trusted].mean()) if trusted.any() else float("nan"),
        trusted_share=float(trusted.mean()),
        psnr_enhanced_db=psnr_db(plane["estimate"], value),
        psnr_baseline_db=psnr_db(plane["baseline"], value),
        psnr_ceiling_db=float(10 * np.log10(span**2 / noise)) if span * noise > 0 else np.inf,
        bias=float(plane["estimate"].sum() / total - 1) if total > 0 else float("nan"),
        chi2=float((deviation / expected).mean()),
        scale=common.scale,
        effective_pixels=effective_size(shares, 3 * common.coarse_px),
        detail_enhanced=details[0],
        detail_baseline=details[1],
    )


def effective_size(values: np.ndarray, reach_px: float) -> float:
    """Return how many independent values the mean of a map (y, x; NaN: none) is worth.

    From the autocorrelation up to `reach_px` (at most a third of the map), corrected for the mean
    having been taken from the same map; never more than there are values.
    """
    valid = np.isfinite(values)
    number = float(valid.sum())
    if number < 2:
        return number
    centred = np.where(valid, values - values[valid].mean(), 0.0)
    reach = [max(1, min(int(reach_px), side // 3)) for side in values.shape]
    size = [side + most for side, most in zip(values.shape, reach, strict=True)]

    def at_lags(plane: np.ndarray) -> np.ndarray:
        every = np.fft.irfft2(np.abs(np.fft.rfft2(plane, size)) ** 2, size)
        rows, columns = (np.arange(-most, most + 1) for most in reach)
        return every[rows[:, None], columns]

    variance = float(np.square(centred).sum())
    if variance <= 1e-9 * number:
        # All alike: their correlation can't be seen, so a coarse neighbourhood counts once.
        return max(1.0, number / max(1.0, reach_px / 3) ** 2)
    seen = float(at_lags(valid.astype(float)).sum()) / number**2
    together = float(at_lags(centred).sum()) / variance / max(1 - seen, 0.1)
    return number / max(1.0, together)


def detail_share(
    predicted: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    valid: np.ndarray,
    coarse_px: float,
) -> float:
    """Return which share of a measurement's fine detail a prediction (y, x) has.

    The regression of predicted on measured Fourier coefficients with periods below four coarse
    pixels (`coarse_px` pixels each), once the measurement's counting noise is taken off its power.
    NaN where less than 4 standard deviations of that noise are left, or a side is below 8 pixels.
    """
    rows, columns = (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = valid[box]
    if min(inside.shape) < 8 or inside.mean() < 0.8:
        return float("nan")
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in inside.shape))
    planes = [
        fill_unmeasured(np.where(inside, plane[box], np.nan))
        for plane in (predicted, value, variance)
    ]
    made, seen = (np.fft.fft2((plane - plane.mean()) * window) for plane in planes[:2])
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, inside.shape), indexing="ij"))
    band = (frequency > 0.25 / coarse_px) & (frequency <= 0.5)
    noise = float((planes[2] * np.square(window)).sum())
    signal = float(np.square(np.abs(seen[band])).sum()) - band.sum() * noise
    if not signal > 4 * noise * np.sqrt(2 * band.sum()):
        return float("nan")
    return float((made[band] * seen[band].conj()).real.sum() / signal)
