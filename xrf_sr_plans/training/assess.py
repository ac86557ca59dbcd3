"""How good a model is on samples whose truth is known: error against classical methods, coverage.

Every figure of the model card comes from here (`benchmarks/enhancement.py`,
`benchmarks/uncertainty.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.schema import Sampling
from xrf_sr_plans.sr.predict import Setting, estimate
from xrf_sr_plans.sr.prepare import Prepared
from xrf_sr_plans.sr.uncertainty import Calibration
from xrf_sr_plans.training.calibration import Sample, fit_to_blocks
from xrf_sr_plans.training.pairs import Measurement, Pair, measure

GAUSSIAN_SIGMAS = (0.0, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2)
"""Tried for "bicubic + Gaussian", in coarse pixels."""


@dataclass(frozen=True)
class Case:
    """One cell of a table: how every sample is measured."""

    factor: int
    n99: float
    """Counts per coarse pixel at the samples' 99.9 % quantile; infinite: no noise."""
    sampling: Sampling = "fly"
    probe: float = 0.0
    """Probe FWHM in coarse steps; the truth is the sample without it."""

    def measurement(self, n_elements: int) -> Measurement:
        """Return the measurement of a sample with so many elements."""
        return Measurement(self.factor, self.sampling, self.probe, 0.0, (self.n99,) * n_elements)


@dataclass(frozen=True)
class Assessed:
    """Figures of one element of one sample."""

    case: Case
    sample: Sample
    element: int
    mse: dict[str, float]
    """By method: nearest ... gaussian_<sigma>, ours."""
    coverage: float
    width: float
    """Mean width of the 90 % interval, in counts."""
    bicubic_width: float
    """Width that intervals around bicubic, constant in stabilised counts, need for 90 %."""
    total_bias: float
    """Relative error of the element's total against the measured total."""
    chi2: float
    trusted: float


def assess(
    samples: Iterable[Sample],
    cases: Sequence[Case],
    network: Any,
    calibration: Calibration,
    *,
    seed: int = 0,
) -> list[Assessed]:
    """Measure every sample in every case and compare what comes out with the truth."""
    rows = []
    for number, sample in enumerate(samples):
        for index, case in enumerate(cases):
            rng = np.random.default_rng([seed, number, index])
            maps = fit_to_blocks(sample.maps, case.factor)
            pair = _without_noise_scale(measure(maps, case.measurement(maps.shape[0]), rng))
            rows += _rows(pair, case, sample, network, calibration)
    return rows


def _without_noise_scale(pair: Pair) -> Pair:
    """Give noise-free maps a high count, as a user would who has no counting noise."""
    if np.isfinite(pair.how.n99).all():
        return pair
    return replace(pair, counts=pair.counts * 1e5, truth=pair.truth * 1e5)


def _rows(
    pair: Pair, case: Case, sample: Sample, network: Any, calibration: Calibration
) -> list[Assessed]:
    names = [str(index) for index in range(pair.counts.shape[0])]
    setting = Setting(case.factor, case.sampling, case.probe, deblur=True)
    ready = Prepared(pair.counts, np.isfinite(pair.counts))
    fields, _ = estimate(ready, names, setting, calibration, network, "cpu")
    mse = {name: _mse(maps, pair.truth) for name, maps in classical(pair.counts, case.factor)}
    mse["ours"] = _mse(fields["estimate"], pair.truth)
    inside = (fields["lower"] <= pair.truth) & (pair.truth <= fields["upper"])
    width = fields["upper"] - fields["lower"]
    naive = bicubic_width(fields["baseline"], pair.truth)
    residual = _chi2(fields["estimate"], pair.counts, setting)
    total = fields["estimate"].mean(axis=(1, 2)) / np.maximum(pair.counts.mean(axis=(1, 2)), 1e-9)
    return [
        Assessed(
            case,
            sample,
            element,
            {name: float(values[element]) for name, values in mse.items()},
            float(inside[element].mean()),
            float(width[element].mean()),
            float(naive[element]),
            float(total[element] - 1),
            float(residual[element]),
            float(fields["trusted"][element].mean()),
        )
        for element in range(len(names))
    ]


def _chi2(made: np.ndarray, counts: np.ndarray, setting: Setting) -> np.ndarray:
    from xrf_sr_plans.sr.consistency import deviation

    residual = deviation(counts, made, setting.factor, setting.sampling, setting.removed_probe)
    return np.square(residual).mean(axis=(1, 2))


def _mse(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.square(maps - truth).mean(axis=(1, 2)) + 1e-9


def classical(counts: np.ndarray, factor: int) -> Iterable[tuple[str, np.ndarray]]:
    """Yield the interpolations that the model is compared with, by name."""
    for kernel in ("bilinear", "bicubic", "lanczos"):
        yield kernel, upsample(counts, factor, kernel)
    for sigma in GAUSSIAN_SIGMAS:
        smooth = ndimage.gaussian_filter(counts, (0, sigma, sigma), mode="nearest")
        yield f"gaussian_{sigma}", upsample(smooth, factor)


def bicubic_width(baseline: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean width of intervals around bicubic that cover 90 %, per element.

    They are as wide as ``k sqrt(counts + 1)``, with the smallest k that covers 90 % of *this*
    map: better than bicubic could be calibrated without knowing the truth.
    """
    unit = np.sqrt(np.clip(baseline, 0, None) + 1)
    k = np.quantile(np.abs(truth - baseline) / unit, 0.9, axis=(1, 2))
    return 2 * k * unit.mean(axis=(1, 2))


def gain_db(rows: Sequence[Assessed], over: str) -> np.ndarray:
    """Return the gain of ours over a method per row, in dB of PSNR."""
    return np.array([10 * np.log10(row.mse[over] / row.mse["ours"]) for row in rows])


def best_gaussian(rows: Sequence[Assessed]) -> str:
    """Return the "bicubic + Gaussian" that is best on average over the rows (it is told)."""
    names = [f"gaussian_{sigma}" for sigma in GAUSSIAN_SIGMAS]
    return min(names, key=lambda name: float(np.mean([np.log(row.mse[name]) for row in rows])))


def summary(rows: Sequence[Assessed]) -> dict[str, float | str]:
    """Return the figures of one cell of a table: means over elements and samples."""
    gaussian = best_gaussian(rows)
    bicubic = gain_db(rows, "bicubic")
    ratio = [row.width / row.bicubic_width for row in rows if row.bicubic_width > 0]
    return {
        "maps": len(rows),
        "db_over_bicubic": float(bicubic.mean()),
        "db_over_bicubic_worst": float(bicubic.min()),
        "best_gaussian": gaussian,
        "db_over_gaussian": float(gain_db(rows, gaussian).mean()),
        "db_over_lanczos": float(gain_db(rows, "lanczos").mean()),
        "coverage_90": float(np.mean([row.coverage for row in rows])),
        "coverage_worst": float(np.min([row.coverage for row in rows])),
        "width_over_bicubic": float(np.median(ratio)) if ratio else float("nan"),
        "total_bias_rms": float(np.sqrt(np.mean([row.total_bias**2 for row in rows]))),
        "chi2": float(np.mean([row.chi2 for row in rows])),
        "trusted": float(np.mean([row.trusted for row in rows])),
    }
