"""`MapRun`: one map that is to be flown, and what is known of it while and after it is flown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.stage_placement import StagePlacement
from xrf_sr_plans.measurement import Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.stage_state import stage_state

ROW_ATTEMPTS = 3
"""How often a failing row is flown, unless the user says otherwise."""


@dataclass
class FlightProgress:
    """How far a map has come; `fly` fills it in.

    Attributes
    ----------
    run_uid
        Uid of the map's run; empty before it is opened.
    rows
        Rows that are measured.
    """

    run_uid: str = ""
    rows: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Carrier:
    """A coarse axis that carries the fine stage, and has to stay where it is during a map.

    Attributes
    ----------
    axis
        The axis.
    position_um
        Where it was when the map began, in um.
    tolerance_um
        How far it may be from there before the map is given up, in um.
    """

    axis: Any
    position_um: float
    tolerance_um: float

    def flaw(self) -> str:
        """Return in words that the axis has moved, or "" where it hasn't or doesn't say."""
        facts = axis_facts(self.axis)
        if not abs(facts.position_um - self.position_um) > self.tolerance_um:
            return ""
        return (
            f"axis {facts.name!r} was moved from {self.position_um:g} to"
            f" {facts.position_um:g} um while the fine stage on it flew a map"
        )


@dataclass(frozen=True)
class FlownMap:
    """What came of one map run: rows that were lost, and seconds that each other row took."""

    uid: str
    lost_rows: tuple[int, ...]
    rows_s: tuple[float, ...]


@dataclass(frozen=True)
class MapRun:
    """One map that is to be flown as one run, and what its start document says about why.

    Attributes
    ----------
    beamline
        Its fast and slow axis and its flyer fly the map.
    grid
        The pixels, in coordinates of the sample.
    dwell_ms
        Time at each pixel in ms.
    fast_pixels
        Pixels per step along the fast axis; more than 1 where rows are read out finely.
    purpose, survey_uid, parent_uid, region, tile, analysis
        As in `schema.MapMetadata`.
    placement
        Where the axes that fly the map are on the sample. None where their positions are its
        coordinates.
    carriers
        The coarse axes that carry those which fly the map.
    stage
        Positions by name of the other axes. None means what `stage_state` finds.
    user_input
        What the user asked, by parameter.
    derived_input
        What the plan made of it. Time, dose, velocity and run-up are added.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        The user's metadata, which may replace the `plan_name`.
    """

    beamline: Beamline
    grid: ScanGrid
    dwell_ms: float
    purpose: schema.Purpose = "map"
    survey_uid: str | None = None
    parent_uid: str | None = None
    region: Region | None = None
    tile: schema.TileIndex | None = None
    analysis: schema.AnalysisRequest | None = None
    placement: StagePlacement | None = None
    carriers: tuple[Carrier, ...] = ()
    stage: Mapping[str, float] | None = None
    user_input: Mapping[str, Any] = field(default_factory=dict)
    derived_input: Mapping[str, Any] = field(default_factory=dict)
    row_attempts: int = ROW_ATTEMPTS
    md: Mapping[str, Any] = field(default_factory=dict)
    fast_pixels: Factor = 1

    @property
    def flown(self) -> ScanGrid:
        """The pixels as positions of the axes that fly them."""
        return self.grid if self.placement is None else self.placement.grid_of_axes(self.grid)

    def metadata(self) -> schema.MapMetadata:
        """Return the `xrf_sr` part of the start document."""
        cost = preflight.map_cost(self.beamline, self.grid, self.dwell_ms)
        is_stepping = preflight.is_stepping(self.beamline)
        derived = {
            "time_s": cost.time_s,
            "row_s": cost.row_s,
            "dose": cost.dose,
            "dose_unit": cost.dose_unit,
            "velocity_um_s": cost.velocity_um_s,
            "run_up_um": self.grid.run_up_um,
            "step_dwell_ms": self.dwell_ms * self.fast_pixels,
        }
        return schema.MapMetadata(
            purpose=self.purpose,
            survey_uid=self.survey_uid,
            parent_uid=self.parent_uid,
            region=None if self.region is None else self.region.to_dict(),
            tile=self.tile,
            grid=self.grid.to_dict(),
            placement=None if self.placement is None else self.placement.to_dict(),
            stage=stage_state(self.beamline) if self.stage is None else dict(self.stage),
            elements=list(self.beamline.flyer.elements),
            step_um=self.grid.fast.step_um * self.fast_pixels,
            fast_pixels=self.fast_pixels,
            probe_fwhm_um=self.beamline.probe_fwhm_um,
            dwell_ms=self.dwell_ms,
            readout_ms=0.0 if is_stepping else self.beamline.readout_ms,
            sampling="point" if is_stepping else "rows" if self.fast_pixels > 1 else "fly",
            beamline=self.beamline.name,
            analysis=self.analysis,
            user_input=dict(self.user_input),
            derived_input={**derived, **self.derived_input},
        )
