"""What a handful of own pairs does to coverage: what `xrf-sr calibrate` does, on simulated pairs.

    python benchmarks/calibration.py [--real FOLDER] [--pairs 8] [--samples 16] [--dwell-ratio 1]
                                     [--widths 1.0 0.4] [--json OUT]

For each kind of sample (phantom families with seeds that nothing else uses; with --real the real
maps that training never sees, cut into pieces) every sample is measured coarsely and finely and
stored as a pair; both maps have counting noise. A handful of the pairs says by how much the
intervals are to be stretched. The others are measured coarsely once more, and the intervals held
against their noise-free truth, before and after. 0.90 is right.

after, sd    mean and scatter over `DRAWS` handfuls drawn at random (all there are, if fewer)
within       share of the handfuls after which coverage is within 0.90 +- 0.03
by truth     the same with the noise-free truth of the very same handfuls instead of fine maps:
             what is left is the difference between one handful and the rest

--widths says by how much the shipped intervals are made too narrow or too wide to begin with.
About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.evaluation.calibrate_from_pairs import (
    STRETCHES,
    MapCoverage,
    at_stretch,
    pair_coverages,
    pooled,
    solve,
    stretched,
)
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import COARSER_FACTORS
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.physics.forward import coarsen
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.sr.intervals import to_json
from xrf_sr_plans.sr.predict import enhance_maps
from xrf_sr_plans.sr.registry import model_path, read_calibration, read_card
from xrf_sr_plans.store.pairs import PairStore, StoredPair
from xrf_sr_plans.training.samples import Sample, fit_to_blocks, phantom_samples, real_samples

FIRST_SEED = 60_000
COUNTS = (20.0, 50.0, 200.0, 1000.0)
DWELL_MS = 10.0
DRAWS = 200
TOLERANCE = 0.03


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


def pair_of(folder: Path, truth: np.ndarray, factor: int, ratio: float, number: int) -> StoredPair:
    """Measure a sample as a pair; the fine map dwells `ratio` times as long as the coarse one."""
    store, uid = PairStore(folder), f"pair-{number}"
    rng = np.random.default_rng([1, number])
    coarse = measured(truth, factor, rng)
    fine = ElementalMaps.from_arrays(
        rng.poisson(truth * ratio),
        coarse.grid.refined(factor),
        names(truth),
        dwell_ms=ratio * DWELL_MS,
    )
    store.save_map(uid, 0, factor, coarse)
    store.save_map(uid, 1, 1, fine)
    store.finish(uid, {0: PairRegistration(factor, 0.0, 0.0)})
    return next(pair for pair in store.pairs() if pair.pair_uid == uid)


@dataclass(frozen=True)
class Seen:
    """One sample: what its pair says, and the truth of it and of another coarse map."""

    maps: list[MapCoverage]
    own: np.ndarray
    other: np.ndarray
    """Coverage of the truth at each of `STRETCHES`, mean of the elements."""


def look(truth: np.ndarray, number: int, factor: int, ratio: float, model: Path) -> Seen:
    """Measure a sample as a pair, and coarsely once more."""
    with tempfile.TemporaryDirectory() as name:
        pair = pair_of(Path(name), truth, factor, ratio, number)
        maps = [one for _, one in pair_coverages(pair, str(model))]
        own = true_curve(pair.coarse[0].maps, truth, factor, model)
    again = measured(truth, factor, np.random.default_rng([2, number]))
    return Seen(maps, own, true_curve(again, truth, factor, model))


def true_curve(maps: ElementalMaps, truth: np.ndarray, factor: int, model: Path) -> np.ndarray:
    """Return the share of noise-free truth inside the intervals at each of `STRETCHES`."""
    made = enhance_maps(maps, factor, model=str(model))
    fields = (made.estimate.values, made.lower.values, made.upper.values, truth)
    centre, low, high, true = (stabilise(np.asarray(field)) for field in fields)
    inside = [
        (centre - by * (centre - low) <= true) & (true <= centre + by * (high - centre))
        for by in STRETCHES
    ]
    return np.array([one.mean() for one in inside])


def handfuls(seen: list[Seen], number: int) -> dict[str, float]:
    """Stretch by one handful after the other; return coverage of the others."""
    every = list(itertools.islice(itertools.combinations(range(len(seen)), number), DRAWS + 1))
    if len(every) > DRAWS:
        rng = np.random.default_rng(0)
        every = [rng.choice(len(seen), number, replace=False) for _ in range(DRAWS)]
    found = []
    for chosen in every:
        picked = [seen[index] for index in chosen]
        rest = np.mean([one.other for k, one in enumerate(seen) if k not in chosen], axis=0)
        stretch, _ = solve(*pooled([one for each in picked for one in each.maps]))
        truly = np.mean([one.own for one in picked], axis=0)
        # The truth isn't hidden by noise: any curve that rises will do.
        best, _ = solve(truly, np.linspace(0, 1, len(truly)))
        found.append(
            (at_stretch(rest, 1.0), at_stretch(rest, stretch), at_stretch(rest, best), stretch)
        )
    before, after, by_truth, stretches = np.array(found).T
    within = [float(np.mean(np.abs(each - 0.9) <= TOLERANCE)) for each in (after, by_truth)]
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "sd": float(after.std()),
        "within": within[0],
        "by truth": float(by_truth.mean()),
        "sd by truth": float(by_truth.std()),
        "within by truth": within[1],
        "stretch": float(np.exp(np.log(stretches).mean())),
    }


def beginning(folder: Path, width: float) -> Path:
    """Copy the shipped model with its intervals made `width` times as wide."""
    source, target = model_path(None), folder / f"begin-{width:g}.safetensors"
    for suffix in (".safetensors", ".json"):
        target.with_suffix(suffix).write_bytes(source.with_suffix(suffix).read_bytes())
    card = read_card(target)
    known = read_calibration(source, card)
    changed = stretched(known, {"2": width, "4": width}, f"made {width:g} times as wide")
    target.with_suffix(".calibration.json").write_text(json.dumps(to_json(changed)))
    return target


def main() -> None:
    """Print a line per kind, factor and first width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, default=None)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16, help="phantoms of each family")
    parser.add_argument("--dwell-ratio", type=float, default=1.0)
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.4])
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = list(phantom_samples(options.samples, FIRST_SEED, size=96))
    samples += list(real_samples(options.real)) if options.real else []
    lines: list[dict[str, Any]] = []
    for kind in sorted({sample.kind for sample in samples}):
        here = [sample for sample in samples if sample.kind == kind]
        number = min(options.pairs, len(here) // 2)
        for factor, width in itertools.product(COARSER_FACTORS, options.widths):
            with tempfile.TemporaryDirectory() as name:
                model = beginning(Path(name), width)
                seen = [
                    look(truth, k, factor, options.dwell_ratio, model)
                    for k, truth in enumerate(scenes(here, factor, 3))
                ]
            known = {"kind": kind, "factor": factor, "pairs": number, "width": width}
            lines.append({**known, **handfuls(seen, number)})
            if len(lines) == 1:
                print("".join(f"{name:>16s}" for name in lines[0]))
            texts = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in lines[-1].values()]
            print("".join(f"{text:>16s}" for text in texts), flush=True)
    good = sum(abs(line["after"] - 0.9) <= TOLERANCE for line in lines)
    print(f"on average over handfuls {good} of {len(lines)} within 0.90 ± {TOLERANCE}")
    for name, left_out in (("all kinds", ""), ("all but gratings", "gratings")):
        some = [line for line in lines if line["kind"] != left_out]
        shares = [np.mean([line[key] for line in some]) for key in ("within", "within by truth")]
        print(f"{name}: {shares[0]:.2f} of single handfuls within, {shares[1]:.2f} by truth")
    if options.json is not None:
        options.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
