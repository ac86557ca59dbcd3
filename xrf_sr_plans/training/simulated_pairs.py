"""Pairs of a coarse, noisy map and the fine truth, made by the forward model.

A batch is a pure function of seed and batch number, so a training can be stopped anywhere and
goes on with the batch that it would have seen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.measurement import (
    SAME_GRID,
    TRAINED_PROBE_STEPS,
    Measurement,
    Reading,
    Sampling,
    checked_sampling,
)
from xrf_sr_plans.physics.forward import (
    Detector,
    coarsen,
    detect,
    i0_ripple,
    probe_blur,
    shift_rows,
)
from xrf_sr_plans.physics.smoothing import chosen_widths
from xrf_sr_plans.sr.kriging import kriging_choice
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel
from xrf_sr_plans.training.phantoms import ALL_FAMILIES, phantom

LARGEST_BLUR_PX = 8.0
"""Standard deviation, in fine pixels, of the blur of the smoothest samples."""
SAMPLING_SHARES: dict[Sampling, float] = {"rows": 0.6, "fly": 0.25, "area": 0.1, "point": 0.05}
"""How often a simulated map is sampled in which way."""
FOREIGN_SHARE = 0.2
"""Share of the crops whose elements come from as many samples and have nothing in common."""
RECONTRASTED_SHARE = 0.25
"""Share of the crops whose contrast is changed by a power law, element by element."""
FACTOR_TURNS = (4, 2, 4, 2, 1)
"""Factors of successive batches."""
_COUNTING = Detector(n_elements=1, dead_time_us=0.0)


@dataclass(frozen=True)
class Simulation:
    """A simulated measurement of one sample: what the forward model needs beside the sample.

    Parameters
    ----------
    measurement
        How the coarse map is measured. Where it keeps the probe's blur, so does the truth.
    n99
        Counts per coarse pixel at an intensity of 1, for each element; infinite means no noise.
    i0_rms
        Relative root mean square of the beam intensity's ripple.
    i0_corrected
        Whether the counts are divided by the beam intensity.
    row_shift_steps
        Shift of every second row in coarse steps, which is the backlash of a snake.
    """

    measurement: Measurement
    n99: tuple[float, ...]
    i0_rms: float = 0.0
    i0_corrected: bool = True
    row_shift_steps: float = 0.0

    @classmethod
    def plain(cls, measurement: Measurement, n99: float, n_elements: int) -> Simulation:
        """Return one without defects in which all elements have the same counts."""
        return cls(measurement, (n99,) * n_elements)


@dataclass(frozen=True)
class Pair:
    """Measured counts (element, y, x) and the truth (element, Y, X) in photons per coarse pixel.

    Where a coarse step along the fast axis is measured in several pixels, each of these counts the
    photons of its own part.
    """

    counts: np.ndarray
    truth: np.ndarray
    measurement: Measurement


def draw_sampling(rng: np.random.Generator, factor: int) -> Sampling:
    """Draw how a map is sampled; on the same grid rows and a fly scan's squares are one."""
    drawn = checked_sampling(rng.choice(list(SAMPLING_SHARES), p=list(SAMPLING_SHARES.values())))
    return "fly" if factor == SAME_GRID and drawn == "rows" else drawn


def draw_reading(
    rng: np.random.Generator, factor: int, reads: Collection[Reading] | None = None
) -> Sampling:
    """Draw how a map is sampled among the ways that a network reads; None: any way.

    `reads` are those of the network, of which one at least has the factor.
    """
    drawn = draw_sampling(rng, factor)
    while reads is not None and Measurement(factor, drawn).reading not in reads:
        drawn = draw_sampling(rng, factor)
    return drawn


def draw_simulation(
    rng: np.random.Generator, factor: int, n_elements: int, sampling: Sampling | None = None
) -> Simulation:
    """Draw a simulation from the ranges met in practice (see "training data" of the model card).

    `sampling` is drawn, too, unless it is given.
    """
    sampling = draw_sampling(rng, factor) if sampling is None else sampling
    probe_steps = 0.0 if rng.random() < 0.4 else float(rng.uniform(0.15, TRAINED_PROBE_STEPS))
    regime = rng.random()
    low, high = (5, 1000) if regime < 0.62 else (1000, 1e5) if regime < 0.95 else (2, 5)
    level = np.log(low) + rng.random() * np.log(high / low)
    spread = rng.uniform(-1.8, 0.8, n_elements) * (rng.random() < 0.8)
    n99 = np.clip(np.exp(level + spread), 2, 2e5)
    return Simulation(
        Measurement(factor, sampling, probe_steps, deblur=rng.random() >= 0.5),
        tuple(float(value) for value in n99),
        i0_rms=float(rng.uniform(0, 0.03)),
        i0_corrected=bool(rng.random() < 0.7),
        row_shift_steps=float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.1 else 0.0,
    )


