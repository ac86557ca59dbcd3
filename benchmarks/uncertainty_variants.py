"""Networks that state their uncertainty in different ways; for `uncertainty_ways.py` only.

All share the trunk and the estimate of the default network, and the heads that state an
uncertainty see its features without changing them, as in the default. Each returns a `Spread`:
how far below and above its estimate the truth may lie, in stabilised counts and up to the
factors of the conformal calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xrf_sr_plans.measurement import COARSER_FACTORS
from xrf_sr_plans.sr.network import (
    SIGMA_DILATIONS,
    Conditions,
    SetNetwork,
    _Head,
    stabilise_tensor,
)
from xrf_sr_plans.training.budgeted_training import estimate_loss
from xrf_sr_plans.training.losses import gaussian_nll

WEIGHT = 0.2
"""Of the loss of the uncertainty beside that of the estimate, as in `training.loop`."""
VARIANCE_FLOOR = 0.02
PASSES = 8
DROPOUT = 0.1
EVIDENCE_WEIGHT = 0.01
"""Lambda of Amini et al.: how much evidence for wrong predictions costs."""


class Spread(NamedTuple):
    """What a network says; tensors (batch, element, y, x)."""

    estimate: Tensor
    stabilised: Tensor
    down: Tensor
    up: Tensor
    more: tuple[Tensor, ...] = ()


class Plain(nn.Module):
    """The estimate alone: what the cost of an uncertainty is relative to."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SetNetwork()
        for factor in COARSER_FACTORS:
            self.network.sigma_heads[str(factor)] = _Nothing(factor)

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Spread:
        """Return the estimate; its spread is meaningless."""
        made = self.network(counts, conditions, factor)
        return Spread(made.estimate, made.stabilised, made.sigma, made.sigma)


class _Nothing(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        height, width = (side * self.factor for side in features.shape[-2:])
        return features.new_zeros((features.shape[0], 1, height, width))


class Sigma(nn.Module):
    """A Gaussian sigma, by maximum likelihood (A. Kendall, Y. Gal, 2017, arXiv 1703.04977)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SetNetwork()

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Spread:
        """Return the estimate and its sigma."""
        made = self.network(counts, conditions, factor)
        return Spread(made.estimate, made.stabilised, made.sigma, made.sigma)

    @staticmethod
    def loss(made: Spread, batch: dict[str, Any]) -> Tensor:
        """Return the loss of `training.loop`."""
        return estimate_loss(made, batch) + WEIGHT * gaussian_nll(made.down, _residual(made, batch))


class _Tapped(nn.Module):
    """A sigma head beside which more heads look at the same features."""

    def __init__(self, own: nn.Module, biases: Sequence[float], factor: int) -> None:
        super().__init__()
        filters = SetNetwork().config.filters
        self.own = own
        heads = [_Head(filters, 24, factor, bias, SIGMA_DILATIONS) for bias in biases]
        self.more = nn.ModuleList(heads)
        self.said: list[Tensor] = []

    def forward(self, features: Tensor) -> Tensor:
        self.said = [head(features).float() for head in self.more]
        return self.own(features)


def _tapped(biases: Sequence[float]) -> SetNetwork:
    network = SetNetwork()
    for factor in COARSER_FACTORS:
        own = network.sigma_heads[str(factor)]
        network.sigma_heads[str(factor)] = _Tapped(own, biases, factor)
    return network


def _said(network: SetNetwork, factor: int, like: Tensor) -> list[Tensor]:
    return [maps.view(like.shape) for maps in network.sigma_heads[str(factor)].said]  # type: ignore[union-attr]


class Quantiles(nn.Module):
    """The 5 % and 95 % quantiles, by the pinball loss (as im2im-uq, arXiv 2202.05265)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _tapped([-3.0])

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Spread:
        """Return the estimate and the distances of both quantiles from it."""
        made = self.network(counts, conditions, factor)
        (log_up,) = _said(self.network, factor, made.sigma)
        relative = torch.exp(log_up.clamp(-12, 4)) * conditions.span[..., None, None]
        up = torch.sqrt(VARIANCE_FLOOR + relative**2)
        return Spread(made.estimate, made.stabilised, made.sigma, up)

    @staticmethod
    def loss(made: Spread, batch: dict[str, Any]) -> Tensor:
        """Return the estimate's loss and the pinball loss, each map in units of its own error."""
        residual = _residual(made, batch)
        unit = residual.abs().mean(dim=(-2, -1), keepdim=True) + 0.05
        above, below = residual - made.up, -made.down - residual
        pinball = sum(torch.maximum(0.95 * side, -0.05 * side) for side in (above, below))
        return estimate_loss(made, batch) + WEIGHT * (pinball / unit).mean()


class Evidential(nn.Module):
    """A normal-inverse-gamma distribution (A. Amini et al., NeurIPS 2020, arXiv 1910.02600)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _tapped([0.0, 1.0])

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Spread:
        """Return the estimate and the spread of its predictive distribution."""
        made = self.network(counts, conditions, factor)
        nu, alpha = (functional.softplus(m) + 0.01 for m in _said(self.network, factor, made.sigma))
        alpha = alpha + 1
        beta = made.sigma**2
        spread = torch.sqrt(beta * (1 + nu) / (nu * (alpha - 1)))
        more = (nu, alpha, beta, conditions.span[..., None, None])
        return Spread(made.estimate, made.stabilised, spread, spread, more)

    @staticmethod
    def loss(made: Spread, batch: dict[str, Any]) -> Tensor:
        """Return the estimate's loss, the negative log evidence and its regulariser."""
        nu, alpha, beta, span = made.more
        residual = _residual(made, batch)
        omega = 2 * beta * (1 + nu)
        likelihood = (
            0.5 * torch.log(math.pi / nu)
            - alpha * torch.log(omega)
            + (alpha + 0.5) * torch.log(residual**2 * nu + omega)
            + torch.lgamma(alpha)
            - torch.lgamma(alpha + 0.5)
        )
        evidence = (residual.abs() / span) * (2 * nu + alpha)
        stated = (likelihood + EVIDENCE_WEIGHT * evidence).mean()
        return estimate_loss(made, batch) + WEIGHT * stated


class Dropout(Sigma):
    """A sigma head and dropout in every block, kept on (Y. Gal, Z. Ghahramani, ICML 2016)."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.network.blocks:
            block.second = nn.Sequential(nn.Dropout2d(DROPOUT), block.second)  # type: ignore[assignment]

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Spread:
        """Return one pass, with dropout also where the rest of the network is evaluated."""
        for module in self.modules():
            if isinstance(module, nn.Dropout2d):
                module.train()
        return super().forward(counts, conditions, factor)


class Several(nn.Module):
    """The mean of several predictions; their spread with, or without, their own sigmas."""

    def __init__(self, members: Sequence[nn.Module], learned: bool = True) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.learned = learned

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Spread:
        """Return the mixture's mean and standard deviation."""
        made = [member(counts, conditions, factor) for member in self.members]
        centres = torch.stack([one.stabilised for one in made])
        variance = centres.var(dim=0) + VARIANCE_FLOOR
        if self.learned:
            variance = variance + torch.stack([one.down**2 for one in made]).mean(0)
        spread = torch.sqrt(variance)
        mean = torch.stack([one.estimate for one in made]).mean(0)
        return Spread(mean, centres.mean(0), spread, spread)


def _residual(made: Spread, batch: dict[str, Any]) -> Tensor:
    return (stabilise_tensor(batch["truth"]) - made.stabilised).detach()
