"""`ApprovalKeeper`: what people decide while no plan waits becomes documents, and fine maps count.

A plan that waits records what it is told. What is decided later, in a page or at another prompt,
has no plan to record it, and what the queue server flies was approved elsewhere. This keeper of a
session brings both together.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Decided, Event, Proposal
from xrf_sr_plans.approval.states import decided_after_the_wait, region_states
from xrf_sr_plans.callbacks.result_run import (
    NAMESPACE,
    child_uid,
    data_key,
    in_order,
    stream_documents,
)
from xrf_sr_plans.plans.asking import outcomes_of
from xrf_sr_plans.plans.decisions import RegionLog, region_values
from xrf_sr_plans.plans.survey_runs import start_without_rows
from xrf_sr_plans.review.told_rows import ToldRows
from xrf_sr_plans.schema import Documents

logger = logging.getLogger(__name__)

_LOOK_S = 3.0
"""How often it is looked for decisions."""
_WATCHED = 50
"""Number of surveys, the latest ones, that are looked at."""


class ApprovalKeeper:
    """Tell the approval folder what fine maps became of, and tell sinks what people decided.

    Subscribe it to the RunEngine. It never raises there, and leaves files to threads.

    Parameters
    ----------
    desk
        The session's approval desk.
    deliver
        Called with the documents of each run of decisions, in a thread.
    """

    def __init__(self, desk: ApprovalDesk, deliver: Callable[[Documents], object]) -> None:
        self._desk = desk
        self._folder: ApprovalFolder = desk.folder
        self._deliver = deliver
        self._fine: dict[str, tuple[str, str]] = {}
        # Last maps of pairs of collections: the collection, the area and the pair.
        self._last: dict[str, tuple[str, str, str]] = {}
        self._told = ToldRows()
        self._versions: dict[str, int] = {}
        self._over = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="xrf-sr-decisions", daemon=True)

    def open(self) -> None:
        """Begin to look for decisions, those of before among them."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Look once more, then look no more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self.look()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of any run of the RunEngine."""
        try:
            if name == "start" and schema.kind_of_run(doc) == "map":
                self._map_began(doc)
            elif name == "stop":
                uid = str(doc.get("run_start"))
                missing = self._told.missing(uid)
                last, fine = self._last.pop(uid, None), self._fine.pop(uid, None)
                if last is not None and doc.get("exit_status") == "success" and not missing:
                    self._pair_ended(*last, uid)
                if fine is not None:
                    self._fine_map_ended(*fine, doc, missing)
            else:
                self._told.take(name, doc)
        except Exception:  # a scan must not end because of what is kept of it
            logger.exception("a %s document was not understood", name)

    def _map_began(self, start: Mapping[str, Any]) -> None:
        """Watch a map that rescans a region, or with which a pair of a collection is complete."""
        uid, metadata = str(start["uid"]), start["xrf_sr"]
        derived = metadata.get("derived_input") or {}
        key, survey_uid = derived.get("region_key"), metadata.get("survey_uid")
        collection_uid = derived.get("collection_uid")
        if metadata.get("purpose") == "fine" and key and survey_uid:
            self._fine[uid] = str(survey_uid), str(key)
            self._told.watch(start)
        elif key and collection_uid and derived["pair_position"] == derived["pair_maps"] - 1:
            self._last[uid] = str(collection_uid), str(key), str(derived["pair_uid"])
            self._told.watch(start)

    def _pair_ended(self, collection_uid: str, key: str, pair_uid: str, uid: str) -> None:
        collections = self._desk.collections
        if collections.folder.knows(collection_uid):
            collections.became(collection_uid, key, "rescanned", f"pair {pair_uid}", uid)

    def _fine_map_ended(
        self, survey_uid: str, key: str, stop: Mapping[str, Any], missing: int
    ) -> None:
        if not self._folder.knows(survey_uid):
            return
        uid, status = str(stop["run_start"]), stop.get("exit_status")
        if status == "success" and not missing:
            self._desk.became(survey_uid, key, "rescanned", f"fine map {uid[:8]}", uid)
        else:
            ended = "stopped" if status == "success" else status
            reason = f"{ended}: {stop.get('reason') or 'interrupted'}"
            self._desk.became(survey_uid, key, "failed", reason, uid)

    def look(self) -> None:
        """Deliver all decisions that no plan has recorded and no session has delivered."""
        with self._looking:
            for survey_uid in self._folder.surveys()[:_WATCHED]:
                version = self._folder.version(survey_uid)
                if self._versions.get(survey_uid) != version:
                    self._tell_of(survey_uid)
                    # What has come meanwhile is looked at the next time.
                    self._versions[survey_uid] = version

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # the next look may find everything in order
                logger.exception("decisions are not recorded")
            if self._over.wait(_LOOK_S):
                return

    def _tell_of(self, survey_uid: str) -> None:
        proposal, events = self._folder.proposal(survey_uid), self._folder.events(survey_uid)
        for decided in decided_after_the_wait(events):
            if self._folder.first_to_tell(survey_uid, decided.uid):
                self._deliver(decision_documents(proposal, events, decided))


def decision_documents(proposal: Proposal, events: Iterable[Event], decided: Decided) -> Documents:
    """Return the run that records one person's decisions: all regions as they were just after it.

    Its uids follow from the decisions, so that it is the same whoever makes it.

    Parameters
    ----------
    proposal
        What was proposed.
    events
        All events of the survey in the order of their times.
    decided
        The decisions.
    """
    until = []
    for event in events:
        until.append(event)
        if event.uid == decided.uid:
            break
    log = RegionLog()
    for outcome in outcomes_of(region_states(proposal, until)):
        log.remember(outcome)
    uid = str(uuid.uuid5(NAMESPACE, json.dumps(["approvals", proposal.survey_uid, decided.uid])))
    metadata = {
        "schema": schema.SCHEMA_VERSION,
        "user_input": {},
        **proposal.metadata,
        "purpose": "approvals",
        "survey_uid": proposal.survey_uid,
        "regions": log.count(),
    }
    start = {**start_without_rows(metadata, proposal.md), "uid": uid, "time": decided.time}
    rows = [
        {f"region_{name}": value for name, value in region_values(outcome).items()}
        for outcome in log.outcomes
    ]
    documents: Documents = [("start", start)]
    if rows:
        keys = {
            name: data_key("string" if isinstance(value, str) else "number", [])
            for name, value in rows[0].items()
        }
        documents += stream_documents(uid, decided.time, schema.STREAM_REGIONS, keys, {}, rows)
    stop = {
        "uid": child_uid(uid, "stop"),
        "run_start": uid,
        "time": decided.time,
        "exit_status": "success",
        "num_events": {schema.STREAM_REGIONS: len(rows)} if rows else {},
    }
    return in_order([*documents, ("stop", stop)])
