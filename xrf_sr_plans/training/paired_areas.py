"""Areas that were measured coarsely and finely, as batches to learn from.

The fine map is no truth but counts, so each target comes with the variance of its noise
(`training.paired_loss`). The photons of the coarse map are thinned for lower doses, since a Poisson
count split binomially is a Poisson count again; those of the fine map are all used, because fewer
would only add noise to the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from xrf_sr_plans.measurement import Measurement, Reading
from xrf_sr_plans.training.simulated_pairs import Batch, Pair, make_batch

THINNED_SHARE = 0.5
"""Share of the crops that are thinned to a lower dose."""
LEAST_KEPT = 0.15
"""Smallest share of the photons that is kept of a thinned crop."""
SMALLEST_STEPS = 8
"""Coarse steps that an area needs along each side to be learnt from."""


@dataclass(frozen=True, eq=False)
class PairedArea:
    """One area of a sample, measured coarsely and finely.

    Parameters
    ----------
    name
        Which pair and which coarse map of it, for messages.
    sample
        Which sample, as far as that is known; areas of one sample aren't independent.
    elements
        Names of the elements.
    counts
        (element, y, x) photons per measured pixel of the coarse map, without gaps.
    target
        (element, Y, X) what the fine map says, in photons per coarse pixel of the coarse map's
        dwell and beam; 0 where it wasn't measured.
    variance
        (element, Y, X) variance of the counting noise of `target`; 0 where it wasn't measured.
    worth
        (element, Y, X) how much one photon of the fine map adds to `target`; less where resampling
        has taken noise off.
    measured
        (Y, X) where both maps were measured.
    measurement
        How the coarse map was measured. It keeps the probe's blur, as the fine map does.
    was_chosen
        Whether the area was chosen for what was predicted there, as rescans are. Errors there are
        not those of other places.
    """

    name: str
    sample: str
    elements: tuple[str, ...]
    counts: np.ndarray
    target: np.ndarray
    variance: np.ndarray
    worth: np.ndarray
    measured: np.ndarray
    measurement: Measurement
    was_chosen: bool = False

    @property
    def steps(self) -> tuple[int, int]:
        """Coarse steps along (y, x)."""
        return self.counts.shape[1], self.counts.shape[2] // self.measurement.fast_pixels

    @property
    def reading(self) -> Reading:
        """What a network needs a head for to read it."""
        return self.measurement.reading

    def squares(self) -> PairedArea:
        """Return the area with the pixels of each coarse step summed."""
        pixels = self.measurement.fast_pixels
        counts = self.counts.reshape(*self.counts.shape[:2], -1, pixels).sum(axis=-1)
        return replace(self, counts=counts, measurement=self.measurement.squares)

    def part(self, rows: slice, columns: slice) -> PairedArea:
        """Return a rectangle of coarse steps."""
        factor, pixels = self.measurement.factor, self.measurement.fast_pixels
        fine = tuple(slice(s.start * factor, s.stop * factor) for s in (rows, columns))
        wide = slice(columns.start * pixels, columns.stop * pixels)
        cut = {
            name: getattr(self, name)[(..., *fine)]
            for name in ("target", "variance", "worth", "measured")
        }
        return replace(self, counts=self.counts[..., rows, wide], **cut)

    def only(self, elements: Sequence[int]) -> PairedArea:
        """Return some of the elements, by their indices."""
        chosen = list(elements)
        planes = {
            name: getattr(self, name)[chosen] for name in ("counts", "target", "variance", "worth")
        }
        return replace(self, elements=tuple(self.elements[i] for i in chosen), **planes)


class PairedBatch(NamedTuple):
    """A batch whose truth is noisy; the arrays beside it have the shape of its truth."""

    batch: Batch
    variance: np.ndarray
    """Variance of the truth's noise."""
    worth: np.ndarray
    """How much one photon adds to the truth."""
    measured: np.ndarray
    """Where there is a truth (bool)."""


def in_halves(area: PairedArea, share: float, gap: int = 2) -> tuple[PairedArea, PairedArea]:
    """Split an area along its longer side: what is learnt from, and the share that is held out.

    `gap` coarse steps between them belong to neither.

    Raises
    ------
    ValueError
        A part would have fewer than `SMALLEST_STEPS` steps.
    """
    height, width = area.steps
    along = max(height, width)
    held = max(SMALLEST_STEPS, round(share * along))
    learn = along - held - gap
    if learn < SMALLEST_STEPS:
        raise ValueError(f"{area.name}: {area.steps} coarse steps are too few to be split")
    parts = slice(0, learn), slice(along - held, along)
    if height >= width:
        first, second = (area.part(part, slice(0, width)) for part in parts)
    else:
        first, second = (area.part(slice(0, height), part) for part in parts)
    return first, second


