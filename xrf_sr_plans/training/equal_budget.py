"""Short trainings on equal terms, for tables that compare ways to build or train a network.

The budget is processor time, so that other work on the machine doesn't favour anybody; the
learning rate follows a cosine over the budget. What ships is trained by `training.loop`.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xrf_sr_plans.measurement import SAMPLINGS
from xrf_sr_plans.sr.network import Conditions, Prediction, upsample_tensor
from xrf_sr_plans.sr.tiled_inference import has_fast_bf16
from xrf_sr_plans.training.losses import log_mse
from xrf_sr_plans.training.simulated_pairs import Batch, Samples, random_batch

LossFunction = Callable[[Prediction, dict[str, Any]], Tensor]
VALIDATION_STREAM = 77
WARMUP_STEPS = 100
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Budget:
    """What every candidate of a comparison gets."""

    cpu_s: float
    """Processor seconds of training."""
    learning_rate: float = 1e-3
    maps_per_batch: int = 16
    coarse_px: int = 32
    seed: int = 0
    factor: int | None = None
    """None: 2 and 4 in turn."""
    elements: int | None = None
    """Elements per map; None: 1, 2, 4 or 6 in turn."""


def tensors(batch: Batch) -> dict[str, Any]:
    """Return the arrays of a batch as tensors."""
    plain = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in plain.items()
    }


def run_batch(network: nn.Module, batch: dict[str, Any]) -> Prediction:
    """Return what a network makes of a batch, in bfloat16 where that is faster."""
    known = Conditions(*(batch[name] for name in Conditions._fields))
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16(_CPU)):
        return network(batch["counts"], known, int(batch["factor"]))


def estimate_loss(made: Prediction, batch: dict[str, Any]) -> Tensor:
    """Return the default loss of the estimate."""
    return log_mse(made.estimate, batch["truth"])


def train_for(
    network: nn.Module, samples: Samples, budget: Budget, loss: LossFunction = estimate_loss
) -> int:
    """Train a network in place until the budget is spent; return the number of steps."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(step: int) -> Tensor:
        batch = tensors(batch_of(samples, budget, budget.seed, step))
        return loss(run_batch(network, batch), batch)

    begin = time.process_time()
    return descend(
        network,
        loss_of,
        budget.learning_rate,
        done=lambda _step: (time.process_time() - begin) / budget.cpu_s,
        warm=lambda step, _done: (step + 1) / WARMUP_STEPS,
    )


def descend(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    learning_rate: float,
    *,
    done: Callable[[int], float],
    warm: Callable[[int, float], float],
) -> int:
    """Train a network in place with Adam and a cosine; return the number of steps.

    Parameters
    ----------
    loss_of
        Loss of a step, a function of its number.
    done
        Share of the training that is over before a step; ends it at 1.
    warm
        Share of the learning rate while it warms up, of step and share done; 1 and more: all.
    """
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), learning_rate)
    step = 0
    while (spent := done(step)) < 1:
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, warm(step, spent)) * cosine
        optimiser.zero_grad()
        loss_of(step).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
    network.eval()
    return step


def batch_of(samples: Samples, budget: Budget, stream: int, number: int) -> Batch:
    """Return a batch of a stream."""
    return random_batch(
        samples,
        stream,
        number,
        SAMPLINGS,
        maps_per_batch=budget.maps_per_batch,
        coarse_px=budget.coarse_px,
        only_factor=budget.factor,
        only_elements=budget.elements,
    )


def validation_batches(samples: Samples, budget: Budget, n: int = 32) -> list[dict[str, Any]]:
    """Return the same batches for every candidate, from samples none was trained on."""
    return [tensors(batch_of(samples, budget, VALIDATION_STREAM, k)) for k in range(n)]


def gain_over_bicubic_db(network: nn.Module, batches: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Return the mean gain in dB of PSNR over bicubic, by factor."""
    gains: dict[int, list[float]] = {}
    with torch.inference_mode():
        for batch in batches:
            factor = int(batch["factor"])
            made = run_batch(network, batch).estimate.float()
            bicubic = upsample_tensor(batch["counts"], factor)
            ours, theirs = (
                (maps.clamp(min=0) - batch["truth"]).square().mean(dim=(-2, -1)) + 1e-3
                for maps in (made, bicubic)
            )
            gains.setdefault(factor, []).append(float(10 * torch.log10(theirs / ours).mean()))
    return {factor: float(np.mean(found)) for factor, found in sorted(gains.items())}
