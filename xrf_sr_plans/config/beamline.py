"""Settings of a beamline: which devices it has, and what must not be exceeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator

from xrf_sr_plans.config.flyers import Flyer
from xrf_sr_plans.config.section import Section
from xrf_sr_plans.ranges import (
    ABOVE_ZERO,
    BEAMLINE_RANGES,
    TIME_RANGES,
    ZERO_OR_MORE,
    Range,
    box_flaw,
)

Pair = tuple[float, float]
Box = tuple[Pair, Pair]
Sign = Literal[1, -1]


class DeviceSettings(Section):
    """A device that is made, with all other keys of its table as keyword arguments."""

    model_config = ConfigDict(extra="allow")

    made_by: str = Field(alias="class")
    """Dotted name of the class or function that makes it, such as "ophyd.EpicsMotor"."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The other keys of the table."""
        return dict(self.model_extra or {})


class AxisSettings(Section):
    """A stage axis; its name alone is enough where it says its unit itself."""

    device: str
    """Name of the positioner."""
    units: str | None = None
    """Unit of its positions. It is needed where the device gives none and it isn't um, and checked
    where the device gives one."""


def _named(value: Any) -> Any:
    """Return a table for an axis that is given by its name."""
    return {"device": value} if isinstance(value, str) else value


class HeldAxisSettings(Section):
    """An axis that has to be where it was when a region was found, such as z or theta."""

    ranges: ClassVar[Mapping[str, Range]] = {"tolerance": ZERO_OR_MORE}

    device: str
    """Name of the positioner."""
    tolerance: float = 0.01
    """How far it may be from where it was, in its own unit."""


class TimeModelSettings(Section):
    """How long a row takes: ``num * dwell * dwell_scale + overhead_s``."""

    ranges: ClassVar[Mapping[str, Range]] = TIME_RANGES

    overhead_s: float = 0.1
    """Seconds that a row takes besides its dwell, for run-up, return and readout."""
    dwell_scale: float = 1.0
    """Real time per pixel, as a multiple of the dwell."""
    patience: float = 3.0
    """A row is given up after this multiple of its expected time ..."""
    grace_s: float = 10.0
    """... and this many seconds on top."""


class StageSettings(Section):
    """What a beamline's own stage and its fine stage have in common."""

    ranges: ClassVar[Mapping[str, Range]] = BEAMLINE_RANGES

    fast: AxisSettings | None = None
    """The axis that moves along a row: a device's name, or a table with `device` and `units`."""
    slow: AxisSettings | None = None
    """The axis that moves from row to row."""
    flyer: Flyer | None = None
    """What flies a row: a device's name, or a table with `kind` "step", "epics" or "own-plan"."""
    safe_box_um: Box | None = None
    """[[x low, x high], [y low, y high]] that no axis may leave. It is needed where the axes know
    no limits; where they do, the intersection counts."""
    reach_um: Pair | None = None
    """Largest [width, height] of one map; larger surveys are flown as tiles."""
    max_velocity_um_s: float | None = None
    """Highest velocity of the fast axis in a row; without it, what the axis itself says."""
    encoder_um: float | None = None
    """Resolution of the fast axis's encoder; no pixel of a row can be shorter."""
    run_up_um: float | None = None
    """Distance in which the fast axis speeds up and brakes; without it, it follows from velocity
    and acceleration."""
    time_model: TimeModelSettings | None = None
    """How long a row takes."""

    _axes = field_validator("fast", "slow", mode="before")(_named)

    @field_validator("safe_box_um")
    @classmethod
    def _is_a_box(cls, value: Box | None) -> Box | None:
        if value is not None and box_flaw("", value):
            raise ValueError("it must be [[x low, x high], [y low, y high]], low below high")
        return value

    @field_validator("reach_um")
    @classmethod
    def _is_a_reach(cls, value: Pair | None) -> Pair | None:
        if value is not None and ABOVE_ZERO.pair_flaw("", value):
            raise ValueError(f"it must be [width, height], each {ABOVE_ZERO}")
        return value


class FineStageSettings(StageSettings):
    """Axes of small range on top of the coarse stage, which fly the rescans."""

    ranges: ClassVar[Mapping[str, Range]] = {**BEAMLINE_RANGES, "coarse_error_um": ZERO_OR_MORE}

    center_um: Pair = (0.0, 0.0)
    """Where the axes are while the coarse stage flies."""
    sign: tuple[Sign, Sign] = (1, 1)
    """For each axis 1 where it runs with the coarse axis, and -1 where it runs against it."""
    offset_um: Pair = (0.0, 0.0)
    """How far on the sample the beam is from where both stages say it is."""
    coarse_error_um: float = 0.5
    """How far the coarse stage may stop from where it was sent."""
    max_rate_hz: float | None = None
    """Highest frame rate; without it, that of the beamline."""
    max_points: int | None = None
    """Largest number of pixels of one map; without it, that of the beamline."""
    readout_ms: float | None = None
    """Time between two frames in which nothing counts; without it, that of the beamline."""


class BeamlineSettings(StageSettings):
    """The devices and facts that plans are bound to."""

    name: str = "beamline"
    """Name of the beamline, which goes into start documents."""
    shutter: str | None = None
    """Name of the shutter, which takes "open" and "close"; without it, there is none to operate."""
    max_rate_hz: float = 1000.0
    """Highest frame rate that detectors and readout sustain."""
    max_points: int = 1_000_000
    """Largest number of pixels of one map."""
    readout_ms: float = 0.0
    """Time between two frames in ms in which the detector counts nothing."""
    probe_fwhm_um: float | None = None
    """Size of the beam (FWHM); without it, unknown."""
    flux_ph_s: float | None = None
    """Incoming flux in photons/s, for doses in photons; without it, unknown."""
    fine: FineStageSettings | None = None
    """The stage that flies the rescans; without it, the axes that fly the surveys do."""
    held: tuple[HeldAxisSettings, ...] = ()
    """Other axes of the stage, which no plan moves and which must not have moved."""
    connect_timeout_s: float = Field(default=10.0, gt=0, le=600, allow_inf_nan=False)
    """Longest wait for devices that are made here to be connected."""
