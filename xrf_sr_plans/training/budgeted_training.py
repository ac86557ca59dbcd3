"""Short trainings on equal terms, for tables that compare ways to build or train a network.

The budget is processor time, so that other work on the machine favours nobody. The learning rate
follows a cosine over the budget. What ships is trained by `training.loop`.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xrf_sr_plans.measurement import ENLARGED_SQUARES, Reading
from xrf_sr_plans.sr.network import Prediction, upsample_tensor
from xrf_sr_plans.training.batches import batch_tensors, fast_pixels, predict_batch
from xrf_sr_plans.training.losses import log_mse
from xrf_sr_plans.training.optimisation import optimise
from xrf_sr_plans.training.simulated_pairs import Batch, Samples, random_batch

LossFunction = Callable[[Prediction, dict[str, Any]], Tensor]
VALIDATION_STREAM = 77
"""Seed of the stream of batches that networks are validated on."""
WARMUP_STEPS = 100


@dataclass(frozen=True)
class Budget:
    """What every candidate of a comparison gets."""

    cpu_s: float
    """Processor time of the training in seconds."""
    learning_rate: float = 1e-3
    maps_per_batch: int = 16
    coarse_px: int = 32
    seed: int = 0
    factor: int | None = None
    """The factor of all batches. None stands for all factors in turn."""
    elements: int | None = None
    """Number of elements per map. None stands for 1, 2, 4 and 6 in turn."""
    reads: tuple[Reading, ...] = ENLARGED_SQUARES
    """What is drawn of factors and samplings: what all candidates read."""


def estimate_loss(made: Prediction, batch: dict[str, Any]) -> Tensor:
    """Return the default loss of the estimate."""
    return log_mse(made.estimate, batch["truth"])


def train_within(
    network: nn.Module, samples: Samples, budget: Budget, loss: LossFunction = estimate_loss
) -> int:
    """Train a network in place until the budget is spent and return the number of steps."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(step: int) -> Tensor:
        batch = batch_tensors(batch_of(samples, budget, budget.seed, step))
        return loss(predict_batch(network, batch), batch)

    begin = time.process_time()
    return optimise(
        network,
        loss_of,
        budget.learning_rate,
        done=lambda _step: (time.process_time() - begin) / budget.cpu_s,
        warm=lambda step, _done: (step + 1) / WARMUP_STEPS,
    )


def batch_of(samples: Samples, budget: Budget, stream: int, number: int) -> Batch:
    """Return a batch of a stream, of the size that the budget has."""
    return random_batch(
        samples,
        stream,
        number,
        maps_per_batch=budget.maps_per_batch,
        coarse_px=budget.coarse_px,
        only_factor=budget.factor,
        only_elements=budget.elements,
        reads=budget.reads,
    )


def validation_batches(samples: Samples, budget: Budget, n: int = 32) -> list[dict[str, Any]]:
    """Return the same batches for every candidate, from samples none was trained on."""
    return [batch_tensors(batch_of(samples, budget, VALIDATION_STREAM, k)) for k in range(n)]


def gain_over_bicubic_db(network: nn.Module, batches: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Return the mean gain in dB of PSNR over bicubic, by factor.

    Bicubic is that of the squares, whose pixels hold the photons of a coarse step.
    """
    gains: dict[int, list[float]] = {}
    with torch.inference_mode():
        for batch in batches:
            factor = int(batch["factor"])
            estimate = predict_batch(network, batch).estimate.float()
            squares = batch["counts"].unflatten(-1, (-1, fast_pixels(batch))).sum(-1)
            bicubic = upsample_tensor(squares, factor)
            # Mean square error of each map, (map, element).
            ours, theirs = (
                (maps.clamp(min=0) - batch["truth"]).square().mean(dim=(-2, -1)) + 1e-3
                for maps in (estimate, bicubic)
            )
            gains.setdefault(factor, []).append(float(10 * torch.log10(theirs / ours).mean()))
    return {factor: float(np.mean(each)) for factor, each in sorted(gains.items())}
