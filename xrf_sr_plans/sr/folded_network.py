"""The default network: it reads rows or squares, folded, and commutes with mirroring.

The pixels that a fly scan was read out in within one coarse step become channels of one coarse
pixel (as in K. Zhang et al., FFDNet, IEEE Trans. Image Process. 27 (2018) 4608, arXiv
1710.04026), so that rows cost what squares do. Every element runs through the same light trunk,
and at two depths sees the mean and the maximum of what all elements found (M. Zaheer et al., Deep
Sets, NeurIPS 2017, arXiv 1703.06114); there it is also given what a second trunk makes of them,
which a map has once. What is known about the measurement modulates every block (E. Perez et al.,
FiLM, AAAI 2018, arXiv 1709.07871). The heads end in PixelShuffle (W. Shi et al., CVPR 2016, arXiv
1609.05158). The network corrects, in stabilised counts, the best Gaussian treatment of the map
(`physics.smoothing`), into which kriging is mixed where rows lie far apart: with zero heads it
*is* that.

Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xrf_sr_plans.measurement import FACTORS, READINGS, SAMPLINGS, Reading
from xrf_sr_plans.physics.smoothing import WIDTHS_STEPS, smoothing_matrices
from xrf_sr_plans.sr.flips import MIRRORINGS, FlipConv, Layout, folded, joined, versions
from xrf_sr_plans.sr.kriging import KRIGED, REACH_STEPS, kernels
from xrf_sr_plans.sr.network import (
    Conditions,
    Prediction,
    fast_pixels_in,
    stabilise_tensor,
    unstabilise_tensor,
)
from xrf_sr_plans.sr.scale import SMALLEST_RANGE

N_CONDITIONS = 6 + len(SAMPLINGS) + len(FACTORS)
"""Numbers that modulate every block."""
LEAK = 0.1
"""What is left of features below zero. Cut off altogether, they die: at first any change makes
the good start worse."""
LARGEST_REACH_STEPS = 10
"""Reach of interpolation and smoothing, in coarse steps."""


Convolve = Callable[[FlipConv, Tensor], Tensor]


@dataclass(frozen=True)
class FoldedNetworkConfig:
    """Size of a `FoldedNetwork`; filters and widths are multiples of four."""

    filters: int = 32
    blocks: int = 5
    mix_before: tuple[int, ...] = (1, 3)
    """Blocks before which the elements of a map look at each other; none: each for itself."""
    mix_width: int = 16
    """Features that an element shows the others."""
    sigma_filters: int = 16
    sigma_dilations: tuple[int, ...] = (2, 4)
    """Dilations of the convolutions by which a sigma sees further than the estimate."""
    shared_filters: int = 0
    """Filters of the trunk that a map has once, whatever the number of its elements; 0: none."""
    shared_blocks: int = 4
    shared_before: tuple[int, ...] = (1, 3)
    """Blocks before which each element is given what the shared trunk found."""
    kriges: bool = False
    """Whether kriging has a say in what is corrected where it is ahead (`KRIGED`)."""


def _leaky(features: Tensor) -> Tensor:
    return functional.leaky_relu(features, LEAK)


def _convolve(conv: FlipConv, features: Tensor) -> Tensor:
    return conv(features)


class _Block(nn.Module):
    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.first, self.second = FlipConv(layout, layout), FlipConv(layout, layout)
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inner = _leaky(self.first(features) * (1 + scale) + shift)
        return features + self.second(inner)


class _Mix(nn.Module):
    """Let the elements of a map see the mean and maximum of each other's features."""

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        shown = versions(width // 4)
        self.value = FlipConv(layout, shown, 1)
        self.gate = FlipConv(layout, shown, 1)
        self.own = FlipConv(layout, layout, 1)
        self.seen = FlipConv(joined(shown, shown), layout, 1)
        for conv in (self.own, self.seen):
            nn.init.zeros_(conv.weight)

    def forward(self, features: Tensor, n_elements: int) -> Tensor:
        shown = functional.relu(self.value(features)) * torch.sigmoid(self.gate(features))
        sets = shown.unflatten(0, (-1, n_elements))
        seen = self.seen(torch.cat([sets.mean(1), sets.amax(1)], dim=1))
        own = self.own(_leaky(features)).unflatten(0, (-1, n_elements))
        return features + (own + seen[:, None]).flatten(0, 1)


class _Shared(nn.Module):
    """What a map has once for all elements: a trunk that sees the mean and maximum of them."""

    def __init__(self, layout: Layout, config: FoldedNetworkConfig) -> None:
        super().__init__()
        own = versions(config.shared_filters // 4)
        self.value = FlipConv(layout, own, 1)
        self.gate = FlipConv(layout, own, 1)
        self.entry = FlipConv(joined(own, own), own, 1)
        self.film = nn.Linear(64, config.shared_blocks * 2 * (config.shared_filters // 4))
        self.blocks = nn.ModuleList([_Block(own) for _ in range(config.shared_blocks)])
        self.given = nn.ModuleDict(
            {str(k): FlipConv(own, layout, 1) for k in config.shared_before if k < config.blocks}
        )
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        for conv in self.given.values():
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]

    def modulation(self, hidden: Tensor, n_elements: int) -> Tensor:
        """Return what modulates the blocks of each map, (map, block, scale or shift, feature)."""
        of_map = hidden.unflatten(0, (-1, n_elements)).mean(1)
        return _for_all_versions(self.film(of_map), len(self.blocks))

    def forward(self, features: Tensor, n_elements: int, hidden: Tensor) -> Tensor:
        """Return features of each map, (map, feature, y, x)."""
        shown = functional.relu(self.value(features)) * torch.sigmoid(self.gate(features))
        sets = shown.unflatten(0, (-1, n_elements))
        found = self.entry(torch.cat([sets.mean(1), sets.amax(1)], dim=1))
        film = self.modulation(hidden, n_elements)[..., None, None]
        for index, block in enumerate(self.blocks):
            found = block(found, film[:, index, 0], film[:, index, 1])
        return found


class _Head(nn.Module):
    """Turns features into one fine plane. With `dilations` it sees a wider surrounding."""

    def __init__(
        self,
        layout: Layout,
        hidden: int,
        factor: int,
        bias: float = 0.0,
        dilations: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        inner = versions(hidden // 4)
        self.inner = FlipConv(layout, inner)
        self.wider = nn.ModuleList([FlipConv(inner, inner, dilation=d) for d in dilations])
        self.out = FlipConv(inner, folded(factor, factor))
        self.shuffle = nn.PixelShuffle(factor)
        for conv in (*self.wider, self.out):
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
        nn.init.constant_(self.out.bias, bias)

    def forward(self, features: Tensor, convolve: Convolve = _convolve) -> Tensor:
        seen = convolve(self.inner, features)
        for conv in self.wider:
            seen = seen + convolve(conv, _leaky(seen))  # type: ignore[arg-type]
        return self.shuffle(convolve(self.out, _leaky(seen)))


class _Kriged(nn.Module):
    """What is made of kriging where it is ahead of interpolation."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.share = nn.Linear(64, 1)
        self.stem = FlipConv(folded(*KRIGED), layout)
        nn.init.zeros_(self.share.weight)
        nn.init.zeros_(self.share.bias)
        nn.init.zeros_(self.stem.weight)


class FoldedNetwork(nn.Module):
    """Super-resolve counts (batch, element, y, x) of rows or squares by 1, 2 or 4."""

    reads = READINGS
    smooths = True
    """It wants to know what smoothing each element needs."""

    def __init__(self, config: FoldedNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FoldedNetworkConfig()
        layout = versions(config.filters // 4)
        self.stems = nn.ModuleDict(
            {str(pixels): FlipConv(_folded_inputs(pixels), layout) for pixels in FACTORS}
        )
        self.condition = nn.Sequential(nn.Linear(N_CONDITIONS, 64), nn.ReLU())
        self.film = nn.Linear(64, config.blocks * 2 * (config.filters // 4))
        self.blocks = nn.ModuleList([_Block(layout) for _ in range(config.blocks)])
        self.mixes = nn.ModuleDict(
            {str(k): _Mix(layout, config.mix_width) for k in config.mix_before if k < config.blocks}
        )
        self.shared = _Shared(layout, config) if config.shared_filters else None
        self.kriged = _Kriged(layout) if config.kriges else None
        self.heads, self.sigma_heads = nn.ModuleDict(), nn.ModuleDict()
        for factor, pixels in READINGS:
            key = network_key(factor, pixels)
            self.heads[key] = _Head(layout, config.filters, factor)
            self.sigma_heads[key] = _Head(
                layout, config.sigma_filters, factor, -3.0, config.sigma_dilations
            )
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    @property
    def reach(self) -> int:
        """Coarse pixels around an output pixel that it depends on."""
        shared = 2 * self.config.shared_blocks if self.config.shared_filters else 0
        own = 1 + 2 * self.config.blocks + 2 + sum(self.config.sigma_dilations)
        return own + shared + LARGEST_REACH_STEPS

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Prediction:
        """Return the estimate on the fine grid, in photons per coarse pixel."""
        pixels = fast_pixels_in(conditions, factor)
        span, low = conditions.span[..., None, None], conditions.low[..., None, None]
        start = smoothed_start(counts, conditions.smoothing, factor, pixels)
        hidden = self.condition(condition_vector(conditions, factor))
        start, differs = self.with_kriging(counts, start, conditions, hidden, (factor, pixels))
        planes = stem_planes(counts, start, low, span, factor, pixels)
        features = self.stems[str(pixels)](planes)
        if differs is not None and self.kriged is not None:
            features = features + self.kriged.stem(differs)
        film = film_of(self, hidden)[..., None, None]
        n_elements = counts.shape[1]
        shared = None
        for index, block in enumerate(self.blocks):
            if self.shared is not None and str(index) in self.shared.given:
                if shared is None:
                    shared = self.shared(features, n_elements, hidden)
                given = self.shared.given[str(index)](shared)
                sets = features.unflatten(0, (-1, n_elements))
                features = (sets + given[:, None]).flatten(0, 1)
            if str(index) in self.mixes:
                features = self.mixes[str(index)](features, n_elements)
            features = block(features, film[:, index, 0], film[:, index, 1])
        key = network_key(factor, pixels)
        correction = self.heads[key](features).float()
        log_sigma = self.sigma_heads[key](features.detach()).float()
        stabilised, sigma = decode(start, span, correction, log_sigma)
        return Prediction(unstabilise_tensor(stabilised), stabilised, sigma)

    def with_kriging(
        self,
        counts: Tensor,
        start: Tensor,
        conditions: Conditions,
        hidden: Tensor,
        reading: Reading,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the start with kriging's share in it, and how much kriging differs.

        The difference is folded into coarse pixels, (batch * element, channel, y, x), in units of
        the span; None where kriging has no say.
        """
        if self.kriged is None or reading != KRIGED:
            return start, None
        with torch.autocast(counts.device.type, enabled=False):
            differs = kriged(counts, conditions.covariance, reading) - start
            share = self.kriged.share(hidden.float()).view(*start.shape[:2], 1, 1)
            relative = differs / conditions.span[..., None, None]
            return start + share * differs, fold(relative.flatten(0, 1), KRIGED)


def fold(planes: Tensor, block: tuple[int, int]) -> Tensor:
    """Return planes (plane, Y, X) with blocks of pixels as channels, (plane, channel, y, x)."""
    rows, columns = block
    return (
        planes.unflatten(-1, (-1, columns))
        .unflatten(-3, (-1, rows))
        .permute(0, 2, 4, 1, 3)
        .flatten(1, 2)
    )


def kriged(counts: Tensor, covariance: Tensor, reading: Reading) -> Tensor:
    """Return what kriging makes of rows, in stabilised photons per coarse pixel, (..., Y, X)."""
    factor, pixels = reading
    planes = stabilise_tensor(counts.float().flatten(0, 1))
    weights = _kernels(tuple(covariance.flatten().tolist()), factor, pixels).to(counts.device)
    padding = (REACH_STEPS * pixels,) * 2 + (REACH_STEPS,) * 2
    padded = functional.pad(planes[:, None], padding, mode="replicate")
    made = functional.conv2d(padded.movedim(1, 0), weights, groups=len(planes))
    fine = made[0].unflatten(0, (len(planes), factor)).transpose(1, 2).flatten(1, 2)
    # Stabilised counts of a measured pixel become those of a coarse one.
    return stabilise_tensor(pixels * unstabilise_tensor(fine)).unflatten(0, counts.shape[:2])


@lru_cache(maxsize=64)
def _kernels(chosen: tuple[int, ...], factor: int, pixels: int) -> Tensor:
    made = np.concatenate([kernels(max(number, 0), factor, pixels) for number in chosen])
    return torch.from_numpy(made)[:, None]


def network_key(factor: int, pixels: int) -> str:
    """Return the name of the heads for a factor and measured pixels per coarse step."""
    return f"{factor}x{pixels}"


def film_of(network: FoldedNetwork, hidden: Tensor) -> Tensor:
    """Return what modulates the features, (map and element, block, scale or shift, feature)."""
    return _for_all_versions(network.film(hidden), network.config.blocks)


def _for_all_versions(film: Tensor, blocks: int) -> Tensor:
    """Return modulations (map, block, scale or shift, feature), as numbers side by side are."""
    film = film.unflatten(1, (blocks, 2, 1, -1))
    # The same for the four versions of a feature.
    return film.expand(-1, -1, -1, MIRRORINGS, -1).flatten(3)


def smoothed_start(counts: Tensor, widths: Tensor, factor: int, pixels: int) -> Tensor:
    """Return the stabilised photons per coarse pixel that the network corrects, (..., Y, X)."""
    return stabilise_tensor(pixels * smooth(counts, widths, factor, pixels))


def decode(
    start: Tensor, span: Tensor, correction: Tensor, log_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the stabilised estimate and its sigma from what the heads say.

    `start` is (map, element, Y, X), `span` broadcasts against it, and the heads' planes have as
    many pixels.
    """
    stabilised = start + span * correction.reshape(start.shape)
    relative = torch.exp(log_sigma.reshape(start.shape).clamp(-12, 4))
    return stabilised, torch.sqrt(0.02 + (span * relative) ** 2)


def _folded_inputs(pixels: int) -> Layout:
    measured, single = folded(1, pixels), folded(1, 1)
    # Measured pixels, what interpolation and smoothing make of them, their sum, and 1 inside.
    return joined(measured, measured, single, single)


def stem_planes(
    counts: Tensor, start: Tensor, low: Tensor, span: Tensor, factor: int, pixels: int
) -> Tensor:
    """Return the channels of the stem, (batch * element, channel, y, x) in coarse pixels."""
    width = counts.shape[-1] // pixels
    # A measured pixel has the `pixels`-th part of the photons: scaled like the sum, noisier.
    own = (pixels**0.5 * stabilise_tensor(counts) - low) / span
    summed = stabilise_tensor(counts.unflatten(-1, (width, pixels)).sum(-1))
    summed = (summed - low) / span
    interpolated = functional.avg_pool2d((start - low) / span, (factor, factor // pixels))
    # The last plane is 1 inside: what a convolution sees beyond the border is 0 there.
    planes = (own, interpolated, summed, torch.ones_like(summed))
    return torch.cat(
        [plane.flatten(0, 1).unflatten(-1, (width, -1)) for plane in planes], -1
    ).movedim(-1, 1)


def smooth(counts: Tensor, widths: Tensor, factor: int, pixels: int) -> Tensor:
    """`physics.smoothing.smoothed` in torch, for widths (batch, element)."""
    with torch.autocast(counts.device.type, enabled=False):
        flat = counts.float().flatten(0, 1)
        index = widths.flatten()
        slow = _matrices(flat.shape[-2], factor, factor).to(flat.device)[index]
        fast = _matrices(flat.shape[-1], factor // pixels, factor).to(flat.device)[index]
        made = torch.bmm(torch.bmm(slow, flat), fast.transpose(1, 2))
        return made.unflatten(0, counts.shape[:2]).clamp(min=0)


@lru_cache(maxsize=16)
def _matrices(num: int, factor: int, fine_per_step: int) -> Tensor:
    return torch.tensor(smoothing_matrices(num, factor, fine_per_step), dtype=torch.float32)


def condition_vector(conditions: Conditions, factor: int) -> Tensor:
    """Return what modulates the blocks, (batch * element, N_CONDITIONS)."""
    span, low = conditions.span, conditions.low
    factors = torch.tensor(FACTORS, device=span.device) == factor
    per_map = torch.cat(
        [
            torch.stack([conditions.probe, conditions.target_probe], -1),
            (conditions.probe > 0).to(span.dtype)[:, None],
            functional.one_hot(conditions.sampling, len(SAMPLINGS)).to(span.dtype),
            factors.to(span.dtype).expand(len(span), -1),
        ],
        -1,
    )
    width = torch.tensor(WIDTHS_STEPS, device=span.device)[conditions.smoothing]
    per_element = torch.stack(
        [torch.log(span / SMALLEST_RANGE) / 2, torch.log1p(low) / 2, width], -1
    )
    per_map = per_map[:, None].expand(-1, span.shape[1], -1)
    return torch.cat([per_element, per_map], -1).flatten(0, 1)
