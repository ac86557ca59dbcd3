"""What plans need of a beamline: small protocols, and the composite that holds the devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NotRequired,
    Protocol,
    TypedDict,
    runtime_checkable,
)

from bluesky.protocols import (
    Collectable,
    Flyable,
    Movable,
    NamedMovable,
    Preparable,
    Readable,
)
from bluesky.utils import MsgGenerator

from xrf_sr_plans.devices.row_time import RowTimeModel
from xrf_sr_plans.devices.stage import FineStage, HeldAxis, device_flaw
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.ranges import (
    ABOVE_ZERO,
    BEAMLINE_RANGES,
    box_flaw,
    check,
    range_flaws,
)

if TYPE_CHECKING:
    from xrf_sr_plans.config import Settings


class RowRequest(TypedDict):
    """One attempt at one row, as a row flyer is told in `prepare`; it is plain JSON."""

    map_key: str
    """Differs from map to map, so that the flyer can count the attempts at one row of one map."""
    row: int
    """Index of the row along the slow axis, from 0."""
    direction: int
    """+1 where the row is flown from low to high positions, -1 where it is flown back."""
    first_um: float
    """Center of the first pixel in the order of flight, in um of the stage."""
    last_um: float
    """Center of the last pixel in the order of flight; it is below `first_um` on the way back."""
    step_um: float
    """Distance between two pixels in um; it is positive in either direction."""
    num: int
    """Number of pixels."""
    dwell_ms: float
    """Time at each pixel, in ms."""
    run_up_um: float
    """Distance in um that the fast axis has before and after the row to speed up and brake."""
    slow_um: float
    """Position of the row on the slow axis, in um of the stage."""
    rows: NotRequired[int]
    """Number of rows of the map, for progress."""


@runtime_checkable
class RowFlyer(Flyable, Preparable, Collectable, Protocol):
    """A device that flies one row: ``prepare(RowRequest)``, ``kickoff``, ``complete``, ``collect``.

    `collect` yields exactly one event, with the keys that `schema.row_keys` describes and Python
    lists as values. It yields nothing at all unless the row is complete. `hints` is
    ``{"fields": []}``, because BestEffortCallback would plot every column otherwise. ``stage``
    forgets all attempts, and ``stop`` (bluesky's Stoppable) leaves the axis still.
    """

    elements: list[str]


@runtime_checkable
class HasRowPlan(Protocol):
    """A flyer whose rows are ordinary plan messages, as in step scanning."""

    def row_plan(self, request: RowRequest) -> MsgGenerator[None]:
        """Measure the row, between prepare and collect, in place of kickoff and complete."""
        ...


@runtime_checkable
class HasCheckPlan(Protocol):
    """A flyer that can find out whether it can measure at all."""

    def check_plan(self) -> MsgGenerator[None]:
        """Raise a `RefusedError` where it can't; nothing moves, and no run is open yet."""
        ...


class SettableReadable(Readable[Any], Movable[Mapping[str, Any]], Protocol):
    """A device that is set to a request, and whose reading is the answer."""


@dataclass(frozen=True)
class AnalysisSummary:
    """What came of the analysis of one map.

    Parameters
    ----------
    source_uid
        Uid of the map's run.
    result_uid
        Uid of the result run; "" where there is none.
    status
        "done", "fallback" (bicubic maps in place of the model's) or "failed".
    reason
        Why it is not "done", or what is unusual about the map, for the user to read.
    regions
        The regions worth a closer look, best first.
    model
        Name and sha256 of the model, by the keys "name" and "sha256".
    digest
        Sha256 of the result documents; "" where there are none.
    elapsed_s
        How long the analysis took, in seconds.
    """

    source_uid: str
    result_uid: str
    status: Literal["done", "fallback", "failed"]
    reason: str
    regions: tuple[Region, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    elapsed_s: float = 0.0


class ResultsSource(Protocol):
    """Where the analysis device gets its results from: another process or this one."""

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return a future of the final result of a run; asking twice is harmless."""
        ...

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Give up on the model for this run, and analyze it with bicubic interpolation at once.

        `reason` says why, and becomes the reason of the summary.
        """
        ...


_DEVICES = ("fast", "slow", "flyer", "shutter", "analysis", "rescan_queue", "approvals")


@dataclass(frozen=True)
class Beamline:
    """The devices and facts that plans are bound to; it is made once, in the profile.

    Parameters
    ----------
    fast
        The stage axis that moves along a row (bluesky Movable; its `position`, `limits`,
        `velocity` and `egu` are looked up where it has them).
    slow
        The stage axis that moves from row to row, of the same kind.
    flyer
        A `RowFlyer`.
    analysis
        The analysis device; None: surveys run without enhancement.
    shutter
        A Movable that takes "open" and "close"; None: there is none to operate.
    name
        Name of the beamline, which goes into start documents.
    safe_box_um
        ((x low, x high), (y low, y high)) that no axis may leave. It is needed where the axes
        know no limits; where they do, the intersection counts.
    reach_um
        Largest (width, height) that one map may have. Larger surveys are flown as tiles.
    max_rate_hz
        Highest frame rate of the detectors.
    max_points
        Highest number of pixels that one map may have.
    readout_ms
        Time between two frames in ms in which the detector counts nothing. It is part of each
        pixel's time.
    max_velocity_um_s
        Highest velocity of the fast axis in a row; None: what the axis itself says.
    encoder_um
        Resolution of the fast axis's encoder, which triggers the frames of a row: no pixel of a
        row can be shorter. None: unknown, nothing is refused for it.
    run_up_um
        Distance before and after each row in which the fast axis speeds up and brakes; None:
        computed from velocity and acceleration.
    probe_fwhm_um
        Size of the beam (FWHM); None: unknown.
    flux_ph_s
        Incoming flux in photons/s, for dose estimates in photons; None: unknown.
    time_model
        How long a row takes.
    rescan_queue
        A `RescanQueue`, for surveys with ``rescan="queue"``.
    approvals
        An `ApprovalDesk`, through which surveys with ``rescan="ask"`` ask people; `start_session`
        sees to it.
    fine
        The stage that flies the rescans; None: the axes that fly the surveys do.
    held
        Other axes of the stage, which no plan moves. A region carries their positions, and is
        refused where they have moved since.
    settings
        The settings that it was made from, which `start_session` uses too; None: it was made by
        hand.

    Raises
    ------
    ConfigError
        A number is not finite or not above 0 (`readout_ms`, `run_up_um` and `probe_fwhm_um` may be
        0), or
        `safe_box_um` or `reach_um` is not of the form above, or a device is not of its kind, or
        two axes have the same name. The message lists all of it.
    """

    fast: NamedMovable[float]
    slow: NamedMovable[float]
    flyer: RowFlyer
    analysis: SettableReadable | None = None
    shutter: Movable[str] | None = None
    name: str = "beamline"
    safe_box_um: tuple[tuple[float, float], tuple[float, float]] | None = None
    reach_um: tuple[float, float] | None = None
    max_rate_hz: float = 1000.0
    max_points: int = 1_000_000
    readout_ms: float = 0.0
    max_velocity_um_s: float | None = None
    encoder_um: float | None = None
    run_up_um: float | None = None
    probe_fwhm_um: float | None = None
    flux_ph_s: float | None = None
    time_model: RowTimeModel = field(default_factory=RowTimeModel)
    rescan_queue: SettableReadable | None = None
    approvals: SettableReadable | None = None
    fine: FineStage | None = None
    held: tuple[HeldAxis, ...] = ()
    settings: Settings | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_settings(
        cls, settings: Settings | str | Path | None = None, registry: Any = None
    ) -> Beamline:
        """Make a beamline from a settings file.

        Nothing moves. Devices that the settings make are connected.

        Parameters
        ----------
        settings
            The file, or settings that were loaded already; with None, the file that the variable
            ``XRF_SR_SETTINGS`` names.
        registry
            Where devices are looked up by name: a namespace such as ``globals()``, a happi
            client, a registry as that of guarneri and BITS, an object whose attributes are the
            devices, or a list of these. None: all devices are made by the settings.

        Raises
        ------
        ConfigError
            A setting is unknown or not allowed, or a device is missing, can't be made or is not
            of its kind. The message lists all of it.
        """
        from xrf_sr_plans.config import Settings
        from xrf_sr_plans.devices.from_settings import BeamlineMaker

        loaded = settings if isinstance(settings, Settings) else Settings.load(settings)
        return BeamlineMaker(loaded, registry).beamline()

    def __post_init__(self) -> None:
        model, box, reach = self.time_model, self.safe_box_um, self.reach_um
        is_model = isinstance(model, RowTimeModel)
        check(
            f"beamline {self.name!r}",
            "" if isinstance(self.name, str) else f"name is {self.name!r:.80}; it must be text",
            "" if is_model else f"time_model is {model!r:.80}; it must be a RowTimeModel",
            "" if box is None else box_flaw("safe_box_um", box),
            "" if reach is None else ABOVE_ZERO.pair_flaw("reach_um", reach),
            *range_flaws(vars(self), BEAMLINE_RANGES),
            *(device_flaw(name, vars(self)[name]) for name in _DEVICES),
            *self._stage_flaws(),
        )

    def _stage_flaws(self) -> Iterator[str]:
        """Yield what is wrong with the fine stage and the axes that are held, in words."""
        fine, held = self.fine, self.held
        if not (fine is None or isinstance(fine, FineStage)):
            yield f"fine is {fine!r:.80}; it must be a FineStage"
            return
        if not (isinstance(held, (tuple, list)) and all(isinstance(h, HeldAxis) for h in held)):
            yield f"held is {held!r:.80}; it must be a tuple of HeldAxis"
            return
        axes = [self.fast, self.slow, *(() if fine is None else (fine.fast, fine.slow))]
        if fine is not None or held:
            names = [str(getattr(axis, "name", axis)) for axis in axes]
            names += [str(axis.axis.name) for axis in held]
            if len(set(names)) < len(names):
                yield f"the axes are {', '.join(names)}; each needs a name of its own"

    @cached_property
    def rescanning(self) -> Beamline:
        """The beamline whose axes fly the rescans: that of the fine stage where there is one.

        Its positions are those of its own axes.
        """
        if self.fine is None:
            return self
        names = ("fast", "slow", "flyer", "reach_um", "safe_box_um", "max_velocity_um_s")
        names = (*names, "encoder_um", "run_up_um", "time_model")
        values = {name: getattr(self.fine, name) for name in names}
        for name in ("max_rate_hz", "max_points", "readout_ms"):
            value = getattr(self.fine, name)
            values[name] = getattr(self, name) if value is None else value
        return replace(self, fine=None, **values)

    @property
    def devices(self) -> dict[str, Any]:
        """The devices by their names, as a profile puts them into its namespace."""
        fine = self.fine
        parts = [self.fast, self.slow, self.flyer, self.shutter]
        parts += [] if fine is None else [fine.fast, fine.slow, fine.flyer]
        parts += [one.axis for one in self.held]
        named = {getattr(part, "name", None): part for part in reversed(parts)}
        return {name: part for name, part in named.items() if isinstance(name, str)}

    @property
    def staged_devices(self) -> Iterator[RowFlyer | Movable[str]]:
        """The devices that every map stages: the flyer, and the shutter where there is one."""
        return (device for device in (self.flyer, self.shutter) if device is not None)
