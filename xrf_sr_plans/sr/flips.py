"""Convolutions that commute with mirroring the map along either axis.

Features come in four versions of the same quantity: as is, and as they would be on the map
mirrored along x, along y, and along both. A mirrored map then gives mirrored features by
construction, so that averaging over mirrored maps has nothing to add, and what is learnt for one
orientation holds for all (T. Cohen, M. Welling, Group Equivariant Convolutional Networks, ICML
2016, arXiv 1602.07576). The axes keep their roles: fast and slow are measured differently, so
quarter turns are no symmetry.

How the channels of a map change when it is mirrored is told by a `Layout`: one permutation for
each of the four mirrorings. Imports torch: import this module lazily.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MIRRORINGS = 4
"""None, along x, along y, along both: bit 0 is x, bit 1 is y."""
Layout = tuple[tuple[int, ...], ...]
"""For each mirroring the channel from which each channel is taken."""


def versions(features: int) -> Layout:
    """Return the layout of `features` quantities in four versions, version by version."""
    return tuple(
        tuple((version ^ mirroring) * features + k for version in range(4) for k in range(features))
        for mirroring in range(MIRRORINGS)
    )


def folded(rows: int, columns: int) -> Layout:
    """Return the layout of blocks of `rows` x `columns` pixels in channels, row by row."""
    return tuple(
        tuple(
            (rows - 1 - row if mirroring & 2 else row) * columns
            + (columns - 1 - column if mirroring & 1 else column)
            for row in range(rows)
            for column in range(columns)
        )
        for mirroring in range(MIRRORINGS)
    )


def joined(*layouts: Layout) -> Layout:
    """Return the layout of the channels of several layouts, one after the other."""
    made = []
    for mirroring in range(MIRRORINGS):
        channels: list[int] = []
        for layout in layouts:
            first = len(channels)
            channels += [first + channel for channel in layout[mirroring]]
        made.append(tuple(channels))
    return tuple(made)


class FlipConv(nn.Module):
    """A convolution whose result is mirrored if its input is.

    Weights that a mirroring exchanges are one number, which is learnt.

    Parameters
    ----------
    taken, given
        Layouts of the channels before and after.
    size
        Side of the kernel, odd.
    dilation
        Distance of its pixels.
    """

    places: Tensor
    bias_places: Tensor

    def __init__(self, taken: Layout, given: Layout, size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        places, n_weights = _shared_places(taken, given, size)
        bias_places, n_biases = _shared_biases(given)
        # As `nn.Conv2d` begins.
        bound = (len(taken[0]) * size * size) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_weights).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_biases))
        # Which number is at which place of the whole weight, and of the whole bias.
        self.register_buffer("places", torch.from_numpy(places), persistent=False)
        self.register_buffer("bias_places", torch.from_numpy(bias_places), persistent=False)
        self.shape = (len(given[0]), len(taken[0]), size, size)
        self.dilation = dilation

    @property
    def padding(self) -> int:
        """Pixels of 0 around the map, so that it keeps its size."""
        return self.dilation * (self.shape[-1] // 2)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return weight (channel after, before, y, x) and bias as a convolution has them."""
        weight = self.weight.index_select(0, self.places).view(self.shape)
        return weight, self.bias.index_select(0, self.bias_places)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolution of maps (batch, channel, y, x), which beyond the border are 0."""
        weight, bias = self.whole()
        if self.dilation > 1:
            # On a CPU the gradients would be NaN in bfloat16 (torch 2.13, channels last).
            with torch.autocast(maps.device.type, enabled=False):
                return functional.conv2d(
                    maps.float(), weight, bias, padding=self.padding, dilation=self.dilation
                )
        return functional.conv2d(maps, weight, bias, padding=self.padding)


@lru_cache(maxsize=64)
def _shared_places(taken: Layout, given: Layout, size: int) -> tuple[np.ndarray, int]:
    """Return the number of the weight at each place, flat, and how many there are."""
    shape = (len(given[0]), len(taken[0]), size, size)
    own = np.arange(np.prod(shape)).reshape(shape)
    # The place with the lowest number among those that mirrorings exchange stands for all of them.
    first = own
    for mirroring in range(1, MIRRORINGS):
        axes = tuple(axis for axis, bit in ((-1, 1), (-2, 2)) if mirroring & bit)
        moved = own[list(given[mirroring])][:, list(taken[mirroring])]
        first = np.minimum(first, np.flip(moved, axes))
    return _numbered(first)


@lru_cache(maxsize=64)
def _shared_biases(given: Layout) -> tuple[np.ndarray, int]:
    return _numbered(np.min(np.asarray(given), axis=0))


def _numbered(first: np.ndarray) -> tuple[np.ndarray, int]:
    # No tensor: one that is kept from an inference can't be trained with.
    found, numbers = np.unique(first, return_inverse=True)
    return numbers.ravel(), len(found)
