"""What goes wrong, declared beforehand: a `FaultPlan` is a tuple of frozen faults.

Every fault says which rows (and maps, and attempts) it hits and what it does to them, either to
the exposure before anything is counted or to the frames afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from xrf_sr_plans.devices.rows import RowFrames
from xrf_sr_plans.devices.sim.microscope import Exposure
from xrf_sr_plans.errors import ConfigError


@dataclass(frozen=True)
class RowAddress:
    """Which row is being flown: `map_index` counts the maps of this beamline from 0."""

    map_index: int
    row: int
    attempt: int
    direction: int


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Hits the named rows, maps and attempts; None: all of them."""

    rows: tuple[int, ...] | None = None
    maps: tuple[int, ...] | None = None
    attempts: tuple[int, ...] | None = None

    def hits(self, where: RowAddress) -> bool:
        """Return whether this row is hit."""
        chosen = (
            (self.rows, where.row),
            (self.maps, where.map_index),
            (self.attempts, where.attempt),
        )
        return all(wanted is None or value in wanted for wanted, value in chosen)

    def before(self, exposure: Exposure, where: RowAddress) -> Exposure:
        """Change what the row is exposed to."""
        return exposure

    def after(self, frames: RowFrames, where: RowAddress) -> RowFrames | None:
        """Change what comes out; None: nothing comes out at all."""
        return frames


@dataclass(frozen=True, kw_only=True)
class PixelFault(Fault):
    """Hits frames `first` to `last` (inclusive, in order of acquisition; None: to the end)."""

    first: int = 0
    last: int | None = None

    def mask(self, num: int) -> np.ndarray:
        """Return which of `num` frames are hit."""
        frame = np.arange(num)
        return (frame >= self.first) & (frame <= (num if self.last is None else self.last))


@dataclass(frozen=True, kw_only=True)
class ShortRow(Fault):
    """Only the first `frames` frames arrive."""

    frames: int

    def after(self, frames: RowFrames, where: RowAddress) -> RowFrames | None:
        """Cut the row."""
        return frames.first(self.frames)


@dataclass(frozen=True, kw_only=True)
class MissingRow(Fault):
    """The flyer says it is done, but there is no row."""

    def after(self, frames: RowFrames, where: RowAddress) -> RowFrames | None:
        """Drop the row."""
        return None


@dataclass(frozen=True, kw_only=True)
class ShiftedRow(Fault):
    """Frames come `pixels` late in the direction of flight; the encoder doesn't notice."""

    pixels: float = 1.0

    def before(self, exposure: Exposure, where: RowAddress) -> Exposure:
        """Move the beam's path, not the encoder."""
        step = np.median(np.abs(exposure.stop_um - exposure.start_um))
        shift = self.pixels * step * where.direction
        return replace(
            exposure, start_um=exposure.start_um + shift, stop_um=exposure.stop_um + shift
        )


@dataclass(frozen=True, kw_only=True)
class BadDetectorElement(Fault):
    """Detector element `index` counts `weight` times what it should: 0 dead, above 1 hot."""

    index: int = 0
    weight: float = 0.0

    def before(self, exposure: Exposure, where: RowAddress) -> Exposure:
        """Set the element's weight."""
        if not 0 <= self.index < len(exposure.alive):
            raise ConfigError(
                f"no detector element {self.index}; there are {len(exposure.alive)}, from 0"
            )
        alive = exposure.alive.copy()
        alive[self.index] = self.weight
        return replace(exposure, alive=alive)


@dataclass(frozen=True, kw_only=True)
class Saturation(PixelFault):
    """The sample is `gain` times as bright there: dead time, then saturated electronics."""

    gain: float = 1000.0

    def before(self, exposure: Exposure, where: RowAddress) -> Exposure:
        """Brighten the sample."""
        hit = self.mask(len(exposure.gain))
        return replace(exposure, gain=np.where(hit, self.gain * exposure.gain, exposure.gain))


@dataclass(frozen=True, kw_only=True)
class MonitorZero(PixelFault):
    """The I0 monitor reads 0 although there is beam."""

    def before(self, exposure: Exposure, where: RowAddress) -> Exposure:
        """Blind the monitor."""
        return replace(
            exposure, monitor=np.where(self.mask(len(exposure.monitor)), 0.0, exposure.monitor)
        )


@dataclass(frozen=True, kw_only=True)
class BeamDump(Fault):
    """The beam is lost at frame `pixel` of row `row`; it is back from `back_at_row` on."""

    row: int
    pixel: int = 0
    back_at_row: int | None = None

    def before(self, exposure: Exposure, where: RowAddress) -> Exposure:
        """Take the beam away: no counts, no I0."""
        if where.row < self.row or (self.back_at_row is not None and where.row >= self.back_at_row):
            return exposure
        lost_from = self.pixel if where.row == self.row else 0
        lost = np.arange(len(exposure.beam)) >= lost_from
        return replace(exposure, beam=np.where(lost, 0.0, exposure.beam))


@dataclass(frozen=True, kw_only=True)
class BadLastColumns(Fault):
    """The last `columns` frames of every row hold rubbish, as in many fly scans."""

    columns: int = 2
    value: float = 0.0

    def after(self, frames: RowFrames, where: RowAddress) -> RowFrames | None:
        """Overwrite the last counts."""
        counts = frames.counts.copy()
        counts[:, max(0, counts.shape[-1] - self.columns) :] = self.value
        return replace(frames, counts=counts)


@dataclass(frozen=True, kw_only=True)
class HungFlyer(Fault):
    """`complete` never finishes, until someone stops the flyer; by default at the first attempt."""

    attempts: tuple[int, ...] | None = (0,)


@dataclass(frozen=True)
class StuckMotor:
    """An axis doesn't move from its move number `after_moves` on, for `moves` moves.

    ``error``: the move fails; ``hang``: it never ends until it is stopped; ``silent``: it claims
    to have arrived.
    """

    axis: Literal["fast", "slow"]
    after_moves: int = 0
    moves: int | None = None
    mode: Literal["error", "hang", "silent"] = "error"

    def holds(self, index: int) -> bool:
        """Return whether move number `index` is hit."""
        last = np.inf if self.moves is None else self.after_moves + self.moves
        return self.after_moves <= index < last


@dataclass(frozen=True)
class FaultPlan:
    """All faults of a session, in the order in which they act."""

    faults: tuple[Fault | StuckMotor, ...] = ()

    def at(self, where: RowAddress) -> list[Fault]:
        """Return the faults that hit a row."""
        return [f for f in self.faults if isinstance(f, Fault) and f.hits(where)]

    def stuck(self, axis: Literal["fast", "slow"]) -> StuckMotor | None:
        """Return how an axis gets stuck, if it does."""
        return next((f for f in self.faults if isinstance(f, StuckMotor) and f.axis == axis), None)


def as_fault_plan(faults: FaultPlan | Fault | StuckMotor | tuple | list | None) -> FaultPlan:
    """Return a plan from a plan, one fault, several or none."""
    if faults is None:
        return FaultPlan()
    if isinstance(faults, FaultPlan):
        return faults
    if isinstance(faults, (Fault, StuckMotor)):
        return FaultPlan((faults,))
    for fault in faults:
        if not isinstance(fault, (Fault, StuckMotor)):
            raise ConfigError(f"{fault!r} is not a fault; see xrf_sr_plans.devices.sim.faults")
    return FaultPlan(tuple(faults))
