"""The survey: fly coarsely, look at the enhanced maps, map finely what is worth it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.measurement import Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.decisions import RegionLog, TileAnalysis, look_at_tile, summary_run
from xrf_sr_plans.plans.design import Area, Design, SurveyWishes, design_survey
from xrf_sr_plans.plans.fly_map import ROW_ATTEMPTS, FlownMap, MapOrder, fly
from xrf_sr_plans.plans.queue_rescans import queue_rescans
from xrf_sr_plans.plans.rescan import FineMaps, RegionOutcome
from xrf_sr_plans.plans.return_to_start import returning_to_start
from xrf_sr_plans.plans.safeguard import what_ended
from xrf_sr_plans.plans.timing import recalibrated
from xrf_sr_plans.rois.budget import Spending, spend_budget

logger = logging.getLogger(__name__)

_LEAST_WAIT_S = 1.0
_UNSETTLED = {"inline": "not begun", "queue": "not known to be queued"}
"""What an interrupted survey says of regions it had chosen; to propose is all that was asked."""


@dataclass(frozen=True)
class SurveyOutcome:
    """What a survey measured and decided."""

    survey_uid: str
    summary_uid: str
    tile_uids: tuple[str, ...]
    analyses: tuple[TileAnalysis, ...]
    regions: tuple[RegionOutcome, ...]
    lost_rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Rows that could not be measured, by the uid of the tile's run."""

    @property
    def rescan_uids(self) -> tuple[str, ...]:
        """Uids of the fine maps."""
        return tuple(one.run_uid for one in self.regions if one.run_uid)


@plan
def coarse_survey_with_sr(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    step_um: float,
    dwell_ms: float,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    find: str | None = None,
    factor: Factor = 2,
    fine_step_um: float | None = None,
    fine_dwell_ms: float | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    rescan: schema.RescanMode = "inline",
    tile_um: float | None = None,
    pad_um: float = 0.0,
    min_size_um: float = 0.0,
    max_regions: int = 20,
    preview_every_rows: int = 0,
    analysis_timeout_s: float = 60.0,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SurveyOutcome]:
    """Survey an area coarsely, super-resolve it, and map finely what is worth it.

    Areas beyond the flyer's reach are flown as tiles; a tile is analysed while the next one is
    flown. Without analysis, or when it fails or is late, the survey goes on and says so.

    Parameters
    ----------
    width_um, height_um, step_um, dwell_ms
        Area, pixel size and time at each pixel of the coarse survey.
    x_center_um, y_center_um
        Centre of the area; None: where the stage is, and is brought back to once the survey is
        complete (not after an abort, a stop, a halt or a failure).
    find
        Element query, such as "Fe and not Zn"; None: whatever stands out.
    factor
        How many times finer the enhanced maps are: 2 or 4.
    fine_step_um, fine_dwell_ms
        Of the rescans; None: step_um / factor, and dwell_ms.
    budget_s, max_dose
        Beam time for everything (the coarse part alone must fit; rescans spend what is left), and
        the highest dose at any point, coarse and fine together: incoming photons per um^2 where
        the beamline knows its flux, else seconds of beam per um^2.
    rescan
        "inline": now; "queue": hand them to the queue server; "propose": only record them.
    tile_um, pad_um, min_size_um, max_regions
        Largest side of a tile (None: as large as the flyer reaches), margin around regions, their
        smallest side, and how many a tile may propose.
    preview_every_rows
        Enhance a tile so far every so many rows; 0: only when it is complete.
    analysis_timeout_s, row_attempts
        How long to wait for the analysis after the last row, all tiles together, and how often a
        failing row is flown before it is left missing.
    md
        Goes into the start documents, last.

    Returns
    -------
    SurveyOutcome
        Run uids, analyses, and what became of each region; none is a normal outcome.

    Raises
    ------
    RefusedError
        Before anything moves; the message lists all that is wrong.
    FlightError
        The hardware failed on too many rows in succession, or the stage doesn't come back.
    """
    wishes = SurveyWishes(
        Area(width_um, height_um, step_um, x_center_um, y_center_um),
        dwell_ms,
        find=find,
        factor=factor,
        fine_step_um=fine_step_um,
        fine_dwell_ms=fine_dwell_ms,
        budget_s=budget_s,
        max_dose=max_dose,
        rescan=rescan,
        tile_um=tile_um,
        pad_um=pad_um,
        min_size_um=min_size_um,
        max_regions=max_regions,
        preview_every_rows=preview_every_rows,
        analysis_timeout_s=analysis_timeout_s,
    )
    return (yield from _surveyed(beamline, wishes, row_attempts, dict(md or {})))


def _surveyed(
    beamline: Beamline, wishes: SurveyWishes, row_attempts: int, md: Mapping[str, Any]
) -> MsgGenerator[SurveyOutcome]:
    """Refuse, or fly the survey and bring the stage back."""
    design = design_survey(beamline, wishes)
    preflight.refuse(design.problems)
    survey = _Survey(beamline, wishes, design, row_attempts=row_attempts, md=md)
    return (yield from returning_to_start(beamline, wishes.area, survey.run()))


