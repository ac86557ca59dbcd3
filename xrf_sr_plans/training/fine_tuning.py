"""Adapt a trained network to a kind of sample of which there are no pairs.

`xrf-sr train --method`: what the methods share. Each adds to the supervised loss on phantoms
(without which a network forgets what it knew) what the user's own coarse maps say.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from xrf_sr_plans.sr.network import Prediction, stabilise_tensor
from xrf_sr_plans.training.losses import NLL_WEIGHT, gaussian_nll, log_mse
from xrf_sr_plans.training.optimisation import optimise


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
    begin = time.process_time()
    return optimise(
        network,
        loss_of,
        learning_rate,
        done=lambda step: _progress(step, steps, begin, cpu_s),
        warm=lambda _step, done: 10 * done + 0.02,
    )


def _progress(step: int, steps: int, begin: float, cpu_s: float | None) -> float:
    return step / steps if cpu_s is None else (time.process_time() - begin) / cpu_s
