"""The records of approval: a survey's proposal, and the events that follow it.

They are written once and never changed. What a region's state is at any time follows from them
alone (`approval.states`).
"""

from __future__ import annotations

import getpass
import math
import os
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter

from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import Disposition, RescanMode, RescanModel, Undecided


def _region(value: Any) -> Region:
    return value if isinstance(value, Region) else Region.from_dict(value)


_RegionField = Annotated[
    Region, PlainValidator(_region), PlainSerializer(lambda region: region.to_dict())
]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _uid() -> str:
    return str(uuid.uuid4())


def this_person() -> str:
    """Return user and host as ``user@host``, for decisions of which nobody says who made them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class By(_Record):
    """Who decides, from where, and why."""

    who: str = Field(default_factory=this_person)
    """Name of the person."""
    via: str = "console"
    """Where it was said: "console", "page", "command line", or "default" where nobody answered."""
    why: str = ""
    """The reason in the person's words; may be empty."""


class ProposedRegion(_Record):
    """A region as a survey proposed it. Its number is its place in the proposal, counted from 1."""

    region: _RegionField
    disposition: Disposition = "proposed"
    """"proposed", or "refused" where the survey's budget or the limits spoke against it."""
    reason: str = ""
    """Why it was picked, or refused, in words."""
    time_s: float = Field(default=0.0, ge=0)
    """Seconds that the rescan is expected to take."""
    run_uid: str = ""
    """Uid of its fine map, where it was flown already."""


class SurveyTile(_Record):
    """A coarse map of a survey: where a region that somebody draws belongs to."""

    uid: str
    """Uid of the map's run."""
    x_low_um: float
    x_high_um: float
    y_low_um: float
    y_high_um: float
    model_sha256: str = ""
    """Digest of the weights of the model that enhanced it; "" where none did."""
    result_uid: str = ""
    """Uid of the result run; "" where there is none."""


class Proposal(_Record):
    """What a survey proposes, and how it would be flown."""

    survey_uid: str
    time: float = Field(default_factory=time.time)
    """When it was made, in seconds since 1970."""
    beamline: str = ""
    rescan: RescanMode = "propose"
    regions: tuple[ProposedRegion, ...] = ()
    """All regions of the survey, in the order in which its documents and pictures number them."""
    tiles: tuple[SurveyTile, ...] = ()
    fine_step_um: float = Field(gt=0, allow_inf_nan=False)
    fine_dwell_ms: float = Field(gt=0, allow_inf_nan=False)
    """Pixel size and time per pixel of the rescans."""
    row_attempts: int = Field(default=3, ge=1)
    rescans: RescanModel | None = None
    """What rescans cost; None where the survey was not analyzed."""
    budget_left_s: float | None = None
    """Beam time for all rescans together, in s; None: no limit."""
    dose: float = 0.0
    """Dose at each point of a rescan, in `dose_unit`."""
    max_dose: float | None = None
    """Highest dose that a point may still get by rescans; None: no limit."""
    dose_unit: str = ""
    md: dict[str, Any] = Field(default_factory=dict)
    """The user's metadata, such as the sample."""
    user_input: dict[str, Any] = Field(default_factory=dict)
    """What the user asked of the survey, by parameter."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """The metadata `xrf_sr` of the survey's run of proposals, for the runs that follow."""

    def time_s(self, region: Region) -> float:
        """Return the seconds that a rescan is expected to take, whatever its rectangle is."""
        rows = max(1, math.ceil(region.height_um / self.fine_step_um - 1e-6))
        columns = max(1, math.ceil(region.width_um / self.fine_step_um - 1e-6))
        model = self.rescans
        if model is None:
            return rows * columns * self.fine_dwell_ms * 1e-3
        row_s = columns * model.dwell_ms * 1e-3 + model.row_overhead_s
        return rows * row_s + model.region_overhead_s

    def tile_of(self, region: Region) -> SurveyTile | None:
        """Return the coarse map that holds most of a region; None where none holds any of it."""
        best = max(self.tiles, key=lambda tile: _shared_um2(region, tile), default=None)
        return best if best is not None and _shared_um2(region, best) > 0 else None


def _shared_um2(region: Region, tile: SurveyTile) -> float:
    width = min(region.x_high_um, tile.x_high_um) - max(region.x_low_um, tile.x_low_um)
    height = min(region.y_high_um, tile.y_high_um) - max(region.y_low_um, tile.y_low_um)
    return max(width, 0.0) * max(height, 0.0)


Action = Literal["approve", "deny", "edit", "draw"]
"""What is said of a region: fly it, don't, give it another rectangle, or here is a new one."""


class Decision(_Record):
    """What was said of one region."""

    action: Action
    key: str = ""
    """`RegionState.key` of the region; "" for a new one."""
    region: _RegionField | None = None
    """The region with its new rectangle ("edit"), or the new region ("draw")."""


class _Event(_Record):
    uid: str = Field(default_factory=_uid)
    time: float = Field(default_factory=time.time)
    """Seconds since 1970."""


class Decided(_Event):
    """Decisions that one person made at once."""

    kind: Literal["decided"] = "decided"
    by: By
    decisions: tuple[Decision, ...] = ()
    complete: bool = False
    """Whether that is all: what is undecided after it is denied."""


class WaitBegan(_Event):
    """A plan waits for decisions until `until` (seconds since 1970), or changed until when."""

    kind: Literal["wait_began"] = "wait_began"
    until: float
    undecided: Undecided = "propose"
    """What becomes of what is undecided by then."""


class WaitEnded(_Event):
    """The plan goes on."""

    kind: Literal["wait_ended"] = "wait_ended"
    reason: str = ""


class Claimed(_Event):
    """Somebody flies or queues a region now; nobody else may."""

    kind: Literal["claimed"] = "claimed"
    key: str
    """`RegionState.key` of the region."""
    attempt: int = 0
    by: str
    """What flies it, in words."""
    owner: str
    """Uid of the plan call or of the submission, which may claim it once more."""
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    """The process that claimed it."""

    @property
    def is_orphan(self) -> bool:
        """Whether the process that claimed it has run on this machine and runs no more."""
        if self.host != socket.gethostname() or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


class Became(_Event):
    """What became of one region."""

    kind: Literal["became"] = "became"
    region_key: str
    """`Region.key` of the region that was flown or queued."""
    disposition: Disposition
    reason: str = ""
    run_uid: str = ""


Event = Decided | WaitBegan | WaitEnded | Claimed | Became
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def event_from(plain: Mapping[str, Any]) -> Event:
    """Return the event that ``model_dump(mode="json")`` made these values of.

    Raises
    ------
    pydantic.ValidationError
        They are those of no event.
    """
    return _EVENTS.validate_python(plain)
