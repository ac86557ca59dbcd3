"""Networks to compare with: that of the notes as written, and SRCNN.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.measurement import Reading
from xrf_sr_plans.sr.network import (
    Conditions,
    Prediction,
    fast_pixels_in,
    stabilise_tensor,
    upsample_tensor,
)

PEER_SIGMA = 1.0
"""Peers don't say how sure they are; calibration makes an interval of constant width of this."""


class Peer(nn.Module):
    """A network for one factor that sees intensities of order 1 and nothing else.

    Parameters
    ----------
    scale
        The factor.
    fast_pixels
        Measured pixels per coarse step along the fast axis: 1 for squares, `scale` for rows.
    """

    reach = 0
    """Coarse pixels around an output pixel that it depends on."""
    smooths = False
    """Whether it wants to know what smoothing each element needs."""

    def __init__(self, scale: int, fast_pixels: int = 1) -> None:
        super().__init__()
        self.scale, self.fast_pixels = scale, fast_pixels

    @property
    def reads(self) -> tuple[Reading, ...]:
        """The one kind of measurement that it was made for."""
        return ((self.scale, self.fast_pixels),)

    @property
    def finer(self) -> tuple[int, int]:
        """Fine pixels per measured pixel along y and x."""
        return self.scale, self.scale // self.fast_pixels

    def maps(self, maps: Tensor) -> Tensor:
        """Return maps (batch, element, y, x) `finer`."""
        raise NotImplementedError

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Prediction:
        """Return the estimate on the fine grid, as `SetNetwork` does."""
        pixels = fast_pixels_in(conditions, factor)
        if (factor, pixels) not in self.reads:
            raise ModelError(
                f"{type(self).__name__} was made for factor {self.scale} and {self.fast_pixels}"
                f" pixels per step, not {factor} and {pixels}"
            )
        unit = ((conditions.low + conditions.span) ** 2 / 4)[..., None, None]
        estimate = self.maps(counts * pixels / unit).float() * unit
        stabilised = stabilise_tensor(estimate)
        return Prediction(estimate, stabilised, torch.full_like(stabilised, PEER_SIGMA))


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and ReLU, identity skip."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
        )

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.body(features))


class NotesNetwork(Peer):
    """The notes' network: 16 residual blocks x 64 filters, PixelShuffle, global skip.

    The elements are channels of one input, so their number is fixed. A map with more of them is
    treated in groups of that number, in the order given; a group with fewer is filled up by
    repeating its own. Scale 1 is the same-grid (deconvolving) form: output = input +
    network(input). Rows are folded: the pixels of a coarse step are channels, too.
    """

    def __init__(
        self,
        elements: int,
        scale: int,
        fast_pixels: int = 1,
        *,
        blocks: int = 16,
        filters: int = 64,
    ) -> None:
        super().__init__(scale, fast_pixels)
        self.elements = elements
        self.stem = nn.Conv2d(elements * fast_pixels, filters, 3, padding=1)
        self.trunk = nn.Sequential(*[_ResidualBlock(filters) for _ in range(blocks)])
        stages: list[nn.Module] = []
        for _ in range({1: 0, 2: 1, 4: 2}[scale]):
            # No ReLU behind: with the zero weights of `out` it dies within a few hundred steps.
            stages += [nn.Conv2d(filters, 4 * filters, 3, padding=1), nn.PixelShuffle(2)]
        self.upsampling = nn.Sequential(*stages)
        self.out = nn.Conv2d(filters, elements, 3, padding=1)
        self.reach = 2 * blocks + 4
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def maps(self, maps: Tensor) -> Tensor:
        """Return maps `finer`."""
        made = []
        for group in maps.split(self.elements, dim=1):
            n = group.shape[1]
            filled = group[:, [index % n for index in range(self.elements)]]
            made.append(self._as_written(filled)[:, :n])
        return torch.cat(made, dim=1)

    def _as_written(self, maps: Tensor) -> Tensor:
        # (map, element, y, x, pixel within the step) to (map, element and pixel, y, x)
        steps = maps.unflatten(-1, (-1, self.fast_pixels)).permute(0, 1, 4, 2, 3).flatten(1, 2)
        features = self.trunk(functional.relu(self.stem(steps)))
        skip = maps if self.scale == 1 else upsample_tensor(maps, self.finer)
        return skip + self.out(self.upsampling(features))


class Srcnn(Peer):
    """SRCNN 9-1-5 on the bicubic map (C. Dong et al., arXiv 1501.00092), element by element.

    Rows are interpolated along the slow axis only.
    """

    reach = 8

    def __init__(self, scale: int, fast_pixels: int = 1) -> None:
        super().__init__(scale, fast_pixels)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 9, padding=4),
            nn.ReLU(),
            nn.Conv2d(64, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 5, padding=2),
        )

    def maps(self, maps: Tensor) -> Tensor:
        """Return maps `finer`."""
        fine = upsample_tensor(maps, self.finer)
        return self.layers(fine.flatten(0, 1)[:, None])[:, 0].unflatten(0, fine.shape[:2])
