"""How well a prediction agrees with the fine map that was measured afterwards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.metrics.calibration import covered
from xrf_sr_plans.metrics.image import data_range, psnr_db

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
    common = [name for name in enhanced.elements if name in fine.elements]
    if not common:
        raise AssemblyError(
            f"prediction has the elements {enhanced.elements}, measurement {fine.elements}:"
            " none in common"
        )
    predict, measure = _onto_common_pixels(enhanced.grid, fine.grid)
    scale = dwell_scale(enhanced, fine, coarse)
    found: dict[str, Agreement] = {}
    for name in common:
        planes = {
            key: predict(enhanced.dataset[key].sel(element=name).values.astype(float))
            for key in ("estimate", "sigma", "lower", "upper", "baseline", "trusted")
        }
        counts = fine.counts.sel(element=name).values
        value = measure(counts * scale)
        variance = measure(counts * scale**2) * measure.spread
        agreement = _agreement(name, planes, value, variance, measure(scale) * measure.spread)
        if agreement is not None:
            found[name] = replace(agreement, scale=float(np.nanmedian(scale)))
    if not found:
        raise AssemblyError(
            "prediction and measurement share no measured pixel: predicted"
            f" {enhanced.grid.extents_um}, measured {fine.grid.extents_um} um"
        )
    return found


class _Onto:
    """Average maps onto other pixels; `spread` is the sum of squared weights."""

    def __init__(self, source: ScanGrid, target: ScanGrid) -> None:
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


def _agreement(
    name: str,
    planes: dict[str, np.ndarray],
    value: np.ndarray,
    variance: np.ndarray,
    unit: np.ndarray,
) -> Agreement | None:
    """Figures of one element; `unit` is the value of one photon in an averaged pixel."""
    valid = np.isfinite(value) & np.isfinite(unit) & (unit > 0)
    for plane in planes.values():
        valid &= np.isfinite(plane)
    if not valid.any():
        return None
    value, variance, unit = value[valid], variance[valid], unit[valid]
    plane = {key: array[valid] for key, array in planes.items()}
    share = covered(value / unit, plane["estimate"], plane["lower"], plane["upper"], unit)
    trusted = plane["trusted"] > 0.5
    span, noise, total = data_range(value), float(variance.mean()), float(value.sum())
    deviation = (plane["estimate"] - value) ** 2
    expected = plane["sigma"] ** 2 + np.maximum(plane["estimate"] * unit, unit**2 * 1e-3)
    return Agreement(
        element=name,
        pixels=int(valid.sum()),
        coverage_90=float(share.mean()),
        coverage_90_trusted=float(share[trusted].mean()) if trusted.any() else float("nan"),
        trusted_share=float(trusted.mean()),
        psnr_enhanced_db=psnr_db(plane["estimate"], value),
        psnr_baseline_db=psnr_db(plane["baseline"], value),
        psnr_ceiling_db=float(10 * np.log10(span**2 / noise)) if span * noise > 0 else np.inf,
        bias=float(plane["estimate"].sum() / total - 1) if total > 0 else float("nan"),
        chi2=float((deviation / expected).mean()),
    )
