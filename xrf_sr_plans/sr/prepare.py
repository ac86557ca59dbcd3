"""What every way of enhancing does first: beam intensity, unmeasured pixels, the fine mask."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.monitors import beam_of
from xrf_sr_plans.physics.resample import fill_unmeasured

LARGEST_COUNT = 1e12
"""Largest value that is a count. Real files hold 1.8e308 where a fit failed."""
RESULT_BYTES = 21
"""Per output pixel and element: five fields of float32, and whether it is trusted."""
LOWEST_BEAM = 0.2
"""Share of the median beam intensity below which a pixel counts as unmeasured (a beam dump)."""


@dataclass(frozen=True)
class Prepared:
    """Counts (element, y, x) at nominal beam intensity, without gaps, and what was measured."""

    counts: np.ndarray
    measured: np.ndarray
    """(element, y, x) bool."""

    def fine_mask(self, factor: int) -> np.ndarray:
        """Return `measured` on the fine grid."""
        return self.measured.repeat(factor, axis=-2).repeat(factor, axis=-1)


def prepare(counts: np.ndarray, i0: np.ndarray | None = None) -> Prepared:
    """Scale counts to the median beam intensity and fill what was not measured.

    Parameters
    ----------
    counts
        (element, y, x) detected photons; NaN, infinite, negative or absurd values (above
        `LARGEST_COUNT`) count as not measured.
    i0
        (y, x) beam monitor in any unit; one that says nothing is as good as none.

    Raises
    ------
    GridError
        `counts` is not three-dimensional or has no pixels; `i0` has another shape.
    """
    counts = np.array(counts, dtype=float)
    if counts.ndim != 3 or 0 in counts.shape:
        raise GridError(f"counts have the shape {counts.shape}; (element, y, x) is needed")
    with np.errstate(invalid="ignore"):
        counts[~(np.isfinite(counts) & (counts >= 0) & (counts < LARGEST_COUNT))] = np.nan
    if i0 is not None:
        counts /= _relative_beam(np.asarray(i0, dtype=float), counts)
    measured = np.isfinite(counts)
    return Prepared(fill_unmeasured(counts), measured)


def refuse_what_no_memory_holds(counts: np.ndarray, factor: int) -> None:
    """Refuse counts (element, y, x) whose results alone exceed this machine's memory.

    Raises
    ------
    GridError
        Says how much is needed, and what there is.
    """
    memory = memory_bytes()
    needed = counts.size * factor**2 * RESULT_BYTES
    if memory is not None and needed > memory:
        raise GridError(
            f"{' x '.join(map(str, counts.shape))} counts {factor} times as fine need"
            f" {needed / 2**30:.1f} GiB for the results alone; this machine has"
            f" {memory / 2**30:.1f} GiB: enhance fewer elements, or a part of the map"
        )


def memory_bytes() -> int | None:
    """Return the size of this machine's memory; None where the system doesn't say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _relative_beam(i0: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the beam intensity of each pixel over its median (y, x); NaN: as good as no beam."""
    if i0.shape != counts.shape[1:]:
        raise GridError(f"i0 has the shape {i0.shape}; the map has {counts.shape[1:]}")
    relative = beam_of(i0, np.nansum(counts, axis=0)).relative
    return np.where(relative >= LOWEST_BEAM, relative, np.nan)
