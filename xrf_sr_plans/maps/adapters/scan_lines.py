"""What is known of a scan before its frames are placed, and what a placed map is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.adapters.adapted_map import FlownRow
from xrf_sr_plans.maps.adapters.lattice import SaidAxis
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import Factor, Sampling


@dataclass
class Line:
    """Frames that were taken one after the other while the slow axis stood still.

    Parameters
    ----------
    number
        Number of the line, from 0, by the order of acquisition.
    order
        Number of each frame in its line [frame], from 0.
    counts
        Detected photons [element, frame].
    fast, slow
        Readings of the axes [frame]; NaN where unknown.
    i0, live_time
        Readings of the monitor and the live time in s [frame]; NaN where unknown.
    time
        When it was finished, in seconds since 1970.
    """

    number: int
    order: np.ndarray
    counts: np.ndarray
    fast: np.ndarray
    slow: np.ndarray
    i0: np.ndarray
    live_time: np.ndarray
    time: float = 0.0


@dataclass(frozen=True)
class SaidScan:
    """A scan as its start document announces it.

    Parameters
    ----------
    fast, slow
        Its axes.
    snake
        Whether every other line is announced to run the other way.
    is_flown
        Whether the fast axis moves while frames are taken: frames belong to lines.
    has_units
        Whether the units of the readings of the fast and the slow axis are known. Else they are
        those in which the announced step is found.
    is_finished
        Whether the run ended well, so that every line should be there.
    lines_are_numbered
        Whether the number of a line is that of its row, also where other lines are missing.
    """

    fast: SaidAxis
    slow: SaidAxis
    snake: bool
    is_flown: bool
    has_units: tuple[bool, bool] = (True, True)
    is_finished: bool = False
    lines_are_numbered: bool = False


@dataclass(frozen=True)
class PlacedMap:
    """A map as it was measured.

    Parameters
    ----------
    grid
        Its pixels.
    rows
        Its rows by index along the slow axis.
    sampling, fast_pixels
        How a pixel was measured, and pixels per distance of two rows where it is "rows".
    notes
        What is odd about it.
    """

    grid: ScanGrid
    rows: dict[int, FlownRow]
    sampling: Sampling
    fast_pixels: Factor = 1
    notes: tuple[str, ...] = ()
