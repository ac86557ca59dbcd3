"""What the readings of a monitor say: the flux monitor (I0) and the detector's live time.

Silence is no information. A monitor that says nothing masks nothing and normalizes nothing. One
that died in mid-map is unknown from there on, if the detector goes on to count photons. Where it
reads nothing and the detector counts nothing, there was no beam: nothing was measured there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BEAM_FLOOR = 0.01
"""Share of its level at or below which the flux monitor says that there was no beam."""
JITTER_LIMIT = 0.3
"""Typical change of the flux monitor from frame to frame, as a share of its level, above which it
is noise. A monitor that counts ten photons a frame changes that much."""
WILD_SHARE = 10.0
"""Multiple of its level above which a reading of the flux monitor is no beam intensity."""
DEAD_TO_THE_END, DEAD_ANYWHERE = 0.1, 0.25
"""Share of the frames that have to read nothing on end, until the last frame or anywhere, for the
monitor to be dead instead of the beam."""
FLICKER_LIMIT, _FEWEST_FRAMES = 0.1, 20
"""Share of frames from which to the next the flux monitor comes or goes while photons are counted,
above which it is noise; and the frames that it takes to tell."""
PHOTONS_WITHOUT_BEAM = 0.05
"""Share of the usual photons that a detector may count without beam."""

Where = Callable[[np.ndarray], str]
"""Says in words where the frames [frame] of a mask are, such as "12 frames of rows 3-5"."""


@dataclass(frozen=True, eq=False)
class MonitorReadings:
    """What is left of a monitor's readings.

    Parameters
    ----------
    values
        Readings [frame]; NaN where the monitor says nothing.
    nothing
        Frames [frame] in which nothing was measured, as there was no beam or no live time.
    notes
        What is odd about the monitor, in words that name it.
    """

    values: np.ndarray
    nothing: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Beam:
    """The beam intensity behind a map.

    Parameters
    ----------
    relative
        Intensity over the median of the pixels with beam (y, x): 1 where the monitor says nothing,
        NaN where it says that there was no beam.
    median
        That median, in the monitor's unit; None where the monitor says nothing at all.
    notes
        What is odd about the monitor.
    """

    relative: np.ndarray
    median: float | None
    notes: tuple[str, ...]


def frames_in_words(mask: np.ndarray) -> str:
    """Return how many frames a mask has, in words."""
    return f"{int(mask.sum())} of {mask.size} frames"


def _pixels_in_words(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} of {mask.size} pixels"


def judge_i0(
    i0: np.ndarray, photons: np.ndarray, where: Where = frames_in_words
) -> MonitorReadings:
    """Return what the flux monitor says about the beam.

    Its level is the median of the positive readings, weighted by the photons of their frames, so
    that neither a long beam dump nor single wild readings change it.

    Parameters
    ----------
    i0
        Readings [frame] in any unit, in order of acquisition; NaN: unknown.
    photons
        Photons of all elements [frame].
    where
        Says where the frames of a mask are.
    """
    positive = np.isfinite(i0) & (i0 > 0)
    if not positive.any():
        return _silent(i0, "I0")
    level = _weighted_median(i0[positive], photons[positive])
    lit = positive & (i0 > BEAM_FLOOR * level)
    changes = np.abs(np.diff(i0[lit]))
    if changes.size >= 7 and np.median(changes) > JITTER_LIMIT * level:
        return _silent(i0, "I0")
    if _flickers(lit, np.isfinite(i0) & ~lit, photons):
        return _silent(i0, "I0")
    wild = lit & (i0 > WILD_SHARE * level)
    judged = _judge(i0, lit | wild, photons, "I0", where)
    if not wild.any():
        return judged
    note = f"I0 reads more than {WILD_SHARE:g} times its level in {where(wild)}: unknown there"
    values = np.where(wild, np.nan, judged.values)
    return MonitorReadings(values, judged.nothing, (note, *judged.notes))


def judge_live_time(
    live_time_s: np.ndarray, photons: np.ndarray, where: Where = frames_in_words
) -> MonitorReadings:
    """Return in which frames the detector was alive; see `judge_i0` for the parameters."""
    alive = np.isfinite(live_time_s) & (live_time_s > 0)
    if not alive.any():
        return _silent(live_time_s, "live time")
    return _judge(live_time_s, alive, photons, "live time", where)


def beam_of(i0: np.ndarray, counts: np.ndarray) -> Beam:
    """Return the beam intensity of each pixel of a map, as far as its flux monitor tells.

    Pixels that were not measured say nothing about the monitor.

    Parameters
    ----------
    i0
        Readings of the flux monitor (y, x); NaN: unknown.
    counts
        Photons (element, y, x); NaN: not measured.
    """
    measured = np.isfinite(counts).any(axis=0)
    judged = judge_i0(i0[measured], np.nansum(counts, axis=0)[measured], _pixels_in_words)
    lit = np.isfinite(judged.values) & ~judged.nothing
    median = float(np.median(judged.values[lit])) if lit.any() else None
    inside = np.ones(judged.values.size)
    inside[lit] = judged.values[lit] / (median or 1.0)
    inside[judged.nothing] = np.nan
    relative = np.ones(i0.shape)
    relative[measured] = inside
    return Beam(relative, median, judged.notes)


def _judge(
    readings: np.ndarray, speaks: np.ndarray, photons: np.ndarray, name: str, where: Where
) -> MonitorReadings:
    """Tell the frames without reading apart: nothing measured, or a monitor that is dead."""
    missing = ~np.isfinite(readings)
    nothing = ~speaks & ~missing
    dead = _dead(nothing, speaks, readings, photons)
    nothing &= ~dead
    notes = []
    if missing.any():
        notes.append(f"{name} says nothing in {where(missing)}: unknown there")
    if dead.any():
        notes.append(f"{name} is dead in {where(dead)}, while photons were counted: unknown there")
    if nothing.any():
        notes.append(f"{name} reads nothing in {where(nothing)}: unmeasured")
    return MonitorReadings(np.where(missing | dead, np.nan, readings), nothing, tuple(notes))


def _dead(
    nothing: np.ndarray, speaks: np.ndarray, readings: np.ndarray, photons: np.ndarray
) -> np.ndarray:
    """Return the frames of long stretches without a reading but with photons [frame]."""
    dead = np.zeros(nothing.size, dtype=bool)
    usual = float(photons[speaks].mean()) if speaks.any() else 0.0
    level = float(np.median(readings[speaks])) if speaks.any() else 0.0
    # Bounds of the stretches between frames with a reading.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (~speaks).astype(int), [0]])))
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        inside = nothing[low:high]
        share = DEAD_TO_THE_END if high == nothing.size else DEAD_ANYWHERE
        if not inside.any() or high - low <= share * nothing.size:
            continue
        counted = photons[low:high][inside]
        beam = max(0.0, float(readings[low:high][inside].mean()) / level) if level else 0.0
        if counted.sum() >= 3 and counted.mean() > (PHOTONS_WITHOUT_BEAM + 10 * beam) * usual:
            dead[low:high] = inside
    return dead


def _flickers(lit: np.ndarray, nothing: np.ndarray, photons: np.ndarray) -> bool:
    """Return whether a monitor comes and goes by the frame while the photons stay (dark counts)."""
    if lit.size < _FEWEST_FRAMES or not nothing.any():
        return False
    often = np.count_nonzero(np.diff(lit)) > FLICKER_LIMIT * lit.size
    return bool(often and photons[nothing].mean() > 0.5 * photons[lit].mean())


def _silent(readings: np.ndarray, name: str) -> MonitorReadings:
    note = f"{name} says nothing: no frame is masked or normalized by it"
    nan = np.full(readings.size, np.nan)
    return MonitorReadings(nan, np.zeros(readings.size, dtype=bool), (note,))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    weights = np.clip(weights, 0, None)
    if not weights.sum() > 0:
        weights = np.ones(values.size)
    order = np.argsort(values)
    running = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(running, running[-1] / 2)])
