"""Pairs of a coarse, noisy map and the fine truth, made by the forward model.

A batch is a pure function of (seed, batch number): training can be stopped anywhere and goes on
with the batch it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import FACTORS, Sampling, checked_sampling
from xrf_sr_plans.physics.forward import (
    Detector,
    coarsen,
    detect,
    i0_ripple,
    probe_blur,
    shift_rows,
)
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.training.phantoms import FAMILIES, phantom

LARGEST_BLUR_PX = 8.0
"""Sigma, in fine pixels, of the smoothest samples."""
SAMPLING_SHARES: dict[Sampling, float] = {"fly": 0.7, "area": 0.2, "point": 0.1}
"""How often a simulated map is sampled in which way."""
_COUNTING = Detector(n_elements=1, dead_time_us=0.0)


@dataclass(frozen=True)
class Measurement:
    """How one map is measured: what the forward model needs beside the sample."""

    factor: int
    sampling: Sampling
    probe: float
    """Probe FWHM in coarse steps."""
    target_probe: float
    """0: the truth is the sample itself; `probe`: what a fine scan with that probe would see."""
    n99: tuple[float, ...]
    """Counts per coarse pixel at an intensity of 1, per element; infinite: no noise."""
    i0_rms: float = 0.0
    i0_corrected: bool = True
    row_shift: float = 0.0
    """Shift of every second row, in coarse steps (backlash of a snake)."""


@dataclass(frozen=True)
class Pair:
    """Coarse counts (element, y, x) and the truth on the fine grid, in the same unit."""

    counts: np.ndarray
    truth: np.ndarray
    how: Measurement


def draw_measurement(rng: np.random.Generator, factor: int, n_elements: int) -> Measurement:
    """Draw a measurement from the ranges met in practice (docs: model card, "training data")."""
    sampling = checked_sampling(rng.choice(list(SAMPLING_SHARES), p=list(SAMPLING_SHARES.values())))
    probe = 0.0 if rng.random() < 0.4 else float(rng.uniform(0.15, 1.2))
    regime = rng.random()
    low, high = (5, 1000) if regime < 0.62 else (1000, 1e5) if regime < 0.95 else (2, 5)
    level = np.log(low) + rng.random() * np.log(high / low)
    spread = rng.uniform(-1.8, 0.8, n_elements) * (rng.random() < 0.8)
    n99 = np.clip(np.exp(level + spread), 2, 2e5)
    return Measurement(
        factor=factor,
        sampling=sampling,
        probe=probe,
        target_probe=probe if rng.random() < 0.5 else 0.0,
        n99=tuple(float(value) for value in n99),
        i0_rms=float(rng.uniform(0, 0.03)),
        i0_corrected=bool(rng.random() < 0.7),
        row_shift=float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.1 else 0.0,
    )


def measure(sample: np.ndarray, how: Measurement, rng: np.random.Generator) -> Pair:
    """Measure a sample (element, y, x) of relative intensities.

    The fine pixel is one sample pixel; sides must be multiples of the factor.
    """
    level = np.asarray(how.n99).reshape(-1, 1, 1)
    noisy = np.isfinite(level)
    expected = np.asarray(sample, dtype=float) * np.where(noisy, level, 1.0)
    seen = probe_blur(expected, 1.0, how.probe * how.factor)
    truth = seen if how.target_probe > 0 else expected
    if how.row_shift:
        seen = shift_rows(seen, how.row_shift * how.factor, how.factor)
    coarse = coarsen(seen, how.factor, how.sampling)
    beam = i0_ripple(coarse[0].size, how.i0_rms, rng).reshape(coarse[0].shape)
    counts, _ = detect(coarse, 1.0, rng, i0_relative=beam, detector=_COUNTING)
    counts = np.where(noisy, counts[0], coarse * beam)
    if how.i0_corrected:
        counts = counts / beam
    return Pair(counts, truth, how)


@dataclass(frozen=True)
class Samples:
    """The samples that crops are cut from: phantoms of given seeds, and real maps."""

    phantoms: Sequence[np.ndarray]
    real: Sequence[np.ndarray] = ()
    real_share: float = 0.3
    smooth_share: float = 0.0
    """Of the crops, made as smooth as maps whose detail ends several pixels above the step."""

    @classmethod
    def make(
        cls,
        n_phantoms: int,
        first_seed: int,
        real: Sequence[np.ndarray] = (),
        *,
        size: int = 192,
        n_elements: int = 6,
        real_share: float = 0.3,
        smooth_share: float = 0.0,
    ) -> Samples:
        """Paint `n_phantoms` phantoms, families in turn, from consecutive seeds."""
        families = sorted(FAMILIES)
        painted = [
            phantom(
                families[index % len(families)],
                first_seed + index,
                size=size,
                n_elements=n_elements,
            ).astype(np.float32)
            for index in range(n_phantoms)
        ]
        return cls(painted, tuple(real), real_share, smooth_share)

    def crop(self, rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
        """Cut a random square (element, y, x) with random elements, flipped and turned."""
        fitting = [m for m in self.real if m.shape[0] >= n_elements and min(m.shape[1:]) >= size]
        if fitting and (not self.phantoms or rng.random() < self.real_share):
            source = fitting[int(rng.integers(len(fitting)))]
        else:
            source = self.phantoms[int(rng.integers(len(self.phantoms)))]
        elements = rng.permutation(source.shape[0])[:n_elements]
        y, x = (int(rng.integers(side - size + 1)) for side in source.shape[1:])
        crop = source[elements, y : y + size, x : x + size]
        crop = np.rot90(crop, int(rng.integers(4)), axes=(1, 2))
        crop = crop[..., ::-1] if rng.random() < 0.5 else crop
        if self.smooth_share and rng.random() < self.smooth_share:
            return _smoothed(crop, rng)
        return crop


def _smoothed(sample: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur a sample (element, y, x) and bring each element's brightest pixel back to 1."""
    sigma_px = float(np.exp(rng.uniform(0, np.log(LARGEST_BLUR_PX))))
    blurred = ndimage.gaussian_filter(sample, (0, sigma_px, sigma_px))
    return blurred / np.maximum(blurred.max(axis=(1, 2), keepdims=True), 1e-6)


