"""What every way of enhancing does first: usable counts, beam intensity, gaps, the fine mask."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.monitors import Beam, beam_of
from xrf_sr_plans.maps.usable import probe_steps_of, usable_counts
from xrf_sr_plans.measurement import Measurement, Sampling, checked_factor, checked_sampling
from xrf_sr_plans.physics.resample import fill_unmeasured, repeat
from xrf_sr_plans.sr.scale import per_coarse_pixel

RESULT_BYTES = 21
"""Per output pixel and element: five fields of float32, and whether it is trusted."""
LOWEST_BEAM = 0.2
"""Share of the median beam intensity below which a pixel counts as unmeasured (a beam dump)."""
SQUARE_TOLERANCE = 0.05
"""Relative difference between the distance of rows and the length of the pixels that are to make
up a coarse step; more is another factor."""


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

    def fine_mask(self, refinement: tuple[int, int]) -> np.ndarray:
        """Return `measured` on the grid so many times finer along y and x."""
        return repeat(self.measured, refinement)

    def squares(self, measurement: Measurement) -> Prepared:
        """Return rows with the pixels of each coarse step summed."""
        pixels = measurement.fast_pixels
        counts = per_coarse_pixel(self.counts, measurement)
        places = [(element, row, column // pixels) for element, row, column in self.doubtful_pixels]
        return replace(
            self,
            counts=counts,
            measured=per_coarse_pixel(self.measured, measurement) == pixels,
            background=None if self.background is None else self.background * pixels,
            doubtful_pixels=tuple(dict.fromkeys(places)),
        )


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


def sampling_of(maps: ElementalMaps, factor: int) -> Sampling:
    """Return how the pixels of a map average, as its attributes say.

    Raises
    ------
    ConfigError
        A factor or sampling that is not allowed.
    GridError
        Rows whose pixels are not the `factor`-th part of the distance between rows, or don't
        fill whole steps.
    """
    checked_factor(factor)
    sampling = checked_sampling(maps.attrs.get("sampling") or "fly")
    if sampling != "rows":
        return sampling
    slow, fast = maps.grid.slow, maps.grid.fast
    if fast.num % factor:
        raise GridError(
            f"rows of {fast.num} pixels; at factor {factor} a multiple of {factor} is needed"
        )
    pixels = slow.step_um / fast.step_um
    if min(slow.num, fast.num) > 1 and abs(pixels / factor - 1) > SQUARE_TOLERANCE:
        raise GridError(
            f"rows are {slow.step_um:g} um apart and their pixels {fast.step_um:g} um long: these"
            f" are rows of factor {pixels:.3g}, not {factor}"
        )
    return sampling


def measurement_of(maps: ElementalMaps, factor: int, *, deblur: bool = False) -> Measurement:
    """Return how a map was measured, as its attributes and its grid say.

    `deblur` is that of `Measurement`.

    Raises
    ------
    ConfigError, GridError
        See `sampling_of` and `Measurement`.
    """
    sampling = sampling_of(maps, factor)
    grid = maps.grid
    own_um = grid.slow.step_um if sampling == "rows" else grid.fast.step_um
    step_um = float(maps.attrs.get("step_um") or own_um)
    probe_steps = float(maps.attrs.get("probe_fwhm_um") or 0.0) / step_um
    return Measurement(factor, sampling, probe_steps, deblur)


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


def refuse_what_no_memory_holds(counts: np.ndarray, measurement: Measurement) -> None:
    """Refuse counts (element, y, x) whose results alone exceed this machine's memory.

    Raises
    ------
    GridError
        Says how much is needed, and what there is.
    """
    memory = memory_bytes()
    needed = counts.size * math.prod(measurement.refinement) * RESULT_BYTES
    if memory is not None and needed > memory:
        raise GridError(
            f"{' x '.join(map(str, counts.shape))} counts {measurement.factor} times as fine need"
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
