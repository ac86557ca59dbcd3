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

    The weights that are learnt are free. Those that are used are their mean over the four
    mirrorings, which is the nearest convolution that commutes with all of them.

    Parameters
    ----------
    taken, given
        Layouts of the channels before and after.
    size
        Side of the kernel, odd.
    dilation
        Distance of its pixels.
    """

    def __init__(self, taken: Layout, given: Layout, size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(len(taken[0]), len(given[0]), size)
        # The mean of four independent weights is half as large.
        self.weight = nn.Parameter(conv.weight.detach() * 2)
        self.bias = nn.Parameter(torch.zeros(len(given[0])))
        self.dilation = dilation
        self._taken, self._given = taken, given
        self._made: tuple[Tensor, Tensor] | None = None

    def symmetric(self) -> tuple[Tensor, Tensor]:
        """Return the weight and bias that are used."""
        if not self.training and self._made is not None:
            return self._made
        weight, bias = [], []
        for mirroring in range(MIRRORINGS):
            taken, given = _index(self._taken[mirroring]), _index(self._given[mirroring])
            axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if mirroring & bit]
            weight.append(self.weight[given][:, taken].flip(axes))
            bias.append(self.bias[given])
        made = torch.stack(weight).mean(0), torch.stack(bias).mean(0)
        if not self.training and not torch.is_grad_enabled():
            self._made = made
        return made

    def train(self, mode: bool = True) -> FlipConv:
        """Forget what was made of the weights, which may change now."""
        self._made = None
        return super().train(mode)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolution of maps (batch, channel, y, x), which beyond the border are 0."""
        weight, bias = self.symmetric()
        reach = self.dilation * (weight.shape[-1] // 2)
        if self.dilation > 1:
            # On a CPU the gradients would be NaN in bfloat16 (torch 2.13, channels last).
            with torch.autocast(maps.device.type, enabled=False):
                maps, weight, bias = maps.float(), weight.float(), bias.float()
                return functional.conv2d(maps, weight, bias, padding=reach, dilation=self.dilation)
        return functional.conv2d(maps, weight, bias, padding=reach)


@lru_cache(maxsize=256)
def _index(channels: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.asarray(channels))
