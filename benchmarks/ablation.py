"""What each part of the default network is worth: variants trained on equal terms.

    python benchmarks/ablation.py [--cpu-s 150] [--real FOLDER] [--json OUT] [--only NAME ...]

Every variant sees the same samples and batches for the same processor seconds of one core, so a
slower one takes fewer steps. Figures are from validation samples (phantoms from
`VALIDATION_SEED`; with --real also tissue block C3), never from test samples. Variants that are
in the --json file already are not trained again. --shipped trains nothing: what the elements of a
map are worth to each other in the model that ships.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xrf_sr_plans.measurement import COARSER_FACTORS, Measurement
from xrf_sr_plans.sr.network import (
    Conditions,
    Prediction,
    SetNetwork,
    SetNetworkConfig,
    upsample_tensor,
)
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.batches import batch_tensors, predict_batch
from xrf_sr_plans.training.budgeted_training import (
    Budget,
    LossFunction,
    estimate_loss,
    gain_over_bicubic_db,
    train_within,
    validation_batches,
)
from xrf_sr_plans.training.losses import l1_sobel, poisson_deviance
from xrf_sr_plans.training.phantoms import VALIDATION_SEED
from xrf_sr_plans.training.real_maps import training_maps, validation_maps
from xrf_sr_plans.training.simulated_pairs import Samples, Simulation, make_batch, simulate

N_TRAINING, N_VALIDATION = 120, 24
LEVELS = {"flat": 20.0, "foreign": 20.0, "weak": 20.0, "strong": 1000.0, "strong too": 1000.0}
"""Elements of the maps that borrowing is measured on, and their counts N99."""


class NormalisedBlock(nn.Module):
    """The block of the default network with batch normalisation, as in the notes' network."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)])
        nn.init.zeros_(self.norms[1].weight)  # type: ignore[arg-type]

    def forward(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return features."""
        inner = functional.relu(self.norms[0](self.first(features)) * (1 + scale) + shift)
        return features + self.norms[1](self.second(inner))


def normalised() -> SetNetwork:
    """Return the default network with batch normalisation in its blocks."""
    network = SetNetwork()
    size = network.config
    network.blocks = nn.ModuleList([NormalisedBlock(size.filters) for _ in range(size.blocks)])
    return network


def unconditioned() -> SetNetwork:
    """Return the default network without modulation: it starts at none, and stays there."""
    network = SetNetwork()
    for part in (network.film, network.condition):
        part.requires_grad_(False)
    return network


def _unit(batch: dict[str, Any]) -> Tensor:
    return (batch["low"] + batch["span"]) ** 2 / 4


def _l1(edge_weight: float) -> LossFunction:
    return lambda made, batch: l1_sobel(made.estimate, batch["truth"], _unit(batch), edge_weight)


def _poisson(per_map: bool) -> LossFunction:
    return lambda made, batch: poisson_deviance(made.estimate, batch["truth"], per_map=per_map)


@dataclass(frozen=True)
class Variant:
    """What differs from the default."""

    network: Callable[[], SetNetwork] = SetNetwork
    loss: LossFunction = estimate_loss
    seed: int = 0


DEFAULT, AGAIN, ALONE = "default", "default, second seed", "elements one by one"
VARIANTS = {
    DEFAULT: Variant(),
    AGAIN: Variant(seed=1),
    ALONE: Variant(lambda: SetNetwork(SetNetworkConfig(mix_before=()))),
    "batch normalisation": Variant(normalised),
    "no conditioning": Variant(unconditioned),
    "L1": Variant(loss=_l1(0.0)),
    "L1 + 0.1 Sobel": Variant(loss=_l1(0.1)),
    "Poisson deviance": Variant(loss=_poisson(per_map=False)),
    "log Poisson deviance": Variant(loss=_poisson(per_map=True)),
    "3 blocks": Variant(lambda: SetNetwork(SetNetworkConfig(blocks=3))),
    "10 blocks": Variant(lambda: SetNetwork(SetNetworkConfig(blocks=10))),
}


@dataclass(frozen=True)
class Result:
    """Figures of one variant."""

    cpu_s: float
    """Processor seconds of its training."""
    steps: int
    parameters: int
    phantoms_db: dict[str, float]
    """Mean gain over bicubic, by factor."""
    tissue_db: dict[str, float]
    weak_db: float
    """Of the element with few counts, beside others of the same sample with many."""
    foreign_db: float
    """Of an element with few counts and nothing in common with the others."""
    ghost_percent: float
    """RMS, over the maps, of the part of a structureless element's estimate that looks like
    the other elements (linear regression), in percent of its level."""


def borrowing_batches(n: int = 16) -> list[dict[str, Any]]:
    """Return maps of five elements, as `LEVELS` says, three of them of one sample."""
    samples = Samples.make(n, VALIDATION_SEED + 1000, size=128)
    batches = []
    for index, maps in enumerate(samples.phantoms):
        other = samples.phantoms[(index + 1) % n][:1]
        sample = np.concatenate([np.full_like(other, 1.0), other, maps[:3]])
        for factor in COARSER_FACTORS:
            rng = np.random.default_rng([VALIDATION_SEED, index, factor])
            simulation = Simulation(Measurement(factor), tuple(LEVELS.values()))
            batches.append(batch_tensors(make_batch([simulate(sample, simulation, rng)])))
    return batches


def borrowing(network: nn.Module, batches: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Return `Result.weak_db`, `foreign_db` and `ghost_percent`."""
    gains, ghosts = [], []
    with torch.inference_mode():
        for batch in batches:
            truth = batch["truth"][0]
            made = predict_batch(network, batch).estimate.float()[0].clamp(min=0)
            plain = upsample_tensor(batch["counts"], int(batch["factor"]))[0].clamp(min=0)
            errors = [(m - truth).square().mean(dim=(-2, -1)) + 1e-3 for m in (plain, made)]
            gains.append((10 * torch.log10(errors[0] / errors[1])).numpy())
            ghosts.append(_explained(made[0].numpy(), truth[2:].numpy()) / LEVELS["flat"])
    mean = np.mean(gains, axis=0)
    return float(mean[2]), float(mean[1]), float(100 * np.sqrt(np.mean(np.square(ghosts))))


class OneByOne(nn.Module):
    """A network that sees each element of a map alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Prediction:
        """Return the estimate."""
        n = counts.shape[1]
        alone = Conditions(
            *(v.flatten()[:, None] if v.ndim > 1 else v.repeat_interleave(n) for v in conditions)
        )
        made = self.network(counts.flatten(0, 1)[:, None], alone, factor)
        return Prediction(*(field.unflatten(0, (-1, n))[:, :, 0] for field in made))


def shipped() -> str:
    """Return a table of the shipped model, with its elements together and one by one."""
    network = load_model(None)[2]
    batches = borrowing_batches()
    lines = ["| shipped model | weak | foreign | ghost % |", "|---|--:|--:|--:|"]
    for name, way in {"together": network, "one by one": OneByOne(network)}.items():
        weak, foreign, ghost = borrowing(way, batches)
        lines.append(f"| elements {name} | {weak:.2f} | {foreign:.2f} | {ghost:.2f} |")
    return "\n".join(lines) + "\n"


def _explained(flat: np.ndarray, others: np.ndarray) -> float:
    """Return the RMS of what others explain of a map that should have no structure."""
    columns = others.reshape(len(others), -1).T.astype(float)
    columns = columns - columns.mean(axis=0)
    deviation = flat.ravel().astype(float) - flat.mean()
    weights = np.linalg.lstsq(columns, deviation, rcond=None)[0]
    return float(np.sqrt(np.mean(np.square(columns @ weights))))


def run(variant: Variant, samples: Samples, cpu_s: float, real: Path | None) -> Result:
    """Train and measure one variant."""
    torch.manual_seed(variant.seed)
    network = variant.network()
    budget = Budget(cpu_s, maps_per_batch=8, coarse_px=24, seed=variant.seed)
    steps = train_within(network, samples, budget, variant.loss)
    held_out = Samples.make(N_VALIDATION, VALIDATION_SEED)
    phantoms = gain_over_bicubic_db(network, validation_batches(held_out, Budget(cpu_s), 40))
    tissue: dict[int, float] = {}
    if real:
        maps = [m.astype(np.float32) for m in validation_maps(real).values()]
        fixed = Budget(cpu_s, elements=3)
        batches = validation_batches(Samples((), maps, 1.0), fixed, 24)
        tissue = gain_over_bicubic_db(network, batches)
    return Result(
        cpu_s,
        steps,
        sum(p.numel() for p in network.parameters() if p.requires_grad),
        {str(factor): gain for factor, gain in phantoms.items()},
        {str(factor): gain for factor, gain in tissue.items()},
        *borrowing(network, borrowing_batches()),
    )


def costs(names: Sequence[str], repeats: int = 5) -> dict[str, float]:
    """Return the processor time of inference relative to the default, least of a few runs."""
    batch = borrowing_batches(1)[0]
    best: dict[str, float] = {}
    networks = {name: VARIANTS[name].network().eval() for name in {DEFAULT, *names}}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, network in networks.items():
                begin = time.process_time()
                predict_batch(network, batch)
                best[name] = min(best.get(name, np.inf), time.process_time() - begin)
    return {name: best[name] / best[DEFAULT] for name in names}


def table(results: dict[str, Result]) -> str:
    """Return the table as markdown; differences are from the mean of the default's two runs."""
    plain = [results[name] for name in (DEFAULT, AGAIN) if name in results]
    keys = [("phantoms_db", "2"), ("phantoms_db", "4"), ("tissue_db", "2"), ("tissue_db", "4")]
    keys = [(k, f) for k, f in keys if all(f in getattr(r, k) for r in results.values())]
    reference = {
        key: float(np.mean([getattr(r, key[0])[key[1]] for r in plain])) if plain else np.nan
        for key in keys
    }
    heads = [f"{key.removesuffix('_db')} {factor}x" for key, factor in keys]
    heads = ["variant", "steps", "parameters", "cost", *heads, "weak", "foreign", "ghost %"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for name, cost in costs(list(results)).items():
        found = results[name]
        cells = [name, str(found.steps), f"{found.parameters / 1000:.0f} k", f"{cost:.2f}"]
        for key, factor in keys:
            gain = getattr(found, key)[factor]
            cells.append(f"{gain:.2f} ({gain - reference[key, factor]:+.2f})")
        cells += [f"{found.weak_db:.2f}", f"{found.foreign_db:.2f}", f"{found.ghost_percent:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu-s", type=float, default=150.0)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.shipped:
        sys.stdout.write(shipped())
        return
    results: dict[str, Result] = {}
    if options.json and options.json.exists():
        results = {k: Result(**v) for k, v in json.loads(options.json.read_text()).items()}
    samples = None
    for name in options.only or VARIANTS:
        if name in results:
            continue
        samples = samples or Samples.make(
            N_TRAINING, 0, training_maps(options.real) if options.real else []
        )
        results[name] = run(VARIANTS[name], samples, options.cpu_s, options.real)
        sys.stderr.write(f"{name}: {results[name]}\n")
        if options.json:
            plain = {k: asdict(v) for k, v in results.items()}
            options.json.write_text(json.dumps(plain, indent=1))
    sys.stdout.write(table({k: results[k] for k in VARIANTS if k in results}))


if __name__ == "__main__":
    main()
