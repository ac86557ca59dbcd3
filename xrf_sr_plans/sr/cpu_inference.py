"""`FoldedNetwork` for one map on a CPU: the same mathematics, one element after the other.

The features of one element stay in the processor's cache from one convolution to the next, and
the memory they need is that of one element. What modulates a block (FiLM) is put into the
weights of the convolution before it, once per map; weights are put together and cast once
instead of at every call. Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xrf_sr_plans.sr.flips import FlipConv
from xrf_sr_plans.sr.folded_network import (
    LEAK,
    FoldedNetwork,
    decode,
    film_of,
    network_key,
    smoothed_start,
    stem_planes,
)
from xrf_sr_plans.sr.network import Conditions, fast_pixels_in

Weights = tuple[Tensor, Tensor]


class Elementwise:
    """A `FoldedNetwork` with what is known about one map, for inference.

    Parameters
    ----------
    network
        Whose weights are used.
    conditions
        Of one map.
    factor
        One of those that the network reads.
    dtype
        In which convolutions are computed.
    """

    def __init__(
        self, network: FoldedNetwork, conditions: Conditions, factor: int, dtype: torch.dtype
    ) -> None:
        self._network, self._factor, self._dtype = network, factor, dtype
        self._conditions, self._pixels = conditions, fast_pixels_in(conditions, factor)
        key = network_key(factor, self._pixels)
        self._stem: Any = network.stems[str(self._pixels)]
        self._heads: list[Any] = [network.heads[key], network.sigma_heads[key]]
        # A ModuleList says of its members only that they are modules.
        self._blocks: list[Any] = list(network.blocks)
        used = (self._stem, network.blocks, network.mixes, *self._heads)
        self._cast = {
            conv: self._weights(*conv.whole())
            for part in used
            for conv in part.modules()
            if isinstance(conv, FlipConv)
        }
        film = film_of(network, conditions, factor)
        self._modulated = [
            [self._modulate(block.first, *both) for both in film[:, index]]
            for index, block in enumerate(self._blocks)
        ]

    def __call__(self, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield stabilised estimate and sigma, (Y, X), of each element of counts (element, y, x).

        The map may be a part of the one that the conditions are of.
        """
        network, known = self._network, self._conditions
        starts = [
            smoothed_start(plane[None, None], widths[None, None], self._factor, self._pixels)
            for plane, widths in zip(counts, known.smoothing[0], strict=True)
        ]
        features = [self._begin(plane, start, k) for k, (plane, start) in _numbered(counts, starts)]
        for index, block in enumerate(self._blocks):
            if str(index) in network.mixes:
                self._mix(network.mixes[str(index)], features)
            for own, (weight, bias) in zip(features, self._modulated[index], strict=True):
                inner = functional.conv2d(own, weight, bias, padding=block.first.padding)
                own.add_(self._convolve(block.second, functional.leaky_relu_(inner, LEAK)))
        for index, start in enumerate(starts):
            own, features[index] = features[index], features[index][:0]
            made = (head(own, self._convolve).float() for head in self._heads)
            stabilised, sigma = decode(start, known.span[:, index, None, None, None], *made)
            yield stabilised[0, 0], sigma[0, 0]

    def _begin(self, plane: Tensor, start: Tensor, index: int) -> Tensor:
        """Return the first features of one element, (1, feature, y, x)."""
        low, span = (
            values[:, index, None, None, None]
            for values in (self._conditions.low, self._conditions.span)
        )
        planes = stem_planes(plane[None, None], start, low, span, self._factor, self._pixels)
        planes = planes.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return self._convolve(self._stem, planes)

    def _weights(self, weight: Tensor, bias: Tensor) -> Weights:
        weight = weight.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return weight, bias.to(self._dtype)

    def _modulate(self, conv: FlipConv, scale: Tensor, shift: Tensor) -> Weights:
        """Return weight and bias with scale and shift of the result put into them."""
        weight, bias = conv.whole()
        scale = 1 + scale
        return self._weights(weight * scale[:, None, None, None], bias * scale + shift)

    def _convolve(self, conv: FlipConv, features: Tensor) -> Tensor:
        weight, bias = self._cast[conv]
        padding, dilation = conv.padding, conv.dilation
        return functional.conv2d(features, weight, bias, padding=padding, dilation=dilation)

    def _mix(self, mix: Any, features: list[Tensor]) -> None:
        """Let the elements see the mean and maximum of each other's features, in place."""
        total = largest = torch.zeros(())
        for index, own in enumerate(features):
            shown = self._convolve(mix.value, own).relu_()
            shown.mul_(self._convolve(mix.gate, own).sigmoid_())
            total = total + shown.float()
            largest = torch.maximum(largest, shown) if index else shown
        pooled = torch.cat([(total / len(features)).to(self._dtype), largest], dim=1)
        seen = self._convolve(mix.seen, pooled)
        for own in features:
            own.add_(self._convolve(mix.own, functional.leaky_relu(own, LEAK)).add_(seen))


def _numbered(*sequences: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    return enumerate(zip(*sequences, strict=True))
