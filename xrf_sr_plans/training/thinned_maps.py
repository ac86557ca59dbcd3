"""A user's own coarse maps as training data: photons thinned into independent halves.

A Poisson count split binomially gives two independent Poisson counts, so one part can be the
network's input and the other an unbiased target (J. Lehtinen et al., Noise2Noise, ICML 2018,
arXiv 1803.04189; A. Neufeld et al., JMLR 25 (2024) no. 57, arXiv 2301.07276).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.files import as_photons
from xrf_sr_plans.maps.readers import ReadOptions, read_map
from xrf_sr_plans.measurement import Measurement, Sampling, checked_sampling
from xrf_sr_plans.physics.operators import forward_matrices, measure_again
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.training.simulated_pairs import Batch, Pair, make_batch

SMALLEST_SIDE = 32
"""Coarse pixels: a map made 4 times coarser still has 8."""
LEAST_COUNTS = 4.0
"""Photons at the 99.5 % quantile below which an element has nothing to learn from."""


@dataclass(frozen=True, eq=False)
class CoarseMap:
    """A measured coarse map.

    Parameters
    ----------
    name
        Where it comes from, for messages.
    counts
        (element, y, x) photons per measured pixel, whole numbers.
    sampling
        What a pixel averages over.
    probe_steps
        Full width at half maximum of the probe in steps of this map; 0 where it is unknown.
    fast_pixels
        Measured pixels per step along the fast axis: above 1 for rows only.
    """

    name: str
    counts: np.ndarray
    sampling: Sampling = "fly"
    probe_steps: float = 0.0
    fast_pixels: int = 1

    @property
    def steps(self) -> tuple[int, int]:
        """Coarse steps along (y, x)."""
        return self.counts.shape[1], self.counts.shape[2] // self.fast_pixels

    def measurement(self, factor: int) -> Measurement:
        """Return how it was measured, seen from a grid `factor` times finer.

        What a fine scan with the same probe would count is all that can be learnt from it, so the
        probe's blur is kept. Rows of another factor are summed to squares first (`seen_at`).
        """
        rows = self.sampling == "rows" and self.fast_pixels == factor
        sampling = "fly" if self.sampling == "rows" and not rows else self.sampling
        return Measurement(factor, sampling, self.probe_steps, deblur=False)

    def seen_at(self, factor: int) -> CoarseMap:
        """Return the map that `measurement` describes: itself, or the squares of its rows."""
        return self if self.measurement(factor).fast_pixels == self.fast_pixels else self.squares()

    def squares(self) -> CoarseMap:
        """Return the map with the pixels of each step summed."""
        counts = self.counts.reshape(*self.counts.shape[:2], -1, self.fast_pixels).sum(axis=-1)
        return replace(self, counts=counts, fast_pixels=1)

    def coarser_measurement(self, factor: int) -> Measurement:
        """Return how the map `factor` times coarser is measured, this one's squares being fine."""
        return Measurement(factor, self.sampling, self.probe_steps / factor, deblur=False)

    @classmethod
    def of(
        cls,
        name: str,
        counts: np.ndarray,
        sampling: Sampling = "fly",
        probe_steps: float = 0.0,
        fast_pixels: int = 1,
    ) -> CoarseMap:
        """Return a map of counts (element, y, x), NaN where nothing was measured.

        Gaps are filled and elements without signal are left out.

        Raises
        ------
        ConfigError
            The map is too small, its pixels don't fill the steps, or no element has enough
            photons.
        """
        checked_sampling(sampling)
        height, width = np.shape(counts)[-2:]
        if fast_pixels > 1 and (sampling != "rows" or width % fast_pixels):
            raise ConfigError(
                f"{name}: {fast_pixels} pixels per step; sampling 'rows' and a multiple of"
                f" {fast_pixels} pixels along a row are needed, not {sampling!r} and {width}"
            )
        if min(height, width // fast_pixels) < SMALLEST_SIDE:
            raise ConfigError(
                f"{name}: {(height, width // fast_pixels)} pixels; each side needs {SMALLEST_SIDE}"
            )
        ready = prepare(counts)
        if ready.background is not None and ready.background.any():
            raise ConfigError(
                f"{name}: net counts (values below 0): their photons can't be divided in two; give"
                " the counts before the background was subtracted"
            )
        whole = np.rint(ready.counts).astype(np.int64)
        top = np.quantile(whole.reshape(len(whole), -1), 0.995, axis=1)
        if top.max() < LEAST_COUNTS:
            raise ConfigError(
                f"{name}: at most {top.max():g} at the 99.5 % quantile of any element;"
                f" {LEAST_COUNTS:g} photons at least are needed (not rates, nor concentrations)"
            )
        return cls(name, whole[top >= LEAST_COUNTS], sampling, probe_steps, fast_pixels)


def read_coarse_maps(
    files: Sequence[Path],
    sampling: Sampling | None = None,
    probe_um: float | None = None,
    dwell_ms: float | None = None,
    units: str | None = None,
    fast_pixels: int | None = None,
    *,
    reader: str | None = None,
    options: ReadOptions | None = None,
) -> list[CoarseMap]:
    """Read coarse maps, of any kind of file or run that is read.

    `dwell_ms` and `units` are those of `maps.files.as_photons`, `reader` and `options` those of
    `maps.readers.read_map`. Where `sampling` and `fast_pixels` are None, they are what a run says
    of itself, and of files ``fly`` and 1.

    Raises
    ------
    AssemblyError
        A run that can't be read.
    ConfigError
        No files, a map that is too small or holds no photons, or a probe without a known step.
    FileFormatError
        A file that holds no maps, or values that are no photons.
    """
    if not files:
        raise ConfigError("no coarse maps: name a file at least (--maps FILE)")
    maps = []
    for path in files:
        read = read_map(path, reader=reader, options=options, dwell_ms=dwell_ms)
        file = as_photons(read, dwell_ms=dwell_ms, units=units)
        flown_as = sampling or checked_sampling(file.meta.get("sampling", "fly"))
        along = fast_pixels or int(file.meta.get("fast_pixels", 1))
        if probe_um is not None and not file.pixel_size_um > 0:
            raise ConfigError(f"{path}: probe_um is {probe_um}, but the file doesn't say its step")
        step_um = file.pixel_size_um * along
        probe_steps = 0.0 if probe_um is None else probe_um / step_um
        maps.append(CoarseMap.of(str(path), file.maps, flown_as, probe_steps, along))
    return maps


def thin(
    counts: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split whole counts into two independent parts, `share` of the photons and the rest."""
    kept = rng.binomial(counts, share)
    return kept, counts - kept


@lru_cache(maxsize=16)
def photon_gain(measurement: Measurement) -> float:
    """Return by what a coarsened map of counts is to be multiplied to have Poisson's variance.

    For `area` it is the number of pixels in a block, which gives the sum of their photons. The
    `measurement` is that of the coarser map and keeps the probe's blur.
    """
    side = 16 * measurement.factor
    # The weights with which one coarse pixel, far from the border, takes rows and columns.
    weights = (matrix[8] for matrix in forward_matrices((side, side), measurement))
    return float(1 / np.prod([np.square(row).sum() for row in weights]))


def coarser_pair(
    own: CoarseMap, counts: np.ndarray, target: np.ndarray, factor: int, ratio: float
) -> Pair:
    """Return the pair whose truth is a coarse map and whose input is `factor` times coarser.

    `counts` and `target` are independent parts (element, y, x) of the photons of the squares of
    `own`; on average `counts` is `ratio` times `target`.
    """
    measurement = own.coarser_measurement(factor)
    gain = photon_gain(measurement)
    seen = np.clip(gain * measure_again(counts, measurement), 0, None)
    return Pair(seen, gain * ratio * measurement.fast_pixels * target, measurement)


@dataclass(frozen=True, eq=False)
class ThinnedBatches:
    """Draws batches from thinned coarse maps; each is a function of the generator's state."""

    maps: Sequence[CoarseMap]
    maps_per_batch: int = 8
    coarse_px: int = 32

    def coarser(self, rng: np.random.Generator, factor: int) -> tuple[Batch, np.ndarray]:
        """Return pairs of `coarser_pair`, and what a photon of each target counts in its unit.

        The truth is the coarse map, the input is coarser still; they share no photon.
        """
        side = min(min(own.steps) // factor for own in self.maps)
        side = min(side, self.coarse_px) * factor
        return self._batch(rng, factor, side, coarser=True)

    def self_consistent(self, rng: np.random.Generator, factor: int) -> tuple[Batch, np.ndarray]:
        """Return coarse maps as input, and what a photon of each target counts in its unit.

        The `truth` of the batch is the same *measured* map in photons that are not in the input:
        the estimate, measured again, is to predict them.
        """
        side = min(self.coarse_px, min(min(own.steps) for own in self.maps))
        return self._batch(rng, factor, side, coarser=False)

    def _batch(
        self, rng: np.random.Generator, factor: int, side: int, *, coarser: bool
    ) -> tuple[Batch, np.ndarray]:
        fewest = min(len(own.counts) for own in self.maps)
        n_elements = int(rng.choice([n for n in (1, 2, 4, 6) if n <= fewest]))
        pairs, worth = [], []
        for _ in range(max(1, self.maps_per_batch // n_elements)):
            own = self.maps[int(rng.integers(len(self.maps)))]
            own = own.squares() if coarser else own.seen_at(factor)
            crop = _crop(own, rng, side, n_elements)
            if coarser:
                measurement = own.coarser_measurement(factor)
                gain = photon_gain(measurement)
                # From as many photons per pixel as half those of the map to half of all there are.
                low = 0.5 / gain
                share = float(np.exp(rng.uniform(np.log(low), np.log(0.5))))
                kept, rest = thin(crop, share, rng)
                ratio = share / (1 - share)
                pairs.append(coarser_pair(own, kept, rest, factor, ratio))
                worth.append(ratio * gain * measurement.fast_pixels)
            else:
                share = float(rng.uniform(0.4, 0.8))
                kept, rest = thin(crop, share, rng)
                target = rest * (share / (1 - share))
                pairs.append(Pair(kept, target, own.measurement(factor)))
                worth.append(share / (1 - share))
        return make_batch(pairs), np.array(worth, np.float32)


def _crop(own: CoarseMap, rng: np.random.Generator, side: int, n_elements: int) -> np.ndarray:
    """Return a square of `side` x `side` coarse steps of random elements."""
    elements = rng.permutation(len(own.counts))[:n_elements]
    y, x = (int(rng.integers(size - side + 1)) for size in own.steps)
    pixels = own.fast_pixels
    crop = own.counts[elements, y : y + side, x * pixels : (x + side) * pixels]
    # Mirrored, never turned: the fast axis stays the fast axis.
    return crop[:, :: rng.choice([-1, 1]), :: rng.choice([-1, 1])]


def hold_out(
    maps: Sequence[CoarseMap], share: float, seed: int
) -> tuple[list[CoarseMap], list[CoarseMap]]:
    """Split all photons: those to learn from, and `share` of them to be judged by."""
    learn, judge = [], []
    for number, own in enumerate(maps):
        held, kept = thin(own.counts, share, np.random.default_rng([seed, number]))
        learn.append(replace(own, counts=kept))
        judge.append(replace(own, counts=held))
    return learn, judge


def held_out_pairs(
    learn: Sequence[CoarseMap],
    judge: Sequence[CoarseMap],
    share: float,
    factors: Collection[int],
) -> list[Pair]:
    """Return whole maps one scale up whose targets are held-out photons, for each factor."""
    pairs = []
    for own, held in zip(learn, judge, strict=True):
        for factor in factors:
            height, width = (size // factor * factor for size in own.steps)
            kept, target = (m.squares().counts[:, :height, :width] for m in (own, held))
            pairs.append(coarser_pair(own, kept, target, factor, (1 - share) / share))
    return pairs
