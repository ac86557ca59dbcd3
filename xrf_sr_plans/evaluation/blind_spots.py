"""What no method can tell from a coarse map, and whether a model says so.

Samples that measure the same, patterns finer than two steps, more elements than usual.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from xrf_sr_plans.evaluation.feature_sweep import Predict, predictor
from xrf_sr_plans.evaluation.fit_boundary import TrustBoundary, ordinary_counts, within
from xrf_sr_plans.measurement import COARSER_FACTORS, Measurement
from xrf_sr_plans.metrics.standards import dots, grating, indistinguishable_pair, siemens_star
from xrf_sr_plans.sr.aliasing import regular
from xrf_sr_plans.training.phantoms import FAMILIES, TEST_SEED, phantom
from xrf_sr_plans.training.samples import fit_to_blocks, phantom_samples
from xrf_sr_plans.training.simulated_pairs import Pair, Simulation, simulate

COUNTS = 200.0
SIDE = 64
"""Side of a field in coarse steps."""
Line = dict[str, float | str]


def _pair(maps: np.ndarray, factor: int, seed: int, counts: float = COUNTS) -> Pair:
    simulation = Simulation.plain(Measurement(factor), counts, len(maps))
    return simulate(maps, simulation, np.random.default_rng(seed))


def hidden(predict: Predict) -> list[Line]:
    """Cover two samples that only differ in what can't be measured, by one interval."""
    lines: list[Line] = []
    for factor, contrast in itertools.product(COARSER_FACTORS, (0.02, 0.05, 0.1)):
        base = dots(SIDE * factor, 1.5 * factor, 0.6, np.random.default_rng(0), n_elements=1)
        twins = indistinguishable_pair(
            base.maps[0] + 0.2, Measurement(factor), contrast, np.random.default_rng(1)
        )
        first, second = (_pair(np.clip(twin, 0, None)[None], factor, 2) for twin in twins)
        fields = predict(first.counts, first.measurement)
        inside = [
            float(((fields["lower"] <= pair.truth) & (pair.truth <= fields["upper"])).mean())
            for pair in (first, second)
        ]
        apart = np.abs(first.counts - second.counts) / np.sqrt(first.counts + 1)
        lines.append(
            {
                "factor": factor,
                "hidden_contrast": contrast,
                "largest_difference_sigma": float(apart.max()),
                "coverage_first": inside[0],
                "coverage_second": inside[1],
            }
        )
    return lines


def gratings(predict: Predict) -> list[Line]:
    """Return what of a grating is predicted, what else is, and how much of that is trusted."""
    lines: list[Line] = []
    for factor, period, angle in itertools.product(
        COARSER_FACTORS, (1.2, 1.5, 1.8, 2.5, 4.0, 6.0), (0.0, 0.5)
    ):
        truth = grating(SIDE * factor, period * factor, 0.8, angle)
        fields = predict(_pair(truth[None], factor, 3).counts, Measurement(factor))
        line: Line = {"factor": factor, "period_steps": period, "angle": angle}
        for name, key in (("estimate", "model"), ("baseline", "bicubic")):
            line |= _modulation(fields[name][0] / COUNTS, truth, key)
        lines.append({**line, "trusted": float(fields["trusted"].mean())})
    return lines


def _modulation(made: np.ndarray, truth: np.ndarray, key: str) -> dict[str, float]:
    window = np.outer(*(np.hanning(side) for side in truth.shape))
    got, true = (np.fft.rfft2((plane - plane.mean()) * window) for plane in (made, truth))
    power = np.abs(true) ** 2
    own = power > 1e-3 * power.max()
    share = float((got[own] * true[own].conj()).real.sum() / power[own].sum())
    other = float(np.sqrt((np.abs(got[~own]) ** 2).sum() / power.sum()))
    return {f"{key}_seen": share, f"{key}_spurious": other}


def star(predict: Predict) -> list[Line]:
    """Return by local period of a Siemens star how well spokes are predicted (1: perfectly)."""
    spokes = 24
    lines: list[Line] = []
    for factor in COARSER_FACTORS:
        truth = siemens_star(96 * factor, 0.8, spokes)
        fields = predict(_pair(truth[None], factor, 4).counts, Measurement(factor))
        rows, columns = np.mgrid[: len(truth), : len(truth)] - (len(truth) - 1) / 2
        period = 2 * np.pi * np.hypot(rows, columns) / spokes / factor
        for low, high in itertools.pairwise((1, 1.5, 2, 3, 4, 6, 10)):
            ring = (period >= low) & (period < high)
            line: Line = {"factor": factor, "from_steps": low, "to_steps": high}
            for name, key in (("estimate", "model"), ("baseline", "bicubic")):
                values = fields[name][0][ring] / COUNTS
                line[key] = float(np.cov(values, truth[ring])[0, 1] / np.var(truth[ring]))
            lines.append({**line, "trusted": float(fields["trusted"][0][ring].mean())})
    return lines


