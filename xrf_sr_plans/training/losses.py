"""Losses of torch tensors (batch, element, y, x)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NLL_WEIGHT = 0.2
"""Weight of `gaussian_nll` beside a loss of the estimate."""
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def log_mse(estimate: Tensor, truth: Tensor, floor: float = 0.02) -> Tensor:
    """Return the mean over maps of the log of the mean square error of counts.

    It is the PSNR up to a constant (L. Chen et al., NAFNet, ECCV 2022, arXiv 2204.04676): a weak
    element and a low dose weigh as much as a strong one. `floor`, a share of the counting
    variance, keeps maps with nothing in them from dominating.
    """
    error = (estimate - truth).square().mean(dim=(-2, -1))
    variance = truth.mean(dim=(-2, -1)).clamp(min=0) + 1.0
    return torch.log(error + floor * variance).mean()


def gaussian_nll(sigma: Tensor, residual: Tensor) -> Tensor:
    """Return the negative log-likelihood of `sigma` for residuals (A. Kendall, Y. Gal, 2017)."""
    return (torch.log(sigma) + 0.5 * (residual.detach() / sigma).square()).mean()


def sobel_edges(maps: Tensor) -> Tensor:
    """Return both Sobel gradients, stacked on the element axis."""
    kernel = torch.tensor(_SOBEL, device=maps.device, dtype=maps.dtype) / 8
    both = torch.stack([kernel, kernel.T])[:, None]
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return functional.conv2d(flat, both).reshape(
        maps.shape[0], -1, *(s - 2 for s in maps.shape[-2:])
    )


def l1_sobel(estimate: Tensor, truth: Tensor, span: Tensor, edge_weight: float = 0.1) -> Tensor:
    """Return the loss of the notes: L1 + `edge_weight` x L1 of Sobel edges, in units of `span`."""
    unit = span[..., None, None]
    difference = (estimate - truth) / unit
    edges = sobel_edges(estimate / unit) - sobel_edges(truth / unit)
    return difference.abs().mean() + edge_weight * edges.abs().mean()


def poisson_deviance(
    estimate: Tensor, truth: Tensor, floor: float = 0.01, *, per_map: bool = True
) -> Tensor:
    """Return the Poisson deviance of counts expected as `estimate` where `truth` was found.

    `per_map`: the mean over maps of its log, so that maps with many counts, whose deviance is
    large, don't decide alone; else the plain mean, which is the likelihood up to a constant.
    Below `floor` counts the estimate is pulled back linearly.
    """
    expected = estimate.clamp(min=floor)
    found = truth.clamp(min=0)
    deviance = expected - found + torch.xlogy(found, found) - torch.xlogy(found, expected)
    deviance = 2 * deviance + (floor - estimate).clamp(min=0)
    if not per_map:
        return deviance.mean()
    return torch.log(deviance.mean(dim=(-2, -1)) + 0.02).mean()
