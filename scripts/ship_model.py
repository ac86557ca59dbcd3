"""Make a trained run the model that ships: weights, card, calibration, trust boundary, figures.

    python scripts/ship_model.py RUN_FOLDER --real FOLDER [--name folded-shared] [--note TEXT]

`make weights` does this and all before it. RUN_FOLDER is the `--out` of `xrf-sr train`. Writes
into xrf_sr_plans/sr/weights. The trust boundary comes from benchmarks/hallucination.py --write;
after it, for the share of trusted pixels is among them, the figures of the card from
benchmarks/enhancement.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from xrf_sr_plans.sr.registry import DEFAULT_MODEL, read_card, write_card
from xrf_sr_plans.training.calibrate_model import PHANTOMS_PER_FAMILY, calibrate_model
from xrf_sr_plans.training.export_model import export_model
from xrf_sr_plans.training.phantoms import (
    ALL_FAMILIES,
    CALIBRATION_SEED,
    FAMILIES,
    TEST_SEED,
    VALIDATION_SEED,
)
from xrf_sr_plans.training.training_config import TrainingConfig

PICTURE = Path(__file__).parents[1] / "docs" / "_static" / "trust-boundary.png"
REAL = {
    "zagami_left": "Zagami meteorite, EPMA-WDS, Apache-2.0 (pixlise/core); columns 0-349 train, "
    "350-429 from row 280 calibrate; rows 0-239 of these columns hold the demo's sample",
    "laicpms_C1, C2, C3": "LA-ICP-MS of tissue, CC-BY-4.0 (sekro/la-icp-msi_segmentation); C1 and "
    "C2 train, C3 is left out of training and takes part in the calibration",
}
LIMITS = [
    "trained on simulated measurements only: no pair of real coarse and fine scans was seen",
    "the calibration of the intervals holds for maps like those it was made on; on another kind "
    "of sample coverage is to be checked against a fine rescan",
    "structure finer than two coarse steps can't be told from its alias: regular patterns are "
    "marked untrusted, irregular ones can't be; smallest sizes to be believed: NAME.trust.json, "
    "from benchmarks/hallucination.py --write",
    "factors 1, 2 and 4 only; probe FWHM up to 1.2 coarse steps; 2 to 200 000 counts per pixel",
]


def command_of(config: TrainingConfig) -> str:
    """Return the command that a run was started with."""
    machine = {
        "out",
        "real_maps",
        "start",
        "progress",
        "threads",
        "workers",
        "devices",
        "num_nodes",
    }
    chosen = config.model_dump(mode="json", exclude_defaults=True, exclude=machine)
    begin = "--from BEFORE/weights.safetensors " if config.start else ""
    settings = "".join(f" --set {name}={value}" for name, value in chosen.items())
    return f"xrf-sr train {begin}--out RUN --real-maps FOLDER{settings}"


def read_config(run: Path) -> TrainingConfig:
    """Return what a run was started with."""
    return TrainingConfig.model_validate_json((run / "config.json").read_text())


def main() -> None:
    """Export, calibrate, assess."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--name", default=DEFAULT_MODEL)
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="runs that led to RUN")
    parser.add_argument("--note", default="", help="what else there is to say about the training")
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = read_config(options.run)
    training: dict[str, Any] = {"command": command_of(config), "note": options.note}
    if options.before:
        training["after"] = [command_of(read_config(run)) for run in options.before]
    path = export_model(
        options.run / "weights.safetensors",
        options.name,
        config,
        summary="Residual network for rows and squares: any elements in any order, mirrored maps"
        " give mirrored results, factors 1, 2 and 4; a trunk that a map has once for all elements,"
        " and kriging's say at 4x rows.",
        data={
            "phantoms": {
                "families": sorted(FAMILIES),
                "in training also": sorted(set(ALL_FAMILIES) - set(FAMILIES)),
                "training seeds": [0, config.n_phantoms - 1],
                "validation from": VALIDATION_SEED,
                "calibration": [CALIBRATION_SEED, CALIBRATION_SEED + PHANTOMS_PER_FAMILY - 1],
                "test": [TEST_SEED, TEST_SEED + options.per_family - 1],
            },
            "real": REAL,
        },
        training=training,
        limits=LIMITS,
        license="BSD-3-Clause",
    )
    calibration = calibrate_model(str(path), real_maps=options.real)
    sys.stdout.write(f"calibration {calibration.id}: {calibration.source}\n")
    picture = ["--picture", str(PICTURE)] if options.name == DEFAULT_MODEL else []
    benchmark("hallucination.py", "--model", str(path), "--write", *picture)
    add_figures(path, options)


def add_figures(path: Path, options: argparse.Namespace) -> None:
    """Put the figures of benchmarks/enhancement.py into the card."""
    figures = options.run / "figures.json"
    real = ["--real", str(options.real), "--per-family", str(options.per_family)]
    threads = ["--threads", str(options.threads), "--json", str(figures)]
    benchmark("enhancement.py", "--model", str(path), *real, *threads)
    shown = "python benchmarks/enhancement.py --real FOLDER --per-family " + str(options.per_family)
    measured = {"command": shown, **json.loads(figures.read_text())}
    write_card(path, read_card(path).model_copy(update={"figures": measured}))


def benchmark(name: str, *options: str) -> None:
    """Run a benchmark to its end."""
    file = Path(__file__).parents[1] / "benchmarks" / name
    subprocess.run([sys.executable, str(file), *options], check=True)


if __name__ == "__main__":
    main()
