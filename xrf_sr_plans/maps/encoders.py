"""Where the frames of a row lie, by the encoders of the fast and the slow axis.

An encoder that says nothing decides nothing: order and direction place the frames. One that
contradicts the request costs what it makes unusable, and is named:

* a stage moves one way along a row: a single reading that goes against its neighbours is wild and
  costs its own frame;
* readings that stay where they are while the row goes on are of a stage that stands still, or of
  an encoder that is dead. As nobody can tell which, these frames are not used;
* readings that agree with the request within a pixel in another unit of length are in that unit;
* a row of which the encoder puts more than a quarter outside the map was not flown where it was
  asked for, or the encoder has another origin. It is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import median_filter

from xrf_sr_plans.maps.grid import AxisGrid

LEFT_OUT = -1
"""Index of the pixel of a frame that lies in none."""

Fault = Literal["", "silent", "standing", "jumping", "elsewhere"]
"""What is wrong with the readings of a row as a whole."""

UNITS_UM = {"mm": 1e3, "cm": 1e4, "m": 1e6, "nm": 1e-3, "inch": 2.54e4}
"""Units in which encoders were found to read though um were asked for, in um."""

_STANDING_STEPS = 0.5
"""Most that the readings of a standing stage differ, in steps, the outermost tenths left out."""
_STILL_STEPS, _STILL_FRAMES = 0.02, 4
"""Readings that differ by less, in steps, from at least so many frames on end are of a standstill
within a row."""
_WILD_STEPS = 0.75
"""Deviation from the neighbours, in steps, beyond which a reading is suspected to be wild."""
_MOST_WILD = 0.25
"""Share of wild readings beyond which a row's readings are worth nothing."""
_MOST_OUTSIDE = 0.25
"""Share of a row's pixels that its frames may miss because the encoder puts them elsewhere."""


@dataclass(frozen=True, eq=False)
class RowPlaces:
    """The pixels of the frames of one row.

    Parameters
    ----------
    x
        Index of each frame's pixel along the fast axis [frame]; `LEFT_OUT` where it lies in none.
    fault
        What is wrong with the fast encoder's readings of the whole row; "" where nothing.
    wild
        Number of frames left out because their readings contradict their neighbours'.
    still
        Number of frames left out because the encoder stood still within the row.
    outside
        Number of frames left out because the encoder puts them outside the map, where there are
        pixels without a frame for it.
    offset_um
        Median distance of the readings from where the frames belong by order; 0 without readings.
    """

    x: np.ndarray
    fault: Fault = ""
    wild: int = 0
    still: int = 0
    outside: int = 0
    offset_um: float = 0.0


def place_row(fast_um: np.ndarray, axis: AxisGrid, direction: int) -> RowPlaces:
    """Return the pixel of each frame of a row, and what is odd about the readings.

    Parameters
    ----------
    fast_um
        Encoder position of each frame's center [frame] in order of acquisition; NaN: unknown.
    axis
        The fast axis.
    direction
        -1 where the row was flown from high to low.
    """
    position = (fast_um - axis.start_um) / axis.step_um
    known = np.isfinite(position)
    if not known.any():
        return RowPlaces(_on_grid(_nominal(fast_um.size, axis, direction), axis), "silent")
    offset_um = float(np.median((position - _nominal(position.size, axis, direction))[known]))
    offset_um *= axis.step_um
    nowhere = np.full(fast_um.size, LEFT_OUT)
    if known.sum() >= 3 and np.ptp(np.percentile(position[known], (10, 90))) < _STANDING_STEPS:
        return RowPlaces(nowhere, "standing", offset_um=offset_um)
    still = _standstill(position)
    wild = wild_readings(np.where(still, np.nan, position))
    if wild.sum() > max(2, _MOST_WILD * known.sum()):
        return RowPlaces(nowhere, "jumping", offset_um=offset_um)
    left_out = wild | still
    x = place_frames(np.where(left_out, np.nan, fast_um), axis, direction)
    x[left_out] = LEFT_OUT
    outside = ~left_out & ((x < 0) | (x >= axis.num))
    x = _on_grid(x, axis)
    missed = min(axis.num, x.size) - np.unique(x[x >= 0]).size
    lost = min(int(outside.sum()), missed)
    if lost > 2 and lost > _MOST_OUTSIDE * axis.num:
        return RowPlaces(nowhere, "elsewhere", offset_um=offset_um)
    return RowPlaces(x, "", int(wild.sum()), int(still.sum()), lost, offset_um)


