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
    condition_vector,
    decode,
    film_of,
    network_key,
    smoothed_start,
    stem_planes,
)
from xrf_sr_plans.sr.fused_convolution import Fused
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
        self._fused = Fused.of(dtype)
        self._conditions, self._pixels = conditions, fast_pixels_in(conditions, factor)
        key = network_key(factor, self._pixels)
        self._stem: Any = network.stems[str(self._pixels)]
        self._heads: list[Any] = [network.heads[key], network.sigma_heads[key]]
        # A ModuleList says of its members only that they are modules.
        self._blocks: list[Any] = list(network.blocks)
        self._shared: Any = network.shared
        self._kriged: Any = network.kriged
        parts = (self._stem, network.blocks, network.mixes, self._shared, self._kriged)
        self._cast = {
            conv: self._weights(*conv.whole())
            for part in (*parts, *self._heads)
            if part is not None
            for conv in part.modules()
            if isinstance(conv, FlipConv)
        }
        self._hidden = network.condition(condition_vector(conditions, factor))
        film = film_of(network, self._hidden)
        self._modulated = [
            [self._modulate(block.first, *both) for both in film[:, index]]
            for index, block in enumerate(self._blocks)
        ]
        self._shared_modulated: list[Weights] = []
        if self._shared is not None:
            of_map = self._shared.modulation(self._hidden, len(self._hidden))[0]
            self._shared_modulated = [
                self._modulate(block.first, *both)
                for block, both in zip(self._shared.blocks, of_map, strict=True)
            ]

    def __call__(self, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield stabilised estimate and sigma, (Y, X), of each element of counts (element, y, x).

        The map may be a part of the one that the conditions are of.
        """
        network, known = self._network, self._conditions
        begun = [self._begin(plane, index) for index, plane in enumerate(counts)]
        starts, features = [start for start, _ in begun], [own for _, own in begun]
        shared = None
        for index, block in enumerate(self._blocks):
            if self._shared is not None and str(index) in self._shared.given:
                shared = self._trunk(features) if shared is None else shared
                given = self._convolve(self._shared.given[str(index)], shared)
                for own in features:
                    own.add_(given)
            if str(index) in network.mixes:
                self._mix(network.mixes[str(index)], features)
            for own, weights in zip(features, self._modulated[index], strict=True):
                self._run_block(block, weights, own)
        for index, start in enumerate(starts):
            own, features[index] = features[index], features[index][:0]
            made = (head(own, self._convolve).float() for head in self._heads)
            stabilised, sigma = decode(start, known.span[:, index, None, None, None], *made)
            yield stabilised[0, 0], sigma[0, 0]

    def _begin(self, plane: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return what is corrected, (1, 1, Y, X), and the first features, (1, feature, y, x)."""
        only = slice(index, index + 1)
        known = Conditions(
            *(values[:, only] if values.ndim > 1 else values for values in self._conditions)
        )
        low, span = known.low[..., None, None], known.span[..., None, None]
        counts, reading = plane[None, None], (self._factor, self._pixels)
        start = smoothed_start(counts, known.smoothing, *reading)
        start, differs = self._network.with_kriging(
            counts, start, known, self._hidden[only], reading
        )
        planes = stem_planes(counts, start, low, span, *reading)
        features = self._convolve(self._stem, self._as_cast(planes))
        if differs is not None:
            features.add_(self._convolve(self._kriged.stem, self._as_cast(differs)))
        return start, features

    def _as_cast(self, planes: Tensor) -> Tensor:
        return planes.to(self._dtype).contiguous(memory_format=torch.channels_last)

    def _run_block(self, block: Any, modulated: Weights, features: Tensor) -> None:
        """Add, in place, what a residual block finds."""
        padding = block.first.padding
        inner = self._fused.activated(features, *modulated, padding, "leaky_relu", LEAK)
        self._fused.add(features, inner, *self._cast[block.second], block.second.padding)

    def _trunk(self, features: list[Tensor]) -> Tensor:
        """Return what the map has once for all elements, (1, feature, y, x)."""
        found = self._convolve(self._shared.entry, self._pooled(self._shared, features))
        for block, weights in zip(self._shared.blocks, self._shared_modulated, strict=True):
            self._run_block(block, weights, found)
        return found

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
        seen = self._convolve(mix.seen, self._pooled(mix, features))
        for own in features:
            rectified = functional.leaky_relu(own, LEAK)
            self._fused.add(own, rectified, *self._cast[mix.own], mix.own.padding)
            own.add_(seen)

    def _pooled(self, shows: Any, features: list[Tensor]) -> Tensor:
        """Return mean and maximum over the elements of what each of them shows."""
        value, gate = shows.value, shows.gate
        total = largest = torch.zeros(())
        for index, own in enumerate(features):
            shown = self._fused.activated(own, *self._cast[value], value.padding, "relu")
            shown *= self._fused.activated(own, *self._cast[gate], gate.padding, "sigmoid")
            if index == 0:
                total, largest = shown.to(torch.float32, copy=True), shown
            else:
                total += shown
                torch.maximum(largest, shown, out=largest)
        return torch.cat([(total / len(features)).to(self._dtype), largest], dim=1)
