"""`SurveyRuns`: the runs without rows in which a survey records what it decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.plans.decisions import RegionLog, TileAnalysis, recorded_analyses
from xrf_sr_plans.plans.design import SurveyDesign
from xrf_sr_plans.plans.request import SurveyRequest
from xrf_sr_plans.plans.single_run import single_run

_HINTS = {"dimensions": [[["time"], schema.STREAM_REGIONS]]}
"""Hints of the runs without rows.

After a run that has no hints and no stream "primary", BestEffortCallback (bluesky 1.15) misreads
the hints of the next run.
"""


@dataclass
class SurveyRuns:
    """What one survey records, with the uids of the runs in which it did.

    Attributes
    ----------
    uid
        Uid of the survey.
    user_input
        What the user asked, by parameter.
    tile_uids
        Uids of the coarse maps' runs, once they are flown.
    region_log
        What became of each region so far.
    proposals_uid, approvals_uid, outcomes_uid
        Uids of the runs; empty until they are recorded.
    """

    beamline: Beamline
    request: SurveyRequest
    design: SurveyDesign
    uid: str
    user_input: Mapping[str, Any]
    tile_uids: tuple[str, ...] = ()
    region_log: RegionLog = field(default_factory=RegionLog)
    proposals_uid: str = ""
    approvals_uid: str = ""
    outcomes_uid: str = ""

    def metadata(self, purpose: str, **facts: Any) -> dict[str, Any]:
        """Return the metadata `xrf_sr` of one of the runs."""
        return {
            "schema": schema.SCHEMA_VERSION,
            "purpose": purpose,
            "survey_uid": self.uid,
            "tiles": list(self.tile_uids),
            "grid": self.design.grid.to_dict(),
            "elements": list(self.beamline.flyer.elements),
            "rescan": self.request.rescan,
            "fine_step_um": self.design.fine_step_um,
            "fine_dwell_ms": self.design.fine_dwell_ms,
            "analysed_by": getattr(self.beamline.analysis, "name", ""),
            "beamline": self.beamline.name,
            "user_input": dict(self.user_input),
            "regions": self.region_log.count(),
            **facts,
        }

    def _start(self, purpose: schema.RunKind, **facts: Any) -> dict[str, Any]:
        """Return the start document of the run of proposals, approvals or outcomes."""
        return start_without_rows(self.metadata(purpose, **facts), self.request.md or {})

    def record_proposals(self, analyses: Sequence[TileAnalysis]) -> MsgGenerator[None]:
        """Record the analyses and what is proposed or refused, in a run of their own."""

        def events() -> MsgGenerator[None]:
            device = self.beamline.analysis
            if device is not None:
                yield from recorded_analyses(device.name, analyses)
            yield from self.region_log.recorded()

        md = self._start("proposals")
        self.proposals_uid = yield from recorded(md, events())

    def record_approvals(self) -> MsgGenerator[None]:
        """Record what people decided about the regions, in a run of its own."""
        md = self._start("approvals", proposals_uid=self.proposals_uid)
        self.approvals_uid = yield from recorded(md, self.region_log.recorded())

    def record_outcomes(self, ended_by: str = "") -> MsgGenerator[None]:
        """Record what became of each region, in a run of its own.

        Parameters
        ----------
        ended_by
            What ended the survey early, in words; empty where it is complete.
        """
        facts = {"proposals_uid": self.proposals_uid, "ended_by": ended_by}
        md = self._start("outcomes", **facts)
        self.outcomes_uid = yield from recorded(md, self.region_log.recorded())


def start_without_rows(metadata: Mapping[str, Any], md: Mapping[str, Any]) -> dict[str, Any]:
    """Return the start document of a run in which a survey only tells something.

    Parameters
    ----------
    metadata
        Its metadata `xrf_sr`, whose ``purpose`` says what it tells.
    md
        The user's metadata.
    """
    return {
        "plan_name": schema.PLAN_OF_KIND[metadata["purpose"]],
        "plan_args": dict(metadata["user_input"]),
        "hints": dict(_HINTS),
        **md,
        "survey_uid": metadata["survey_uid"],
        "xrf_sr": dict(metadata),
    }


def recorded(md: Mapping[str, Any], events: MsgGenerator[None]) -> MsgGenerator[str]:
    """Emit events in a run of their own, between checkpoints; return its uid."""
    yield from bps.checkpoint()
    uid = yield from single_run(md, events)
    yield from bps.checkpoint()
    return uid
