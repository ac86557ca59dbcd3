"""What the plans need of a beamline: small protocols, and the composite that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

from bluesky.protocols import Collectable, Flyable, Preparable
from bluesky.utils import MsgGenerator

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.region import Region


class RowRequest(TypedDict):
    """What a row flyer is told in `prepare`; plain JSON, in um and ms.

    `first_um` and `last_um` are the *centres* of the first and last pixels in the order of
    flight (first > last where direction is -1). `map_key` differs from map to map, so that the
    flyer can count the attempts at one row of one map.
    """

    map_key: str
    row: int
    direction: int
    first_um: float
    last_um: float
    step_um: float
    num: int
    dwell_ms: float
    run_up_um: float
    slow_um: float


@runtime_checkable
class RowFlyer(Flyable, Preparable, Collectable, Protocol):
    """A device that flies one row: prepare(RowRequest), kickoff, complete, collect.

    `collect` yields exactly one event of the shape `schema.row_keys` describes, as Python lists,
    and nothing at all unless the row is complete. `hints` is ``{"fields": []}`` lest
    BestEffortCallback plots every column. ``stage`` forgets all attempts; ``stop`` (bluesky's
    Stoppable) leaves the axis still.
    """

    elements: list[str]


@runtime_checkable
class HasRowPlan(Protocol):
    """A flyer whose row is made of ordinary plan messages (step scanning)."""

    def row_plan(self, request: RowRequest) -> MsgGenerator[None]:
        """Measure the row; used between prepare and collect instead of kickoff/complete."""
        ...


@dataclass(frozen=True)
class AnalysisSummary:
    """What came of the analysis of one map."""

    source_uid: str
    result_uid: str
    status: Literal["done", "fallback", "failed"]
    reason: str
    regions: tuple[Region, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    elapsed_s: float = 0.0


class ResultsSource(Protocol):
    """Where the results device gets its results: the analysis process or the in-process one."""

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return a future of the final result of a run; asking twice is harmless."""
        ...

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Give up on the model for this run: the same chain with bicubic, here and now."""
        ...


@dataclass(frozen=True)
class RowTimeModel:
    """Time that a row takes besides its dwell.

    ``row = num * dwell * dwell_scale + overhead_s``; plans recalibrate it from finished rows
    (`plans.timing.recalibrated`). A row that takes longer than `patience` times that and `grace_s`
    on top is given up.
    """

    overhead_s: float = 0.1
    dwell_scale: float = 1.0
    patience: float = 3.0
    grace_s: float = 10.0

    def row_s(self, num: int, dwell_ms: float) -> float:
        """Return the seconds for one row."""
        return num * dwell_ms * 1e-3 * self.dwell_scale + self.overhead_s

    def timeout_s(self, expected_s: float) -> float:
        """Return how long to wait for what should take `expected_s` seconds."""
        return self.patience * expected_s + self.grace_s


@dataclass(frozen=True)
class Beamline:
    """The devices and facts that plans are bound to; made once, in the profile.

    Parameters
    ----------
    fast, slow
        The stage axes (bluesky Movable with `position`, `limits`, `velocity`, `egu`).
    flyer
        A `RowFlyer`.
    analysis
        The results device; None: surveys run without enhancement.
    shutter
        Movable that takes "open" and "close".
    safe_box_um
        ((x low, x high), (y low, y high)): used where the axes know no limits, and in any case
        the intersection counts.
    reach_um
        Largest (width, height) that one map may have; larger surveys are tiled.
    max_rate_hz
        Highest frame rate of the detectors.
    max_points
        Highest number of pixels that one map may have.
    max_velocity_um_s
        Highest fly velocity; None: what the fast axis says.
    probe_fwhm_um
        Size of the beam.
    flux_ph_s
        Incoming flux, for dose estimates.
    """

    fast: Any
    slow: Any
    flyer: Any
    analysis: Any = None
    shutter: Any = None
    name: str = "beamline"
    safe_box_um: tuple[tuple[float, float], tuple[float, float]] | None = None
    reach_um: tuple[float, float] | None = None
    max_rate_hz: float = 1000.0
    max_points: int = 1_000_000
    max_velocity_um_s: float | None = None
    run_up_um: float | None = None
    probe_fwhm_um: float | None = None
    flux_ph_s: float | None = None
    time_model: RowTimeModel = field(default_factory=RowTimeModel)
    rescan_queue: Any = None

    def __post_init__(self) -> None:
        if self.max_rate_hz <= 0:
            raise ConfigError(f"beamline {self.name!r}: max_rate_hz is {self.max_rate_hz}")

    @property
    def staged_devices(self) -> Iterator[Any]:
        """Every device that a map stages."""
        return (device for device in (self.flyer, self.shutter) if device is not None)
