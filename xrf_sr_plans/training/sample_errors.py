"""What enhanced maps of one very sample can be expected to reach, from an earlier map of it.

The earlier map is taken for the sample and measured again in each way, at many doses, and treated
classically (`physics.smoothing`), which is fast and needs no torch. What the network gains over
that is the mean over many samples (`sr.expected_error`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.measurement import SAME_GRID, Measurement
from xrf_sr_plans.metrics.image import data_range, psnr_db
from xrf_sr_plans.physics.resample import fill_unmeasured
from xrf_sr_plans.physics.smoothing import smoothed
from xrf_sr_plans.sr.expected_error import ErrorTable, ways
from xrf_sr_plans.training.samples import fit_to_blocks
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

MOST_PX = 256
"""Longest side, in pixels, of the part of an earlier map that is measured again: its middle."""
_COARSEST = 4
_SEED = 0
_BRIGHTEST = 0.999


def sample_of(earlier: ElementalMaps | EnhancedMaps, fine_step_um: float) -> np.ndarray:
    """Return the sample that an earlier map shows, (element, y, x), each with its top at 1.

    Measured counts are freed of their noise, because noise would count as structure. Elements in
    which nothing varies are left out.

    Raises
    ------
    ConfigError
        The map's pixels aren't `fine_step_um` long, they are too few, or no element varies.
    """
    fast_um, slow_um = earlier.grid.fast.step_um, earlier.grid.slow.step_um
    if max(abs(fast_um - fine_step_um), abs(slow_um - fine_step_um)) > 0.01 * fine_step_um:
        raise ConfigError(
            f"like has pixels of {fast_um:g} x {slow_um:g} um; they should be"
            f" {fine_step_um:g} um long, as those of the enhanced maps"
        )
    name = "estimate" if isinstance(earlier, EnhancedMaps) else "counts"
    maps = fill_unmeasured(earlier.dataset[name].values.astype(float))
    if min(maps.shape[1:]) < 4 * _COARSEST:
        raise ConfigError(f"like has {maps.shape[2]} x {maps.shape[1]} pixels, which is too few")
    if name == "counts":
        maps = smoothed(maps, Measurement(SAME_GRID))
    low = [max((side - MOST_PX) // 2, 0) for side in maps.shape[1:]]
    maps = maps[:, low[0] : low[0] + MOST_PX, low[1] : low[1] + MOST_PX]
    maps = np.clip(fit_to_blocks(maps, _COARSEST), 0, None)
    # Rounding errors are no structure.
    maps = maps[[data_range(plane) > 1e-9 * plane.max() for plane in maps]]
    if not len(maps):
        raise ConfigError("like shows no element that varies")
    return maps / np.quantile(maps, _BRIGHTEST, axis=(1, 2), keepdims=True)


def counts_per_s_of(earlier: ElementalMaps | EnhancedMaps) -> float | None:
    """Return the photons that an element of an earlier map counts per second where it is brightest.

    It is the median over the elements; None where the map has no dwell time, or no photons.
    """
    name = "estimate" if isinstance(earlier, EnhancedMaps) else "counts"
    dwell_ms = earlier.dataset.attrs.get("dwell_ms")
    if dwell_ms is None:
        return None
    tops = np.nanquantile(earlier.dataset[name].values, _BRIGHTEST, axis=(1, 2))
    rate = float(np.median(tops)) / float(dwell_ms) * 1e3
    return rate if np.isfinite(rate) and rate > 0 else None


def errors_on(sample: np.ndarray, table: ErrorTable) -> ErrorTable:
    """Return what enhanced maps of this sample are expected to reach.

    Parameters
    ----------
    sample
        Relative intensities (element, y, x) as the probe sees them, on the pixels of the enhanced
        maps; see `sample_of`.
    table
        Means over many samples.
    """
    reached = {
        name: [
            [
                _treated_db(sample, how, photons) + gain
                for photons, gain in zip(table.photons, gains, strict=True)
            ]
        ]
        for name, how in ways()
        for gains in [table.gains_db(name)]
    }
    rising = {name: np.maximum.accumulate(rows, axis=1).tolist() for name, rows in reached.items()}
    # The probe's blur is in the earlier map already.
    return replace(table, probe_px=(0.0,), psnr_db=rising, classical_db=None)


def _treated_db(sample: np.ndarray, measurement: Measurement, photons: float) -> float:
    """Return the mean PSNR over elements of the classical treatment."""
    n99 = photons * measurement.factor**2
    pair = simulate(
        sample, Simulation.plain(measurement, n99, len(sample)), np.random.default_rng(_SEED)
    )
    made = smoothed(pair.counts, measurement) * measurement.fast_pixels
    return float(np.mean([psnr_db(mine, own) for mine, own in zip(made, pair.truth, strict=True)]))
