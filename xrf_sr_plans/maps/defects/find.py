"""`find_defects`: pixels, rows and columns whose values the detector or the stage made.

A defect is marked only where no sample could have given such values, because a bright particle or
the edge of a sample that is thrown away is lost for good. What is marked and why:

* **A hot pixel** of one element. A probe is never sharper than it is: whatever the sample, the two
  neighbours of a pixel along an axis hold together at least ``2 exp(-4 ln 2 / w**2)`` times its
  photons, where w is the probe's full width at half maximum in steps. (For every point of the
  sample the ratio is smallest where the point lies in the middle of the pixel, and the photons of
  all points add up; averaging along the path only widens the probe.) A pixel is hot where that is
  missed with a probability below `CHANCE`, for a probe `SHARPEST` times as wide as stated.
  Where the probe is unknown or much smaller than a step, a real particle may light up one pixel
  alone. Then a pixel is hot only if it has `FAR_ABOVE` times the photons of any other pixel of its
  map, if no other element has a trace of it, and if nothing of it is in its neighbours. Four or
  more of such pixels in a map are particles.
* **A doubtful pixel** of one element: `BRIGHTER` times its neighbours and above all of the map
  that isn't, without trace or tail, yet nothing that a particle far smaller than a step couldn't
  give. It stays, and is named; what uses
  all elements together does without it for the others.
* **A dead row**: next to nothing in all elements together (`NEXT_TO_NOTHING`), where the rows on
  both sides count in the same columns. A gap in a sample that is one row wide would have to run
  along the row, through the whole width of the sample, with both edges between two rows.
* **A doubled row**: the same numbers as in the row before, forwards or backwards, in all elements
  together, and so many photons that chance is excluded (`CHANCE`). The second one is marked, and
  the first one too where it fits much worse to the rows beyond it (`FITS_BETTER`). Maps without
  counting noise, in which rows of a homogeneous area are alike, are left alone.
* **Bad last (or first) columns**, up to `MOST_COLUMNS`: empty in all elements where the column
  before them counts as much as the one before that, in every row; or the same number in all rows;
  or a copy of the column before; or `TIMES_AS_MUCH` times the column before in all elements and all
  parts of it alike, which no edge of a sample does. The edge of a sample that runs along the rows,
  is slanted, rough or shows any background is none of these, and empty columns are none where the
  map has such an edge elsewhere.

The thresholds never struck on clean maps: `benchmarks/defects.py` counts it on phantoms of all
families (training and validation) at 2x and 4x and from 1 to 10 000 photons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.defects.chance import LEAST_PIXELS
from xrf_sr_plans.maps.defects.columns import bad_columns
from xrf_sr_plans.maps.defects.doubtful_pixels import doubtful_pixels, doubts
from xrf_sr_plans.maps.defects.hot_pixels import hot_pixels
from xrf_sr_plans.maps.defects.rows import dead_rows, doubled_rows


@dataclass(frozen=True, eq=False)
class Defects:
    """The defects of a map.

    Parameters
    ----------
    mask
        Whether a pixel's value is a defect (element, y, x).
    hot_pixels
        (element, row, column) of each hot pixel.
    dead_rows
        Rows without counts.
    doubled_rows
        Rows that are copies of a neighbour.
    bad_columns
        Columns at the ends of the rows.
    notes
        Each defect in words.
    doubtful_pixels
        (element, row, column) of pixels that may be hot and may be particles; not in `mask`.
    doubts
        What of it can't be told, in words.
    """

    mask: np.ndarray
    hot_pixels: tuple[tuple[int, int, int], ...] = ()
    dead_rows: tuple[int, ...] = ()
    doubled_rows: tuple[int, ...] = ()
    bad_columns: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    doubtful_pixels: tuple[tuple[int, int, int], ...] = ()
    doubts: tuple[str, ...] = ()


def find_defects(
    counts: np.ndarray,
    elements: Sequence[str] | None = None,
    probe_steps: tuple[float, float] = (0.0, 0.0),
) -> Defects:
    """Return the defects of a map.

    Parameters
    ----------
    counts
        Detected photons (element, y, x), not yet divided by the beam intensity; NaN where nothing
        was measured. Net counts may be negative.
    elements
        Element names, for the notes; None: their numbers.
    probe_steps
        Full width at half maximum of the probe along y and x, in steps of the map; 0: unknown.
    """
    counts = np.asarray(counts, dtype=float)
    names = [f"element {n}" for n in range(len(counts))] if elements is None else list(elements)
    mask = np.zeros(counts.shape, dtype=bool)
    if counts.size == 0 or min(counts.shape[1:]) < LEAST_PIXELS:
        return Defects(mask)
    notes: list[str] = []
    columns = bad_columns(counts, notes)
    mask[:, :, columns] = True
    # (element, row, column) without the columns that are bad already.
    inner = np.delete(counts, columns, axis=2) if columns else counts
    dead = dead_rows(inner, notes)
    doubled = doubled_rows(inner, dead, notes)
    mask[:, dead + doubled] = True
    left = _without(counts, mask)
    hot = [
        (index, row, column)
        for index in range(len(counts))
        for row, column in hot_pixels(left, index, probe_steps)
    ]
    for index, row, column in hot:
        mask[index, row, column] = True
        notes.append(
            f"{names[index]}: hot pixel at row {row}, column {column}:"
            f" {counts[index, row, column]:g} photons, the highest other has"
            f" {_highest(counts[index], mask[index]):g}: taken as unmeasured"
        )
    sound = _without(counts, mask)
    doubtful = doubtful_pixels(sound)
    return Defects(
        mask,
        tuple(hot),
        tuple(dead),
        tuple(doubled),
        tuple(columns),
        tuple(notes),
        tuple(doubtful),
        tuple(doubts(doubtful, sound, names, probe_steps)),
    )


def _without(counts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return counts (element, y, x) with NaN where `mask` is True."""
    return np.where(mask, np.nan, counts) if mask.any() else counts


def _highest(plane: np.ndarray, hidden: np.ndarray) -> float:
    left = plane[~hidden & np.isfinite(plane)]
    return float(left.max()) if left.size else math.nan
