"""What every way of enhancing does first: usable counts, beam intensity, gaps, the fine mask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.monitors import Beam, beam_of
from xrf_sr_plans.maps.usable import probe_steps_of, usable_counts
from xrf_sr_plans.physics.resample import fill_unmeasured

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
    background: np.ndarray | None = None
    """(element,) photons a pixel that were put under net counts and are to be taken off from every
    result (`maps.net_counts`); None: none."""
    notes: tuple[str, ...] = ()
    """What is odd about the values and the beam monitor: defects, net counts, silence."""
    doubtful_pixels: tuple[tuple[int, int, int], ...] = ()
    """(element, row, column) of pixels that are particles or hot, which can't be told."""

    def fine_mask(self, factor: int) -> np.ndarray:
        """Return `measured` on the fine grid."""
        return self.measured.repeat(factor, axis=-2).repeat(factor, axis=-1)


def prepare(
    counts: np.ndarray,
    i0: np.ndarray | None = None,
    elements: Sequence[str] | None = None,
    probe_steps: tuple[float, float] = (0.0, 0.0),
) -> Prepared:
    """Scale counts to the median beam intensity and fill what was not measured.

    Parameters
    ----------
    counts
        (element, y, x) detected photons; NaN, infinite or absurd values and defects
        (`maps.usable`) count as not measured.
    i0
        (y, x) beam monitor in any unit; one that says nothing is as good as none.
    elements
        Element names, for the notes; None: their numbers.
    probe_steps
        Full width at half maximum of the probe along y and x, in steps; 0: unknown.

    Raises
    ------
    GridError
        `counts` is not three-dimensional or has no pixels; `i0` has another shape.
    """
    counts = np.array(counts, dtype=float)
    if counts.ndim != 3 or 0 in counts.shape:
        raise GridError(f"counts have the shape {counts.shape}; (element, y, x) is needed")
    usable = usable_counts(counts, elements, probe_steps)
    counts = usable.counts
    notes = usable.notes
    if i0 is not None:
        beam = _beam(np.asarray(i0, dtype=float), counts)
        counts /= np.where(beam.relative >= LOWEST_BEAM, beam.relative, np.nan)
        # Of a map without a monitor there is nothing to say.
        notes = (*notes, *beam.notes) if np.isfinite(i0).any() else notes
    measured = np.isfinite(counts)
    filled = fill_unmeasured(counts)
    return Prepared(filled, measured, usable.background, notes, usable.doubtful_pixels)


def prepare_maps(maps: ElementalMaps) -> Prepared:
    """Prepare measured maps; see `prepare`."""
    return prepare(maps.counts.values, maps.i0.values, maps.elements, probe_steps_of(maps))


def without_background(fields: dict[str, np.ndarray], background: np.ndarray | None) -> None:
    """Take off, in place, the background that was put under net counts.

    Parameters
    ----------
    fields
        ``estimate``, ``lower``, ``upper`` and ``baseline`` (element, Y, X), as far as they are
        there, and others.
    background
        That of `Prepared`.
    """
    if background is not None and background.any():
        for name in {"estimate", "lower", "upper", "baseline"} & fields.keys():
            fields[name] -= background[:, None, None].astype(fields[name].dtype)


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


def _beam(i0: np.ndarray, counts: np.ndarray) -> Beam:
    """Return the beam intensity of each pixel (y, x)."""
    if i0.shape != counts.shape[1:]:
        raise GridError(f"i0 has the shape {i0.shape}; the map has {counts.shape[1:]}")
    return beam_of(i0, counts)
