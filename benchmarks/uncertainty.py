"""Whether the 90 % intervals hold, and where: by kind, level, element and decade of counts.

    python benchmarks/uncertainty.py [--real FOLDER] [--per-family 4] [--model NAME]
                                     [--json OUT] [--picture PNG]

Samples: phantoms of seeds that neither training nor calibration used, and with --real the parts
of the real maps that training never sees (they did take part in the calibration of the shipped
intervals; `transfer.py` leaves them out). Each is measured at four levels, on the fly and without
probe, and with settings drawn as for training. The truth is the sample, without noise.

coverage    share of fine pixels inside the interval (0.90 is right); worst: of any element
trusted     share of pixels called trusted, and the coverage there
width       of the interval over that of bicubic, conformalised by the same groups on the same
            calibration samples (not on the map tested): geometric mean; bicubic: its coverage
ranking     what dropping the 20 % most uncertain pixels removes of the error, of an oracle's
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.measurement import COARSER_FACTORS, ENLARGED_SQUARES, Measurement
from xrf_sr_plans.metrics.calibration import coverage_by_counts, error_ranking, sparsification
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.sr.conformal import fit
from xrf_sr_plans.sr.intervals import Calibration, intervals
from xrf_sr_plans.sr.predict import estimate
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.calibrate_model import (
    PHANTOMS_PER_FAMILY,
    fair_repeats,
    predict_baseline,
    simulated_pairs,
    simulated_scores,
)
from xrf_sr_plans.training.phantoms import CALIBRATION_SEED, TEST_SEED
from xrf_sr_plans.training.samples import Sample, fit_to_blocks, phantom_samples, real_samples
from xrf_sr_plans.training.simulated_pairs import Pair, Simulation, simulate

LEVELS = (20.0, 50.0, 200.0, 1000.0)
DRAWN = 0.0
"""Stands for a level where settings were drawn."""
TOLERANCE = 0.02
NAMES = {"tissue C3": ("P", "Fe", "Zn"), "zagami": ("Si", "Mg", "K", "Fe", "Ca")}
FEWEST_MAPS = 20
"""Element maps with a percent of their pixels in a decade of counts, for it to be told: pixels of
one map are right or wrong together."""


@dataclass(frozen=True)
class Tested:
    """What came out for one measurement; arrays have an axis of elements first."""

    kind: str
    factor: int
    level: float
    inside: np.ndarray
    predicted: np.ndarray
    expected: np.ndarray
    trusted: np.ndarray
    width: np.ndarray
    bicubic_coverage: np.ndarray
    ranking: np.ndarray
    curves: np.ndarray
    """(element, ours | bicubic | oracle, share dropped)."""

    @property
    def is_real(self) -> bool:
        """Whether the sample is a real map."""
        return self.kind in NAMES

    def names(self) -> list[str]:
        """Return what to call the elements."""
        numbered = [f"element {index}" for index in range(len(self.inside))]
        return [f"{self.kind} {name}" for name in NAMES[self.kind]] if self.is_real else numbered


def measurements(samples: list[Sample], drawn: int) -> Iterator[tuple[Sample, float, Pair]]:
    """Yield every sample at every level, and with `drawn` drawn settings."""
    for number, sample in enumerate(samples):
        for factor in COARSER_FACTORS:
            for index, level in enumerate(LEVELS):
                maps = fit_to_blocks(sample.maps, factor)
                simulation = Simulation.plain(Measurement(factor), level, len(maps))
                rng = np.random.default_rng([7, number, factor, index])
                yield sample, level, simulate(maps, simulation, rng)
    repeats = {sample.kind: drawn for sample in samples}
    for sample, pair, _ in simulated_pairs(
        samples, reads=ENLARGED_SQUARES, repeats=repeats, seed=7
    ):
        yield sample, DRAWN, pair


def test(
    sample: Sample, level: float, pair: Pair, model: tuple[Any, Any], bicubic: Calibration
) -> Tested:
    """Predict one simulated measurement and hold it against the truth."""
    names = [str(index) for index in range(len(pair.counts))]
    fields, _ = estimate(prepare(pair.counts), names, pair.measurement, *model, "cpu")
    plain = predict_baseline(pair)
    made = stabilise(plain.estimate)
    ends = intervals(bicubic, pair.measurement, made, plain.sigma, plain.scale)
    error, width = fields["estimate"] - pair.truth, fields["upper"] - fields["lower"]
    theirs = sparsify(plain.estimate - pair.truth, ends.upper - ends.lower)
    ours = sparsify(error, width)
    return Tested(
        sample.kind,
        pair.measurement.factor,
        level,
        (fields["lower"] <= pair.truth) & (pair.truth <= fields["upper"]),
        fields["estimate"].astype(np.float32),
        pair.truth.astype(np.float32),
        fields["trusted"],
        width.mean((1, 2)) / (ends.upper - ends.lower).mean((1, 2)),
        ((ends.lower <= pair.truth) & (pair.truth <= ends.upper)).mean((1, 2)),
        np.array([error_ranking(*planes) for planes in zip(error, width, strict=True)]),
        np.stack([ours[:, 0], theirs[:, 0], ours[:, 1]], axis=1),
    )


def sparsify(error: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return (element, stated | oracle, share dropped)."""
    found = [sparsification(*planes) for planes in zip(error, width, strict=True)]
    return np.array([[one.stated, one.oracle] for one in found])