class _Survey:
    """One survey in flight."""

    def __init__(
        self,
        beamline: Beamline,
        wishes: SurveyWishes,
        design: Design,
        *,
        row_attempts: int,
        md: Mapping[str, Any],
    ) -> None:
        self.beamline = beamline
        self.wishes = wishes
        self.design = design
        self.uid = str(uuid.uuid4())
        self.row_attempts = row_attempts
        self.md = md
        self.log = RegionLog()
        self.fine = FineMaps(
            beamline,
            design.fine_step_um or wishes.area.step_um,
            design.fine_dwell_ms or wishes.dwell_ms,
            survey_uid=self.uid,
            row_attempts=row_attempts,
            md=md,
        )

    def run(self) -> MsgGenerator[SurveyOutcome]:
        """Fly the tiles, then decide."""
        flown: list[FlownMap] = []
        for index in range(len(self.design.tiles)):
            flown.append((yield from fly(self._tile(index))))
        tile_uids = tuple(one.uid for one in flown)
        summary_uid, (analyses, regions) = yield from summary_run(
            self._decide(tile_uids, self._time_model(flown)),
            self._summary(tile_uids),
            self._settle,
        )
        return SurveyOutcome(
            self.uid,
            summary_uid,
            tile_uids,
            tuple(analyses),
            tuple(regions),
            {one.uid: one.lost_rows for one in flown if one.lost_rows},
        )

    def _tile(self, index: int) -> MapOrder:
        tile = self.design.tiles[index]
        return MapOrder(
            self.beamline,
            tile.grid,
            self.wishes.dwell_ms,
            purpose="coarse",
            survey_uid=self.uid,
            tile=schema.TileIndex(index=index, of=len(self.design.tiles)),
            analysis=self.design.analysis,
            user_input=self._user_input(),
            derived_input={
                "survey_grid": self.design.grid.to_dict(),
                "first_row": tile.first_row,
                "first_column": tile.first_column,
            },
            row_attempts=self.row_attempts,
            md=self.md,
        )

    def _user_input(self) -> dict[str, Any]:
        plain = asdict(self.wishes)
        return {**plain.pop("area"), **plain, "row_attempts": self.row_attempts}

    def _summary(self, tile_uids: Sequence[str]) -> dict[str, Any]:
        facts = {
            "schema": schema.SCHEMA_VERSION,
            "purpose": "survey",
            "survey_uid": self.uid,
            "tiles": list(tile_uids),
            "grid": self.design.grid.to_dict(),
            "elements": list(self.beamline.flyer.elements),
            "rescan": self.wishes.rescan,
            "fine_step_um": self.fine.fine_step_um,
            "fine_dwell_ms": self.fine.dwell_ms,
            "analysed_by": getattr(self.beamline.analysis, "name", ""),
            "beamline": self.beamline.name,
            "user_input": self._user_input(),
        }
        return {
            "plan_name": schema.PLAN_SURVEY,
            "plan_args": self._user_input(),
            "xrf_sr": facts,
            **self.md,
        }

    def _time_model(self, flown: Sequence[FlownMap]) -> RowTimeModel:
        rows_s = [row_s for one in flown for row_s in one.rows_s]
        widest = max(tile.grid.fast.num for tile in self.design.tiles)
        return recalibrated(self.beamline.time_model, widest, self.wishes.dwell_ms, rows_s)

    def _decide(
        self, tile_uids: Sequence[str], time_model: RowTimeModel
    ) -> MsgGenerator[tuple[list[TileAnalysis], list[RegionOutcome]]]:
        analyses = yield from self._analyses(tile_uids)
        found = [region for analysis in analyses for region in analysis.regions]
        candidates, refused = self.fine.candidates(found, time_model)
        spending = self._spend(candidates, time_model)
        refused += [RegionOutcome(one.region, "refused", why) for one, why in spending.refused]
        for outcome in refused:
            yield from self.log.note(outcome)
        for one in spending.chosen:
            proposed = RegionOutcome(one.region, "proposed", one.region.reason)
            yield from self.log.note(proposed)
        chosen = yield from self._act(spending)
        logger.info("survey %s: %d regions found, %d refused", self.uid, len(found), len(refused))
        return analyses, [*chosen, *refused]

    def _analyses(self, tile_uids: Sequence[str]) -> MsgGenerator[list[TileAnalysis]]:
        device = self.beamline.analysis
        if device is None:
            return []
        yield from bps.checkpoint()
        # One deadline for all: a hung analysis must not cost its timeout once per tile.
        deadline = time.monotonic() + self.wishes.analysis_timeout_s
        analyses = []
        for uid in tile_uids:
            left_s = max(deadline - time.monotonic(), _LEAST_WAIT_S)
            analyses.append((yield from look_at_tile(device, uid, left_s)))
        return analyses

    def _spend(self, candidates: Sequence[Any], time_model: RowTimeModel) -> Spending:
        wishes, design = self.wishes, self.design
        budget_s, max_dose = wishes.budget_s, wishes.max_dose
        if budget_s is not None:
            costs = [
                preflight.map_cost(self.beamline, tile.grid, wishes.dwell_ms, time_model)
                for tile in design.tiles
            ]
            budget_s = max(budget_s - sum(cost.time_s for cost in costs), 0.0)
        if max_dose is not None:
            max_dose = max(max_dose - design.cost.dose, 0.0)
        here = (
            axis_facts(self.beamline.fast).position_um,
            axis_facts(self.beamline.slow).position_um,
        )
        return spend_budget(candidates, budget_s=budget_s, max_dose=max_dose, start_um=here)

    def _settle(self, error: Exception) -> MsgGenerator[None]:
        """Say of the regions that nothing became of why that is."""
        unsettled = _UNSETTLED.get(self.wishes.rescan)
        if unsettled:
            yield from self.log.settle(f"{unsettled}: {what_ended(error)}")

    def _act(self, spending: Spending) -> MsgGenerator[list[RegionOutcome]]:
        if self.wishes.rescan == "inline":
            return (yield from self.fine.fly_each(spending.chosen, self.log.note))
        if self.wishes.rescan == "queue":
            return (yield from queue_rescans(self.fine, spending.chosen, self.log.note))
        return [RegionOutcome(one.region, "proposed", one.region.reason) for one in spending.chosen]