def simulate(sample: np.ndarray, simulation: Simulation, rng: np.random.Generator) -> Pair:
    """Return the pair that measuring a sample (element, Y, X) of relative intensities gives.

    The fine pixel is one pixel of the sample, whose sides must be multiples of the factor.
    """
    how = simulation.measurement
    level = np.asarray(simulation.n99).reshape(-1, 1, 1)
    noisy = np.isfinite(level)
    expected = np.asarray(sample, dtype=float) * np.where(noisy, level, 1.0)
    seen = probe_blur(expected, 1.0, how.probe_steps * how.factor)
    truth = seen if how.kept_probe_steps > 0 else expected
    if simulation.row_shift_steps:
        seen = shift_rows(seen, simulation.row_shift_steps * how.factor, how.factor)
    coarse = coarsen(seen, how.factor, how.sampling) / how.fast_pixels
    # Relative beam intensity of each measured pixel (y, x), the same for all elements.
    beam = i0_ripple(coarse[0].size, simulation.i0_rms, rng).reshape(coarse[0].shape)
    counts, _ = detect(coarse, 1.0, rng, i0_relative=beam, detector=_COUNTING)
    counts = np.where(noisy, counts[0], coarse * beam)
    if simulation.i0_corrected:
        counts = counts / beam
    return Pair(counts, truth, how)


@dataclass(frozen=True)
class Samples:
    """The samples that crops are cut from: phantoms and real maps, each (element, y, x)."""

    phantoms: Sequence[np.ndarray]
    real: Sequence[np.ndarray] = ()
    real_share: float = 0.3
    """Share of the crops that are cut from real maps, where there are any."""
    smooth_share: float = 0.0
    """Share of the crops that are blurred, as maps whose detail is several steps wide."""

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
        families = sorted(ALL_FAMILIES)
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
        """Return a random square (element, y, x) of random elements, mirrored and turned.

        Of some (`FOREIGN_SHARE`) each element is from a sample of its own, so that what others
        show is taken for a hint and no more.
        """
        if n_elements > 1 and rng.random() < FOREIGN_SHARE:
            return np.concatenate([self._crop(rng, size, 1) for _ in range(n_elements)])
        return self._crop(rng, size, n_elements)

    def _crop(self, rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
        """Return such a square of one sample."""
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
        if rng.random() < RECONTRASTED_SHARE:
            crop = crop ** np.exp(rng.uniform(-0.5, 0.5, (n_elements, 1, 1)))
        if self.smooth_share and rng.random() < self.smooth_share:
            return _smoothed(crop, rng)
        return crop


def _smoothed(sample: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a sample (element, y, x) blurred, each element's brightest pixel brought back to 1."""
    sigma_px = float(np.exp(rng.uniform(0, np.log(LARGEST_BLUR_PX))))
    blurred = ndimage.gaussian_filter(sample, (0, sigma_px, sigma_px))
    return blurred / np.maximum(blurred.max(axis=(1, 2), keepdims=True), 1e-6)


@dataclass(frozen=True)
class Batch:
    """Pairs of one factor and one number of elements, stacked, in single precision.

    Either all or none are rows. `counts` are (map, element, y, x), `truth` (map, element, Y, X);
    `low` and `span`, those of `Scale`, `smoothing`, that of `chosen_widths`, and `covariance`, that
    of `kriging_choice`, are (map, element); `measurements` has one of each map.
    """

    counts: np.ndarray
    truth: np.ndarray
    low: np.ndarray
    span: np.ndarray
    smoothing: np.ndarray
    covariance: np.ndarray
    measurements: tuple[Measurement, ...]

    @property
    def factor(self) -> int:
        """The factor of all its maps."""
        return self.measurements[0].factor


def make_batch(pairs: Sequence[Pair]) -> Batch:
    """Stack pairs of one factor and one number of elements."""
    counts = np.stack([pair.counts for pair in pairs])
    measurements = tuple(pair.measurement for pair in pairs)
    scale = Scale.of(per_coarse_pixel(counts, measurements[0]))
    widths = [chosen_widths(pair.counts, pair.measurement) for pair in pairs]
    single = np.float32
    return Batch(
        counts.astype(single),
        np.stack([pair.truth for pair in pairs]).astype(single),
        scale.low.astype(single),
        scale.span.astype(single),
        np.stack(widths),
        np.stack([kriging_choice(pair.counts, pair.measurement) for pair in pairs]),
        measurements,
    )


def random_batch(
    samples: Samples,
    seed: int,
    number: int,
    *,
    maps_per_batch: int = 32,
    coarse_px: int = 32,
    only_factor: int | None = None,
    only_elements: int | None = None,
    only_sampling: Sampling | None = None,
    reads: Collection[Reading] | None = None,
) -> Batch:
    """Return batch `number` of the stream `seed`: `maps_per_batch` single-element maps in all.

    `FACTOR_TURNS` take turns, and the number of elements and the sampling are drawn, unless they
    are given. The maps of a batch share whether they are rows. Of the factors and samplings only
    those are drawn that `reads` has, which is what a network reads; None: all.
    """
    rng = np.random.default_rng([seed, number])
    turns = [turn for turn in FACTOR_TURNS if reads is None or turn in {one for one, _ in reads}]
    factor = only_factor or turns[number % len(turns)]
    n_elements = only_elements or int(rng.choice([1, 2, 4, 6]))
    first = only_sampling or draw_reading(rng, factor, reads)
    squares = {(factor, 1)}
    pairs = []
    for _ in range(max(1, maps_per_batch // n_elements)):
        drawn = only_sampling is None and first != "rows"
        sampling = draw_reading(rng, factor, squares) if drawn else first
        sample = samples.crop(rng, coarse_px * factor, n_elements)
        pairs.append(simulate(sample, draw_simulation(rng, factor, n_elements, sampling), rng))
    return make_batch(pairs)
