"""`SetNetwork` for one map on a CPU: the same mathematics, one element after the other.

The features of one element stay in the processor's cache from one convolution to the next, and
the memory they need is that of one element. What modulates a block (FiLM) is put into the
weights of the convolution before it, once per map; weights are cast once instead of at every
call. Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xrf_sr_plans.sr.network import (
    Conditions,
    SetNetwork,
    condition_vector,
    decode,
    stabilise_tensor,
)

Weights = tuple[Tensor, Tensor]


class Elementwise:
    """A `SetNetwork` with what is known about one map, for inference.

    Parameters
    ----------
    network
        Whose weights are used.
    conditions
        Of one map.
    factor
        2 or 4.
    dtype
        In which convolutions are computed.
    """

    def __init__(
        self, network: SetNetwork, conditions: Conditions, factor: int, dtype: torch.dtype
    ) -> None:
        self._network, self._factor, self._dtype = network, factor, dtype
        # A ModuleList says of its members only that they are modules.
        self._blocks: list[Any] = list(network.blocks)
        self._low = conditions.low[0, :, None, None]
        self._span = conditions.span[0, :, None, None]
        film = network.film(network.condition(condition_vector(conditions, factor)))
        film = film.unflatten(1, (network.config.blocks, 2, -1))
        self._cast = {conv: self._weights(conv) for conv in _convolutions(network)}
        self._modulated = [
            [self._weights(block.first, 1 + scale, shift) for scale, shift in film[:, index]]
            for index, block in enumerate(self._blocks)
        ]

    def __call__(self, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield stabilised estimate and sigma, (Y, X), of each element of counts (element, y, x).

        The map may be a part of the one that the conditions are of.
        """
        network = self._network
        unit = (stabilise_tensor(counts) - self._low) / self._span
        features = [self._stem(plane) for plane in unit]
        for index, block in enumerate(self._blocks):
            if str(index) in network.mixes:
                self._mix(network.mixes[str(index)], features)
            for own, first in zip(features, self._modulated[index], strict=True):
                inner = functional.conv2d(own, *first, padding=1).relu_()
                own.add_(self._convolve(block.second, inner))
        correction = network.heads[str(self._factor)]
        log_sigma = network.sigma_heads[str(self._factor)]
        for index, plane in enumerate(counts):
            own, features[index] = features[index], features[index][:0]
            made = (head(own, self._convolve)[0, 0].float() for head in (correction, log_sigma))
            yield decode(plane, self._span[index], self._factor, *made)

    def _weights(
        self, conv: nn.Conv2d, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Weights:
        """Return weight and bias; with `scale` and `shift` of the result put into them."""
        weight, bias = conv.weight, conv.bias
        assert bias is not None
        if scale is not None and shift is not None:
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        weight = weight.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return weight, bias.to(self._dtype)

    def _convolve(self, conv: nn.Conv2d, features: Tensor) -> Tensor:
        weight, bias = self._cast[conv]
        padding, dilation = conv.padding, conv.dilation
        return functional.conv2d(features, weight, bias, padding=padding, dilation=dilation)

    def _stem(self, unit: Tensor) -> Tensor:
        planes = torch.stack([unit, torch.ones_like(unit)])[None].to(self._dtype)
        planes = planes.contiguous(memory_format=torch.channels_last)
        return self._convolve(self._network.stem, planes)

    def _mix(self, mix: Any, features: list[Tensor]) -> None:
        """Let the elements see the mean and maximum of each other's features, in place."""
        # Values and gates by a convolution each: halves of one result would lie in stripes.
        (value, gate), (value_bias, gate_bias) = (w.chunk(2) for w in self._cast[mix.value])
        total = largest = torch.zeros(())
        for index, own in enumerate(features):
            shown = functional.conv2d(own, value, value_bias).relu_()
            shown.mul_(functional.conv2d(own, gate, gate_bias).sigmoid_())
            total = total + shown.float()
            largest = torch.maximum(largest, shown) if index else shown
        pooled = torch.cat([(total / len(features)).to(self._dtype), largest], dim=1)
        weight, bias = self._cast[mix.out]
        own_weight, shared = weight.split([features[0].shape[1], pooled.shape[1]], dim=1)
        seen = functional.conv2d(pooled, shared, bias)
        for own in features:
            own.add_(functional.conv2d(functional.relu(own), own_weight).add_(seen))


def _convolutions(network: SetNetwork) -> Iterator[nn.Conv2d]:
    return (part for part in network.modules() if isinstance(part, nn.Conv2d))
