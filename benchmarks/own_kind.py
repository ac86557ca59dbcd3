"""What is left to gain on real maps: the default network, trained further on the sample itself.

    python benchmarks/own_kind.py --real FOLDER [--cpu-s 60]

The best that other training data could do is to be of the very kind that is tested. So the
default network is trained further on one part of a real sample that it has never seen, and tried
on another part, before and after: two sections of the tissue block C3 against the third, and the
upper part of Zagami's last columns against the lower. What it gains by that is what the training
data lack; what it still lacks isn't in the coarse maps, or beyond this network. Settings are drawn
as for training, and fixed: fly scans without noise (100 000 photons).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.measurement import COARSER_FACTORS, ENLARGED_SQUARES, Measurement
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS
from xrf_sr_plans.sr.registry import load_network, model_path, read_card
from xrf_sr_plans.training.batches import batch_tensors, predict_batch
from xrf_sr_plans.training.budgeted_training import gain_over_bicubic_db
from xrf_sr_plans.training.fine_tuning import fine_tune, supervised_loss
from xrf_sr_plans.training.real_maps import calibration_maps, clean, validation_maps
from xrf_sr_plans.training.simulated_pairs import (
    Samples,
    Simulation,
    make_batch,
    random_batch,
    simulate,
)

COARSE_PX = 16
"""Side of a crop: four times as many fine pixels are all that Zagami's columns hold."""
BATCHES = 32


def parts(folder: Path) -> Iterator[tuple[str, list[np.ndarray], list[np.ndarray]]]:
    """Yield the name of a sample, the maps to train on and those to try."""
    sections = [clean(maps).astype(np.float32) for maps in validation_maps(folder).values()]
    yield "tissue C3", sections[:-1], sections[-1:]
    (zagami,) = (clean(maps).astype(np.float32) for maps in calibration_maps(folder).values())
    half = zagami.shape[1] // 2
    yield "zagami", [zagami[:, :half]], [zagami[:, half:]]


def trials(maps: list[np.ndarray]) -> dict[str, list[dict[str, Any]]]:
    """Return batches with drawn settings, and without noise."""
    samples, drawn, free = Samples([], maps), [], []
    for number in range(BATCHES):
        drawn.append(_batch(samples, 5, number))
        rng = np.random.default_rng([6, number])
        factor = COARSER_FACTORS[number % len(COARSER_FACTORS)]
        crop = samples.crop(rng, COARSE_PX * factor, 3)
        simulation = Simulation.plain(Measurement(factor), NOISE_FREE_COUNTS, len(crop))
        free.append(batch_tensors(make_batch([simulate(crop, simulation, rng)])))
    return {"drawn": drawn, "no noise": free}


def _batch(samples: Samples, stream: int, number: int) -> dict[str, Any]:
    drawn = random_batch(
        samples,
        stream,
        number,
        coarse_px=COARSE_PX,
        only_elements=3 - number % 3,
        reads=ENLARGED_SQUARES,
    )
    return batch_tensors(drawn)


def main() -> None:
    """Print the gain over bicubic before and after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--cpu-s", type=float, default=60.0, help="of training on the sample")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = model_path(None)
    card = read_card(path)
    sys.stdout.write(f"{card.name} {card.sha256[:12]}; dB over bicubic, before -> after\n")
    for name, mine, others in parts(options.real):
        network, samples, tried = load_network(path, card), Samples([], mine), trials(others)
        before = {how: gain_over_bicubic_db(network, batches) for how, batches in tried.items()}
        network.requires_grad_(True)

        def loss(number: int, network=network, samples=samples) -> torch.Tensor:
            known = _batch(samples, 4, number)
            return supervised_loss(predict_batch(network, known), known)

        steps = fine_tune(network, loss, steps=1, learning_rate=options.rate, cpu_s=options.cpu_s)
        for how, batches in tried.items():
            after = gain_over_bicubic_db(network, batches)
            gains = "  ".join(f"{x}x {before[how][x]:+.2f} -> {after[x]:+.2f}" for x in after)
            sys.stdout.write(f"{name:<10} {how:<9} {gains}   ({steps} steps)\n")


if __name__ == "__main__":
    main()
