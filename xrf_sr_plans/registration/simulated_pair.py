"""`simulated_pair`: a coarse and a fine map whose displacements are known, to judge by.

Both are measured by the forward model (`physics.displaced`) of one sample that is much finer than
the fine map, so neither is made of the other. Each map has a drift of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.physics.displaced import fly_displaced
from xrf_sr_plans.physics.forward import probe_blur
from xrf_sr_plans.registration.pair_registration import PairRegistration

OVERSAMPLING = 4
"""Pixels of a sample per fine pixel."""
MARGIN_PX = 8
"""Fine pixels by which a sample is larger than its maps on each side."""
_DENSE = np.linspace(-0.5, 0.5, 1001)
"""Places along the slow axis at which drift is drawn, in heights of the map."""


@dataclass(frozen=True)
class Flown:
    """How a simulated pair is flown. Lengths are in fine pixels, which are 1 um large.

    Parameters
    ----------
    factor
        Distance of the coarse map's rows.
    rows
        Whether the coarse map's pixels are as long as the fine one's, instead of square.
    peak
        Photons in the brightest pixel of the coarse map; the fine map's pixels take as long.
    drift_px
        Range of the drift between both maps along either axis.
    row_shift_px
        Largest row shift of either map.
    shift_px
        Largest shift of the whole map along either axis.
    coarse_px
        Rows of the coarse map, which is square.
    """

    factor: int
    rows: bool = False
    peak: float = 100.0
    drift_px: float = 0.0
    row_shift_px: float = 0.0
    shift_px: float = 2.0
    coarse_px: int = 48

    @property
    def sample_px(self) -> int:
        """Fine pixels along each side of the sample that is needed."""
        return self.coarse_px * self.factor + 2 * MARGIN_PX


@dataclass(frozen=True, eq=False)
class SimulatedPair:
    """Two maps, and where each row of the coarse one lies.

    Parameters
    ----------
    coarse, fine
        The maps.
    displacement_px
        How far what a row of the coarse map shows lies from where it is in the fine map, row shifts
        left out (row, 2), x before y.
    coarse_row_shift_px, fine_row_shift_px
        Those of `PairRegistration`.
    """

    coarse: ElementalMaps
    fine: ElementalMaps
    displacement_px: np.ndarray
    coarse_row_shift_px: float
    fine_row_shift_px: float

    def errors_px(self, found: PairRegistration) -> np.ndarray:
        """Return by how much a registration misplaces each row along x and y, (row, 2)."""
        slow = self.coarse.grid.slow
        centers = slow.centers_um - (slow.low_um + slow.high_um) / 2
        rows = found.row_displacements_um(slow.num)
        along_y = centers - (centers - rows[:, 1]) / found.scale_y
        return np.stack([rows[:, 0], along_y], axis=1) - self.displacement_px


def fine_sample(maps: np.ndarray, probe_px: float = 1.0) -> np.ndarray:
    """Return maps (element, y, x) of a sample as a probe of that width sees it, oversampled."""
    seen = probe_blur(maps, 1.0, probe_px)
    zoom = (1, OVERSAMPLING, OVERSAMPLING)
    finer = ndimage.zoom(seen, zoom, order=3, mode="nearest", grid_mode=True)
    return np.clip(finer, 0, None)


def simulated_pair(sample: np.ndarray, flown: Flown, rng: np.random.Generator) -> SimulatedPair:
    """Fly both maps of a sample (element, y, x) that `fine_sample` made, as large as needed."""
    size = flown.coarse_px * flown.factor
    drift = np.stack([_drift(rng, flown.drift_px) for _ in range(2)], axis=1)
    share, shift = rng.uniform(0, 1), rng.uniform(-flown.shift_px, flown.shift_px, 2)

    def drifted(rows_px: np.ndarray, part: float) -> np.ndarray:
        return np.stack([part * np.interp(rows_px / size, _DENSE, d) for d in drift.T], axis=1)

    of_coarse = flown.factor * (np.arange(flown.coarse_px) + 0.5) - size / 2
    of_fine = np.arange(size) + 0.5 - size / 2
    coarse_px, fine_px = drifted(of_coarse, share) + shift, drifted(of_fine, share - 1)
    # Where the fine map shows what a row of the coarse one does: its own drift is part of that.
    in_sample = of_coarse - coarse_px[:, 1]
    in_fine = in_sample.copy()
    for _ in range(20):
        in_fine = in_sample + drifted(in_fine, share - 1)[:, 1]
    displacement = coarse_px - drifted(in_fine, share - 1)
    coarse_shift, fine_shift = rng.uniform(-flown.row_shift_px, flown.row_shift_px, 2)
    coarse_px[1::2, 0] += coarse_shift
    fine_px[1::2, 0] += fine_shift
    across = 1 if flown.rows else flown.factor
    coarse, fine = (
        fly_displaced(
            sample, shape, (OVERSAMPLING * steps[0], OVERSAMPLING * steps[1]), OVERSAMPLING * moved
        )
        for shape, steps, moved in (
            ((flown.coarse_px, size // across), (flown.factor, across), coarse_px),
            ((size, size), (1, 1), fine_px),
        )
    )
    level = flown.peak / coarse.max()
    counts = [
        rng.poisson(np.clip(level * rates, 0, None)).astype(float) for rates in (coarse, fine)
    ]
    return SimulatedPair(
        _maps(counts[0], (flown.factor, across), "rows" if flown.rows else "fly"),
        _maps(counts[1], (1, 1), "fly"),
        displacement,
        float(coarse_shift),
        float(fine_shift),
    )


def _drift(rng: np.random.Generator, range_px: float) -> np.ndarray:
    """Return a drift over `_DENSE` with mean 0: steady, settling, or to and fro."""
    kind = rng.integers(3)
    if kind == 0:
        curve = _DENSE.copy()
    elif kind == 1:
        curve = np.exp(-(_DENSE + 0.5) / rng.uniform(0.3, 1.0))
    else:
        waves = np.arange(1, 4)[:, None]
        phase, amount = rng.uniform(0, 2 * np.pi, (3, 1)), rng.normal(size=(3, 1)) / waves
        curve = (amount * np.sin(np.pi * waves * _DENSE + phase)).sum(axis=0)
    return rng.choice([-1, 1]) * range_px * (curve - curve.mean()) / np.ptp(curve)


def _maps(counts: np.ndarray, steps_um: tuple[int, int], sampling: Sampling) -> ElementalMaps:
    slow, fast = (
        AxisGrid(name, step / 2, float(step), num)
        for name, step, num in zip("yx", steps_um, counts.shape[1:], strict=True)
    )
    names = [f"E{number}" for number in range(len(counts))]
    return ElementalMaps.from_arrays(
        counts, ScanGrid(fast, slow), names, sampling=sampling, dwell_ms=10.0
    )
