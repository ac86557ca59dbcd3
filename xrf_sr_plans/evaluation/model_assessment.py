"""How good a model is on samples whose truth is known: error against classical methods, coverage.

Every figure of the model card comes from here (`benchmarks/enhancement.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xrf_sr_plans.measurement import Measurement, Sampling
from xrf_sr_plans.metrics.bias import reduced_chi2
from xrf_sr_plans.metrics.image import ssim_whole_and_foreground
from xrf_sr_plans.metrics.resolution import (
    boundary_fwhm_um,
    find_edges,
    fourier_ring_correlation,
)
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS
from xrf_sr_plans.physics.operators import measure_again
from xrf_sr_plans.sr.classical import methods_for, reference_of, upscale
from xrf_sr_plans.sr.estimate import estimate
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.prepare import Prepared
from xrf_sr_plans.training.samples import Sample, fit_to_blocks
from xrf_sr_plans.training.simulated_pairs import Pair, Simulation, simulate

OURS = "ours"
REFERENCE = "bicubic"
"""How tables call the method over which gains are counted: bicubic of the squares."""
SMOOTHED = "interpolated, smoothed"
"""The best classical treatment (`physics.smoothing`)."""
QUICK = ("Lanczos", "bicubic + Gaussian", SMOOTHED)
"""Classical methods that run on every element of every sample, besides the one over which gains
are counted (`sr.classical.reference_of`)."""
DETAILED_ELEMENTS = 2
"""Number of elements of each sample for which the slow figures are computed."""
FEWEST_EXPECTED = 0.5
"""Photons a coarse pixel must expect to count in chi-square, as in `reduced_chi2`."""
SHARPEST_REFERENCE = 0.5
"""Width of the truth's own edges, in coarse steps, above which no method can show a narrow one."""


@dataclass(frozen=True)
class Case:
    """One cell of a table: how every sample is measured.

    Parameters
    ----------
    measurement
        How a sample is measured; the truth is the sample without the probe's blur.
    n99
        Photons per coarse pixel at the samples' 99.9 % quantile; infinite means no noise.
    """

    measurement: Measurement
    n99: float

    @classmethod
    def of(
        cls, factor: int, n99: float, sampling: Sampling = "fly", probe_steps: float = 0.0
    ) -> Case:
        """Return the case with noise, or without where `n99` is infinite."""
        noisy = bool(np.isfinite(n99))
        return cls(Measurement(factor, sampling, probe_steps, noisy=noisy), n99)

    def simulation(self, n_elements: int) -> Simulation:
        """Return the simulated measurement of a sample with so many elements."""
        return Simulation.plain(self.measurement, self.n99, n_elements)


@dataclass(frozen=True)
class Assessed:
    """Figures of one element of one sample."""

    case: Case
    sample: Sample
    element: int
    mse: dict[str, float]
    """Mean square error by method: `QUICK`, ours, and on detailed elements all others."""
    coverage: float
    width: float
    """Mean width of the 90 % interval, in photons per measured pixel."""
    bicubic_width: float
    """Width that intervals around the baseline, constant in stabilised counts, need for 90 %."""
    total_bias: float
    """Relative error of the element's total against the measured total."""
    chi2: float
    """Chi-square of the re-degraded estimate against the measured counts. NaN without noise."""
    truth_chi2: float
    """Chi-square of the re-degraded truth against the measured counts."""
    chi2_split: float
    """Re-degraded estimate against the counts *plus* against the re-degraded truth, in units of
    the counting noise: that of the truth, 1, if the estimate is the mean of what is possible."""
    trusted: float
    ensemble_db: float = float("nan")
    """PSNR of the mean over the estimates of the four mirrored maps, minus that of the estimate."""
    looks: dict[str, float] = field(default_factory=dict)
    """Figures of detailed elements by name.

    The names are ``ssim``, ``ssim_fg``, ``fwhm`` and ``frc`` (in coarse steps), each followed by a
    blank and `REFERENCE` or `OURS`, and ``fwhm truth``.
    """

    @property
    def reference(self) -> str:
        """The method over which gains are counted."""
        return reference_of(self.case.measurement)


