"""Learn from coarse maps of one sample and fine maps of others: a CycleGAN with known physics.

J.-Y. Zhu et al. (ICCV 2017, arXiv 1703.10593) train two generators that undo each other, and a
discriminator for each. The way from fine to coarse is known here, so the forward model takes the
place of one generator and its discriminator (S. Lim et al., arXiv 1908.09414; B. Sim et al.,
arXiv 1909.12116). Cycle fine-coarse-fine: the supervised loss on other samples. Cycle
coarse-fine-coarse: the estimate, measured again, predicts photons it was not made from. The
discriminator sees patches (P. Isola et al., CVPR 2017, arXiv 1611.07004) and squares its errors
(X. Mao et al., ICCV 2017, arXiv 1611.04076).

What it can't know it makes look like the other samples: it is known to invent.

Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from xrf_sr_plans.sr.network import stabilise_tensor
from xrf_sr_plans.sr.tiled_inference import Network
from xrf_sr_plans.training.batches import predict_batch
from xrf_sr_plans.training.fine_tuning import supervised_loss
from xrf_sr_plans.training.self_supervised import consistency_loss, thinned_tensors
from xrf_sr_plans.training.thinned_maps import ThinnedBatches

ADVERSARIAL_WEIGHT = 0.1
_STREAM = 43
_LEARNING_RATE = 4e-4


class PatchDiscriminator(nn.Module):
    """Tell fine maps from estimates, each element alone, by patches of 26 fine pixels."""

    def __init__(self, filters: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(1, filters, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(filters, 2 * filters, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * filters, 2 * filters, 3, 1, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * filters, 1, 3, 1, 1)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return a score for each patch of maps (batch, element, Y, X): 1 is fine, 0 estimated."""
        return self.layers(maps.flatten(0, 1)[:, None])


def _relative(stabilised: Tensor, batch: dict[str, Any]) -> Tensor:
    """Return stabilised maps relative to their coarse map's range: dose is no give-away."""
    low, span = (batch[name][..., None, None] for name in ("low", "span"))
    return (stabilised - low) / span


def unpaired_loss(
    network: Network,
    thinned: ThinnedBatches,
    others: Callable[[int], dict[str, Any]],
    seed: int,
    weight: float = ADVERSARIAL_WEIGHT,
) -> Callable[[int], Tensor]:
    """Return the loss of a step, a function of its number and of the steps before it.

    Parameters
    ----------
    others
        Batch of a step from samples whose fine maps are known, one factor per step.
    weight
        Of looking like a fine map.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = PatchDiscriminator()
    optimiser = torch.optim.Adam(judge.parameters(), _LEARNING_RATE, betas=(0.5, 0.999))

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, _STREAM, step])
        known = others(step)
        mine = thinned_tensors(thinned.self_consistent(rng, int(known["factor"])))
        made = predict_batch(network, mine)
        fake = _relative(made.stabilised, mine)
        real = _relative(stabilise_tensor(known["truth"]), known)
        optimiser.zero_grad()
        scores = judge(real), judge(fake.detach())
        ((scores[0] - 1).square().mean() + scores[1].square().mean()).backward()
        optimiser.step()
        judge.requires_grad_(False)
        looks = (judge(fake) - 1).square().mean()
        judge.requires_grad_(True)
        cycles = supervised_loss(predict_batch(network, known), known)
        return cycles + consistency_loss(made.estimate, mine) + weight * looks

    return loss