def summarise(found: list[Tested]) -> dict[str, float]:
    """Average the figures of one kind, factor and level; every element map weighs alike."""
    coverage = np.concatenate([one.inside.mean((1, 2)) for one in found])
    trusted = np.concatenate([one.trusted.ravel() for one in found])
    inside = np.concatenate([one.inside.ravel() for one in found])
    return {
        "maps": len(coverage),
        "coverage": float(coverage.mean()),
        "worst": float(coverage.min()),
        "trusted": float(trusted.mean()),
        "there": float(inside[trusted].mean()) if trusted.any() else float("nan"),
        "width": float(np.exp(np.log(np.concatenate([one.width for one in found])).mean())),
        "bicubic": float(np.concatenate([one.bicubic_coverage for one in found]).mean()),
        "ranking": float(np.nanmean(np.concatenate([one.ranking for one in found]))),
    }


def grouped(found: Iterable[Tested], key: Callable[[Tested], Any]) -> dict[Any, list[Tested]]:
    """Sort measurements into groups, in order of their keys."""
    groups: dict[Any, list[Tested]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return dict(sorted(groups.items()))


def by_element(found: list[Tested]) -> dict[str, float]:
    """Return the coverage of each element, over all its maps."""
    shares: dict[str, list[float]] = {}
    for one in found:
        for name, inside in zip(one.names(), one.inside, strict=True):
            shares.setdefault(name, []).append(float(inside.mean()))
    return {name: float(np.mean(values)) for name, values in shares.items()}


def by_decade(found: list[Tested], field: str) -> dict[str, float]:
    """Return the coverage by decade of counts; decades in few maps are left out.

    Every element map weighs alike, as in calibration, by its share of pixels in the decade.
    """
    sums: dict[str, np.ndarray] = {}
    for one in found:
        for inside, counts in zip(one.inside, getattr(one, field), strict=True):
            edges = (1, 10, 100, 1000, 10_000, 100_000)
            for name, (share, n) in coverage_by_counts(inside, counts, edges).items():
                weight = n / counts.size
                line = np.array([share * weight, weight, weight >= 0.01])
                sums[name] = sums.get(name, np.zeros(3)) + line
    order = sorted(sums, key=lambda name: float(name.strip("<>").split("-")[0]) - (name[0] == "<"))
    return {name: sums[name][0] / sums[name][1] for name in order if sums[name][2] >= FEWEST_MAPS}


def cells(found: list[Tested]) -> list[dict[str, Any]]:
    """Return coverage by element and by decade, for phantoms and real maps and each factor."""
    lines = []
    for (is_real, factor), some in grouped(found, lambda one: (one.is_real, one.factor)).items():
        tables = {
            "element": by_element(some),
            "predicted counts": by_decade(some, "predicted"),
            "true counts": by_decade(some, "expected"),
        }
        for by, shares in tables.items():
            good = [abs(share - 0.9) <= TOLERANCE for share in shares.values()]
            lines.append(
                {
                    "samples": "real" if is_real else "phantoms",
                    "factor": factor,
                    "by": by,
                    "coverage": shares,
                    "within": int(sum(good)),
                    "of": len(good),
                }
            )
    return lines


def draw(found: list[Tested], path: Path) -> None:
    """Draw how the error falls as the most uncertain pixels are dropped."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.4), sharey=True, layout="constrained")
    for axis, factor in zip(axes, COARSER_FACTORS, strict=True):
        curves = np.concatenate([one.curves for one in found if one.factor == factor])
        mean = np.nanmean(curves, axis=0)
        dropped = 100 * np.arange(mean.shape[1]) / mean.shape[1]
        axis.axhline(1, color="0.7", linewidth=1, label="dropped at random")
        labels = (
            ("bicubic, conformal width", "C1", "--"),
            ("model, interval width", "C0", "-"),
            ("model, true error (oracle)", "k", ":"),
        )
        for index, (label, color, style) in zip((1, 0, 2), labels, strict=True):
            axis.plot(dropped, mean[index], style, color=color, label=label)
        axis.axvline(20, color="0.85", linewidth=1, zorder=0)
        axis.set(title=f"{factor}×", xlabel="most uncertain pixels dropped, %", xlim=(0, 99))
    axes[0].set(ylabel="RMS error of the rest\n(all pixels: 1)", ylim=(0, 1.08))
    axes[1].legend(frameon=False, fontsize="small", loc="upper right", bbox_to_anchor=(1, 0.94))
    figure.savefig(path, dpi=110)


def report(found: list[Tested]) -> dict[str, Any]:
    """Print all tables and return them."""
    heads = ("maps", "coverage", "worst", "trusted", "there", "width", "bicubic", "ranking")
    print(f"{'kind':<14}{'x':>2} {'N99':>6}" + "".join(f"{head:>9}" for head in heads))
    lines = []
    for key, some in grouped(found, lambda one: (one.kind, one.factor, one.level)).items():
        line = {"kind": key[0], "factor": key[1], "n99": key[2] or "drawn", **summarise(some)}
        lines.append(line)
        values = "".join(f"{line[head]:9.3f}" for head in heads[1:])
        print(f"{line['kind']:<14}{line['factor']:>2} {line['n99']:>6} {line['maps']:8}{values}")
    print("\nall")
    overall = []
    for (is_real, factor), some in grouped(found, lambda one: (one.is_real, one.factor)).items():
        line = {"samples": "real" if is_real else "phantoms", "factor": factor, **summarise(some)}
        overall.append(line)
        values = "".join(f"{line[head]:9.3f}" for head in heads[1:])
        print(f"{line['samples']:<14}{factor:>2} {'':>6} {line['maps']:8}{values}")
    print(f"\ncoverage; cells within 0.90 ± {TOLERANCE}")
    table = cells(found)
    for line in table:
        shares = "  ".join(f"{name} {share:.3f}" for name, share in line["coverage"].items())
        good = f"{line['within']}/{line['of']}"
        print(f"{line['samples']:<9} {line['factor']}x by {line['by']:<17}{good:>6}  {shares}")
    return {"lines": lines, "overall": overall, "cells": table}


def main() -> None:
    """Print the tables; write JSON and the picture where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--drawn", type=int, default=1, help="drawn settings per sample, factor")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--picture", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    card, calibration, network = load_model(options.model)
    print(f"{card.name} {card.sha256[:12]}, calibration {calibration.id}")
    real = list(real_samples(options.real)) if options.real else []
    known = list(phantom_samples(PHANTOMS_PER_FAMILY, CALIBRATION_SEED))
    scores = simulated_scores(
        None, [*known, *real], repeats=fair_repeats([*known, *real], 2 * PHANTOMS_PER_FAMILY)
    )
    bicubic = fit(scores, "0" * 64, "bicubic")
    samples = [*phantom_samples(options.per_family, TEST_SEED), *real]
    found = [
        test(*measured, (calibration, network), bicubic)
        for measured in measurements(samples, options.drawn)
    ]
    result = {"model": card.name, "sha256": card.sha256, **report(found)}
    if options.picture is not None:
        draw(found, options.picture)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