def assess(
    samples: Iterable[Sample],
    cases: Sequence[Case],
    network: Any,
    calibration: Calibration,
    *,
    seed: int = 0,
    detailed: bool = True,
    ensemble: bool = False,
) -> list[Assessed]:
    """Measure every sample in every case and compare what comes out with the truth.

    Everything is compared in photons per measured pixel.

    Parameters
    ----------
    samples
        What is measured.
    cases
        How.
    network, calibration
        Those of a model.
    seed
        Of the counting noise.
    detailed
        All classical methods, sharpness and similarity on the first `DETAILED_ELEMENTS` elements;
        methods that take seconds on the first sample of each kind only.
    ensemble
        The model also runs on the mirrored maps, which takes four times as long.
    """
    rows = []
    seen: set[str] = set()
    for number, sample in enumerate(samples):
        slow = detailed and sample.kind not in seen
        seen.add(sample.kind)
        for index, case in enumerate(cases):
            rng = np.random.default_rng([seed, number, index])
            maps = fit_to_blocks(sample.maps, case.measurement.factor)
            pair = simulate(maps, case.simulation(maps.shape[0]), rng)
            pair = pair if case.measurement.noisy else _without_noise_scale(pair)
            pair = replace(pair, truth=pair.truth / case.measurement.fast_pixels)
            found = _rows(pair, case, sample, network, calibration, ensemble=ensemble)
            rows += [
                _in_detail(row, pair, estimate, slow)
                if detailed and row.element < DETAILED_ELEMENTS
                else row
                for row, estimate in found
            ]
    return rows


def _without_noise_scale(pair: Pair) -> Pair:
    """Return a noise-free pair with high counts, as a user has who has no counting noise."""
    return replace(
        pair, counts=pair.counts * NOISE_FREE_COUNTS, truth=pair.truth * NOISE_FREE_COUNTS
    )


def _fields(
    counts: np.ndarray, measurement: Measurement, network: Any, calibration: Calibration
) -> dict[str, np.ndarray]:
    """Return what the model makes of counts (element, y, x)."""
    names = [str(index) for index in range(len(counts))]
    ready = Prepared(counts, np.isfinite(counts))
    return estimate(ready, names, measurement, calibration, network, "cpu")[0]


def _ensemble(
    counts: np.ndarray, measurement: Measurement, network: Any, calibration: Calibration
) -> np.ndarray:
    """Return the mean of the estimates of the four mirrored maps, mirrored back."""
    made = []
    for axes in ((), (1,), (2,), (1, 2)):
        turned = np.ascontiguousarray(np.flip(counts, axes))
        made.append(np.flip(_fields(turned, measurement, network, calibration)["estimate"], axes))
    return np.mean(made, axis=0)


