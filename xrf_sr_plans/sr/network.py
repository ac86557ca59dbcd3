"""The default network: a residual trunk shared by all elements, which look at each other.

Each element of a map runs through the same convolutions (so any number and order of elements
will do); at three depths an element also sees the mean and the maximum of what all elements
found at the pixel, which don't depend on their order (M. Zaheer et al., Deep Sets, NeurIPS 2017,
arXiv 1703.06114). What is known about the measurement (counting noise, probe, sampling, factor)
modulates every block (E. Perez et al., FiLM, AAAI 2018, arXiv 1709.07871). The heads end in
PixelShuffle (W. Shi et al., CVPR 2016, arXiv 1609.05158). The network corrects bicubic in
stabilised counts: with zero heads it *is* bicubic.

Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from xrf_sr_plans.measurement import (
    COARSER_FACTORS,
    ENLARGED_SQUARES,
    SAMPLINGS,
    TRAINED_PROBE_STEPS,
    Measurement,
    Reading,
    Sampling,
)
from xrf_sr_plans.physics.counting import OFFSET
from xrf_sr_plans.physics.resample import upsample_matrix
from xrf_sr_plans.sr.scale import SMALLEST_RANGE

SQUARES: tuple[Sampling, ...] = ("fly", "area", "point")
"""The samplings that a `SetNetwork` reads, in the order of its weights."""
N_CONDITIONS = 6 + len(SQUARES)
"""Numbers that modulate every block."""
SIGMA_DILATIONS = (2, 4)
"""Dilations of the convolutions by which a sigma sees a wider surrounding than the estimate."""


class Conditions(NamedTuple):
    """What is known about each map of a batch, as tensors (batch,) or (batch, element).

    It is the form in which networks take `Measurement` and `Scale`; `conditions_of` makes it.
    """

    low: Tensor
    """Low end of the stabilised counts, per element (`Scale`)."""
    span: Tensor
    """Robust range of the stabilised counts, per element (`Scale.span`)."""
    probe: Tensor
    """Probe FWHM in coarse steps, 0 where unknown."""
    target_probe: Tensor
    """FWHM, in coarse steps, of the probe with which the estimate is still to be blurred."""
    sampling: Tensor
    """Index into `SAMPLINGS`."""
    smoothing: Tensor
    """Index into `physics.smoothing.WIDTHS_STEPS` of what each element needs."""
    covariance: Tensor
    """Which covariance fits each element best (`sr.kriging.chosen_covariances`), -1: unknown."""


def conditions_of(
    low: ArrayLike,
    span: ArrayLike,
    measurements: Sequence[Measurement],
    smoothing: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
) -> Conditions:
    """Return what a network is told about a batch of maps.

    Parameters
    ----------
    low, span
        (map, element) ends and ranges of the stabilised counts, see `Scale`.
    measurements
        One of each map.
    smoothing
        (map, element) indices of `physics.smoothing.chosen_widths`; None: nothing is smoothed,
        which is all the same to networks that don't look at it.
    covariance
        (map, element) numbers of `sr.kriging.chosen_covariances`; None: unknown.
    """

    def single(values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)

    return Conditions(
        low=single(low),
        span=single(span),
        probe=single([min(one.probe_steps, TRAINED_PROBE_STEPS) for one in measurements]),
        target_probe=single(
            [min(one.kept_probe_steps, TRAINED_PROBE_STEPS) for one in measurements]
        ),
        sampling=torch.tensor([SAMPLINGS.index(_flown(one)) for one in measurements]),
        smoothing=torch.as_tensor(
            np.zeros(np.shape(low)) if smoothing is None else np.asarray(smoothing)
        ).long(),
        covariance=torch.as_tensor(
            np.full(np.shape(low), -1) if covariance is None else np.asarray(covariance)
        ).long(),
    )


def _flown(measurement: Measurement) -> Sampling:
    """Return the sampling; on the same grid rows and a fly scan's squares are one."""
    return measurement.sampling if measurement.fast_pixels > 1 else measurement.squares.sampling


