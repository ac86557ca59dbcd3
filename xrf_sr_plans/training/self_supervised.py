"""Learn from coarse maps alone: scale-equivariance and measurement consistency.

The measured map, made coarser once more by the forward model, is a pair whose truth is the map
itself (A. Shocher et al., "Zero-shot" super-resolution, CVPR 2018, arXiv 1712.06087; J. Scanvic
et al., Scale-equivariant imaging, arXiv 2312.11232). And the estimate, measured again, has to
predict photons that the network wasn't shown. Input and target never share a photon, so the
counting noise of neither is learnt (`thinned_maps`).

Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xrf_sr_plans.measurement import SAMPLINGS, Measurement
from xrf_sr_plans.physics.operators import forward_matrices
from xrf_sr_plans.sr.tiled_inference import Network
from xrf_sr_plans.training.batches import batch_tensors, predict_batch
from xrf_sr_plans.training.fine_tuning import supervised_loss
from xrf_sr_plans.training.simulated_pairs import Batch
from xrf_sr_plans.training.thinned_maps import ThinnedBatches

_STREAM = 41


def measured_again(estimate: Tensor, sampling: Tensor, factor: int) -> Tensor:
    """Return estimates (batch, element, Y, X) degraded by the forward model, in torch.

    Estimates are in photons per coarse pixel, the result is in photons per measured pixel.
    `sampling` is each map's index into `SAMPLINGS`, and either all or none are rows; the probe's
    blur is still in the estimate.
    """
    shape = (int(estimate.shape[-2]), int(estimate.shape[-1]))
    seen = []
    for maps, index in zip(estimate, sampling.tolist(), strict=True):
        measurement = Measurement(factor, SAMPLINGS[index], deblur=False)
        rows, columns = _matrices(shape, measurement)
        seen.append(rows @ maps @ columns.T / measurement.fast_pixels)
    return torch.stack(seen)


@lru_cache(maxsize=16)
def _matrices(shape: tuple[int, int], measurement: Measurement) -> tuple[Tensor, Tensor]:
    """Return `forward_matrices` as tensors."""
    pair = forward_matrices(shape, measurement)
    rows, columns = (torch.tensor(matrix, dtype=torch.float32) for matrix in pair)
    return rows, columns


def noisy_loss(estimate: Tensor, batch: dict[str, Any]) -> Tensor:
    """Return the square error against photons, each map relative to its own error.

    As `losses.log_mse`, but unbiased: the logarithm of a noisy error favours what the noise
    favours. What a pixel's error is divided by comes from the other half of the pixels, a
    chequerboard, whose noise is independent, and is the counting noise at least.
    """
    target = batch["truth"]
    worth = batch["worth"][:, None]
    error = (estimate - target).square()
    rows, columns = (torch.arange(size) for size in error.shape[-2:])
    black = ((rows[:, None] + columns) % 2 == 0).to(error.dtype)
    halves = [(error * side).sum((-2, -1)) / side.sum() for side in (black, 1 - black)]
    mean = estimate.detach().clamp(min=0).mean((-2, -1))
    noise = worth * (mean + worth)
    parts = [
        (one / torch.maximum(other.detach(), noise)).mean() for one, other in (halves, halves[::-1])
    ]
    return 0.5 * (parts[0] + parts[1])


def consistency_loss(estimate: Tensor, batch: dict[str, Any]) -> Tensor:
    """Return how badly estimates predict photons they were not made from.

    `batch["truth"]` is the coarse map in those photons (`ThinnedBatches.self_consistent`).
    """
    again = measured_again(estimate, batch["sampling"], int(batch["factor"]))
    return noisy_loss(again, batch)


def thinned_tensors(drawn: tuple[Batch, np.ndarray]) -> dict[str, Any]:
    """Return a batch of `ThinnedBatches` as tensors."""
    return batch_tensors(drawn[0]) | {"worth": torch.from_numpy(drawn[1])}


def self_supervised_loss(
    network: Network, thinned: ThinnedBatches, replay: Callable[[int], dict[str, Any]], seed: int
) -> Callable[[int], Tensor]:
    """Return the loss of a step, a function of its number; the network's factors take turns.

    Parameters
    ----------
    replay
        Batch of a step from phantoms: what the network knew is not to be forgotten.
    """
    factors = sorted({factor for factor, _ in network.reads})

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, _STREAM, step])
        factor = factors[step % len(factors)]
        known = replay(step)
        total = supervised_loss(predict_batch(network, known), known)
        coarser = thinned_tensors(thinned.coarser(rng, factor))
        total = total + noisy_loss(predict_batch(network, coarser).estimate, coarser)
        same = thinned_tensors(thinned.self_consistent(rng, factor))
        return total + consistency_loss(predict_batch(network, same).estimate, same)

    return loss