def _rows(
    pair: Pair,
    case: Case,
    sample: Sample,
    network: Any,
    calibration: Calibration,
    *,
    ensemble: bool,
) -> list[tuple[Assessed, dict[str, np.ndarray]]]:
    """Return the figures of each element, and its estimates by method."""
    fields = _fields(pair.counts, case.measurement, network, calibration)
    quick = (reference_of(case.measurement), *QUICK)
    made = {name: upscale(pair.counts, case.measurement, name) for name in quick}
    made[OURS] = fields["estimate"]
    mse = {name: mean_square(maps, pair.truth) for name, maps in made.items()}
    gained = np.full(len(pair.counts), np.nan)
    if ensemble:
        mirrored = _ensemble(pair.counts, case.measurement, network, calibration)
        gained = 10 * np.log10(mse[OURS] / mean_square(mirrored, pair.truth))
    inside = (fields["lower"] <= pair.truth) & (pair.truth <= fields["upper"])
    width = fields["upper"] - fields["lower"]
    naive = bicubic_width(fields["baseline"], pair.truth)
    chi2 = _chi2(pair.counts, made[OURS], pair.truth, case)
    total = made[OURS].mean(axis=(1, 2)) / np.maximum(pair.counts.mean(axis=(1, 2)), 1e-9)
    return [
        (
            Assessed(
                case=case,
                sample=sample,
                element=element,
                mse={name: float(values[element]) for name, values in mse.items()},
                coverage=float(inside[element].mean()),
                width=float(width[element].mean()),
                bicubic_width=float(naive[element]),
                total_bias=float(total[element] - 1),
                chi2=float(chi2[element, 0]),
                truth_chi2=float(chi2[element, 1]),
                chi2_split=float(chi2[element, 2]),
                trusted=float(fields["trusted"][element].mean()),
                ensemble_db=float(gained[element]),
            ),
            {name: maps[element] for name, maps in made.items()},
        )
        for element in range(len(pair.counts))
    ]


def _in_detail(row: Assessed, pair: Pair, made: dict[str, np.ndarray], slow: bool) -> Assessed:
    """Add the figures that take long."""
    truth, pixel = pair.truth[row.element], 1 / row.case.measurement.factor
    looks: dict[str, float] = {}
    shown = {REFERENCE: made[row.reference], OURS: made[OURS]}
    for name, maps in shown.items():
        whole, front = ssim_whole_and_foreground(maps, truth)
        looks |= {f"ssim {name}": whole, f"ssim_fg {name}": front}
    if not slow:
        return replace(row, looks=looks)
    edges = find_edges(truth)
    own = looks["fwhm truth"] = boundary_fwhm_um(truth, pixel, edges) if edges else float("nan")
    for name, maps in shown.items():
        width = boundary_fwhm_um(maps, pixel, edges) if edges else float("nan")
        # Sharper than the truth is no merit.
        looks[f"fwhm {name}"] = float(np.maximum(width, own))
        looks[f"frc {name}"] = fourier_ring_correlation(maps, truth, pixel).resolution_um(0.5)
    counts = pair.counts[row.element : row.element + 1]
    others = [name for name in methods_for(row.case.measurement) if name not in row.mse]
    mse = {
        name: float(mean_square(upscale(counts, row.case.measurement, name), truth[None])[0])
        for name in others
    }
    return replace(row, looks=looks, mse=row.mse | mse)


def _chi2(counts: np.ndarray, made: np.ndarray, truth: np.ndarray, case: Case) -> np.ndarray:
    """Return the columns `Assessed.chi2` to `chi2_split` of each element; NaN without noise."""
    if not case.measurement.noisy:
        return np.full((len(counts), 3), np.nan)
    seen, expected = (measure_again(maps, case.measurement) for maps in (made, truth))
    return np.array(
        [
            (
                reduced_chi2(y, mine),
                reduced_chi2(y, own),
                _weighted(np.square(y - mine) + np.square(mine - own), own),
            )
            for y, mine, own in zip(counts, seen, expected, strict=True)
        ]
    )


def _weighted(square: np.ndarray, expected: np.ndarray) -> float:
    valid = expected >= FEWEST_EXPECTED
    return float((square[valid] / expected[valid]).mean()) if valid.any() else float("nan")


