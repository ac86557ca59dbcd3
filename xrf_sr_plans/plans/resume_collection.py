"""`resume_collection`: pairs of those areas of a collection that are left, each flown once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans.approval.collections import left_to_fly
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Proposal
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.collect_requests import ResumeRequest
from xrf_sr_plans.plans.collection import PairCollection, asked_again
from xrf_sr_plans.plans.design import Design, told_with
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.region_pairs import design_pairs
from xrf_sr_plans.plans.request import CollectRequest


@plan
def resume_collection(
    beamline: Beamline,
    *,
    collection_uid: str | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[tuple[RegionOutcome, ...]]:
    """Acquire the pairs that a collection still lacks, as it was asked for them.

    These are the areas that were not begun, were interrupted, failed or were refused, whatever
    ended the collection: an abort, a stop, or a session that was killed. A pair of which a map is
    missing is flown as a whole, because its maps must have the same state of the sample. What is
    complete is not flown again, and neither is what another session of this machine flies now. Only
    after `RE.halt`, a pair may be flown again whose last row was measured just before it.

    Parameters
    ----------
    collection_uid
        Uid of the collection. None means the latest one with areas that are left.
    budget_s
        Beam time in seconds for all pairs together, where a pair that no longer fits is left out.
        None means what is left of the collection's own.
    max_dose
        Dose that all maps of one pair together may give, those that were flown in vain among them:
        incoming photons per um^2 where the beamline knows its flux, else seconds of beam per um^2.
        None means the collection's own.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents besides those of the collection, a `plan_name`
        of your own among them. Keys that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    tuple of RegionOutcome
        One per area that was left; its `run_uid` is that of the fine map.

    Raises
    ------
    RefusedError
        If nothing is left, or if no pair at all can be flown. Nothing has moved.
    """
    request = ResumeRequest.from_arguments(locals())
    design = design_resumed(beamline, request)
    preflight.refuse(design.problems)
    assert design.request is not None, "without a request there is a problem"
    collection = PairCollection(
        beamline,
        design.request,
        design.collection_uid,
        survey_uid=design.survey_uid,
    )
    return (yield from collection.resume())


@dataclass(frozen=True, kw_only=True)
class ResumedDesign(Design):
    """The pairs that would be flown of what is left of a collection."""

    request: CollectRequest | None = None
    collection_uid: str = ""
    survey_uid: str = ""


def design_resumed(beamline: Beamline, request: ResumeRequest) -> ResumedDesign:
    """Return the design of the pairs that are left; nothing is taken yet.

    Raises
    ------
    RefusedError
        If there is no such collection, or nothing of it is left.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        proposal, left = _unfinished(beamline, request.collection_uid)
        regions = [state.region.to_dict() for state in left]
        given = {"budget_s": request.budget_s, "max_dose": request.max_dose}
        changes = {name: value for name, value in given.items() if value is not None}
        if request.budget_s is None and proposal.budget_left_s is not None:
            changes["budget_s"] = max(proposal.budget_left_s - _spent_s(beamline, proposal), 0.0)
        md = {**proposal.md, **(request.md or {})}
        facts = {"regions": regions, "row_attempts": request.row_attempts, "md": md or None}
        asked = asked_again(proposal, {**changes, **facts})
        tried = {state.region.key: state.failed_maps for state in left}
        design = design_pairs(beamline, asked, tried)
    shared = {name: getattr(design, name) for name in Design.__dataclass_fields__}
    survey_uid = str(proposal.metadata.get("parent_survey_uid") or "")
    return ResumedDesign(
        **{**shared, "problems": (*problems, *design.problems)},
        request=asked,
        collection_uid=proposal.survey_uid,
        survey_uid=survey_uid,
    )


def _unfinished(
    beamline: Beamline, collection_uid: str | None
) -> tuple[Proposal, Sequence[RegionState]]:
    """Return a collection, and its areas that are left and that nobody flies now.

    Raises
    ------
    RefusedError
        There is none.
    """
    folder = _folder(beamline)
    for uid in folder.surveys() if collection_uid is None else [collection_uid]:
        if not folder.knows(uid):
            raise RefusedError(f"there is no collection {uid!r:.80}")
        left, held = left_to_fly(folder, uid)
        if left:
            return folder.proposal(uid), left
        if collection_uid is not None:
            told = "; ".join(f"area {one.number}: {one.claimed_by} has it" for one in held)
            raise RefusedError(f"collection {uid}: {told or 'every pair is there'}")
    raise RefusedError("no collection of pairs has areas that are left")


def _folder(beamline: Beamline) -> ApprovalFolder:
    desk: Any = getattr(beamline.approvals, "collections", None)
    if desk is None:
        raise ConfigError(f"{beamline.name} has no approvals: no collection was written down")
    return desk.folder


def _spent_s(beamline: Beamline, proposal: Proposal) -> float:
    """Return the beam time in seconds that the pairs of a collection have taken so far."""
    states = _folder(beamline).regions(proposal.survey_uid)
    return sum(one.time_s * ((one.disposition == "rescanned") + one.failed_maps) for one in states)
