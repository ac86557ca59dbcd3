"""`PairCollection`: a pair of each of several areas, each flown once, whatever ends it in between.

What is to be flown is kept in a folder beside the approvals, each area with what became of it, as
the regions of a survey are (`approval.folder`). So another plan call, in this session or the next
one, flies what is left.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from xrf_sr_plans import schema
from xrf_sr_plans.approval.questions import Collect, Question
from xrf_sr_plans.approval.records import Proposal, ProposedRegion
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError, FlightError, RefusedError, in_words
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import regions_from_arguments
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.asking import outcomes_of, owned, propose, take_approved
from xrf_sr_plans.plans.decisions import RegionLog
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.pair import PairProgress, fly_pair
from xrf_sr_plans.plans.region_pairs import RegionPair, pairs_in_turn
from xrf_sr_plans.plans.request import CollectRequest
from xrf_sr_plans.plans.safeguard import all_in_turn, what_ended
from xrf_sr_plans.plans.survey_runs import recorded

logger = logging.getLogger(__name__)

_HINTS = {"dimensions": [[["time"], schema.STREAM_REGIONS]]}


class PairCollection:
    """The flight of one collection, and what is recorded of it.

    Parameters
    ----------
    beamline
        The beamline; without approvals it can't be resumed.
    request
        The areas, and how their pairs are flown.
    uid
        Uid of the collection that is resumed; None: it is a new one.
    survey_uid
        Uid of the survey that has chosen the areas, if any.
    note
        What a reader must know of the areas, such as why there are none.

    Attributes
    ----------
    outcomes_uid
        Uid of the run that records what became of each area; empty until then.
    """

    def __init__(
        self,
        beamline: Beamline,
        request: CollectRequest,
        uid: str | None = None,
        *,
        survey_uid: str = "",
        note: str = "",
    ) -> None:
        self.beamline = beamline
        self.request = request
        self.uid = uid or str(uuid.uuid4())
        self.outcomes_uid = ""
        self._survey_uid = survey_uid
        self._told = note
        self._owner = str(uuid.uuid4())
        self._log = RegionLog()
        self._desk: Any = getattr(beamline.approvals, "collections", None)

    def begin(self) -> MsgGenerator[tuple[RegionOutcome, ...]]:
        """Write down what is to be flown, fly it, and return what became of each area."""
        regions = regions_from_arguments(self.request.regions)
        for region in regions:
            self._log.remember(RegionOutcome(region, "approved", region.reason))
        if self._desk is None:
            logger.info("%s has no approvals: these pairs can't be resumed", self.beamline.name)
        elif regions:
            question = Question(self._proposal(regions), self._owner)
            if problem := (yield from propose(self._desk, question)):
                logger.error("these pairs can't be resumed: %s", problem)
                self._desk = None
        logger.info("collection %s: %d pairs, see resume_collection", self.uid, len(regions))
        again = self._desk is not None and bool(regions)
        return (yield from self._safely(self._taken("collect_pairs") if again else None))

    def resume(self) -> MsgGenerator[tuple[RegionOutcome, ...]]:
        """Take what is left, fly it, and return what became of it."""
        return (yield from self._safely(self._taken("resume_collection", again=True)))

    def _safely(
        self, taking: MsgGenerator[tuple[RegionState, ...]] | None
    ) -> MsgGenerator[tuple[RegionOutcome, ...]]:
        """Fly what `taking` gives, and give back what an early end leaves."""
        flight = bpp.contingency_wrapper(self._flown(taking), except_plan=self._ended_early)
        if taking is None:
            return (yield from flight)
        return (yield from bpp.stage_wrapper(flight, [self._desk]))

    def _taken(self, by: str, *, again: bool = False) -> MsgGenerator[tuple[RegionState, ...]]:
        wanted = Collect(self.uid, self._owner, by, again)
        states = yield from take_approved(self._desk, wanted)
        for outcome in outcomes_of(states):
            self._log.remember(outcome)
        return states

    def _flown(
        self, taking: MsgGenerator[tuple[RegionState, ...]] | None
    ) -> MsgGenerator[tuple[RegionOutcome, ...]]:
        request, tried = self.request, dict[str, int]()
        if taking is not None:
            own = owned((yield from taking), self._owner)
            # Documents then say who had it resumed.
            request = replace(request, regions=[state.to_fly.to_dict() for state in own])
            tried = {state.region.key: state.failed_maps for state in own}
        outcomes = []
        for pair in pairs_in_turn(self.beamline, request, tried):
            progress = PairProgress()
            try:
                outcome = yield from self._collected(pair, progress)
            except GeneratorExit:
                raise
            except Exception as error:
                self._note(_interrupted(pair.region, progress, error))
                raise
            outcomes.append(outcome)
            if pair.region.key not in {one.region.key for one in outcomes[:-1]}:
                self._note(outcome)
        yield from self._record()
        return tuple(outcomes)

    def _collected(self, pair: RegionPair, progress: PairProgress) -> MsgGenerator[RegionOutcome]:
        """Fly the pair of one area, which can fail without an effect on the other areas."""
        if pair.design is None:
            return RegionOutcome(pair.region, "refused", str(pair.refusal))
        flight = fly_pair(
            self.beamline,
            pair.request,
            pair.design,
            pair.region,
            collection_uid=self.uid,
            progress=progress,
        )
        try:
            done = yield from flight
        except RefusedError as error:
            return RegionOutcome(pair.region, "refused", str(error), progress.run_uid)
        except (FlightError, *ROW_FAILURES) as error:
            return RegionOutcome(pair.region, "failed", in_words(error), progress.run_uid)
        lost = [f"rows {list(rows)} of run {uid[:8]} lost" for uid, rows in done.lost_rows.items()]
        reason = "; ".join([f"pair {done.pair_uid}", *lost])
        return RegionOutcome(pair.region, "rescanned", reason, done.fine_uid)

    def _note(self, outcome: RegionOutcome) -> None:
        self._log.note(outcome)
        if self._desk is not None:
            facts = outcome.disposition, outcome.reason, outcome.run_uid
            self._desk.became(self.uid, outcome.region.key, *facts)

    def _ended_early(self, error: Exception) -> MsgGenerator[None]:
        self._log.settle(f"not begun: {what_ended(error)}", "approved")
        if not self.outcomes_uid:
            yield from all_in_turn(lambda: self._record(what_ended(error)))

    def _record(self, ended_by: str = "") -> MsgGenerator[None]:
        """Record what became of each area, in a run of its own."""
        metadata = self._metadata(ended_by=ended_by, regions=self._log.count())
        start = {
            "plan_name": schema.PLAN_COLLECTION,
            "plan_args": metadata["user_input"],
            "hints": dict(_HINTS),
            **(self.request.md or {}),
            "collection_uid": self.uid,
            "xrf_sr": metadata,
        }
        self.outcomes_uid = yield from recorded(start, self._log.recorded())

    def _metadata(self, **facts: Any) -> dict[str, Any]:
        return {
            "schema": schema.SCHEMA_VERSION,
            "purpose": "collection",
            "collection_uid": self.uid,
            "parent_survey_uid": self._survey_uid,
            "elements": list(self.beamline.flyer.elements),
            "fine_step_um": self.request.fine_step_um,
            "fine_dwell_ms": self.request.dwell_ms,
            "beamline": self.beamline.name,
            "user_input": self.request.user_input(),
            "note": self._told,
            **facts,
        }

    def _proposal(self, regions: Sequence[Region]) -> Proposal:
        """Return what is to be flown, as it is kept to be resumed."""
        request = self.request
        pairs = pairs_in_turn(self.beamline, replace(request, budget_s=None))
        times = {one.region.key: one.design.time_s for one in pairs if one.design is not None}
        return Proposal(
            survey_uid=self.uid,
            beamline=self.beamline.name,
            regions=tuple(
                ProposedRegion(
                    region=region,
                    disposition="approved",
                    reason=region.reason,
                    time_s=times.get(region.key, 0.0),
                )
                for region in {region.key: region for region in regions}.values()
            ),
            fine_step_um=request.fine_step_um,
            fine_dwell_ms=request.dwell_ms,
            row_attempts=request.row_attempts,
            budget_left_s=request.budget_s,
            max_dose=request.max_dose,
            dose_unit=preflight.dose_unit(self.beamline),
            md=dict(request.md or {}),
            user_input=request.user_input(),
            metadata=self._metadata(),
        )


def _interrupted(region: Region, progress: PairProgress, error: Exception) -> RegionOutcome:
    """Return the outcome of an area whose pair something has interrupted.

    Rows say whether a pair is complete, and not how its last run was closed.
    """
    why = what_ended(error)
    if progress.complete:
        reason = f"pair {progress.pair_uid}; interrupted after its last row: {why}"
        return RegionOutcome(region, "rescanned", reason, progress.fine_uid or progress.run_uid)
    return RegionOutcome(region, "failed", f"interrupted: {why}", progress.run_uid)


def asked_again(proposal: Proposal, changes: Mapping[str, Any]) -> CollectRequest:
    """Return what was asked of a collection, with some of it changed.

    Raises
    ------
    ConfigError
        It was written by another version of this package, which asked something else.
    """
    arguments = {**proposal.user_input, "md": proposal.md or None, **changes}
    try:
        return CollectRequest.from_arguments(arguments)
    except KeyError as error:
        raise ConfigError(
            f"collection {proposal.survey_uid}: it doesn't say {error}, as it was begun by another"
            " version of this package; collect_pairs takes its areas"
        ) from None