def place_frames(fast_um: np.ndarray, axis: AxisGrid, direction: int) -> np.ndarray:
    """Return the pixel index of each frame of a row [frame]; it may lie outside 0..num-1.

    A row whose frames follow each other one pixel apart moves as a whole, by the median offset. In
    any other row each frame goes to the nearest pixel.

    Parameters
    ----------
    fast_um
        Encoder position of each frame's center [frame] in order of acquisition; NaN: unknown.
    axis
        The fast axis.
    direction
        -1 where the row was flown from high to low.
    """
    nominal = _nominal(fast_um.size, axis, direction)
    # In pixels: where the encoder saw a frame, minus where it belongs by order and direction.
    offset = (fast_um - axis.start_um) / axis.step_um - nominal
    known = np.isfinite(offset)
    if not known.any():
        return nominal
    common = float(np.median(offset[known]))
    if np.abs(offset[known] - common).max() <= 0.5:
        # Just below 0.5: a row displaced by exactly half a pixel stays where it was meant to be.
        return nominal + int(np.fix(common + np.copysign(0.5 - 1e-6, common)))
    order = np.arange(fast_um.size)
    filled = np.interp(order, order[known], offset[known])
    # Absurd readings stay integers; they are outside of any map.
    return np.clip(np.floor(nominal + filled + 0.5), -(2**31), 2**31).astype(int)


def wild_readings(position: np.ndarray) -> np.ndarray:
    """Return which readings of a row contradict the readings around them [frame].

    A reading is wild if it is away from the median of five readings, its own in the middle, and if
    the stage would have had to turn around, or to stand still, to be there in its turn. A jump
    that goes on (lost triggers) is none.

    Parameters
    ----------
    position
        Readings [frame] in steps, in order of acquisition; NaN: unknown.
    """
    wild = np.zeros(position.size, dtype=bool)
    known = np.flatnonzero(np.isfinite(position))
    if known.size < 4:
        return wild
    values = position[known]
    way = np.sign(np.median(np.diff(values))) or 1.0
    # Along the way, and without the common motion of one step a frame.
    along = way * values
    offset = along - known
    suspected = np.abs(offset - _local_median(offset)) > _WILD_STEPS
    sound = np.flatnonzero(~suspected)
    gap = 0.25 * float(np.median(np.abs(np.diff(along))))
    for index in np.flatnonzero(suspected):
        place = int(np.searchsorted(sound, index))
        before = along[sound[place - 1]] if place else -np.inf
        after = along[sound[place]] if place < sound.size else np.inf
        wild[known[index]] = not before + gap <= along[index] <= after - gap
    return wild


def other_unit(
    readings: Sequence[np.ndarray], belongs_um: Sequence[np.ndarray], step_um: float
) -> str:
    """Return the unit in which an encoder agrees with the request; "" where it is um, or none.

    Parameters
    ----------
    readings
        Of each row the encoder's readings [frame]; NaN: unknown.
    belongs_um
        Of each row where its frames belong [frame] by order and direction, in um.
    step_um
        Step along the axis; an encoder agrees if a row's readings are within it, by their median.
    """
    pairs = [
        (reading[known], place[known])
        for reading, place in zip(readings, belongs_um, strict=True)
        if (known := np.isfinite(reading)).any()
    ]
    if not pairs:
        return ""

    def share(scale: float) -> float:
        near = [np.median(np.abs(scale * reading - place)) <= step_um for reading, place in pairs]
        return float(np.mean(near))

    if share(1.0) >= 0.5:
        return ""
    shares = {unit: share(scale) for unit, scale in UNITS_UM.items()}
    best = max(shares, key=lambda unit: shares[unit])
    return best if shares[best] >= 0.9 else ""


def nominal_um(num: int, axis: AxisGrid, direction: int) -> np.ndarray:
    """Return where the first `num` frames of a row belong by order and direction [frame], in um."""
    return axis.start_um + axis.step_um * _nominal(num, axis, direction)


def _nominal(num: int, axis: AxisGrid, direction: int) -> np.ndarray:
    order = np.arange(num)
    return axis.num - 1 - order if direction < 0 else order


def _on_grid(x: np.ndarray, axis: AxisGrid) -> np.ndarray:
    return np.where((x >= 0) & (x < axis.num), x, LEFT_OUT)


def _local_median(values: np.ndarray) -> np.ndarray:
    """Return the median of five neighbours; at the ends of those that there are on both sides."""
    median = median_filter(values, size=5, mode="nearest")
    for place in (0, 1, values.size - 2, values.size - 1):
        low, high = max(0, place - 2), min(values.size, place + 3)
        median[place] = np.median(values[low:high])
    return median


def _standstill(position: np.ndarray) -> np.ndarray:
    """Return the frames [frame] that follow others at the same place, but for the first one."""
    same = np.zeros(position.size, dtype=bool)
    same[1:] = np.abs(np.diff(position)) < _STILL_STEPS
    # Bounds of the stretches of frames that repeat the reading before them.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(int), [0]])))
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        if high - low + 1 < _STILL_FRAMES:
            same[low:high] = False
    return same
