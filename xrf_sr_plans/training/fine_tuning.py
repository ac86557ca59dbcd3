"""Adapt a trained network to a kind of sample of which there are no pairs.

`xrf-sr train --method`: what the methods share. Each adds to the supervised loss on phantoms
(without which a network forgets what it knew) what the user's own coarse maps say.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xrf_sr_plans.sr.network import Conditions, Prediction, stabilise_tensor
from xrf_sr_plans.sr.tiles import has_fast_bf16
from xrf_sr_plans.training.losses import gaussian_nll, log_mse

NLL_WEIGHT = 0.2
_CPU = torch.device("cpu")


def predict(network: nn.Module, batch: dict[str, Any]) -> Prediction:
    """Return what a network makes of a batch, in bfloat16 where that is faster."""
    known = Conditions(*(batch[name] for name in Conditions._fields))
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16(_CPU)):
        return network(batch["counts"], known, int(batch["factor"]))


def supervised_loss(made: Prediction, batch: dict[str, Any]) -> Tensor:
    """Return the loss that the shipped weights were trained with."""
    residual = stabilise_tensor(batch["truth"]) - made.stabilised
    return log_mse(made.estimate, batch["truth"]) + NLL_WEIGHT * gaussian_nll(made.sigma, residual)


def fine_tune(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    cpu_s: float | None = None,
) -> int:
    """Train a network in place; return the number of steps.

    Parameters
    ----------
    loss_of
        Loss of a step, a function of its number.
    steps
        The learning rate warms up over the first tenth and follows a cosine over them.
    cpu_s
        Processor seconds instead of steps: for comparisons; the result then depends on the
        machine.
    """
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), learning_rate)
    begin, step = time.process_time(), 0
    while (done := _progress(step, steps, begin, cpu_s)) < 1:
        rate = min(1.0, 10 * done + 0.02) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate
        optimiser.zero_grad()
        loss_of(step).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
    network.eval()
    return step


def _progress(step: int, steps: int, begin: float, cpu_s: float | None) -> float:
    return step / steps if cpu_s is None else (time.process_time() - begin) / cpu_s