@dataclass(frozen=True)
class Batch:
    """A batch as float32 arrays, ready for the network."""

    counts: np.ndarray
    truth: np.ndarray
    low: np.ndarray
    span: np.ndarray
    probe: np.ndarray
    target_probe: np.ndarray
    sampling: np.ndarray
    factor: int


def make_batch(pairs: Sequence[Pair], samplings: Sequence[Sampling]) -> Batch:
    """Stack pairs of one factor and one number of elements."""
    counts = np.stack([pair.counts for pair in pairs])
    scale = Scale.of(counts)
    single = np.float32
    return Batch(
        counts.astype(single),
        np.stack([pair.truth for pair in pairs]).astype(single),
        scale.low.astype(single),
        scale.span.astype(single),
        np.array([pair.how.probe for pair in pairs], single),
        np.array([pair.how.target_probe for pair in pairs], single),
        np.array([samplings.index(pair.how.sampling) for pair in pairs], np.int64),
        pairs[0].how.factor,
    )


def random_batch(
    samples: Samples,
    seed: int,
    number: int,
    samplings: Sequence[Sampling],
    *,
    maps_per_batch: int = 32,
    coarse_px: int = 32,
    only_factor: int | None = None,
    only_elements: int | None = None,
) -> Batch:
    """Return batch `number` of the stream `seed`: `maps_per_batch` single-element maps in all.

    Factors 2 and 4 take turns and the number of elements is drawn, unless they are given.
    """
    rng = np.random.default_rng([seed, number])
    factor = only_factor or FACTORS[number % len(FACTORS)]
    n_elements = only_elements or int(rng.choice([1, 2, 4, 6]))
    pairs = []
    for _ in range(max(1, maps_per_batch // n_elements)):
        sample = samples.crop(rng, coarse_px * factor, n_elements)
        pairs.append(measure(sample, draw_measurement(rng, factor, n_elements), rng))
    return make_batch(pairs, samplings)
