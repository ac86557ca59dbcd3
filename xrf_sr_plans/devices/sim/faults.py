"""Faults of the simulated hardware, which are declared beforehand.

Each fault says which rows, maps and attempts it hits, and what it does to them: either to the
exposure, before anything is counted, or to the frames afterwards. A `FaultPlan` holds the faults
of a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Literal, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from xrf_sr_plans.devices.rows import RowFrames
from xrf_sr_plans.devices.sim.microscope import Exposure
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.ranges import ANY_NUMBER, ZERO_OR_MORE, check


@dataclass(frozen=True)
class RowAddress:
    """Which row is being flown.

    Parameters
    ----------
    map_index
        Index of the map among those that the flyer has begun, from 0; -1 outside maps.
    row
        Index of the row in its map, from 0; -1 outside maps.
    attempt
        Index of the attempt at the row, from 0.
    direction
        +1 where the row is flown from low to high positions, -1 where it is flown back.
    """

    map_index: int
    row: int
    attempt: int
    direction: int


_RANGES = {"pixels": ANY_NUMBER, "value": ANY_NUMBER}
"""Which numbers fields take that may be negative; all others are 0 or more."""


def _check_fields(fault: Fault | StuckMotor) -> None:
    """Refuse a fault of which a field has a value that it can't have."""
    types = get_type_hints(type(fault))
    flaws = []
    for name in (field.name for field in fields(fault)):
        value = getattr(fault, name)
        try:
            TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            flaws.append(f"{name} is {value!r:.80}: {error.errors()[0]['msg']}")
            continue
        numbers = value if isinstance(value, (tuple, list)) else [value]
        allowed = _RANGES.get(name, ZERO_OR_MORE)
        flaws += [allowed.flaw(name, number) for number in numbers if isinstance(number, Real)]
    check(type(fault).__name__, *flaws)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that changes nothing; the base class of faults that hit rows.

    Parameters
    ----------
    rows
        Indices of the rows that are hit; None: all.
    maps
        Indices of the maps that are hit; None: all.
    attempts
        Indices of the attempts that are hit; None: all.

    Raises
    ------
    ConfigError
        A value is of another type than its field, or a number that it can't be.
    """

    rows: tuple[int, ...] | None = None
    maps: tuple[int, ...] | None = None
    attempts: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_fields(self)

    def hits(self, address: RowAddress) -> bool:
        """Return whether a row is hit."""
        conditions = (
            (self.rows, address.row),
            (self.maps, address.map_index),
            (self.attempts, address.attempt),
        )
        return all(wanted is None or value in wanted for wanted, value in conditions)

    def change_exposure(self, exposure: Exposure, address: RowAddress) -> Exposure:
        """Return what the row is exposed to instead."""
        return exposure

    def change_frames(self, frames: RowFrames, address: RowAddress) -> RowFrames | None:
        """Return what is read out instead; None: nothing is."""
        return frames


@dataclass(frozen=True, kw_only=True)
class PixelFault(Fault):
    """The base class of faults that hit some frames of a row.

    Parameters
    ----------
    first
        Index of the first frame that is hit, in order of acquisition.
    last
        Index of the last frame that is hit; None: all from `first` on.
    """

    first: int = 0
    last: int | None = None

    def mask(self, num: int) -> np.ndarray:
        """Return which of `num` frames are hit, as booleans of shape (frame,)."""
        frame = np.arange(num)
        return (frame >= self.first) & (frame <= (num if self.last is None else self.last))


@dataclass(frozen=True, kw_only=True)
class ShortRow(Fault):
    """Only the first `frames` frames of a row arrive."""

    frames: int

    def change_frames(self, frames: RowFrames, address: RowAddress) -> RowFrames | None:
        """Cut the row off."""
        return frames.first(self.frames)


@dataclass(frozen=True, kw_only=True)
class MissingRow(Fault):
    """The flyer says that it is done, but there is no row."""

    def change_frames(self, frames: RowFrames, address: RowAddress) -> RowFrames | None:
        """Drop the row."""
        return None


@dataclass(frozen=True, kw_only=True)
class ShiftedRow(Fault):
    """Frames come late by `pixels` in the direction of flight, and the encoder doesn't notice."""

    pixels: float = 1.0

    def change_exposure(self, exposure: Exposure, address: RowAddress) -> Exposure:
        """Shift the path of the beam, while the encoder stays as it is."""
        step = np.median(np.abs(exposure.stop_um - exposure.start_um))
        shift = self.pixels * step * address.direction
        return replace(
            exposure, start_um=exposure.start_um + shift, stop_um=exposure.stop_um + shift
        )


@dataclass(frozen=True, kw_only=True)
class BadDetectorElement(Fault):
    """A detector element is dead or hot.

    Parameters
    ----------
    index
        Index of the detector element, from 0.
    weight
        What the element counts, as a multiple of what it should: 0 is dead, above 1 is hot.
    """

    index: int = 0
    weight: float = 0.0

    def change_exposure(self, exposure: Exposure, address: RowAddress) -> Exposure:
        """Set the weight of the element.

        Raises
        ------
        ConfigError
            There is no such detector element.
        """
        if not 0 <= self.index < len(exposure.element_weights):
            raise ConfigError(
                f"no detector element {self.index}; there are {len(exposure.element_weights)},"
                " from 0"
            )
        weights = exposure.element_weights.copy()
        weights[self.index] = self.weight
        return replace(exposure, element_weights=weights)


