"""`rescan_approved`: fine maps of what people approved after a survey, each flown once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.questions import Collect
from xrf_sr_plans.approval.records import Proposal
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.maps.region import Region, Rescan
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.asking import outcomes_of, owned, take_approved
from xrf_sr_plans.plans.decisions import RESULTS_S, RegionLog, wait_for_results
from xrf_sr_plans.plans.fine_maps import FineMaps, RegionOutcome
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import ApprovedRequest
from xrf_sr_plans.plans.rescan import RescanDesign, designed
from xrf_sr_plans.plans.return_to_start import centering_fine_stage
from xrf_sr_plans.plans.safeguard import all_in_turn, what_ended
from xrf_sr_plans.plans.survey_rescans import noted
from xrf_sr_plans.plans.survey_runs import recorded, start_without_rows
from xrf_sr_plans.plans.two_stages import center_problems


@plan
def rescan_approved(
    beamline: Beamline,
    *,
    survey_uid: str | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[tuple[RegionOutcome, ...]]:
    """Map what was approved of a survey after it was over, as finely as the survey had asked for.

    Each region is flown once, whatever else flies or queues approved regions at the same time. What
    failed or was refused can be approved again. The highest dose that the survey was given still
    holds.

    Parameters
    ----------
    survey_uid
        Uid of the survey. None means the latest one that has approved regions.
    budget_s
        Beam time in seconds for all regions together, spent on the best ones first. None means no
        limit.
    max_dose
        Highest dose at any point: incoming photons per um^2 where the beamline knows its flux,
        else seconds of beam per um^2. None means that of the survey.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    tuple of RegionOutcome
        In the order of flight, the refused ones last.

    Raises
    ------
    RefusedError
        If nothing is approved, or if none of the regions can be flown; nothing has moved.
    """
    request = ApprovedRequest.from_arguments(locals())
    design = design_approved(beamline, request)
    preflight.refuse(design.problems)
    assert design.proposal is not None, "without a proposal there is a problem"
    flown = _Approved(beamline, request, design.proposal).fly()
    return (yield from centering_fine_stage(beamline, flown))


@dataclass(frozen=True, kw_only=True)
class ApprovedDesign(RescanDesign):
    """The rescans that would be flown of what a survey proposed."""

    proposal: Proposal | None = None


def design_approved(beamline: Beamline, request: ApprovedRequest) -> ApprovedDesign:
    """Return the design of the rescans that were approved; nothing is taken yet.

    Raises
    ------
    RefusedError
        If nothing is approved, or if a budget is not 0 or more.
    """
    problems = [*request.problems(beamline), *center_problems(beamline)]
    if beamline.approvals is None:
        text = f"{beamline.name} has no approvals: nobody can have approved anything"
        preflight.refuse([*problems, Problem(ConfigError, text)])
    folder: ApprovalFolder = beamline.approvals.folder  # type: ignore[union-attr]
    try:
        proposal, states = approved_survey(folder, request.survey_uid)
    except RefusedError as error:
        preflight.refuse([*problems, Problem(type(error), str(error))])
        raise
    fine = _fine_maps(beamline, request, proposal)
    regions = [state.to_fly for state in states if state.ready]
    possible, refused = fine.candidates(regions)
    possible, too_much = within_dose(possible, states, _max_dose(request, proposal))
    rescans = designed(beamline, problems, possible, [*refused, *too_much], request, len(regions))
    facts = {name: getattr(rescans, name) for name in RescanDesign.__dataclass_fields__}
    return ApprovedDesign(**facts, proposal=proposal)


def approved_survey(
    folder: ApprovalFolder, survey_uid: str | None
) -> tuple[Proposal, tuple[RegionState, ...]]:
    """Return a survey with regions that are approved and that nothing flies or queues yet.

    Parameters
    ----------
    folder
        Where proposals and decisions are.
    survey_uid
        The survey; None: the latest one with such regions.

    Raises
    ------
    RefusedError
        There is none.
    """
    for uid in folder.surveys() if survey_uid is None else [survey_uid]:
        states = folder.regions(uid)
        if any(state.ready for state in states):
            return folder.proposal(uid), states
        if survey_uid is not None:
            told = "; ".join(f"region {one.number} {one.disposition}" for one in states)
            raise RefusedError(
                f"survey {uid}: nothing is approved and waits: {told or 'no region'}"
            )
    raise RefusedError("no survey has approved regions that wait to be flown; see approve(...)")


def within_dose(
    rescans: Sequence[Rescan], states: Sequence[RegionState], max_dose: float | None
) -> tuple[list[Rescan], list[RegionOutcome]]:
    """Return the rescans that keep to a dose together with what was flown before, and the others.

    Parameters
    ----------
    rescans
        What would be flown.
    states
        All regions of the survey, of which some have been flown.
    max_dose
        Highest dose of rescans at any point; None: no limit.
    """
    if max_dose is None:
        return list(rescans), []
    flown = [state.region for state in states if state.disposition in ("rescanned", "queued")]
    kept: list[Rescan] = []
    refused: list[RegionOutcome] = []
    for rescan in rescans:
        times = 1 + sum(_overlap(rescan.region, one) for one in flown)
        if rescan.dose * times <= max_dose:
            kept.append(rescan)
        else:
            dose = rescan.dose * times
            reason = f"dose {dose:.4g} would exceed the limit {max_dose:.4g}"
            refused.append(RegionOutcome(rescan.region, "refused", reason))
    return kept, refused


def _overlap(one: Region, other: Region) -> bool:
    return (
        one.x_low_um < other.x_high_um
        and other.x_low_um < one.x_high_um
        and one.y_low_um < other.y_high_um
        and other.y_low_um < one.y_high_um
    )


def _max_dose(request: ApprovedRequest, proposal: Proposal) -> float | None:
    limits = [limit for limit in (request.max_dose, proposal.max_dose) if limit is not None]
    return min(limits, default=None)


def _fine_maps(beamline: Beamline, request: ApprovedRequest, proposal: Proposal) -> FineMaps:
    return FineMaps(
        beamline,
        proposal.fine_step_um,
        proposal.fine_dwell_ms,
        survey_uid=proposal.survey_uid,
        row_attempts=request.row_attempts,
        md={**proposal.md, **(request.md or {})},
    )


class _Approved:
    """The flight of what was approved of one survey."""

    def __init__(self, beamline: Beamline, request: ApprovedRequest, proposal: Proposal) -> None:
        self.beamline = beamline
        self.request = request
        self.proposal = proposal
        self.fine = _fine_maps(beamline, request, proposal)
        self.log = RegionLog()
        self.owner = str(uuid.uuid4())

    def fly(self) -> MsgGenerator[tuple[RegionOutcome, ...]]:
        """Take what is approved, record who approved it, fly it, and record what became of it."""
        desk = self.beamline.approvals
        flight = bpp.contingency_wrapper(self._taken(), except_plan=self._ended_early)
        return (yield from bpp.stage_wrapper(flight, [desk]))

    def _taken(self) -> MsgGenerator[tuple[RegionOutcome, ...]]:
        desk, uid = self.beamline.approvals, self.proposal.survey_uid
        states = yield from take_approved(desk, Collect(uid, self.owner))
        for outcome in outcomes_of(states):
            self.log.note(outcome)
        yield from self._record()
        regions = [state.to_fly for state in owned(states, self.owner)]
        note = noted(desk, uid, self.log.note)
        possible, refused = self.fine.candidates(regions)
        before = [state for state in states if state.owner != self.owner]
        possible, too_much = within_dose(possible, before, _max_dose(self.request, self.proposal))
        refused += too_much
        design = designed(self.beamline, [], possible, refused, self.request, len(regions))
        for outcome in design.refused:
            note(outcome)
        outcomes = yield from self.fine.fly_each(design.rescans, note)
        yield from self._record()
        what = f"the verification of {len(design.rescans)} rescans"
        yield from wait_for_results(self.beamline.analysis, what, RESULTS_S)
        return (*outcomes, *design.refused)

    def _record(self, ended_by: str = "") -> MsgGenerator[None]:
        """Record what is decided about, and what became of, each region of the survey."""
        metadata = {
            "schema": schema.SCHEMA_VERSION,
            "user_input": {},
            **self.proposal.metadata,
            "purpose": "approvals",
            "survey_uid": self.proposal.survey_uid,
            "regions": self.log.count(),
            "ended_by": ended_by,
        }
        yield from recorded(start_without_rows(metadata, self.fine.md), self.log.recorded())

    def _ended_early(self, error: Exception) -> MsgGenerator[None]:
        self.log.settle(f"not begun: {what_ended(error)}", "approved")
        yield from all_in_turn(lambda: self._record(what_ended(error)))