@dataclass(frozen=True, eq=False)
class PairedBatches:
    """Draws batches from areas; each is a function of the generator's state.

    Samples weigh alike, however many areas there are of each.

    Parameters
    ----------
    areas
        Areas, whole; rows are also seen as squares.
    maps_per_batch
        Number of single-element maps in a batch.
    coarse_px
        Largest side of a crop in coarse steps.
    """

    areas: Sequence[PairedArea]
    maps_per_batch: int = 8
    coarse_px: int = 32

    def readings(self) -> list[Reading]:
        """Return what a network is to read: those of the areas, and of the squares of rows."""
        own = {area.reading for area in self.areas}
        return sorted(own | {(factor, 1) for factor, _ in own})

    def draw(self, rng: np.random.Generator, reading: Reading) -> PairedBatch:
        """Return a batch of one reading, of which there must be an area."""
        fitting = [area for area in self.areas if reading in (area.reading, (area.reading[0], 1))]
        of_sample: dict[str, list[PairedArea]] = {}
        for area in fitting:
            of_sample.setdefault(area.sample or area.name, []).append(area)
        fewest = min(len(area.elements) for area in fitting)
        n_elements = int(rng.choice([n for n in (1, 2, 4, 6) if n <= fewest]))
        side = min(self.coarse_px, min(min(area.steps) for area in fitting))
        samples = sorted(of_sample)
        crops = []
        for _ in range(max(1, self.maps_per_batch // n_elements)):
            mine = of_sample[samples[int(rng.integers(len(samples)))]]
            area = mine[int(rng.integers(len(mine)))]
            crop = _crop(area, rng, side, n_elements)
            crop = crop if crop.reading == reading else crop.squares()
            crops.append(_thinned(_turned(crop, rng), rng))
        return stacked(crops)


def stacked(areas: Sequence[PairedArea]) -> PairedBatch:
    """Stack areas of one size, one reading and one number of elements."""
    batch = make_batch([Pair(area.counts, area.target, area.measurement) for area in areas])
    single = np.float32
    return PairedBatch(
        batch,
        np.stack([area.variance for area in areas]).astype(single),
        np.stack([area.worth for area in areas]).astype(single),
        np.stack([np.broadcast_to(area.measured, area.target.shape) for area in areas]),
    )


def _crop(area: PairedArea, rng: np.random.Generator, side: int, n_elements: int) -> PairedArea:
    y, x = (int(rng.integers(steps - side + 1)) for steps in area.steps)
    cut = area.part(slice(y, y + side), slice(x, x + side))
    return cut.only([int(i) for i in rng.permutation(len(area.elements))[:n_elements]])


def _turned(area: PairedArea, rng: np.random.Generator) -> PairedArea:
    """Return an area mirrored, and turned where both axes are sampled alike.

    A fly scan averages along its fast axis, which therefore has to stay what it is.
    """
    names = ("counts", "target", "variance", "worth", "measured")
    planes = {name: getattr(area, name) for name in names}
    if rng.random() < 0.5:
        planes = {name: plane[..., ::-1, :] for name, plane in planes.items()}
    if rng.random() < 0.5:
        planes = {name: plane[..., ::-1] for name, plane in planes.items()}
    if area.measurement.sampling in ("area", "point") and rng.random() < 0.5:
        planes = {name: np.swapaxes(plane, -2, -1) for name, plane in planes.items()}
    return replace(area, **planes)


def _thinned(area: PairedArea, rng: np.random.Generator) -> PairedArea:
    """Return an area as if it had been measured for a shorter time, in some of the cases."""
    if rng.random() >= THINNED_SHARE:
        return area
    share = float(np.exp(rng.uniform(np.log(LEAST_KEPT), 0.0)))
    whole = np.rint(np.clip(area.counts, 0, None)).astype(np.int64)
    return replace(
        area,
        counts=rng.binomial(whole, share).astype(float),
        target=share * area.target,
        variance=share**2 * area.variance,
        worth=share * area.worth,
    )