def lattice(size: int, period_px: float, contrast: float, angle: float) -> np.ndarray:
    """Return dots (y, x) on a square lattice of given period."""
    rows, columns = np.mgrid[:size, :size]
    u = (rows * np.sin(angle) + columns * np.cos(angle)) / period_px
    v = (rows * np.cos(angle) - columns * np.sin(angle)) / period_px
    distance = np.hypot(u - np.round(u), v - np.round(v)) * period_px
    return 0.2 + contrast * np.clip(0.3 * period_px + 0.5 - distance, 0, 1)


def aliases(limit: float) -> list[Line]:
    """Return the share of maps that is called regular: aliased patterns, and other samples.

    Of the patterns those count whose alias stands out of the noise of a pixel by half.
    """
    found: dict[str, list[float]] = {}
    for (name, make), probe, counts in itertools.product(
        (("gratings", grating), ("dots on a lattice", lattice)), (0.0, 0.6), (20.0, 200.0, 1000.0)
    ):
        for period, contrast, angle in itertools.product(
            (1.1, 1.2, 1.3, 1.5, 1.7, 1.9), (0.1, 0.3, 0.8), (0.0, 0.6, np.pi / 2)
        ):
            seen = _aliased(make(SIDE * 4, period * 4, contrast, angle)[None], probe, counts)
            if seen is not None:
                share = float(regular(seen, limit).mean())
                found.setdefault(f"{name}, periods 1.1-1.9 steps", []).append(share)
    for family, counts in _others():
        found.setdefault(family, []).append(float(regular(counts, limit).mean()))
    return [
        {"sample": name, "maps": len(shares), "called regular": float(np.mean(shares))}
        for name, shares in found.items()
    ]


def _aliased(sample: np.ndarray, probe: float, counts: float) -> np.ndarray | None:
    measurement = Measurement(4, "fly", probe)
    clean, noisy = (
        simulate(sample, Simulation(measurement, (level,)), np.random.default_rng(1)).counts
        for level in (np.inf, counts)
    )
    low, high = np.quantile(clean[0, 4:-4, 4:-4], (0.05, 0.95))
    return noisy if (high - low) * np.sqrt(counts / clean.mean()) > 1.5 else None


def _others() -> Iterator[tuple[str, np.ndarray]]:
    for family, _, counts in ordinary_counts(TEST_SEED, n_per_family=1):
        yield f"phantoms: {family}", counts
    for period, angle in itertools.product((2.5, 4.0, 6.0), (0.0, 0.6)):
        counts = _pair(grating(SIDE * 4, period * 4, 0.8, angle)[None], 4, 1).counts
        yield "true gratings, periods 2.5-6 steps", counts


def cost(model: str | None, boundary: TrustBoundary) -> list[Line]:
    """Return the trusted share of phantoms without and with the boundary."""
    predict = predictor(model, regularity=boundary.regularity)
    lines: list[Line] = []
    samples = [fit_to_blocks(s.maps, 4) for s in phantom_samples(1, TEST_SEED)]
    for factor, counts in itertools.product(COARSER_FACTORS, (20.0, 50.0, 200.0, 1000.0)):
        shares = []
        for number, maps in enumerate(samples):
            fields = predict(_pair(maps, factor, number, counts).counts, Measurement(factor))
            # Predicted once, judged twice.
            guarded = within(lambda *_, known=fields: known, boundary)
            after = guarded(np.empty(0), Measurement(factor))["trusted"].mean()
            shares.append((fields["trusted"].mean(), after))
        before, after = np.mean(shares, axis=0)
        line: Line = {"factor": factor, "counts": counts}
        lines.append({**line, "before": float(before), "after": float(after)})
    return lines


def many_elements(predict: Predict) -> list[Line]:
    """Return coverage and gain over bicubic by the number of elements of a map, without blur."""
    lines: list[Line] = []
    for factor, number in itertools.product(COARSER_FACTORS, (1, 5, 15, 30)):
        covered, gains = [], []
        for family in sorted(FAMILIES):
            for seed in range(TEST_SEED + 500, TEST_SEED + 500 + max(1, 4 // number)):
                truth = phantom(family, seed, size=128, n_elements=number)
                pair = _pair(truth, factor, seed)
                fields = predict(pair.counts, pair.measurement)
                inside = (fields["lower"] <= pair.truth) & (pair.truth <= fields["upper"])
                errors = [
                    np.square(fields[name] - pair.truth).mean(axis=(1, 2))
                    for name in ("baseline", "estimate")
                ]
                known = fields["trusted"].mean(axis=(1, 2)) > 0.3
                covered += inside.mean(axis=(1, 2))[known].tolist()
                gains += (10 * np.log10(errors[0] / errors[1]))[known].tolist()
        line: Line = {"factor": factor, "elements": number, "maps": len(covered)}
        if covered:
            line |= {"coverage_90": float(np.mean(covered)), "gain_db": float(np.mean(gains))}
            lines.append(line)
    return lines
