"""The sample of `make demo`: grains of the measured map that ships, strewn over a plain support."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.devices.sim.sample import REFERENCE_DWELL_S, Sample, zagami
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.ranges import SEED, Range, check

GRAIN_FROM = {"K": 20.0, "Ca": 140.0, "Fe": 140.0}
"""The grains of the measured map that are cut out: connected places with more than so many photons
of an element in 10 ms. They are potassium feldspar, phosphates and iron oxides."""
SMALLEST_PX = 28
"""Pixels of the smallest grain that is cut out: as many as a circle of 6 pixels across has."""
LARGEST_SIDE_PX = 24
"""Longest side of a grain that is cut out, in pixels."""
SUPPORT_PHOTONS = 5.0
"""Photons of each element that support and scattered beam give in 10 ms, on average."""
GAP_PX = 8
"""Pixels between the boxes of two grains, at least."""
_PATCHES_PX = 24.0
_PATCHINESS = 0.2
_TRIES = 2000
_SIDE = Range(64, 4000, whole=True)
_NUMBER = Range(0, 1000, whole=True)


@dataclass(frozen=True, eq=False)
class Grain:
    """A grain that was cut out of the measured map.

    Parameters
    ----------
    element
        The element that it is rich in.
    rates_cps
        Photons per second (element, y, x), 0 outside the grain.
    inside
        Which pixels belong to the grain (y, x).
    """

    element: str
    rates_cps: np.ndarray
    inside: np.ndarray

    def turned(self, quarters: int, mirrored: bool) -> Grain:
        """Return the grain turned by quarters of a circle, and mirrored if asked for."""
        rates, inside = (np.rot90(one, quarters, (-2, -1)) for one in (self.rates_cps, self.inside))
        if mirrored:
            rates, inside = rates[..., ::-1], inside[..., ::-1]
        return Grain(self.element, rates, inside)


def cut_out(element: str) -> list[Grain]:
    """Return the grains of the measured map that are rich in an element of `GRAIN_FROM`."""
    whole = zagami()
    level = GRAIN_FROM[element] / REFERENCE_DWELL_S
    rich = whole.rates_cps[whole.elements.index(element)] > level
    labels, _ = ndimage.label(rich, structure=np.ones((3, 3)))
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[window] == number
        if inside.sum() >= SMALLEST_PX and max(inside.shape) <= LARGEST_SIDE_PX:
            found.append(Grain(element, whole.rates_cps[(slice(None), *window)] * inside, inside))
    return found


def grains(
    shape: tuple[int, int] = (320, 480),
    n_targets: int = 24,
    n_others: int = 24,
    seed: int = 0,
) -> Sample:
    """Return a made-up field of real grains: those with potassium, and as many without.

    Shapes, textures and compositions are cut out of the measured map that ships with the package
    (`zagami`), with its made-up pixels of 0.5 um and photon rates. Where they lie, how they are
    turned and the support between them are made up: no such sample was measured. All grains are at
    least 28 pixels large, and apart from each other. The support gives some photons of each element
    everywhere, a little more here than there.

    Parameters
    ----------
    shape
        Rows and columns of the field.
    n_targets
        Number of grains of potassium feldspar.
    n_others
        Number of other grains (phosphates and iron oxides).
    seed
        Seed of the choice of grains and of their places.

    Raises
    ------
    ConfigError
        A number is out of range, or the grains don't find a place in the field.
    """
    check(
        "sample 'grains'",
        _SIDE.pair_flaw("shape", shape),
        _NUMBER.flaw("n_targets", n_targets),
        _NUMBER.flaw("n_others", n_others),
        SEED.flaw("seed", seed),
    )
    rng = np.random.default_rng(seed)
    source = zagami()
    field = _support(rng, shape, len(source.elements))
    taken = np.zeros(shape, dtype=bool)
    for grain in _drawn(rng, n_targets, n_others):
        row, column = _place(rng, taken, grain.inside.shape)
        height, width = grain.inside.shape
        window = (slice(row, row + height), slice(column, column + width))
        field[(slice(None), *window)] += grain.rates_cps
        taken[window] = True
    y_low, x_low = (-size * source.pixel_um / 2 for size in shape)
    return Sample(field, source.elements, source.pixel_um, x_low, y_low, "grains")


def _support(rng: np.random.Generator, shape: tuple[int, int], n_elements: int) -> np.ndarray:
    """Return the photons per second of support and scattered beam (element, y, x)."""
    patches = ndimage.gaussian_filter(rng.standard_normal(shape), _PATCHES_PX, mode="wrap")
    uneven = np.clip(1 + _PATCHINESS * patches / patches.std(), 0.1, None)
    return np.tile(uneven * SUPPORT_PHOTONS / REFERENCE_DWELL_S, (n_elements, 1, 1))


def _drawn(rng: np.random.Generator, n_targets: int, n_others: int) -> list[Grain]:
    """Return grains in any order of their kinds, each turned at random."""
    kinds = [(cut_out("K"), n_targets), (cut_out("Ca") + cut_out("Fe"), n_others)]
    return [
        some[rng.integers(len(some))].turned(int(rng.integers(4)), bool(rng.integers(2)))
        for some, number in kinds
        for _ in range(number)
    ]


def _place(rng: np.random.Generator, taken: np.ndarray, size: tuple[int, ...]) -> tuple[int, int]:
    """Return the first row and column of a free place, with a gap around it and to the border."""
    height, width = size
    for _ in range(_TRIES):
        row = int(rng.integers(GAP_PX, taken.shape[0] - height - GAP_PX))
        column = int(rng.integers(GAP_PX, taken.shape[1] - width - GAP_PX))
        around = taken[
            row - GAP_PX : row + height + GAP_PX, column - GAP_PX : column + width + GAP_PX
        ]
        if not around.any():
            return row, column
    raise ConfigError(
        f"sample 'grains': {size[0]} x {size[1]} pixels find no free place in"
        f" {taken.shape[0]} x {taken.shape[1]}; fewer grains or a larger shape are needed"
    )
