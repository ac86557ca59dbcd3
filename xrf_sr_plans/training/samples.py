"""Samples whose truth is known: phantoms, and measured maps that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xrf_sr_plans.training.phantoms import FAMILIES, phantom
from xrf_sr_plans.training.real_maps import calibration_maps, validation_maps


@dataclass(frozen=True)
class Sample:
    """A named sample that measurements are simulated on."""

    name: str
    kind: str
    """Phantom family, or where it comes from."""
    maps: np.ndarray


def phantom_samples(n_per_family: int, first_seed: int, *, size: int = 192) -> Iterator[Sample]:
    """Yield phantoms of every family; five elements each."""
    for family in sorted(FAMILIES):
        for seed in range(first_seed, first_seed + n_per_family):
            yield Sample(f"{family}-{seed}", family, phantom(family, seed, size=size))


def real_samples(folder: Path) -> Iterator[Sample]:
    """Yield what training never sees: tissue block C3, and Zagami in square pieces."""
    for name, maps in validation_maps(folder).items():
        yield Sample(name, "tissue C3", maps)
    for name, maps in calibration_maps(folder).items():
        side = maps.shape[2]
        for low in range(0, maps.shape[1] - side + 1, side):
            yield Sample(f"{name}-{low}", "zagami", maps[:, low : low + side])


def fit_to_blocks(maps: np.ndarray, factor: int) -> np.ndarray:
    """Cut off what doesn't fill a coarse pixel."""
    height, width = (size // factor * factor for size in maps.shape[1:])
    return maps[:, :height, :width]
