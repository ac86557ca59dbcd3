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
from xrf_sr_plans.measurement import Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.decisions import (
    RESULTS_S,
    TileAnalysis,
    wait_for_analysis,
    wait_for_results,
)
from xrf_sr_plans.plans.fine_maps import FineMaps, RegionOutcome
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS, FlownMap, MapRun
from xrf_sr_plans.plans.request import SurveyWish
from xrf_sr_plans.plans.return_to_start import returning_to_start
from xrf_sr_plans.plans.safeguard import all_in_turn, what_ended
from xrf_sr_plans.plans.survey_choice import SettledSurvey, settled_survey
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
    approval_timeout_s: float = 900.0,
    undecided: schema.Undecided = "propose",
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
        What is done with the regions: "inline" maps them now, "ask" waits until somebody approves
        some of them and maps those, "queue" hands them to the queue server, "propose" only records
        them. What isn't mapped can be approved later.
    approval_timeout_s
        How many seconds "ask" waits for somebody to decide on all regions. A pause doesn't count.
    undecided
        What becomes of regions that nobody has decided on by then: "propose" leaves them to be
        approved later, "approve" maps them, "deny" doesn't.
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
