"""The survey: fly coarsely, look at the enhanced maps, map finely what is worth it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.maps.region import Rescan
from xrf_sr_plans.measurement import SAME_GRID, Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.decisions import (
    TileAnalysis,
    wait_for_analysis,
)
from xrf_sr_plans.plans.fine_maps import FineMaps, RegionOutcome, stage_position_um
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS, FlownMap, MapRun
from xrf_sr_plans.plans.queue_rescans import queue_rescans
from xrf_sr_plans.plans.request import SurveyWish
from xrf_sr_plans.plans.return_to_start import returning_to_start
from xrf_sr_plans.plans.safeguard import all_in_turn, what_ended
from xrf_sr_plans.plans.survey_choice import SettledSurvey, settled_survey
from xrf_sr_plans.plans.survey_runs import SurveyRuns
from xrf_sr_plans.plans.timing import recalibrated
from xrf_sr_plans.plans.worth import rescans_limit_s, whole_map_s
from xrf_sr_plans.rois.budget import Spending, spend_budget

logger = logging.getLogger(__name__)

_CHOICE_S = 5.0
"""Seconds that the choice among all tiles is waited for where an analysis was late or failed."""
_LEAST_WAIT_S = 1.0
"""Seconds that each tile's analysis is waited for even when the survey's timeout is over."""
_UNSETTLED = {"inline": "not begun", "queue": "not known to be queued"}
"""What an interrupted survey says, by rescan mode, of the regions that it had chosen.

