"""`SurveyRescans`: which of a survey's regions are flown, by budget and by approval, and how."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from xrf_sr_plans.approval.questions import Question
from xrf_sr_plans.approval.records import Proposal, ProposedRegion, SurveyTile
from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.maps.region import Rescan
from xrf_sr_plans.measurement import SAME_GRID
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.asking import ask, outcomes_of, owned, propose
from xrf_sr_plans.plans.decisions import TileAnalysis
from xrf_sr_plans.plans.fine_maps import FineMaps, RegionOutcome, stage_position_um
from xrf_sr_plans.plans.queue_rescans import queue_rescans
from xrf_sr_plans.plans.survey_runs import SurveyRuns
from xrf_sr_plans.plans.worth import rescans_limit_s, whole_map_s
from xrf_sr_plans.rois.budget import Spending, spend_budget

logger = logging.getLogger(__name__)


class SurveyRescans:
    """The rescans of one survey.

    Parameters
    ----------
    beamline
        The beamline.
    runs
        What the survey was asked, and where it records what it decides.
    fine
        How fine maps are flown.
    time_model
        How long the survey's rows really took.
    """

    def __init__(
        self, beamline: Beamline, runs: SurveyRuns, fine: FineMaps, time_model: RowTimeModel
    ) -> None:
        self.beamline = beamline
        self.runs = runs
        self.fine = fine
        self.time_model = time_model
        self.request, self.design = runs.request, runs.design

    def spend(self, candidates: Sequence[Rescan], *, one_choice: bool, may_cut: bool) -> Spending:
        """Choose among rescans with the beam time and dose that the tiles left over.

        Parameters
        ----------
        candidates
            Rescans that are possible.
        one_choice
            Whether their regions were chosen as one set.
        may_cut
            Whether the last one may be cut to the time left.
        """
        return spend_budget(
            candidates,
            budget_s=self._budget_left_s(),
            max_dose=self._dose_left(),
            start_um=stage_position_um(self.beamline),
            may_cut=may_cut,
            chosen_together=one_choice,
        )

    def _budget_left_s(self) -> float:
        design = self.design
        survey_s = sum(
            preflight.map_cost(self.beamline, tile.grid, tile.dwell_ms, self.time_model).time_s
            for tile in design.maps
        )
        # Both go by how long rows really take.
        whole_s = whole_map_s(
            self.beamline,
            [tile.grid for tile in design.tiles],
            design.fine_step_um,
            design.fine_dwell_ms,
            self.time_model,
        )
        return rescans_limit_s(self.request.budget_s, survey_s, whole_s)

    def _dose_left(self) -> float | None:
        max_dose = self.request.max_dose
        return None if max_dose is None else max(max_dose - self.design.dose, 0.0)

    def say_whether_it_pays(self, spending: Spending) -> None:
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
            self.runs.uid,
            self.design.time_s,
            rescans_s,
            whole_s,
            pays,
        )

    def act(
        self, spending: Spending, analyses: Sequence[TileAnalysis]
    ) -> MsgGenerator[list[RegionOutcome]]:
        """Do with the chosen regions what the request says; return what became of them.

        Parameters
        ----------
        spending
            The regions that time and dose allow.
        analyses
            What came of the analysis of each tile.
        """
        desk, mode, note = self.beamline.approvals, self.request.rescan, self.runs.region_log.note
        if mode == "ask":
            return (yield from bpp.stage_wrapper(self._ask(spending, analyses), [desk]))
        if mode == "inline":
            outcomes = yield from self.fine.fly_each(spending.chosen, note)
        elif mode == "queue":
            outcomes = yield from queue_rescans(self.fine, spending.chosen, note)
        else:
            outcomes = proposals(spending)
        if desk is not None:
            # What is left, such as what was refused, can be approved later.
            question = Question(self._proposal(spending, analyses), self.runs.uid)
            yield from propose(desk, question)
        return outcomes

    def _ask(
        self, spending: Spending, analyses: Sequence[TileAnalysis]
    ) -> MsgGenerator[list[RegionOutcome]]:
        """Wait for approval, and fly what is approved within the time and dose that are left."""
        desk, request, log = self.beamline.approvals, self.request, self.runs.region_log
        question = Question(
            self._proposal(spending, analyses),
            self.runs.uid,
            request.approval_timeout_s,
            request.undecided,
        )
        states = yield from ask(desk, question)
        for outcome in outcomes_of(states):
            log.note(outcome)
        yield from self.runs.record_approvals()
        approved = [state.to_fly for state in owned(states, self.runs.uid)]
        note = noted(desk, self.runs.uid, log.note)
        possible, refused = self.fine.candidates(approved, self.time_model)
        chosen = self.spend(possible, one_choice=True, may_cut=False)
        refused += [RegionOutcome(rescan.region, "refused", why) for rescan, why in chosen.refused]
        for outcome in refused:
            note(outcome)
        flown = yield from self.fine.fly_each(chosen.chosen, note)
        done = {outcome.region.key for outcome in [*flown, *refused]}
        others = [one for one in log.outcomes if one.region.key not in done]
        return [*flown, *others, *refused]

    def _proposal(self, spending: Spending, analyses: Sequence[TileAnalysis]) -> Proposal:
        request, design = self.request, self.design
        costs = {rescan.region.key: rescan.time_s for rescan in spending.chosen}
        proposal = Proposal(
            survey_uid=self.runs.uid,
            beamline=self.beamline.name,
            rescan=request.rescan,
            tiles=tuple(self._tiles(analyses)),
            fine_step_um=design.fine_step_um,
            fine_dwell_ms=design.fine_dwell_ms,
            row_attempts=request.row_attempts,
            rescans=None if design.analysis is None else design.analysis.rescans,
            budget_left_s=self._budget_left_s(),
            dose=preflight.dose(self.beamline, design.fine_step_um**2, design.fine_dwell_ms),
            max_dose=self._dose_left(),
            dose_unit=preflight.dose_unit(self.beamline),
            md=dict(request.md or {}),
            user_input=dict(self.runs.user_input),
            metadata=self.runs.metadata("approvals", proposals_uid=self.runs.proposals_uid),
        )
        regions = tuple(
            ProposedRegion(
                region=one.region,
                disposition=one.disposition,
                reason=one.reason,
                time_s=costs.get(one.region.key, proposal.time_s(one.region)),
                run_uid=one.run_uid,
            )
            for one in self.runs.region_log.outcomes
        )
        return proposal.model_copy(update={"regions": regions})

    def _tiles(self, analyses: Sequence[TileAnalysis]) -> list[SurveyTile]:
        by_uid = {analysis.source_uid: analysis for analysis in analyses}
        tiles = []
        for uid, tile in zip(self.runs.tile_uids, self.design.tiles, strict=True):
            analysis, grid = by_uid.get(uid), tile.grid
            tiles.append(
                SurveyTile(
                    uid=uid,
                    x_low_um=grid.fast.low_um,
                    x_high_um=grid.fast.high_um,
                    y_low_um=grid.slow.low_um,
                    y_high_um=grid.slow.high_um,
                    model_sha256="" if analysis is None else analysis.model_sha256,
                    result_uid="" if analysis is None else analysis.result_uid,
                )
            )
        return tiles


def noted(
    desk: Any, survey_uid: str, note: Callable[[RegionOutcome], None]
) -> Callable[[RegionOutcome], None]:
    """Return what takes an outcome and tells it to the approval desk, too."""

    def both(outcome: RegionOutcome) -> None:
        note(outcome)
        desk.became(
            survey_uid,
            outcome.region.key,
            outcome.disposition,
            outcome.reason,
            outcome.run_uid,
        )

    return both


def proposals(spending: Spending) -> list[RegionOutcome]:
    """Return the chosen regions as proposals, each with the reason for which it was picked."""
    regions = [rescan.region for rescan in spending.chosen]
    return [RegionOutcome(region, "proposed", region.reason) for region in regions]
