"""Whether the 90 % intervals hold, per kind of sample, element, decade of counts and level.

    python benchmarks/uncertainty.py [--real FOLDER] [--per-family 2] [--model NAME] [--json OUT]

Samples: phantoms of seeds that neither training nor calibration used, and with --real the parts
of the real maps that training never sees (they did take part in the calibration of the shipped
intervals: their figures are in-sample). The truth is the sample, without noise.

coverage    share of fine pixels inside the interval (0.90 is right); worst: of any element
trusted     share of pixels called trusted, and the coverage there
width       mean width over that of intervals around bicubic that cover 90 % of the same map
ranking     what dropping the 20 % most uncertain pixels removes of the error, of an oracle's
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.metrics.calibration import coverage_by_counts, error_ranking
from xrf_sr_plans.sr.predict import Setting, estimate
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.assess import bicubic_width
from xrf_sr_plans.training.calibration import (
    Sample,
    fit_to_blocks,
    phantom_samples,
    real_samples,
)
from xrf_sr_plans.training.pairs import Measurement, measure
from xrf_sr_plans.training.phantoms import TEST_SEED

LEVELS = (20.0, 50.0, 200.0, 1000.0)


def one(
    sample: Sample, factor: int, level: float, seed: list[int], model: tuple[Any, Any]
) -> dict[str, Any]:
    """Predict one simulated measurement; return its figures and pixels."""
    maps = fit_to_blocks(sample.maps, factor)
    rng = np.random.default_rng(seed)
    how = Measurement(factor, "fly", 0.0, 0.0, (level,) * len(maps))
    pair = measure(maps, how, rng)
    names = [str(index) for index in range(len(maps))]
    setting = Setting(factor, "fly", 0.0, deblur=True)
    fields, _ = estimate(prepare(pair.counts), names, setting, *model, "cpu")
    inside = (fields["lower"] <= pair.truth) & (pair.truth <= fields["upper"])
    width = (fields["upper"] - fields["lower"]).mean(axis=(1, 2))
    trusted = fields["trusted"]
    return {
        "by_element": inside.mean(axis=(1, 2)).tolist(),
        "width": float(np.mean(width / bicubic_width(fields["baseline"], pair.truth))),
        "ranking": float(
            np.nanmean(
                [
                    error_ranking(*planes)
                    for planes in zip(fields["estimate"] - pair.truth, fields["sigma"], strict=True)
                ]
            )
        ),
        "trusted": float(trusted.mean()),
        "trusted_coverage": float(inside[trusted].mean()) if trusted.any() else float("nan"),
        "inside": inside.ravel(),
        "expected": pair.truth.ravel(),
    }


def summarise(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the figures of one kind, factor and level."""
    elements = [value for each in found for value in each["by_element"]]
    decades = coverage_by_counts(
        np.concatenate([each["inside"] for each in found]),
        np.concatenate([each["expected"] for each in found]),
    )
    means = ("width", "ranking", "trusted", "trusted_coverage")
    return {
        "maps": len(found),
        "coverage": float(np.mean(elements)),
        "worst_element": float(np.min(elements)),
        **{name: float(np.nanmean([each[name] for each in found])) for name in means},
        "by_counts": {name: share for name, (share, _) in decades.items()},
    }


def table(samples: Iterable[Sample], model: tuple[Any, Any]) -> list[dict[str, Any]]:
    """Return a line per kind of sample, factor and level."""
    found: dict[tuple[str, int, float], list[dict[str, Any]]] = {}
    for number, sample in enumerate(samples):
        for factor in (2, 4):
            for index, level in enumerate(LEVELS):
                result = one(sample, factor, level, [7, number, factor, index], model)
                found.setdefault((sample.kind, factor, level), []).append(result)
    return [
        {"kind": kind, "factor": factor, "n99": level, **summarise(results)}
        for (kind, factor, level), results in sorted(found.items())
    ]


def main() -> None:
    """Print the table, and JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--per-family", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    card, calibration, network = load_model(options.model)
    samples = list(phantom_samples(options.per_family, TEST_SEED))
    samples += list(real_samples(options.real)) if options.real else []
    lines = table(samples, (calibration, network))
    print(f"{card.name} {card.sha256[:12]}, calibration {calibration.id}")
    print(
        f"{'kind':<14} x {'N99':>5} {'maps':>4} {'coverage':>8} {'worst':>6} {'trusted':>7}"
        f" {'there':>6} {'width':>6} {'ranking':>7}  coverage by counts per coarse pixel"
    )
    for line in lines:
        decades = "  ".join(f"{name} {share:.2f}" for name, share in line["by_counts"].items())
        print(
            f"{line['kind']:<14} {line['factor']} {line['n99']:5.0f} {line['maps']:4}"
            f" {line['coverage']:8.3f} {line['worst_element']:6.2f} {line['trusted']:7.3f}"
            f" {line['trusted_coverage']:6.3f} {line['width']:6.2f} {line['ranking']:7.2f}"
            f"  {decades}"
        )
    if options.json:
        result = {"model": card.name, "sha256": card.sha256, "lines": lines}
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
