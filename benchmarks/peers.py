"""SRCNN and the notes' network against our network, trained on the same data, squares and rows.

    python benchmarks/peers.py [--cpu-s 600] [--real FOLDER] [--keep FOLDER] [--ship FOLDER]

Our network gets --cpu-s processor seconds of one core for all factors, squares and rows together;
each peer gets half of that for each, after trials of learning rates on validation phantoms that
aren't counted. The table is from held-out phantoms (`TEST_SEED`), which decide nothing. Networks
in --keep are not trained again. --ship writes the peers as models that `xrf-sr evaluate` uses;
--only NAME trains (and ships) one of them, without a table; --shipped shows those that ship.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xrf_sr_plans.evaluation.model_assessment import SMOOTHED, Case
from xrf_sr_plans.measurement import COARSER_FACTORS, READINGS, Measurement, Reading, Sampling
from xrf_sr_plans.metrics.image import foreground, psnr_db, ssim
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS, unstabilise
from xrf_sr_plans.sr.classical import reference_of, upscale
from xrf_sr_plans.sr.estimate import estimate, run_network
from xrf_sr_plans.sr.folded_network import FoldedNetwork
from xrf_sr_plans.sr.network import Conditions, Prediction, upsample_tensor
from xrf_sr_plans.sr.peer_networks import NotesNetwork, Srcnn
from xrf_sr_plans.sr.prepare import Prepared
from xrf_sr_plans.sr.registry import (
    WEIGHTS,
    Architecture,
    ModelCard,
    load_model,
    load_network,
    model_path,
    read_card,
    write_card,
)
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel
from xrf_sr_plans.training.budgeted_training import (
    Budget,
    LossFunction,
    estimate_loss,
    gain_over_bicubic_db,
    train_within,
    validation_batches,
)
from xrf_sr_plans.training.losses import l1_sobel
from xrf_sr_plans.training.phantoms import TEST_SEED, VALIDATION_SEED
from xrf_sr_plans.training.real_maps import training_maps
from xrf_sr_plans.training.samples import fit_to_blocks, phantom_samples
from xrf_sr_plans.training.simulated_pairs import Samples, simulate

N_TRAINING, N_VALIDATION = 240, 24
ELEMENTS = 5
"""Channels of the notes' network; `NotesNetwork` says what becomes of other numbers."""
RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates (of Adam) that each peer may choose from."""
TRIAL_SHARE = 0.12
"""Of a peer's budget, for each trial of a rate."""
LEVELS = (20.0, 50.0, 200.0, 1000.0, float("inf"))


class SameGrid(nn.Module):
    """The notes' network in its same-grid form, on the bicubic map: it sharpens that."""

    def __init__(self) -> None:
        super().__init__()
        self.network = NotesNetwork(ELEMENTS, 1)
        self.reach = self.network.reach
        self.reads, self.smooths = ((2, 1),), False

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Prediction:
        """Return the estimate on the fine grid."""
        return self.network(upsample_tensor(counts, factor).clamp(min=0), conditions, 1)


def _unit(batch: dict[str, Any]) -> Tensor:
    return (batch["low"] + batch["span"]) ** 2 / 4


def recipe_loss(made: Prediction, batch: dict[str, Any]) -> Tensor:
    """Return the loss of the notes: L1 + 0.1 Sobel."""
    return l1_sobel(made.estimate, batch["truth"], _unit(batch))


@dataclass(frozen=True)
class Candidate:
    """A network and how it is trained."""

    build: Callable[[], nn.Module]
    loss: LossFunction
    reads: tuple[Reading, ...] = READINGS
    elements: int | None = None
    share: float = 0.5
    """Of the default network's budget."""
    rates: tuple[float, ...] = RATES


def _candidates(factor: int, pixels: int) -> dict[str, Candidate]:
    """Return the peers of one factor, of squares or of rows."""
    name, reads = f"x{factor}" + ("-rows" if pixels > 1 else ""), ((factor, pixels),)
    return {
        f"srcnn-{name}": Candidate(lambda: Srcnn(factor, pixels), estimate_loss, reads),
        f"notes-{name}": Candidate(
            lambda: NotesNetwork(ELEMENTS, factor, pixels), recipe_loss, reads, ELEMENTS
        ),
    }