@dataclass(frozen=True, kw_only=True)
class Saturation(PixelFault):
    """Some pixels are `gain` times as bright, so that the electronics are dead or saturated."""

    gain: float = 1000.0

    def change_exposure(self, exposure: Exposure, address: RowAddress) -> Exposure:
        """Brighten the sample."""
        gain = exposure.sample_gain
        return replace(exposure, sample_gain=np.where(self.mask(len(gain)), self.gain * gain, gain))


@dataclass(frozen=True, kw_only=True)
class MonitorZero(PixelFault):
    """The I0 monitor reads 0 although there is beam."""

    def change_exposure(self, exposure: Exposure, address: RowAddress) -> Exposure:
        """Blind the monitor."""
        gain = exposure.monitor_gain
        return replace(exposure, monitor_gain=np.where(self.mask(len(gain)), 0.0, gain))


@dataclass(frozen=True, kw_only=True)
class BeamDump(Fault):
    """The beam is lost in the middle of a map.

    Parameters
    ----------
    row
        Index of the row in which the beam is lost.
    pixel
        Index of the first frame of that row that has no beam.
    back_at_row
        Index of the first row that has beam again; None: it stays away.
    """

    row: int
    pixel: int = 0
    back_at_row: int | None = None

    def change_exposure(self, exposure: Exposure, address: RowAddress) -> Exposure:
        """Take the beam away, so that neither detector nor monitor count anything."""
        is_back = self.back_at_row is not None and address.row >= self.back_at_row
        if address.row < self.row or is_back:
            return exposure
        first_lost = self.pixel if address.row == self.row else 0
        lost = np.arange(len(exposure.beam)) >= first_lost
        return replace(exposure, beam=np.where(lost, 0.0, exposure.beam))


@dataclass(frozen=True, kw_only=True)
class BadLastColumns(Fault):
    """The last frames of every row hold rubbish, as in many fly scans.

    Parameters
    ----------
    columns
        Number of frames that are hit.
    value
        Counts that they show.
    """

    columns: int = 2
    value: float = 0.0

    def change_frames(self, frames: RowFrames, address: RowAddress) -> RowFrames | None:
        """Overwrite the last counts."""
        counts = frames.counts.copy()
        counts[:, max(0, counts.shape[-1] - self.columns) :] = self.value
        return replace(frames, counts=counts)


@dataclass(frozen=True, kw_only=True)
class HungFlyer(Fault):
    """The row never completes until someone stops the flyer, by default at its first attempt."""

    attempts: tuple[int, ...] | None = (0,)


@dataclass(frozen=True)
class StuckMotor:
    """An axis doesn't move any more.

    Parameters
    ----------
    axis
        Which axis.
    after_moves
        Number of moves before the axis gets stuck.
    moves
        Number of moves for which it stays stuck; None: for ever.
    mode
        What a move does then: it fails ("error"), it doesn't end until it is stopped ("hang"),
        or it claims to have arrived ("silent").

    Raises
    ------
    ConfigError
        A value is of another type than its field, or a number that it can't be.
    """

    axis: Literal["fast", "slow"]
    after_moves: int = 0
    moves: int | None = None
    mode: Literal["error", "hang", "silent"] = "error"

    def __post_init__(self) -> None:
        _check_fields(self)

    def blocks_move(self, index: int) -> bool:
        """Return whether the axis is stuck at move number `index`, from 0."""
        end = np.inf if self.moves is None else self.after_moves + self.moves
        return self.after_moves <= index < end


@dataclass(frozen=True)
class FaultPlan:
    """All faults of a session, in the order in which they act."""

    faults: tuple[Fault | StuckMotor, ...] = ()

    def faults_at(self, address: RowAddress) -> list[Fault]:
        """Return the faults that hit a row."""
        return [f for f in self.faults if isinstance(f, Fault) and f.hits(address)]

    def stuck_motor(self, axis: Literal["fast", "slow"]) -> StuckMotor | None:
        """Return how an axis gets stuck; None where it doesn't."""
        return next((f for f in self.faults if isinstance(f, StuckMotor) and f.axis == axis), None)


def as_fault_plan(
    faults: FaultPlan | Fault | StuckMotor | Sequence[Fault | StuckMotor] | None,
) -> FaultPlan:
    """Return a plan of one fault, of several or of none; a plan is returned as it is.

    Raises
    ------
    ConfigError
        Something among `faults` is no fault.
    """
    if faults is None:
        return FaultPlan()
    if isinstance(faults, FaultPlan):
        return faults
    if isinstance(faults, (Fault, StuckMotor)):
        return FaultPlan((faults,))
    for fault in faults if isinstance(faults, Sequence) else [faults]:
        if not isinstance(fault, (Fault, StuckMotor)):
            raise ConfigError(f"{fault!r} is not a fault; see xrf_sr_plans.devices.sim.faults")
    return FaultPlan(tuple(faults))
