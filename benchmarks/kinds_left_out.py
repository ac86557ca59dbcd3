"""Intervals and trust flag on each kind of sample, calibrated on all the other kinds.

    python benchmarks/kinds_left_out.py --real FOLDER [--model NAME] [--per-kind 2] [--plain]

Samples: phantoms of validation seeds, real maps, and photographs (`training.kinds`). The network
saw phantoms, tissue and the meteorite in training, other parts of them; the rest it has not seen,
and in each line the calibration has seen nothing of the kind. With --plain the calibration is the
one that knows groups, but no evidence; with --shipped it is the model's own.

coverage    share of fine pixels inside the 90 % interval; worst: of any element, over its lines
width       of the interval over what the baseline would need, its rms error known
marked      share of the pixels that are not trusted
catch       share, not trusted, of the pixels worse than the baseline by more than 5 % of the range
ratio       rms error of what is not trusted over that of what is trusted
lattice     scatter, over the places in a coarse pixel, of sigma in units of the rms error
far         share of the maps that are said to be unlike all known ones
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.evaluation.kinds_left_out import (
    ElementFigures,
    KindFigures,
    figures,
    left_out,
    together,
    without_evidence,
)
from xrf_sr_plans.measurement import reading_name
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.registry import load_network, model_path, read_calibration, read_card
from xrf_sr_plans.training.calibrate_model import fair_repeats, simulated_scores
from xrf_sr_plans.training.kinds import all_kinds
from xrf_sr_plans.training.phantoms import CALIBRATION_SEED, VALIDATION_SEED
from xrf_sr_plans.training.samples import Sample

LEVELS = (10.0, 50.0, 300.0, 1000.0, NOISE_FREE_COUNTS)
FIRST_SEED = VALIDATION_SEED + 500_000
SEEN = ("tissue C3", "zagami")
BAND = (0.85, 0.95)
HEADS = (
    "maps",
    "coverage",
    "worst",
    "width",
    "gain_db",
    "marked",
    "catch",
    "ratio",
    "lattice",
    "far",
)


def few_of_each(samples: list[Sample], most: int) -> list[Sample]:
    """Return the first samples of each kind."""
    kept: dict[str, list[Sample]] = {}
    for sample in samples:
        kept.setdefault(sample.kind, []).append(sample)
    return [sample for some in kept.values() for sample in some[:most]]


def group_of(kind: str) -> str:
    """Return phantoms, real, or photographs."""
    if kind.startswith("phantom"):
        return "phantoms"
    real = (*SEEN, "nano-probe stack", "composite", "bacteria")
    return "real" if kind in real else "photographs"


def table(
    found: list[ElementFigures], key: Callable[[ElementFigures], tuple[str, ...]]
) -> dict[str, KindFigures]:
    """Print a line for each group, and return the figures."""
    lines: dict[str, list[ElementFigures]] = {}
    for one in found:
        lines.setdefault("  ".join(key(one)), []).append(one)
    sys.stdout.write(f"\n{'':30s}" + "".join(f"{head:>9s}" for head in HEADS) + "\n")
    made = {name: together(some) for name, some in lines.items()}
    for name, line in made.items():
        cells = (f"{getattr(line, head):9.3g}" for head in HEADS)
        sys.stdout.write(f"{name:30s}" + "".join(cells) + "\n")
    coverage = np.array([line.coverage for line in made.values()])
    inside = ((coverage >= BAND[0]) & (coverage <= BAND[1])).sum()
    catch = np.array([line.catch for line in made.values()])
    ratio = np.array([line.ratio for line in made.values()])
    sys.stdout.write(
        f"coverage {coverage.min():.3f} to {coverage.max():.3f}, {inside} of {coverage.size} within"
        f" {BAND[0]} to {BAND[1]}; worst element {min(o.worst for o in made.values()):.3f};"
        f" catch >= 0.5: {(catch >= 0.5).sum()} of {np.isfinite(catch).sum()};"
        f" ratio >= 2: {(ratio >= 2).sum()} of {np.isfinite(ratio).sum()}\n"
    )
    return made


def run(options: argparse.Namespace, network: Any, known: Calibration | None, sha: str) -> Any:
    """Return the figures of all kinds."""
    readings = [r for r in network.reads if not options.only or reading_name(r) in options.only]
    levels = LEVELS if not options.levels else tuple(options.levels)
    tested = few_of_each(all_kinds(options.per_kind, FIRST_SEED, options.real), options.per_kind)
    if known is not None:
        return list(figures(tested, network, known, levels, readings))
    samples = all_kinds(options.calibrate_on, CALIBRATION_SEED, options.real)
    repeats = fair_repeats(samples, options.maps_per_kind)
    scores = [
        item
        for item in simulated_scores(network, samples, repeats=repeats)
        if item.measurement.reading in readings
    ]
    scores = without_evidence(scores) if options.plain else scores
    return list(left_out(scores, tested, network, sha, levels, readings))


def main() -> None:
    """Print the tables; write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--per-kind", type=int, default=2, help="samples tested of each kind")
    parser.add_argument("--calibrate-on", type=int, default=4, help="phantoms of each family")
    parser.add_argument("--maps-per-kind", type=int, default=10)
    parser.add_argument("--levels", type=float, nargs="*", help="N99; none: all")
    parser.add_argument("--only", nargs="*", help='readings, such as "2 rows"; none: all')
    parser.add_argument("--plain", action="store_true", help="groups alone, no evidence")
    parser.add_argument("--shipped", action="store_true", help="the model's own calibration")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = model_path(options.model)
    card = read_card(path)
    known = read_calibration(path, card) if options.shipped else None
    begin = time.perf_counter()
    found = run(options, load_network(path, card), known, card.sha256)
    sys.stdout.write(f"{card.name} {card.sha256[:12]}: {time.perf_counter() - begin:.0f} s\n")
    tables = {
        "kind": table(found, lambda one: (one.kind,)),
        "reading, kind": table(found, lambda one: (f"{one.reading:7s}", one.kind)),
        "reading, group, n99": table(
            found, lambda one: (f"{one.reading:7s}", f"{group_of(one.kind):12s}", f"{one.n99:g}")
        ),
    }
    if options.json is not None:
        plain = {
            name: {key: asdict(value) for key, value in some.items()}
            for name, some in tables.items()
        }
        options.json.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