OURS, SAME_GRID = "folded", "notes, same grid"
PEERS = {
    f"{kind}-x{factor}{rows}"
    for kind in ("srcnn", "notes")
    for factor in COARSER_FACTORS
    for rows in ("", "-rows")
}
"""Those that `xrf-sr evaluate` shows."""
CANDIDATES = {
    OURS: Candidate(FoldedNetwork, estimate_loss, share=1.0, rates=(1e-3,)),
    **{
        name: candidate
        for factor in COARSER_FACTORS
        for pixels in (1, factor)
        for name, candidate in _candidates(factor, pixels).items()
    },
    "notes-same-grid-x2": Candidate(SameGrid, recipe_loss, ((2, 1),), ELEMENTS, 0.25, (1e-3,)),
}


def training_samples(real: Path | None) -> dict[bool, Samples]:
    """Return what all learn from, without and with real maps filled up to `ELEMENTS`."""
    maps = training_maps(real) if real else []
    filled = [m[np.arange(max(ELEMENTS, len(m))) % len(m)] for m in maps]
    plain = Samples.make(N_TRAINING, 0, maps)
    return {False: plain, True: replace(plain, real=tuple(filled))}


def train(
    name: str, samples: Samples, cpu_s: float, rate: float | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a candidate with the best of its learning rates; return it and what was done."""
    candidate = CANDIDATES[name]
    budget = Budget(cpu_s * candidate.share, elements=candidate.elements, reads=candidate.reads)
    held_out = Samples.make(N_VALIDATION, VALIDATION_SEED)
    batches = validation_batches(held_out, budget, 16)
    rates = candidate.rates if rate is None else (rate,)
    trials: dict[float, float] = {}
    if len(rates) > 1:
        for tried in rates:
            short = replace(budget, cpu_s=budget.cpu_s * TRIAL_SHARE, learning_rate=tried)
            gains = gain_over_bicubic_db(_trained(candidate, samples, short)[0], batches)
            trials[tried] = float(np.mean(list(gains.values())))
    rate = max(trials, key=lambda r: trials[r]) if trials else rates[0]
    budget = replace(budget, learning_rate=rate)
    network, steps = _trained(candidate, samples, budget)
    done = {
        "processor_s": budget.cpu_s,
        "steps": steps,
        "learning_rate": rate,
        "gain_db_on_validation": gain_over_bicubic_db(network, batches),
        "trials_db_on_validation": {f"{r:g}": round(gain, 3) for r, gain in trials.items()},
        "maps_per_batch": budget.maps_per_batch,
        "coarse_px": budget.coarse_px,
        "seed": budget.seed,
    }
    return network, done


def _trained(candidate: Candidate, samples: Samples, budget: Budget) -> tuple[nn.Module, int]:
    torch.manual_seed(budget.seed)
    network = candidate.build()
    return network, train_within(network, samples, budget, candidate.loss)


def networks(
    names: Iterable[str], keep: Path, cpu_s: float, real: Path | None, rate: float | None = None
) -> tuple[dict[str, nn.Module], dict[str, dict[str, Any]]]:
    """Return candidates, trained now or before, and what was done."""
    keep.mkdir(parents=True, exist_ok=True)
    samples, found, done = None, {}, {}
    for name in names:
        candidate = CANDIDATES[name]
        path, log = keep / f"{name}.safetensors", keep / f"{name}.log.json"
        if not log.exists():
            samples = samples or training_samples(real)
            network, notes = train(name, samples[candidate.elements is not None], cpu_s, rate)
            save_file(_stored(network), path)
            log.write_text(json.dumps(notes, indent=1))
            sys.stderr.write(f"{name}: {notes}\n")
        found[name], done[name] = candidate.build().eval(), json.loads(log.read_text())
        found[name].load_state_dict(load_file(path))
    return found, done


def shipped(name: str) -> nn.Module:
    """Return a peer as it ships."""
    path = model_path(name)
    return load_network(path, read_card(path))


def _stored(network: nn.Module) -> dict[str, Tensor]:
    """Return the state as it is stored: half precision, but for what normalisation has seen."""
    return {
        name: (value.half() if "running" not in name and value.is_floating_point() else value)
        .detach()
        .contiguous()
        for name, value in network.state_dict().items()
    }


Method = Callable[[np.ndarray, Measurement], np.ndarray]


def methods(trained: dict[str, nn.Module]) -> dict[str, Method]:
    """Return what is compared: counts and how they were measured in, estimate out."""
    _, calibration, default = load_model(None)

    def whole(network: nn.Module) -> Method:
        def run(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
            names = [str(index) for index in range(len(counts))]
            ready = Prepared(counts, np.isfinite(counts))
            return estimate(ready, names, measurement, calibration, network, "cpu")[0]["estimate"]

        return run

    def peer(name: str) -> Method:
        def run(counts: np.ndarray, measurement: Measurement) -> np.ndarray:
            rows = "-rows" if measurement.fast_pixels > 1 else ""
            network = trained.get(name.format(measurement.factor) + rows)
            if network is None:
                return np.full(counts.shape, np.nan)
            scale = Scale.of(per_coarse_pixel(counts, measurement))
            found, _ = run_network(counts, scale, measurement, network, "cpu")
            return unstabilise(found) / measurement.fast_pixels

        return run

    return {
        "bicubic": lambda counts, how: upscale(counts, how, reference_of(how)),
        "interpolated, smoothed": lambda counts, how: upscale(counts, how, SMOOTHED),
        "SRCNN": peer("srcnn-x{}"),
        "notes": peer("notes-x{}"),
        **({"ours, equal budget": whole(trained[OURS])} if OURS in trained else {}),
        "ours, shipped": whole(default),
    } | ({SAME_GRID: peer("notes-same-grid-x{}")} if "notes-same-grid-x2" in trained else {})


def cases(factors: Collection[int]) -> list[Case]:
    """Return the rows of the table."""
    blurred = [Case.of(2, level, "fly", 1.0) for level in (200.0, float("inf")) if 2 in factors]
    samplings: tuple[Sampling, ...] = ("fly", "rows")
    plain = [
        Case.of(factor, level, sampling)
        for factor in factors
        for sampling in samplings
        for level in LEVELS
    ]
    return plain + blurred


def compare(
    case: Case, compared: dict[str, Method], per_family: int
) -> dict[str, tuple[float, float, float]]:
    """Return, by method, mean gain over bicubic in dB, mean SSIM, and that of the foreground."""
    figures: dict[str, list[list[float]]] = {}
    for number, sample in enumerate(phantom_samples(per_family, TEST_SEED)):
        rng = np.random.default_rng([11, number])
        maps = fit_to_blocks(sample.maps, case.measurement.factor)
        pair = simulate(maps, case.simulation(len(maps)), rng)
        unit = 1.0 if case.measurement.noisy else NOISE_FREE_COUNTS
        truth = pair.truth * unit / case.measurement.fast_pixels
        base: list[float] = []
        for name, method in compared.items():
            if name == SAME_GRID and not case.measurement.probe_steps:
                continue
            made = method(pair.counts * unit, case.measurement)
            if not np.isfinite(made).all():
                continue
            mine = [list(_figures(m, t)) for m, t in zip(made, truth, strict=True)]
            base = base or [row[0] for row in mine]
            figures.setdefault(name, []).extend(
                [row[0] - start, *row[1:]] for row, start in zip(mine, base, strict=True)
            )
    means = {name: np.nanmean(rows, axis=0) for name, rows in figures.items()}
    return {name: (float(m[0]), float(m[1]), float(m[2])) for name, m in means.items()}


def _figures(made: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    mask = foreground(truth)
    return psnr_db(made, truth), ssim(made, truth), ssim(made, truth, foreground=mask)


def table(found: Iterable[tuple[Case, dict[str, tuple[float, float, float]]]]) -> str:
    """Return the table as markdown."""
    lines = [
        "| factor, sampling, probe, N99 | method | dB over bicubic | SSIM | of the foreground |"
    ]
    lines.append("|---|---|--:|--:|--:|")
    for case, by_method in found:
        how = case.measurement
        label = f"{how.factor}x, {how.sampling}, {how.probe_steps:g}, {case.n99:g}"
        for name, (gain, whole, front) in by_method.items():
            lines.append(f"| {label} | {name} | {gain:+.2f} | {whole:.3f} | {front:.3f} |")
    return "\n".join(lines) + "\n"


def ship(keep: Path, folder: Path, done: dict[str, dict[str, Any]], command: str) -> None:
    """Write the peers of both factors as models with their cards."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(PEERS & done.keys()):
        data = (keep / f"{name}.safetensors").read_bytes()
        kind, _ = name.split("-x")
        notes, ((factor, pixels),) = kind == "notes", CANDIDATES[name].reads
        card = ModelCard(
            name=name,
            sha256=hashlib.sha256(data).hexdigest(),
            architecture=Architecture(
                kind=kind,
                scale=factor,
                fast_pixels=pixels,
                **({"elements": ELEMENTS, "blocks": 16, "filters": 64} if notes else {}),
            ),
            summary=f"{'The network of the notes' if notes else 'SRCNN 9-1-5'} at {factor}x"
            f"{' on rows' if pixels > 1 else ''}: a peer"
            " to compare with (`xrf-sr evaluate`). It has no calibration: not for `enhance`.",
            data={
                "phantoms": f"{N_TRAINING}, seeds from 0, as for the default network",
                "real": "`training.real_maps.training_maps`: 30 % of the crops",
                "validation": f"phantoms of the seeds from {VALIDATION_SEED}: learning rate",
            },
            training={
                **done[name],
                "loss": "L1 + 0.1 Sobel" if notes else "log of the mean square error",
                "optimiser": "Adam, cosine to 1 %",
                "command": command,
            },
            limits=[
                f"trained for {done[name]['processor_s'] / 60:g} minutes of a CPU core",
                "one factor",
            ]
            + ([f"elements in groups of {ELEMENTS}"] if notes else ["one element at a time"]),
            license="BSD-3-Clause",
        )
        (folder / f"{name}.safetensors").write_bytes(data)
        write_card(folder / f"{name}.safetensors", card)


def main() -> None:
    """Train what is missing, print the table, write the models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu-s", type=float, default=600.0)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--keep", type=Path, default=Path("out/peers"), help="trained networks")
    parser.add_argument("--per-family", type=int, default=3, help="phantoms; 0: no table")
    parser.add_argument(
        "--factor", type=int, choices=COARSER_FACTORS, default=None, help="only this one"
    )
    parser.add_argument("--only", choices=list(CANDIDATES), default=None, help="train this one")
    parser.add_argument("--rate", type=float, default=None, help="learning rate, instead of trials")
    parser.add_argument("--same-grid", action="store_true", help="the same-grid form, too")
    parser.add_argument("--shipped", action="store_true", help="only a table of what ships")
    parser.add_argument("--ship", type=Path, default=None, help="folder for the models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    factors = (options.factor,) if options.factor else COARSER_FACTORS
    peers = {name: c for name, c in CANDIDATES.items() if name != OURS}
    names = [OURS, *(name for name, c in peers.items() if c.reads[0][0] in factors)]
    if not options.same_grid:
        names = [name for name in names if "same-grid" not in name]
    if options.only:
        names, options.per_family = [options.only], 0
    if options.shipped:
        there = [name for name in sorted(PEERS) if (WEIGHTS / f"{name}.safetensors").exists()]
        trained, done = {name: shipped(name) for name in there}, {}
    else:
        trained, done = networks(names, options.keep, options.cpu_s, options.real, options.rate)
    if options.ship and done:
        real = " --real FOLDER" if options.real else ""
        only = f" --only {options.only}" if options.only else ""
        rate = f" --rate {options.rate:g}" if options.rate else ""
        command = f"python benchmarks/peers.py --cpu-s {options.cpu_s:g}{only}{rate}{real}"
        command += " --ship FOLDER"
        ship(options.keep, options.ship, done, command)
    if options.per_family:
        compared = methods(trained)
        found = [(case, compare(case, compared, options.per_family)) for case in cases(factors)]
        sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