In the mode "propose" it says nothing: the proposals are recorded, and no more was asked.
"""


@dataclass(frozen=True)
class SurveyOutcome:
    """What a survey measured and decided.

    Attributes
    ----------
    survey_uid
        It is in the metadata of all runs of the survey.
    proposals_uid
        Uid of the run that records the analyses and the proposed regions.
    outcomes_uid
        Uid of the run that records what became of each region.
    tile_uids
        Uids of the coarse maps' runs, in the order of flight.
    analyses
        What came of the analysis of each tile.
    regions
        What became of each region, those that were refused last.
    lost_rows
        Rows that could not be measured, by the uid of the tile's run.
    """

    survey_uid: str
    proposals_uid: str
    outcomes_uid: str
    tile_uids: tuple[str, ...]
    analyses: tuple[TileAnalysis, ...]
    regions: tuple[RegionOutcome, ...]
    lost_rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def rescan_uids(self) -> tuple[str, ...]:
        """Uids of the fine maps."""
        return tuple(outcome.run_uid for outcome in self.regions if outcome.run_uid)


@plan
def coarse_survey_with_sr(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    step_um: float | None = None,
    dwell_ms: float | None = None,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    find: str | None = None,
    factor: Factor | None = None,
    sampling: schema.PixelChoice | None = None,
    fine_step_um: float | None = None,
    fine_dwell_ms: float | None = None,
    time_s: float | None = None,
    counts_per_s: float | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    rescan: schema.RescanMode = "inline",
    tile_um: float | None = None,
    pad_um: float = 0.0,
    min_size_um: float = 0.0,
    max_regions: int = 200,
    worth: dict[str, float] | None = None,
    preview_every_rows: int = 0,
    analysis_timeout_s: float = 60.0,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SurveyOutcome]:
    """Survey an area coarsely, super-resolve it, and map finely what is worth it.

    Areas beyond the flyer's reach are flown as tiles. A tile is analyzed while the next one is
    flown. Without analysis, or when it fails or is late, the survey goes on and says so. The stage
    is brought back along each axis without a center once the survey is complete, but not after an
    abort, a stop, a halt or a failure.

    Parameters
    ----------
    width_um
        Width of the area along the fast axis, in um.
    height_um
        Height of the area along the slow axis, in um.
    step_um
        Distance between the rows of the coarse survey in um. None means fine_step_um times the
        factor.
    dwell_ms
        Time at each step of a row in ms, which is as long as the rows are apart. None means as
        long as time_s and max_dose allow.
    x_center_um
        Center of the area along the fast axis in um. None means where the stage is now.
    y_center_um
        Center of the area along the slow axis in um. None means where the stage is now.
    find
        Element query such as "Fe and not Zn" that a region must match. None means whatever
        stands out.
    factor
        How many times finer than the survey's step the enhanced maps are: 1, 2 or 4. None
        means 2 where step_um is given, else what is expected to be most exact.
    sampling
        How the rows are read out, at the same time and dose: "rows" in `factor` pixels per step,
        "squares" in one. None means rows where the hardware takes so many frames and, with time_s,
        where they are expected to be more exact.
    fine_step_um
        Pixel size of the rescans in um, and without step_um that of the enhanced maps, too. None
        means step_um / factor.
    fine_dwell_ms
        Time at each pixel of the rescans in ms. None means dwell_ms.
    time_s
        Beam time in seconds that the coarse survey may take. What step_um, factor, sampling and
        dwell_ms leave open is chosen such that the enhanced maps are expected to be most exact in
        this time on this beamline (`preview` and `design_survey` list what was compared). None
        means as long as it takes.
    counts_per_s
        Photons that an element of interest counts where it is brightest, over the seconds in which
        it counts them, for that choice. None means 5000.
    budget_s
        Beam time in seconds for everything. The coarse survey alone must fit, and the rescans
        spend what is left. None means no limit.
    max_dose
        Highest dose at any point, coarse and fine together: incoming photons per um^2 where the
        beamline knows its flux, else seconds of beam per um^2. None means no limit.
    rescan
        What is done with the regions: "inline" maps them now, "queue" hands them to the queue
        server, "propose" only records them.
    tile_um
        Largest side of a tile in um. None means as large as the flyer reaches.
    pad_um
        Margin in um that is added on every side of a region.
    min_size_um
        Smallest side of a region in um; smaller finds are grown to it.
    max_regions
        How many regions each tile may propose, best first.
    worth
        What makes a rescan worth its time: weights of "targets" (their expected number), "signal"
        (how much they stand out), "uncertainty" (what a rescan takes away) and "novelty" (how
        unlike the rest they are). None means 0.6 for targets and 0.4 for signal.
    preview_every_rows
        Enhance the unfinished tile each time so many more rows are measured. 0 means
        only when it is complete.
    analysis_timeout_s
        How many seconds to wait for the analysis of all tiles together after the last row.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    SurveyOutcome
        Run uids, analyses, and what became of each region. No region is a normal outcome.

    Raises
    ------
    RefusedError
        If anything is wrong with the request. Nothing has moved, and the message lists all of it.
    FlightError
        If too many rows in succession can't be measured, or if the stage doesn't come back.
    """
    wish = SurveyWish.from_arguments(locals())
    settled = settled_survey(beamline, wish)
    preflight.refuse(settled.design.problems)
    survey = _Survey(beamline, settled, wish.user_input())
    return (yield from returning_to_start(beamline, settled.request.area, survey.run()))


class _Survey:
    """One survey in flight: its tiles, its decisions and what is recorded of both."""

    def __init__(
        self, beamline: Beamline, settled: SettledSurvey, user_input: Mapping[str, Any]
    ) -> None:
        self.beamline = beamline
        self.request = request = settled.request
        self.design = design = settled.design
        self.user_input = user_input
        self.derived_input = settled.derived_input()
        self.uid = str(uuid.uuid4())
        self.md = dict(request.md or {})
        self.runs = SurveyRuns(beamline, request, design, self.uid, user_input)
        self.region_log = self.runs.region_log
        self.fine = FineMaps(
            beamline,
            design.fine_step_um,
            design.fine_dwell_ms,
            survey_uid=self.uid,
            row_attempts=request.row_attempts,
            md=self.md,
        )

    def run(self) -> MsgGenerator[SurveyOutcome]:
        """Fly the tiles, then decide."""
        flown: list[FlownMap] = []
        for index in range(len(self.design.tiles)):
            flown.append((yield from fly(self._tile_run(index, flown))))
        self.runs.tile_uids = tuple(tile.uid for tile in flown)
        time_model = self._time_model(flown)
        analyses, regions = yield from bpp.contingency_wrapper(
            self._decide(time_model), except_plan=self._ended_early
        )
        return SurveyOutcome(
            self.uid,
            self.runs.proposals_uid,
            self.runs.outcomes_uid,
            self.runs.tile_uids,
            tuple(analyses),
            tuple(regions),
            {tile.uid: tile.lost_rows for tile in flown if tile.lost_rows},
        )

    def _tile_run(self, index: int, flown: Sequence[FlownMap]) -> MapRun:
        tile = self.design.tiles[index]
        is_last = index == len(self.design.tiles) - 1
        earlier = [one.uid for one in flown] if is_last else []
        return MapRun(
            self.beamline,
            tile.grid,
            self.design.maps[index].dwell_ms,
            fast_pixels=self.design.maps[index].fast_pixels,
            purpose="coarse",
            survey_uid=self.uid,
            tile=schema.TileIndex(index=index, of=len(self.design.tiles), earlier=list(earlier)),
            analysis=self.design.analysis,
            user_input=self.user_input,
            derived_input={
                "survey_grid": self.design.grid.to_dict(),
                "first_row": tile.first_row,
                "first_column": tile.first_column,
                **self.derived_input,
            },
            row_attempts=self.request.row_attempts,
            md=self.md,
        )

    def _ended_early(self, error: Exception) -> MsgGenerator[None]:
        """Record what became of the regions, and of those that nothing became of why that is.

        After a halt no plan is run any more: the fine maps then name the regions they cover.
        """
        unsettled = _UNSETTLED.get(self.request.rescan)
        if unsettled:
            self.region_log.settle(f"{unsettled}: {what_ended(error)}")
        if not self.runs.outcomes_uid:
            yield from all_in_turn(lambda: self.runs.record_outcomes(what_ended(error)))

    def _time_model(self, flown: Sequence[FlownMap]) -> RowTimeModel:
        """Return the beamline's time model, corrected by how long the tiles' rows took."""
        rows_s = [row_s for tile in flown for row_s in tile.rows_s]
        widest = max(tile.grid.fast.num for tile in self.design.tiles)
        dwell_ms = self.design.maps[0].dwell_ms
        return recalibrated(self.beamline.time_model, widest, dwell_ms, rows_s)

    def _decide(
        self, time_model: RowTimeModel
    ) -> MsgGenerator[tuple[list[TileAnalysis], list[RegionOutcome]]]:
        """Wait for the analyses, choose among their regions and have the chosen ones mapped."""
        analyses = yield from self._analyses()
        whole = yield from self._choice_among_all(analyses)
        regions = [region for analysis in whole or analyses for region in analysis.regions]
        candidates, refused = self.fine.candidates(regions, time_model)
        spending = self._spend(candidates, time_model, one_choice=len(whole or analyses) == 1)
        self._say_whether_it_pays(spending)
        refused += [
            RegionOutcome(rescan.region, "refused", why) for rescan, why in spending.refused
        ]
        for outcome in [*refused, *_proposals(spending)]:
            self.region_log.note(outcome)
        yield from self.runs.record_proposals([*analyses, *whole])
        settled = yield from self._act(spending)
        yield from self.runs.record_outcomes()
        logger.info("survey %s: %d regions found, %d refused", self.uid, len(regions), len(refused))
        return analyses, [*settled, *refused]

    def _analyses(self) -> MsgGenerator[list[TileAnalysis]]:
        device = self.beamline.analysis
        if device is None:
            return []
        yield from bps.checkpoint()
        # One deadline for all: a hung analysis must not cost its timeout once per tile.
        deadline = time.monotonic() + self.request.analysis_timeout_s
        analyses = []
        for uid in self.runs.tile_uids:
            left_s = max(deadline - time.monotonic(), _LEAST_WAIT_S)
            analyses.append((yield from wait_for_analysis(device, uid, left_s)))
        return analyses

    def _choice_among_all(
        self, analyses: Sequence[TileAnalysis]
    ) -> MsgGenerator[list[TileAnalysis]]:
        """Return the analysis of all tiles as one map, if there is one.

        Where there is none, the regions of the tiles compete; objects on borders are then cut.
        """
        device = self.beamline.analysis
        if device is None or len(analyses) < 2:
            return []
        in_time = all(analysis.status == "done" for analysis in analyses)
        timeout_s = self.request.analysis_timeout_s if in_time else _CHOICE_S
        whole = yield from wait_for_analysis(device, self.uid, max(timeout_s, _LEAST_WAIT_S))
        # Without a run of its own it is no choice, but what the device says when it has none.
        if whole.status != "failed" and whole.result_uid:
            return [whole]
        logger.warning("survey %s: regions are chosen tile by tile: %s", self.uid, whole.reason)
        return []

    def _spend(
        self, candidates: Sequence[Rescan], time_model: RowTimeModel, *, one_choice: bool
    ) -> Spending:
        """Choose among the rescans with the beam time and dose that the tiles left over."""
        request, design = self.request, self.design
        grids, max_dose = [tile.grid for tile in design.tiles], request.max_dose
        survey_s = sum(
            preflight.map_cost(self.beamline, tile.grid, tile.dwell_ms, time_model).time_s
            for tile in design.maps
        )
        # Both go by how long rows really take.
        whole_s = whole_map_s(
            self.beamline, grids, design.fine_step_um, design.fine_dwell_ms, time_model
        )
        budget_s = rescans_limit_s(request.budget_s, survey_s, whole_s)
        if max_dose is not None:
            max_dose = max(max_dose - design.dose, 0.0)
        start_um = stage_position_um(self.beamline)
        return spend_budget(
            candidates,
            budget_s=budget_s,
            max_dose=max_dose,
            start_um=start_um,
            may_cut=True,
            chosen_together=one_choice,
        )

    def _say_whether_it_pays(self, spending: Spending) -> None:
        """Say at the prompt what survey and rescans take beside a fine map of everything."""
        analysis, whole_s = self.design.analysis, self.design.whole_s
        rescans_s = spending.time_s
        if analysis is not None and analysis.rescans is not None:
            rescans_s += len(spending.chosen) * analysis.rescans.region_overhead_s
        level, pays = logging.INFO, ""
        is_coarse = self.request.factor > SAME_GRID
        if is_coarse and self.design.time_s + rescans_s > whole_s:
            level, pays = logging.WARNING, "; a fine map would have taken less"
        logger.log(
            level,
            "survey %s: %.3g s, and %.3g s of rescans; a fine map of everything takes %.3g s%s",
            self.uid,
            self.design.time_s,
            rescans_s,
            whole_s,
            pays,
        )

    def _act(self, spending: Spending) -> MsgGenerator[list[RegionOutcome]]:
        """Do with the chosen regions what the request says."""
        if self.request.rescan == "inline":
            return (yield from self.fine.fly_each(spending.chosen, self.region_log.note))
        if self.request.rescan == "queue":
            return (yield from queue_rescans(self.fine, spending.chosen, self.region_log.note))
        return _proposals(spending)


def _proposals(spending: Spending) -> list[RegionOutcome]:
    """Return the chosen regions as proposals, each with the reason for which it was picked."""
    regions = [rescan.region for rescan in spending.chosen]
    return [RegionOutcome(region, "proposed", region.reason) for region in regions]