def fast_pixels_in(conditions: Conditions, factor: int) -> int:
    """Return the measured pixels per coarse step along the fast axis of a batch."""
    return factor if SAMPLINGS[int(conditions.sampling[0])] == "rows" else 1


class Prediction(NamedTuple):
    """Estimate (counts, may be slightly negative), the same stabilised, and its sigma."""

    estimate: Tensor
    stabilised: Tensor
    sigma: Tensor
    """One standard deviation of the stabilised estimate."""


@dataclass(frozen=True)
class SetNetworkConfig:
    """Size of a `SetNetwork`."""

    filters: int = 48
    blocks: int = 6
    mix_before: tuple[int, ...] = (0, 2, 4)
    """Blocks before which the elements of a map look at each other; none: each for itself."""
    mix_width: int = 16
    """Features that an element shows the others: few, since every element computes them."""
    sigma_dilations: tuple[int, ...] = SIGMA_DILATIONS


class _Block(nn.Module):
    def __init__(self, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(filters, filters, 3, padding=1)
        self.second = nn.Conv2d(filters, filters, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inner = functional.relu(self.first(features) * (1 + scale) + shift)
        return features + self.second(inner)


class _Mix(nn.Module):
    """Let the elements of a map see the mean and maximum of each other's features."""

    def __init__(self, filters: int, width: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(filters, 2 * width, 1)
        self.out = nn.Conv2d(filters + 2 * width, filters, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, n_elements: int) -> Tensor:
        value, gate = self.value(features).chunk(2, dim=1)
        sets = (functional.relu(value) * torch.sigmoid(gate)).unflatten(0, (-1, n_elements))
        pooled = torch.cat([sets.mean(1), sets.amax(1)], dim=1)
        # One convolution of [own, pooled] features, but the pooled part once per map.
        own, shared = self.out.weight.split([features.shape[1], pooled.shape[1]], dim=1)
        seen = functional.conv2d(pooled, shared, self.out.bias)
        mixed = functional.conv2d(functional.relu(features), own).unflatten(0, (-1, n_elements))
        return features + (mixed + seen[:, None]).flatten(0, 1)


class _Dilated(nn.Conv2d):
    """A dilated convolution in float32.

    On a CPU its gradients would be NaN in bfloat16 (torch 2.13, channels last).
    """

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class _Head(nn.Module):
    """Turns features into one fine plane. With `dilations` it sees a wider surrounding."""

    def __init__(
        self,
        filters: int,
        hidden: int,
        factor: int,
        bias: float = 0.0,
        dilations: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.inner = nn.Conv2d(filters, hidden, 3, padding=1)
        self.wider = nn.ModuleList(
            [_Dilated(hidden, hidden, 3, padding=d, dilation=d) for d in dilations]
        )
        self.out = nn.Conv2d(hidden, factor * factor, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)
        for conv in self.wider:
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        seen = self.inner(features)
        for conv in self.wider:
            seen = seen + conv(functional.relu(seen))
        return self.shuffle(self.out(functional.relu(seen)))


class SetNetwork(nn.Module):
    """Super-resolve counts (batch, element, y, x) of squares by 2 or 4."""

    reads: tuple[Reading, ...] = ENLARGED_SQUARES
    smooths = False
    """Whether it wants to know what smoothing each element needs."""

    def __init__(self, config: SetNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SetNetworkConfig()
        filters, blocks = config.filters, config.blocks
        self.stem = nn.Conv2d(2, filters, 3, padding=1)
        self.condition = nn.Sequential(nn.Linear(N_CONDITIONS, 64), nn.ReLU())
        self.film = nn.Linear(64, blocks * 2 * filters)
        self.blocks = nn.ModuleList([_Block(filters) for _ in range(blocks)])
        self.mixes = nn.ModuleDict(
            {str(k): _Mix(filters, config.mix_width) for k in config.mix_before if k < blocks}
        )
        self.heads = nn.ModuleDict({str(f): _Head(filters, filters, f) for f in COARSER_FACTORS})
        self.sigma_heads = nn.ModuleDict(
            {str(f): _Head(filters, 24, f, -3.0, config.sigma_dilations) for f in COARSER_FACTORS}
        )
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    @property
    def reach(self) -> int:
        """Coarse pixels around an output pixel that it depends on."""
        return 1 + 2 * self.config.blocks + 2 + sum(self.config.sigma_dilations)

    def forward(self, counts: Tensor, conditions: Conditions, factor: int) -> Prediction:
        """Return the estimate on the fine grid, in photons per coarse pixel."""
        batch, n_elements, height, width = counts.shape
        span = conditions.span[..., None, None]
        flat = stabilise_tensor(counts)
        unit = ((flat - conditions.low[..., None, None]) / span).reshape(-1, 1, height, width)
        # The second plane is 1 inside: what a convolution sees beyond the border is 0 there.
        features = self.stem(torch.cat([unit, torch.ones_like(unit)], 1))
        film = self.film(self.condition(condition_vector(conditions, factor)))
        film = film.reshape(batch * n_elements, self.config.blocks, 2, -1, 1, 1)
        for index, block in enumerate(self.blocks):
            if str(index) in self.mixes:
                features = self.mixes[str(index)](features, n_elements)
            features = block(features, film[:, index, 0], film[:, index, 1])
        correction = self.heads[str(factor)](features).float()
        log_sigma = self.sigma_heads[str(factor)](features.detach()).float()
        shape = (batch, n_elements, height * factor, width * factor)
        stabilised, sigma = decode(
            counts, span, factor, correction.view(shape), log_sigma.view(shape)
        )
        return Prediction(unstabilise_tensor(stabilised), stabilised, sigma)


def decode(
    counts: Tensor, span: Tensor, factor: int, correction: Tensor, log_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the stabilised estimate and its sigma from what the heads say, all (..., Y, X)."""
    stabilised = stabilise_tensor(upsample_tensor(counts, factor)) + span * correction
    relative = torch.exp(log_sigma.clamp(-12, 4))
    return stabilised, torch.sqrt(0.02 + (span * relative) ** 2)


def stabilise_tensor(counts: Tensor) -> Tensor:
    """`physics.counting.stabilise` in torch."""
    return 2.0 * torch.sqrt(counts.clamp(min=0) + OFFSET)


def unstabilise_tensor(stabilised: Tensor) -> Tensor:
    """Inverse of `stabilise_tensor`, continued by its tangent below zero counts: a gradient."""
    zero = 2.0 * OFFSET**0.5
    return torch.where(
        stabilised > zero, stabilised**2 / 4 - OFFSET, (stabilised - zero) * (zero / 2)
    )


def condition_vector(conditions: Conditions, factor: int) -> Tensor:
    """Return what modulates the blocks, (batch * element, N_CONDITIONS)."""
    span, low = conditions.span, conditions.low
    one_hot = functional.one_hot(conditions.sampling, len(SQUARES)).to(span.dtype)
    per_map = torch.cat(
        [
            torch.stack([conditions.probe, conditions.target_probe], -1),
            (conditions.probe > 0).to(span.dtype)[:, None],
            one_hot,
            torch.full_like(conditions.probe, factor / 2 - 1)[:, None],
        ],
        -1,
    )
    per_element = torch.stack([torch.log(span / SMALLEST_RANGE) / 2, torch.log1p(low) / 2], -1)
    per_map = per_map[:, None].expand(-1, span.shape[1], -1)
    return torch.cat([per_element, per_map], -1).flatten(0, 1)


@lru_cache(maxsize=64)
def _bicubic(num: int, factor: int) -> Tensor:
    return torch.tensor(upsample_matrix(num, factor, "bicubic"), dtype=torch.float32)


def upsample_tensor(maps: Tensor, factor: int | tuple[int, int]) -> Tensor:
    """`physics.resample.upsample` (bicubic) in torch."""
    along_y, along_x = (factor, factor) if isinstance(factor, int) else factor
    with torch.autocast(maps.device.type, enabled=False):
        rows = _bicubic(maps.shape[-2], along_y).to(maps)
        columns = _bicubic(maps.shape[-1], along_x).to(maps)
        return rows @ maps @ columns.T
