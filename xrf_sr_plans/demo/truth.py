"""What the simulated beamline would measure without noise, and what there was to find in it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xrf_sr_plans.devices.sim.beamline import SimBeamline
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid


def expected_counts(beamline: SimBeamline, grid: ScanGrid, dwell_ms: float) -> np.ndarray:
    """Return the expected photons per pixel of a map on `grid`, as an array (element, y, x).

    Parameters
    ----------
    beamline
        The simulated beamline with its sample.
    grid
        Grid of the map.
    dwell_ms
        Time per pixel in ms.
    """
    edges = grid.fast.edges_um
    rows = [
        beamline.microscope.rates_cps(edges[:-1], edges[1:], float(slow_um))
        for slow_um in grid.slow.centers_um
    ]
    # Each row is (element, x), in counts per second.
    return np.stack(rows, axis=1) * dwell_ms * 1e-3


def rescanned(grid: ScanGrid, fine: Iterable[ElementalMaps]) -> np.ndarray:
    """Return the pixels of `grid` (y, x) whose centers lie in pixels that fine maps measured.

    Parameters
    ----------
    grid
        The pixels.
    fine
        The fine maps. A pixel that is missing in one, as in a lost row, is not rescanned.
    """
    mask = np.zeros(grid.shape, dtype=bool)
    for maps in fine:
        rows, rows_in = _nearest(maps.grid.slow.edges_um, grid.slow.centers_um)
        columns, columns_in = _nearest(maps.grid.fast.edges_um, grid.fast.centers_um)
        measured = maps.coverage.values > 0
        mask[np.ix_(rows_in, columns_in)] |= measured[np.ix_(rows, columns)]
    return mask


def _nearest(edges_um: np.ndarray, centers_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return in which pixels centers lie, and which centers these are."""
    pixel = np.searchsorted(edges_um, centers_um, side="right") - 1
    within = np.flatnonzero((pixel >= 0) & (pixel < len(edges_um) - 1))
    return pixel[within], within