def mean_square(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean square error of each map; never quite 0."""
    return np.square(maps - truth).mean(axis=(1, 2)) + 1e-9


def bicubic_width(baseline: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean width of intervals around bicubic that cover 90 %, per element.

    They are as wide as ``k sqrt(counts + 1)``, with the smallest k that covers 90 % of *this*
    map: better than bicubic could be calibrated without knowing the truth.
    """
    unit = np.sqrt(np.clip(baseline, 0, None) + 1)
    k = np.quantile(np.abs(truth - baseline) / unit, 0.9, axis=(1, 2))
    return 2 * k * unit.mean(axis=(1, 2))


def gain_db(rows: Sequence[Assessed], over: str | None = None) -> np.ndarray:
    """Return the gain of ours over a method per row, in dB of PSNR; None: over the reference."""
    return np.array([10 * np.log10(row.mse[over or row.reference] / row.mse[OURS]) for row in rows])


def best_classical(rows: Sequence[Assessed]) -> str:
    """Return the classical method that is best on average over these very rows: it is favoured."""
    names = [
        name
        for name in methods_for(rows[0].case.measurement)
        if all(name in row.mse for row in rows)
    ]
    return min(names, key=lambda name: float(np.mean([np.log(row.mse[name]) for row in rows])))


def summary(rows: Sequence[Assessed]) -> dict[str, float | str | None]:
    """Return the figures of one cell of a table: means over elements and samples."""
    gains = gain_db(rows)
    worst = rows[int(gains.argmin())]
    ratio = [row.width / row.bicubic_width for row in rows if row.bicubic_width > 0]
    return {
        "maps": len(rows),
        "db_over_bicubic": float(gains.mean()),
        "db_over_bicubic_worst": float(gains.min()),
        "worst": f"{worst.sample.name}, element {worst.element}",
        "maps_below_bicubic": int((gains < -0.1).sum()),
        "db_over_gaussian": float(gain_db(rows, "bicubic + Gaussian").mean()),
        "db_over_smoothed": float(gain_db(rows, SMOOTHED).mean()),
        "ensemble_db": _mean([row.ensemble_db for row in rows]),
        "db_over_lanczos": float(gain_db(rows, "Lanczos").mean()),
        **_against_all([row for row in rows if row.mse.keys() >= set(_all_methods(row))]),
        **_looks([row.looks for row in rows]),
        "coverage_90": float(np.mean([row.coverage for row in rows])),
        "coverage_worst": float(np.min([row.coverage for row in rows])),
        "width_over_bicubic": float(np.median(ratio)) if ratio else None,
        "total_bias_rms": float(np.sqrt(np.mean([row.total_bias**2 for row in rows]))),
        "total_bias_worst": float(np.max([abs(row.total_bias) for row in rows])),
        "chi2": _mean([row.chi2 for row in rows]),
        "chi2_of_truth": _mean([row.truth_chi2 for row in rows]),
        "chi2_split": _mean([row.chi2_split for row in rows]),
        "trusted": float(np.mean([row.trusted for row in rows])),
    }


def _all_methods(row: Assessed) -> tuple[str, ...]:
    return methods_for(row.case.measurement)


def _against_all(rows: Sequence[Assessed]) -> dict[str, float | str | None]:
    """Compare with all classical methods, on the rows that have them."""
    if not rows:
        return {"best_classical": "", "db_over_best": None, "best_maps": 0}
    best = best_classical(rows)
    gain = float(gain_db(rows, best).mean())
    return {"best_classical": best, "db_over_best": gain, "best_maps": len(rows)}


def _looks(found: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Average similarity and sharpness; edges where the truth has narrow ones, in all three."""
    both = (REFERENCE, OURS)
    means: dict[str, float | None] = {}
    for figure in ("ssim", "ssim_fg", "frc"):
        for name in both:
            values = [looks[key] for looks in found if (key := f"{figure} {name}") in looks]
            means[f"{figure}_{name}"] = _mean(values)
    names = ("truth", *both)
    widths = [[looks.get(f"fwhm {name}", np.nan) for name in names] for looks in found]
    sharp = [row for row in widths if np.isfinite(row).all() and row[0] <= SHARPEST_REFERENCE]
    for index, name in enumerate(names):
        means[f"fwhm_{name}"] = _mean([row[index] for row in sharp])
    means["fwhm_maps"] = len(sharp)
    return means


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
