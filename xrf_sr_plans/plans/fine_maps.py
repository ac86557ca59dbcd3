"""`FineMaps`: fine maps of regions, fitted to what the stage allows, flown and accounted for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bluesky.utils import MsgGenerator

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline, FineStage, RowTimeModel
from xrf_sr_plans.errors import FlightError, RefusedError, in_words
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region, Rescan
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.fine_grid import shrink_note
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS, Carrier, FlightProgress, MapRun
from xrf_sr_plans.plans.placed_grid import (
    PlacedGrid,
    placed_grid,
    placement_at,
    stage_facts,
)
from xrf_sr_plans.plans.safeguard import what_ended
from xrf_sr_plans.plans.stage_state import changed_axes, stage_state
from xrf_sr_plans.plans.two_stages import go_to_region, region_extents_um, region_way_s

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegionOutcome:
    """What became of one region and why; `run_uid` is empty where no map was flown."""

    region: Region
    disposition: schema.Disposition
    reason: str
    run_uid: str = ""

    def __str__(self) -> str:
        region = self.region
        x = f"x {region.x_low_um:.4g}..{region.x_high_um:.4g}"
        y = f"y {region.y_low_um:.4g}..{region.y_high_um:.4g}"
        what = ",".join(region.elements) or "any element"
        return f"region {x}, {y} um ({what}): {self.disposition}: {self.reason}"


@dataclass(frozen=True)
class FineMaps:
    """How fine maps of regions are flown, be it for a survey or for `rescan_regions`.

    Where the beamline has a fine stage, the coarse one goes to each region and the fine one flies
    it.

    Attributes
    ----------
    beamline
        The beamline with the axes that fly the surveys.
    fine_step_um
        Pixel size in um.
    dwell_ms
        Time at each pixel in ms.
    survey_uid
        The survey that the regions come from; it goes into the start documents.
    parent_uid
        Uid of the map that those regions come from which don't say it themselves.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        The user's metadata for the start documents.
    """

    beamline: Beamline
    fine_step_um: float
    dwell_ms: float
    survey_uid: str | None = None
    parent_uid: str | None = None
    row_attempts: int = ROW_ATTEMPTS
    md: Mapping[str, Any] = field(default_factory=dict)

    def candidates(
        self, regions: Iterable[Region], time_model: RowTimeModel | None = None
    ) -> tuple[list[Rescan], list[RegionOutcome]]:
        """Return the rescans that are possible, and the regions that are refused, with the reason.

        Parameters
        ----------
        regions
            Regions of the stage; none of them makes this raise.
        time_model
            How long rows of the axes that fly the surveys take. None means the time model of the
            beamline. A fine stage has its own.
        """
        regions = list(regions)
        way_s = region_way_s(self.beamline, region_extents_um(regions))
        possible: list[Rescan] = []
        refused: list[RegionOutcome] = []
        for region in regions:
            try:
                possible.append(self.rescan(region, time_model, way_s))
            except RefusedError as error:
                refused.append(RegionOutcome(region, "refused", str(error)))
        return possible, refused

    def rescan(
        self, region: Region, time_model: RowTimeModel | None = None, way_s: float = 0.0
    ) -> Rescan:
        """Return a region with its fine grid and what that costs.

        Parameters
        ----------
        region
            A region of the stage.
        time_model
            As of `candidates`.
        way_s
            Seconds that the way of the coarse stage to the region takes; they count as beam time
            where there is a fine stage.

        Raises
        ------
        RefusedError
            If nothing of the region can be flown.
        """
        grid = self._placed(region).grid
        if self.beamline.fine is None:
            way_s = 0.0
        else:
            time_model = self.beamline.rescanning.time_model
        cost = preflight.map_cost(self.beamline, grid, self.dwell_ms, time_model)
        return Rescan(region, grid, self.dwell_ms, cost.time_s + way_s, cost.dose)

    def _placed(self, region: Region) -> PlacedGrid:
        """Return the fine grid of a region and where the stages have to be for it.

        Raises
        ------
        RefusedError
            If nothing of the region can be flown.
        """
        flying, facts = self.beamline.rescanning, stage_facts(self.beamline)
        # First, because the run-up at a velocity that is refused anyway would hide that reason.
        preflight.refuse(
            preflight.speed_problems(flying, facts.fine[0], self.fine_step_um, self.dwell_ms)
        )
        preflight.refuse(changed_axes(self.beamline, region))
        placed = placed_grid(
            self.beamline,
            region,
            fine_step_um=self.fine_step_um,
            dwell_ms=self.dwell_ms,
            facts=facts,
        )
        preflight.refuse(
            preflight.map_problems(flying, placed.flown, self.dwell_ms, facts=facts.fine)
        )
        return placed

    def fly_each(
        self,
        rescans: Sequence[Rescan],
        note: Callable[[RegionOutcome], None] | None = None,
    ) -> MsgGenerator[list[RegionOutcome]]:
        """Fly the rescans one after the other; one that fails doesn't end the others.

        Parameters
        ----------
        rescans
            In the order of flight.
        note
            Takes each outcome as soon as it is known, also that of a rescan which is
            interrupted. None: outcomes are only logged.

        Raises
        ------
        LeftUnsafeError
            If a rescan left the beamline unsafe; no further one is flown.
        """
        note = note or _only_logged
        outcomes = []
        for position, rescan in enumerate(rescans):
            progress = FlightProgress()
            try:
                outcome = yield from self._fly_one(rescan, progress, (position, len(rescans)))
            except GeneratorExit:
                raise
            except Exception as error:
                so_far = f"{len(progress.rows)} of {rescan.grid.shape[0]} rows"
                reason = f"interrupted after {so_far}: {what_ended(error)}"
                note(RegionOutcome(rescan.region, "failed", reason, progress.run_uid))
                raise
            outcomes.append(outcome)
            note(outcome)
        return outcomes

    def _fly_one(
        self, rescan: Rescan, progress: FlightProgress, place: tuple[int, int]
    ) -> MsgGenerator[RegionOutcome]:
        region = rescan.region
        try:
            # Designed once more because limits may have changed since the region was chosen.
            placed = self._placed(region)
            grid = placed.grid
            run = yield from self._at_region(region, placed, place)
            flown = yield from fly(run, progress)
        except RefusedError as error:
            return RegionOutcome(region, "refused", str(error))
        except (FlightError, *ROW_FAILURES) as error:
            return RegionOutcome(region, "failed", in_words(error), progress.run_uid)
        reason = shrink_note(region, grid)
        if flown.lost_rows:
            reason = "; ".join(filter(None, [reason, f"rows {list(flown.lost_rows)} lost"]))
        return RegionOutcome(region, "rescanned", reason or region.reason, flown.uid)

    def _at_region(
        self, region: Region, placed: PlacedGrid, place: tuple[int, int]
    ) -> MsgGenerator[MapRun]:
        """Bring the coarse stage to a region, where there is a fine one; return the map's run."""
        run = self._run(region, placed.grid, place)
        fine = self.beamline.fine
        if fine is None or placed.coarse_um is None:
            return run
        # Where the coarse stage has stopped counts, not where it was sent.
        coarse_um = yield from go_to_region(self.beamline, placed.coarse_um)
        stage = {
            **region.stage,
            **stage_state(self.beamline),
            **{name: region.stage[name] for name in _names(fine) if name in region.stage},
            **dict(zip(_names(self.beamline), coarse_um, strict=True)),
        }
        return replace(
            run,
            beamline=self.beamline.rescanning,
            region=replace(region, stage=stage),
            placement=placement_at(fine, region.stage, coarse_um),
            carriers=tuple(
                Carrier(axis, position_um, fine.coarse_error_um)
                for axis, position_um in zip(
                    (self.beamline.fast, self.beamline.slow), coarse_um, strict=True
                )
            ),
            stage=stage,
        )

    def _run(self, region: Region, grid: ScanGrid, place: tuple[int, int]) -> MapRun:
        return MapRun(
            self.beamline,
            grid,
            self.dwell_ms,
            purpose="fine",
            survey_uid=self.survey_uid,
            parent_uid=region.source_uid or self.parent_uid,
            region=region,
            # Assembled, not enhanced: a fine map is what predictions are compared with.
            analysis=schema.AnalysisRequest(enhance=False),
            derived_input={
                "region_key": region.key,
                "shrunk": shrink_note(region, grid),
                "rescan_position": place[0],
                "rescan_maps": place[1],
            },
            row_attempts=self.row_attempts,
            md=self.md,
        )


def _only_logged(outcome: RegionOutcome) -> None:
    logger.info("%s", outcome)


def _names(stage: Beamline | FineStage) -> tuple[str, str]:
    return stage.fast.name, stage.slow.name


def stage_position_um(beamline: Beamline) -> tuple[float, float]:
    """Return where the stage is, in um along the fast and the slow axis."""
    return axis_facts(beamline.fast).position_um, axis_facts(beamline.slow).position_um
