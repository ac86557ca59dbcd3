"""Settings of flyers: a device by its name, or what one is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from xrf_sr_plans.config.places import Place
from xrf_sr_plans.config.section import Section
from xrf_sr_plans.ranges import ABOVE_ZERO, ZERO_OR_MORE, Range

_TIMEOUT: Mapping[str, Range] = {"timeout_s": ABOVE_ZERO}


class StepFlyerSettings(Section):
    """Rows that are stepped with any detectors: a `StepFlyer`."""

    ranges: ClassVar[Mapping[str, Range]] = _TIMEOUT

    kind: Literal["step"]
    """What kind of flyer this is."""
    name: str = "xrf"
    """Prefix of the event keys."""
    detectors: tuple[str, ...] = Field(min_length=1)
    """Names of the detectors that are read at every pixel."""
    counts: dict[str, str] = Field(min_length=1)
    """Key of the photons in the detectors' readings, by element."""
    i0_key: str | None = None
    """Key of the beam monitor, in counts/s."""
    exposure: tuple[str, ...] = ()
    """Names of the signals that take the dwell in seconds, such as "xs.cam.acquire_time"."""
    live_time_key: str | None = None
    """Key of the live time in seconds."""
    timeout_s: float = 60.0
    """Longest wait for a move or a trigger beyond what it should take."""


class RowPVsSettings(Section):
    """Which PV does what in a row, as `devices.row_pvs.RowPVs` explains."""

    arm: str
    """Takes 1 before a row and 0 to give it up."""
    busy: str
    """Reads 1 once triggers are counted and 0 once the row's waveforms are there."""
    num: str
    """Takes the number of frames."""
    dwell: str
    """Takes the time of one frame in s."""
    counts: dict[str, str | tuple[str, ...]] = Field(min_length=1)
    """Waveform of photons per frame by element; several are summed."""
    start: str | None = None
    """Takes the first edge of the row, in the unit of the axis."""
    step: str | None = None
    """Takes the distance between triggers."""
    taken: str | None = None
    """Reads the number of frames counted."""
    i0: str | None = None
    """Waveform of the beam monitor, in counts per frame."""
    live_time: str | None = None
    """Waveform of the live time of each frame in s."""
    fast: str | None = None
    """Waveform of the fast axis's encoder."""
    slow: str | None = None
    """Waveform of the slow axis's encoder."""
    before_row: dict[str, Any] = Field(default_factory=dict)
    """Values to be written before each row, by PV and in this order."""


class EpicsFlyerSettings(Section):
    """Rows over EPICS: an `EpicsRowFlyer`."""

    ranges: ClassVar[Mapping[str, Range]] = _TIMEOUT

    kind: Literal["epics"]
    """What kind of flyer this is."""
    name: str = "xrf"
    """Prefix of the event keys."""
    pvs: RowPVsSettings
    """The detector's PVs."""
    timeout_s: float = 10.0
    """Longest wait for a PV, and for a move or a row beyond what it should take."""


class ScanFileSettings(Section):
    """Which file a scan leaves behind: a `ScanFile`."""

    ranges: ClassVar[Mapping[str, Range]] = {"settle_s": ZERO_OR_MORE}

    folder: Place
    """The folder, as this computer sees it."""
    pattern: str = "*"
    """Which files in the folder may be the one."""
    name: str | None = None
    """Name of the signal that gives the file's name; without it, the newest file counts."""
    settle_s: float = 1.0
    """A file is complete once it hasn't changed for so many seconds."""


class StopSettings(Section):
    """A value that is written to a signal to abort a scan."""

    signal: str
    """Name of the signal."""
    value: Any = 1
    """What is written."""


class OwnPlanSettings(Section):
    """Maps that a plan of the beamline's own flies: an `OwnPlanFlyer`."""

    ranges: ClassVar[Mapping[str, Range]] = _TIMEOUT

    kind: Literal["own-plan"]
    """What kind of flyer this is."""
    plan: str
    """Name of the plan, which takes a `ScanGrid` and the dwell in ms. It may be a dotted name of
    something that can be imported."""
    name: str = "xrf"
    """Prefix of the event keys."""
    file: ScanFileSettings
    """Which file the scan leaves behind."""
    elements: dict[str, str] | tuple[str, ...]
    """Names of the elements, or the channel of the file by element."""
    reader: str | None = None
    """Name of the reader of such files, as `xrf-sr readers` lists them."""
    axis_unit: str | None = None
    """Unit of the positions in the file, where it doesn't say it."""
    units: str | None = None
    """Unit of the values in the file, where it doesn't say it."""
    stop: str | StopSettings | None = None
    """What aborts the scan: the name of a function, or a table with `signal` and `value`."""
    busy: str | None = None
    """Name of the signal or function that is true while the scan goes on."""
    bad_columns: tuple[int, int] = (0, 0)
    """How many columns at the low and at the high end say nothing."""
    fast: Literal["x", "y"] = "x"
    """Which axis of the file is the fast axis."""
    squares_only: bool = False
    """Whether the plan takes the same step along both axes only."""
    timeout_s: float = 120.0
    """Longest wait for a scan that is still busy, and for its file."""


def _kind(value: Any) -> str:
    """Return which of the forms below a flyer is given in."""
    if isinstance(value, str):
        return "device"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return str(kind)


Flyer = Annotated[
    Annotated[str, Tag("device")]
    | Annotated[StepFlyerSettings, Tag("step")]
    | Annotated[EpicsFlyerSettings, Tag("epics")]
    | Annotated[OwnPlanSettings, Tag("own-plan")],
    Discriminator(
        _kind,
        custom_error_type="flyer_kind",
        custom_error_message="it must be a device's name, or a table with kind = 'step', 'epics' "
        "or 'own-plan'",
    ),
]
"""A flyer by its name, or what it is made of."""
