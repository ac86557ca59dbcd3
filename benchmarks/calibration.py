"""What a handful of own pairs does to coverage: `xrf-sr calibrate` on simulated pairs.

    python benchmarks/calibration.py [--real FOLDER] [--pairs 8] [--tested 16] [--dwell-ratio 1]
                                     [--json OUT]

For each kind of sample (phantom families with seeds that nothing else uses; with --real the real
maps that training never sees, cut into pieces) some pieces are measured coarsely and finely,
stored as pairs and given to `calibrate_from_pairs`. Both maps have counting noise: the fine ones
too. The other pieces are then measured coarsely only, and the intervals are held against their
noise-free truth, before and after. 0.90 is right. --widths says by how much the shipped intervals
are made too narrow or too wide to begin with.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.physics.forward import coarsen
from xrf_sr_plans.sr.predict import enhance_maps
from xrf_sr_plans.sr.registry import model_path, read_calibration, read_card
from xrf_sr_plans.sr.uncertainty import to_json
from xrf_sr_plans.store.calibrate import calibrate_from_pairs, stretched
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.training.calibration import Sample, fit_to_blocks, phantom_samples, real_samples

FIRST_SEED = 60_000
COUNTS = (20.0, 50.0, 200.0, 1000.0)
DWELL_MS = 10.0


def measured(truth: np.ndarray, factor: int, rng: np.random.Generator) -> ElementalMaps:
    """Fly a coarse map over expected counts (element, y, x) of the fine grid."""
    counts = rng.poisson(coarsen(truth, factor, "fly"))
    ny, nx = counts.shape[1:]
    grid = ScanGrid.from_start_stop(0, nx - 1, nx, 0, ny - 1, ny)
    return ElementalMaps.from_arrays(
        counts, grid, names(truth), step_um=1.0, sampling="fly", dwell_ms=DWELL_MS
    )


def names(truth: np.ndarray) -> list[str]:
    """Name elements by their number."""
    return [f"E{index}" for index in range(len(truth))]


def scenes(samples: list[Sample], factor: int, seed: int) -> list[np.ndarray]:
    """Return expected counts of samples, each at a level of its own."""
    rng = np.random.default_rng(seed)
    levels = [float(COUNTS[number % len(COUNTS)]) for number in range(len(samples))]
    return [
        fit_to_blocks(sample.maps, factor) * level * rng.uniform(0.7, 1.4)
        for sample, level in zip(samples, levels, strict=True)
    ]


def store_pairs(folder: Path, truths: list[np.ndarray], factor: int, ratio: float) -> None:
    """Measure samples as pairs; the fine map dwells `ratio` times as long as the coarse one."""
    store = PairStore(folder)
    for number, truth in enumerate(truths):
        rng = np.random.default_rng([1, number])
        coarse = measured(truth, factor, rng)
        fine = ElementalMaps.from_arrays(
            rng.poisson(truth * ratio),
            coarse.grid.refined(factor),
            names(truth),
            dwell_ms=ratio * DWELL_MS,
        )
        uid = f"pair-{number}"
        store.save_map(uid, 0, factor, coarse)
        store.save_map(uid, 1, 1, fine)
        store.finish(uid, {0: {"dx_um": 0.0, "dy_um": 0.0}})


def coverage(truths: list[np.ndarray], factor: int, model: Path) -> float:
    """Return the share of truth inside the intervals, every element of every map alike."""
    shares = []
    for number, truth in enumerate(truths):
        maps = measured(truth, factor, np.random.default_rng([2, number]))
        made = enhance_maps(maps, factor, model=str(model))
        inside = (made.lower.values <= truth) & (truth <= made.upper.values)
        shares += inside.mean(axis=(1, 2)).tolist()
    return float(np.mean(shares))


def beginning(folder: Path, width: float) -> Path:
    """Copy the shipped model with its intervals made `width` times as wide."""
    source, target = model_path(None), folder / f"begin-{width:g}.safetensors"
    for suffix in (".safetensors", ".json"):
        target.with_suffix(suffix).write_bytes(source.with_suffix(suffix).read_bytes())
    card = read_card(target)
    known = read_calibration(source, card)
    changed = stretched(known, {2: width, 4: width}, f"made {width:g} times as wide")
    target.with_suffix(".calibration.json").write_text(json.dumps(to_json(changed)))
    return target


def main() -> None:
    """Print a line per kind, factor and first width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, default=None)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tested", type=int, default=16, help="phantoms of each kind")
    parser.add_argument("--dwell-ratio", type=float, default=1.0)
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.4])
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = list(phantom_samples(options.pairs + options.tested, FIRST_SEED, size=96))
    samples += list(real_samples(options.real)) if options.real else []
    lines: list[dict[str, Any]] = []
    heads = ("kind", "factor", "pairs", "first width", "before", "after", "stretch")
    print("".join(f"{head:>14s}" for head in heads))
    for kind in sorted({sample.kind for sample in samples}):
        here = [sample for sample in samples if sample.kind == kind]
        number = min(options.pairs, len(here) // 2)
        for factor in (2, 4):
            truths = scenes(here, factor, 3)
            for width in options.widths:
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    model = beginning(folder, width)
                    store_pairs(folder / "pairs", truths[:number], factor, options.dwell_ratio)
                    report = calibrate_from_pairs(folder / "pairs", str(model), folder / "out")
                    before, after = (
                        coverage(truths[number:], factor, path) for path in (model, report.model)
                    )
                    line = {
                        "kind": kind,
                        "factor": factor,
                        "pairs": number,
                        "width": width,
                        "before": before,
                        "after": after,
                        "stretch": report.factors[0].stretch,
                        "reason": report.factors[0].reason,
                    }
                lines.append(line)
                texts = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in line.values()]
                print("".join(f"{text:>14s}" for text in texts))
    if options.json is not None:
        options.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
