"""The steps of a short training: Adam, with a learning rate that follows a cosine.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def optimise(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    learning_rate: float,
    *,
    done: Callable[[int], float],
    warm: Callable[[int, float], float],
) -> int:
    """Train a network in place and return the number of steps.

    Parameters
    ----------
    loss_of
        Loss of a step, a function of its number.
    learning_rate
        Its largest value; it falls along a cosine to a hundredth of it.
    done
        Share of the training that is over before a step, a function of its number. The training
        ends at 1.
    warm
        Share of the learning rate while it warms up, a function of the step and the share done;
        from 1 on it is the whole one.
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
