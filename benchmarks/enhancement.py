"""dB of the default model over classical methods, and coverage of its intervals.

    python benchmarks/enhancement.py [--real FOLDER] [--per-family 4] [--json OUT]

Held-out phantoms (seeds that neither training nor calibration used), tissue block C3 and the
calibration part of Zagami (the last two took part in the calibration of the intervals, never in
training).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.assess import Case, assess, summary
from xrf_sr_plans.training.calibration import phantom_samples, real_samples
from xrf_sr_plans.training.phantoms import TEST_SEED

LEVELS = (20.0, 50.0, 200.0, 1000.0, float("inf"))
COLUMNS = (
    "db_over_bicubic",
    "db_over_bicubic_worst",
    "db_over_gaussian",
    "coverage_90",
    "width_over_bicubic",
    "total_bias_rms",
    "chi2",
    "trusted",
)


def cases() -> list[Case]:
    """Return the rows of the table."""
    made = [Case(factor, level) for factor in (2, 4) for level in LEVELS]
    made += [Case(factor, 200.0, "area") for factor in (2, 4)]
    made += [Case(factor, float("inf"), "area") for factor in (2, 4)]
    made += [Case(factor, 200.0, "area", 1.0) for factor in (2, 4)]
    return made


def main() -> None:
    """Print one table per kind of sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    card, calibration, network = load_model(options.model)
    samples = list(phantom_samples(options.per_family, TEST_SEED))
    samples += list(real_samples(options.real)) if options.real else []
    rows = assess(samples, cases(), network, calibration)
    found: dict[str, dict[str, dict[str, float | str]]] = {}
    real = {"tissue C3", "zagami"}
    for kind in ("phantoms", *sorted({s.kind for s in samples})):
        chosen = [
            r
            for r in rows
            if r.sample.kind == kind or (kind == "phantoms" and r.sample.kind not in real)
        ]
        found[kind] = {
            f"x{case.factor} {case.sampling} probe {case.probe:g} N {case.n99:g}": summary(
                [row for row in chosen if row.case == case]
            )
            for case in cases()
        }
    for kind, table in found.items():
        sys.stdout.write(f"\n{card.name} {card.sha256[:12]} on {kind}\n{'':30s}")
        sys.stdout.write("".join(f"{name[-14:]:>15s}" for name in COLUMNS) + "\n")
        for name, figures in table.items():
            cells = "".join(f"{float(figures[column]):15.3f}" for column in COLUMNS)
            sys.stdout.write(f"{name:30s}{cells}\n")
    if options.json:
        rounded = {
            kind: {
                name: {k: round(v, 3) if isinstance(v, float) else v for k, v in cell.items()}
                for name, cell in table.items()
            }
            for kind, table in found.items()
        }
        options.json.write_text(json.dumps(rounded, indent=1))


if __name__ == "__main__":
    main()
