"""Ways to a kind of sample of which there are no pairs of coarse and fine maps.

    python benchmarks/no_pairs.py [--family gratings] [--real FOLDER] [--cpu-s 200]
        [--adapt-cpu-s 40] [--keep FOLDER] [--json OUT]

A network is trained on all phantom families but one (`--cpu-s` processor seconds, one thread).
Then it is adapted, for `--adapt-cpu-s` each:

more of the same   on the other families, as before: what the time alone is worth
self-supervised    on coarse maps of the family that was left out, nothing else of it
unpaired           on the same coarse maps, with a discriminator that knows fine maps of the others
pairs              on simulated pairs of the family itself: what pairs would have brought

Tested on other samples of the family (validation seeds). With --real the same is done with a
tissue block (C3: one section adapts, the others test; pairs are of C1 and C2) and a meteorite (of
Zagami's training columns the left half adapts and has the pairs, the right half tests), which the
network hasn't seen either. Fly scans without probe blur; 1e5 photons stand for no noise.

dB      mean gain of PSNR over bicubic, over elements and samples
SSIM    mean over the same
false   of the blobs predicted, absent; lost: of the true ones, not predicted; on the samples
        (any blob of 1.5 steps) and on scenes of dots and empty fields (`evaluation.feature_sweep`)

With --keep, weights found in the folder aren't trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from xrf_sr_plans.evaluation.feature_sweep import cells, pooled, sweep
from xrf_sr_plans.measurement import COARSER_FACTORS, Measurement
from xrf_sr_plans.metrics.hallucination import NONE, VISIBLE, Rate, detect, match
from xrf_sr_plans.metrics.image import ssim
from xrf_sr_plans.physics.counting import unstabilise
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.estimate import run_network
from xrf_sr_plans.sr.network import SetNetwork
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.training.batches import batch_tensors, predict_batch
from xrf_sr_plans.training.budgeted_training import (
    Budget,
    batch_of,
    train_within,
)
from xrf_sr_plans.training.fine_tuning import fine_tune, supervised_loss
from xrf_sr_plans.training.phantoms import FAMILIES, VALIDATION_SEED, phantom
from xrf_sr_plans.training.real_maps import training_maps, validation_maps
from xrf_sr_plans.training.samples import fit_to_blocks
from xrf_sr_plans.training.self_supervised import self_supervised_loss
from xrf_sr_plans.training.simulated_pairs import Pair, Samples, Simulation, simulate
from xrf_sr_plans.training.thinned_maps import CoarseMap, ThinnedBatches
from xrf_sr_plans.training.unpaired import unpaired_loss

LEVELS = (50.0, 200.0, 1e5)
N_PHANTOMS = 120
N_REMEMBERED = 40
"""Phantoms of the other families that the network sees again while it is adapted."""
SURVEY_PX = 256
LEARNING_RATE = 3e-4
CONTRAST = 0.3
METHODS = ("more of the same", "self-supervised", "unpaired", "pairs")
SCENES: dict[str, Any] = {
    "counts": (20.0, 200.0),
    "diameters": (1.0, 2.0),
    "contrasts": (0.3,),
    "standards": ("isolated dots", "paired dots", "dots in one element", "empty field"),
}


@dataclass(frozen=True)
class Target:
    """A kind of sample: what is surveyed to adapt, what tests, and pairs nobody would have."""

    name: str
    surveyed: list[np.ndarray]
    tested: list[np.ndarray]
    paired: Callable[[], Samples]


@lru_cache(maxsize=4)
def phantoms(families: tuple[str, ...], number: int) -> Samples:
    """Return phantoms of some families in turn, of training seeds."""
    painted = [
        phantom(families[k % len(families)], k, size=192, n_elements=6) for k in range(number)
    ]
    return Samples([maps.astype(np.float32) for maps in painted])


def targets(family: str, real: Path | None) -> list[Target]:
    """Return the family that was left out and, where there is a folder, two real samples."""
    maps = [phantom(family, VALIDATION_SEED + k, size=SURVEY_PX, n_elements=3) for k in range(6)]
    found = [Target(family, maps[:3], maps[3:], lambda: phantoms((family,), 40))]
    if real is not None:
        first, *rest = validation_maps(real).values()
        tissue = [one for one in training_maps(real) if one.shape[0] == first.shape[0]]
        found.append(Target("tissue C3", [first] * 3, rest, lambda: Samples([], tissue)))
        stone = next(m for m in training_maps(real) if m.shape[0] != first.shape[0])
        left, right = stone[:, :, :170].astype(float), stone[:, :, 180:]
        rows = range(0, 3 * 168, 168)
        found.append(
            Target(
                "meteorite",
                [left[:, low : low + 168] for low in rows],
                [right[:3, low : low + 168] for low in rows],
                lambda: Samples([], [left.astype(np.float32)]),
            )
        )
    return found


def base_network(others: Samples, cpu_s: float) -> SetNetwork:
    """Train on the other families."""
    torch.manual_seed(0)
    network = SetNetwork()
    train_within(network, others, Budget(cpu_s), supervised_loss)
    return network


def surveys(target: Target) -> list[tuple[Pair, float]]:
    """Return one coarse map per sample and factor, each sample at a level of its own."""
    return [
        (measured(maps, factor, LEVELS[k % len(LEVELS)], 100 + k), LEVELS[k % len(LEVELS)])
        for k, maps in enumerate(target.surveyed)
        for factor in COARSER_FACTORS
    ]


def measured(maps: np.ndarray, factor: int, level: float, seed: int) -> Pair:
    """Measure a sample with so many photons at intensity 1."""
    maps = fit_to_blocks(maps, factor)
    simulation = Simulation.plain(Measurement(factor), level, len(maps))
    return simulate(maps, simulation, np.random.default_rng([7, seed, factor, int(level)]))


def adapted(
    method: str, base: SetNetwork, target: Target, others: Samples, cpu_s: float
) -> SetNetwork:
    """Return the base network adapted by a method."""
    network = SetNetwork()
    network.load_state_dict(base.state_dict())
    maps = [CoarseMap.of("survey", pair.counts) for pair, _ in surveys(target)]
    fewest = 2 if target.paired().real else None

    def batch(step: int, samples: Samples = others, elements: int | None = None) -> dict[str, Any]:
        budget = Budget(cpu_s, maps_per_batch=8, elements=elements)
        return batch_tensors(batch_of(samples, budget, 5, step))

    def supervised(step: int) -> torch.Tensor:
        known = batch(step)
        total = supervised_loss(predict_batch(network, known), known)
        if method == "pairs":
            known = batch(step, target.paired(), fewest)
            total = total + supervised_loss(predict_batch(network, known), known)
        return total

    loss: Callable[[int], torch.Tensor] = supervised
    if method in ("self-supervised", "unpaired"):
        make = self_supervised_loss if method == "self-supervised" else unpaired_loss
        loss = make(network, ThinnedBatches(maps), batch, 0)
    fine_tune(network, loss, steps=1, learning_rate=LEARNING_RATE, cpu_s=cpu_s)
    return network


@dataclass
class Figures:
    """Of one network, factor and level."""

    db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    false: Rate = NONE
    lost: Rate = NONE

    def to_dict(self) -> dict[str, float]:
        """Return the means."""
        means = {"db": float(np.mean(self.db)), "ssim": float(np.mean(self.ssim))}
        return means | {"false": self.false.value, "lost": self.lost.value}


def estimated(
    network: nn.Module | None, counts: np.ndarray, measurement: Measurement
) -> np.ndarray:
    """Return what `enhance` would make of counts; bicubic without a network."""
    if network is None:
        return np.clip(upsample(counts, measurement.factor), 0, None)
    stabilised, _ = run_network(counts, Scale.of(counts), measurement, network, "cpu")
    return consistency.project(counts, unstabilise(stabilised.astype(float)), measurement)


def add(figures: Figures, network: nn.Module | None, pair: Pair, level: float) -> None:
    """Add the figures of one map."""
    factor = pair.measurement.factor
    made = estimated(network, pair.counts, pair.measurement)
    plain = estimated(None, pair.counts, pair.measurement)
    for one, simple, truth in zip(made, plain, pair.truth, strict=True):
        errors = [np.square(each - truth).mean() + 1e-9 for each in (one, simple)]
        figures.db.append(float(10 * np.log10(errors[1] / errors[0])))
        figures.ssim.append(ssim(one, truth))
        false, lost = blobs(one / level, truth / level, 0.75 * factor)
        figures.false, figures.lost = figures.false + false, figures.lost + lost


def blobs(made: np.ndarray, truth: np.ndarray, radius_px: float) -> tuple[Rate, Rate]:
    """Return false of the blobs found, and lost of the true ones, in maps of relative intensity.

    A blob is false where the truth has none of a quarter of `CONTRAST`, lost where it has one of
    `CONTRAST` and the estimate none of half of it.
    """
    found = detect(made, radius_px, VISIBLE * CONTRAST)
    any_true = detect(truth, radius_px, VISIBLE**2 * CONTRAST)
    true = detect(truth, radius_px, CONTRAST)
    tolerance = max(radius_px, 2.0)
    return (
        Rate(len(found) - len(match(found, any_true, tolerance)), len(found)),
        Rate(len(true) - len(match(found, true, tolerance)), len(true)),
    )


def tested(network: nn.Module | None, target: Target) -> list[dict[str, Any]]:
    """Return figures by factor and level, and on the very maps that were adapted to."""
    lines = []
    for factor in COARSER_FACTORS:
        for level in LEVELS:
            figures = Figures()
            for k, maps in enumerate(target.tested):
                add(figures, network, measured(maps, factor, level, k), level)
            lines.append({"factor": factor, "n99": level, **figures.to_dict()})
    own = Figures()
    for pair, level in surveys(target):
        add(own, network, pair, level)
    return [*lines, {"factor": 0, "n99": 0.0, **own.to_dict()}]


def scenes(network: nn.Module | None) -> list[dict[str, Any]]:
    """Return false and lost features of dots and empty fields, by factor."""

    def predictor(counts: np.ndarray, measurement: Measurement) -> dict[str, np.ndarray]:
        made = estimated(network, counts, measurement)
        plain = estimated(None, counts, measurement)
        return {"estimate": made, "baseline": plain, "trusted": np.ones(made.shape, dtype=bool)}

    rows = sweep(predictor, cells(**SCENES), repeats=1)
    rates = {factor: pooled(rows, "model", factor=factor) for factor in COARSER_FACTORS}
    return [
        {"factor": factor, "false": found.false.value, "lost": found.lost.value}
        for factor, found in rates.items()
    ]


def kept(name: str, keep: Path | None, make: Callable[[], SetNetwork]) -> SetNetwork:
    """Return the weights kept under a name, or make them."""
    file = keep / f"{name.replace(' ', '-')}.safetensors" if keep else None
    if file is not None and file.exists():
        network = SetNetwork()
        network.load_state_dict(load_file(file))
        return network.eval()
    network = make()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    return network


def table(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train, adapt and test; return one entry per target and method."""
    names = tuple(sorted(set(FAMILIES) - {options.family}))
    keep = options.keep
    base = kept("base", keep, lambda: base_network(phantoms(names, N_PHANTOMS), options.cpu_s))
    found, seen = [], {}
    for target in targets(options.family, options.real):
        networks: dict[str, SetNetwork | None] = {"bicubic": None, "as it was": base}
        for method in METHODS:
            # What is learnt from the other families alone is the same for every target.
            name = method if method == METHODS[0] else f"{method} {target.name}"

            def make(method: str = method, target: Target = target) -> SetNetwork:
                others = phantoms(names, N_REMEMBERED)
                return adapted(method, base, target, others, options.adapt_cpu_s)

            networks[method] = kept(name, keep, make)
        for method, network in networks.items():
            name = method if method in ("bicubic", "as it was", METHODS[0]) else None
            on_scenes = seen.get(name) or scenes(network)
            seen |= {name: on_scenes} if name else {}
            lines = tested(network, target)
            found.append(
                {"target": target.name, "method": method, "lines": lines, "scenes": on_scenes}
            )
            show(found[-1])
    return found


def show(entry: dict[str, Any]) -> None:
    """Print an entry: a line per factor and level."""
    on_scenes = {line["factor"]: line for line in entry["scenes"]}
    for line in entry["lines"]:
        where = f"{line['factor']}x {line['n99']:6g}" if line["factor"] else "own maps "
        text = (
            f"{entry['target']:10s} {entry['method']:17s} {where}"
            f" {line['db']:6.2f} dB  SSIM {line['ssim']:.3f}"
            f"  false {100 * line['false']:5.1f} %  lost {100 * line['lost']:5.1f} %"
        )
        if line["n99"] == LEVELS[0]:
            rates = on_scenes[line["factor"]]
            text += (
                f"   scenes: false {100 * rates['false']:5.1f} %  lost {100 * rates['lost']:5.1f} %"
            )
        print(text, flush=True)


def main() -> None:
    """Print the table, and JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", default="gratings", choices=sorted(FAMILIES))
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--cpu-s", type=float, default=200.0)
    parser.add_argument("--adapt-cpu-s", type=float, default=40.0)
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    found = table(options)
    print(f"{time.process_time() - began:.0f} processor seconds in all")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
