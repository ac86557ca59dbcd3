"""`SurveyFlight`: the tiles of a survey, what is decided about its regions, and the record."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.plans.decisions import (
    RESULTS_S,
    TileAnalysis,
    wait_for_analysis,
    wait_for_results,
)
from xrf_sr_plans.plans.fine_maps import FineMaps, RegionOutcome
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import FlownMap, MapRun
from xrf_sr_plans.plans.safeguard import all_in_turn, what_ended
from xrf_sr_plans.plans.survey_choice import SettledSurvey
from xrf_sr_plans.plans.survey_rescans import SurveyRescans, proposals
from xrf_sr_plans.plans.survey_runs import SurveyRuns
from xrf_sr_plans.plans.timing import recalibrated

logger = logging.getLogger(__name__)

_CHOICE_S = 5.0
"""Seconds that the choice among all tiles is waited for where an analysis was late or failed."""
_LEAST_WAIT_S = 1.0
"""Seconds that each tile's analysis is waited for even when the survey's timeout is over."""
_UNSETTLED: Mapping[str, tuple[schema.Disposition, str]] = {
    "inline": ("proposed", "not begun"),
    "ask": ("approved", "not begun"),
    "queue": ("proposed", "not known to be queued"),
}
"""What an interrupted survey says, by rescan mode, of which regions.

In the mode "propose" it says nothing: the proposals are recorded, and no more was asked. What was
asked for and not answered stays proposed.
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
    approvals_uid
        Uid of the run that records what people decided; empty where nobody was asked.
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
    approvals_uid: str = ""

    @property
    def rescan_uids(self) -> tuple[str, ...]:
        """Uids of the fine maps."""
        return tuple(outcome.run_uid for outcome in self.regions if outcome.run_uid)


class SurveyFlight:
    """One survey in flight: its tiles, its decisions and what is recorded of both.

    Parameters
    ----------
    beamline
        The beamline.
    settled
        What is flown, and its design. Where it asks for areas for pairs, these are only proposed.
    user_input
        What the user asked, by parameter.
    """

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
        timeout_s = min(self.request.analysis_timeout_s, RESULTS_S)
        what = f"the verification and the composite map of survey {self.uid[:8]}"
        yield from wait_for_results(self.beamline.analysis, what, timeout_s)
        return SurveyOutcome(
            self.uid,
            self.runs.proposals_uid,
            self.runs.outcomes_uid,
            self.runs.tile_uids,
            tuple(analyses),
            tuple(regions),
            {tile.uid: tile.lost_rows for tile in flown if tile.lost_rows},
            self.runs.approvals_uid,
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
            still, what = unsettled
            self.region_log.settle(f"{what}: {what_ended(error)}", still)
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
        asked = None if self.design.analysis is None else self.design.analysis.pair_areas
        if asked is not None:
            if not whole:
                regions.sort(key=lambda region: -region.score)
            areas = [
                RegionOutcome(region, "proposed", region.reason)
                for region in regions[: asked.number]
            ]
            return analyses, (yield from self._propose(areas, [*analyses, *whole]))
        rescans = SurveyRescans(self.beamline, self.runs, self.fine, time_model)
        candidates, refused = self.fine.candidates(regions, time_model)
        one_choice = len(whole or analyses) == 1
        spending = rescans.spend(candidates, one_choice=one_choice, may_cut=True)
        rescans.say_whether_it_pays(spending)
        refused += [
            RegionOutcome(rescan.region, "refused", why) for rescan, why in spending.refused
        ]
        for outcome in [*refused, *proposals(spending)]:
            self.region_log.note(outcome)
        yield from self.runs.record_proposals([*analyses, *whole])
        settled = yield from rescans.act(spending, analyses)
        yield from self.runs.record_outcomes()
        logger.info("survey %s: %d regions found, %d refused", self.uid, len(regions), len(refused))
        told = {outcome.region.key for outcome in settled}
        return analyses, [*settled, *(one for one in refused if one.region.key not in told)]

    def _propose(
        self, areas: list[RegionOutcome], analyses: Sequence[TileAnalysis]
    ) -> MsgGenerator[list[RegionOutcome]]:
        """Record areas for pairs, which whoever has asked for them flies."""
        for outcome in areas:
            self.region_log.note(outcome)
        yield from self.runs.record_proposals(analyses)
        yield from self.runs.record_outcomes()
        return areas

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
