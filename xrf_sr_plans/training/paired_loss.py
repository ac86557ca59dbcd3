"""The loss against a fine map, which is counts and no truth.

Imports torch: import this module lazily.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xrf_sr_plans.sr.network import Prediction, stabilise_tensor
from xrf_sr_plans.training.batches import batch_tensors
from xrf_sr_plans.training.losses import NLL_WEIGHT
from xrf_sr_plans.training.paired_areas import PairedBatch

LEAST_SHARE = 0.02
"""Smallest error that a map is taken to have, as a share of the variance of its target's noise."""


def paired_tensors(drawn: PairedBatch) -> dict[str, Any]:
    """Return a batch with a noisy truth as tensors."""
    tensors = {
        name: torch.from_numpy(getattr(drawn, name).copy()) for name in ("variance", "worth")
    }
    measured = torch.from_numpy(drawn.measured.astype("float32"))
    return batch_tensors(drawn.batch) | tensors | {"measured": measured}


def paired_loss(made: Prediction, batch: dict[str, Any]) -> Tensor:
    """Return the square error against the photons of the fine maps, and what sigma says of them.

    Unbiased: the noise of the target adds a constant to the expected square error. Each map's error
    is divided by what it can be told apart from, which is its own noise and its own error. The
    latter comes from the other half of the pixels, a chequerboard, whose noise is independent: a
    map's own noisy error would favour what the noise favours (see `self_supervised.noisy_loss`).
    """
    inside, target = batch["measured"], batch["truth"]
    error = (made.estimate - target).square() * inside
    rows, columns = (torch.arange(size, device=error.device) for size in error.shape[-2:])
    black = ((rows[:, None] + columns) % 2 == 0).to(error.dtype)
    halves = []
    for side in (black, 1 - black):
        weight = (side * inside).sum((-2, -1)).clamp(min=1.0)
        halves.append((error * side).sum((-2, -1)) / weight)
    pixels = inside.sum((-2, -1)).clamp(min=1.0)
    # A map without a photon still has the noise of one.
    noise = ((batch["variance"] + batch["worth"].square() / 4) * inside).sum((-2, -1)) / pixels
    # Nor is a crop without a measured pixel divided by 0.
    noise = noise.clamp(min=1e-6)
    parts = [
        (one / torch.maximum(other.detach(), noise)).mean() for one, other in (halves, halves[::-1])
    ]
    return 0.5 * (parts[0] + parts[1]) + NLL_WEIGHT * _noisy_nll(made, batch, pixels)


def _noisy_nll(made: Prediction, batch: dict[str, Any], pixels: Tensor) -> Tensor:
    """Return `losses.gaussian_nll` where the truth itself has the variance of its counts.

    In stabilised counts, in which that is the worth of a photon wherever there are some.
    """
    residual = (stabilise_tensor(batch["truth"]) - made.stabilised).detach()
    variance = made.sigma.square() + batch["worth"]
    each = 0.5 * (torch.log(variance) + residual.square() / variance)
    return ((each * batch["measured"]).sum((-2, -1)) / pixels).mean()


def excess_error(estimate: Tensor, batch: dict[str, Any]) -> Tensor:
    """Return the mean square error (map, element) beyond the noise of the fine maps' counts.

    It is `LEAST_SHARE` of that noise at least.
    """
    inside = batch["measured"]
    pixels = inside.sum((-2, -1)).clamp(min=1.0)
    error = ((estimate - batch["truth"]).square() * inside).sum((-2, -1)) / pixels
    noise = (batch["variance"] * inside).sum((-2, -1)) / pixels
    return torch.maximum(error - noise, LEAST_SHARE * noise + 1e-9)
