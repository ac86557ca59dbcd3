"""`Verification`: compare each fine map with what had been predicted there.

A comparison becomes a run of its own and a line per element in the ledger. Its documents follow
from the fine run, the prediction and what the ledger knew *before* that run, whose hash is part of
the uid, so a replay gives exactly the same ones.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xrf_sr_plans.callbacks.result_run import (
    NAMESPACE,
    AnalysedMap,
    child_uid,
    data_key,
    in_order,
    package_versions,
    stream_documents,
)
from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.metrics.agreement import Agreement, compare
from xrf_sr_plans.schema import (
    PLAN_VERIFICATION,
    STREAM_VERIFICATION,
    Documents,
    DocumentSink,
)
from xrf_sr_plans.store.ledger import Entry, Ledger, content_key
from xrf_sr_plans.store.predictions import Predictions
from xrf_sr_plans.store.verdict import Verdict, judge, stage_offset

if TYPE_CHECKING:
    from xrf_sr_plans.composite.fine_offset import FineOffset

logger = logging.getLogger(__name__)

Recall = Callable[[str], EnhancedMaps | None]
"""Returns the prediction for a map by the uid of its run, or None where there is none."""

SCRATCH_BYTES = 2**30
"""Largest total size of the predictions in a scratch folder; the oldest ones are deleted.

At its end a survey needs all of its tiles.
"""
_POOLED = ("coverage_90", "low", "high", "effective_pixels")
_WORDS = ("judgement", "recommendation", "warning")
"""Fields of a verdict that are strings."""


class Verification:
    """Remember predictions, and compare each fine map of a predicted region with its prediction.

    Parameters
    ----------
    folder
        Folder of the ledger and the predictions. With None both are kept in memory, and only fine
        maps of the same survey are pooled.
    emit
        Called as ``emit(name, doc)`` with the documents of verification runs.
    recall
        Asked for a prediction that isn't known here. It may read it from stored result documents
        with `maps.result.enhanced_from_documents`.
    scratch
        Folder that takes the place of the memory where there is no `folder`, so that another
        process can go on where this one ended. With None there is none.
    """

    def __init__(
        self,
        folder: str | None = None,
        emit: DocumentSink | None = None,
        recall: Recall | None = None,
        *,
        scratch: str | None = None,
    ) -> None:
        self.ledger = Ledger(folder or scratch)
        if folder is None and scratch is not None:
            self.predictions = Predictions(scratch, SCRATCH_BYTES)
        else:
            self.predictions = Predictions(folder)
        self._pools_surveys = folder is not None
        self._emit = emit
        self._recall = recall

    def __call__(self, analysed: AnalysedMap) -> None:
        """Remember a prediction, or compare a fine map with one; other maps are ignored."""
        if analysed.enhanced is not None:
            self.predictions.keep(prediction_of(analysed))
        elif _is_fine(analysed):
            self._verify(analysed)

    def _verify(self, analysed: AnalysedMap) -> None:
        predicted = self._predicted(analysed.start["xrf_sr"])
        if predicted is None:
            logger.info("fine map %s: nothing was predicted there", analysed.source_uid)
            return
        # Imported here, because it loads much of scipy that a survey without rescans doesn't need.
        from xrf_sr_plans.composite.fine_offset import fine_offset

        assert analysed.maps is not None
        offset = fine_offset(predicted, analysed.maps)
        agreements, reason = {}, ""
        try:
            # A stage that was elsewhere is no fault of the model.
            agreements = compare(predicted, offset.corrected(analysed.maps))
        except AnalysisError as error:
            reason = str(error)
        verified = self._verified(analysed, predicted, offset, agreements, reason)
        for warning in (*verified.notes, verified.overall.warning):
            if warning:
                logger.warning("%s: %s", verified.beamline, warning)
        if self._emit is not None:
            for name, doc in verified.documents():
                self._emit(name, doc)
        # The ledger comes last, so that a full disk doesn't cost the documents.
        self.ledger.append(verified.beamline, predicted.model, verified.entries)

    def _predicted(self, metadata: Mapping[str, Any]) -> EnhancedMaps | None:
        parent = str(metadata["parent_uid"])
        sha256 = (metadata.get("region") or {}).get("model_sha256")
        known = self.predictions.recall(parent, sha256)
        return known if known is not None or self._recall is None else self._recall(parent)

    def _verified(
        self,
        analysed: AnalysedMap,
        predicted: EnhancedMaps,
        offset: FineOffset,
        agreements: Mapping[str, Agreement],
        reason: str,
    ) -> VerifiedMap:
        metadata = analysed.start["xrf_sr"]
        beamline, survey = str(metadata["beamline"]), str(metadata.get("survey_uid") or "")
        history = self.ledger.before(
            beamline,
            predicted.model,
            predicted.factor,
            analysed.end_time,
            analysed.source_uid,
            predicted.sampling,
        )
        if not self._pools_surveys:
            history = [entry for entry in history if entry.survey_uid == survey]
        entries = [
            _entry(analysed, predicted, survey, offset, agreement)
            for agreement in agreements.values()
        ]
        return VerifiedMap(
            analysed, predicted, beamline, offset, agreements, entries, history, reason
        )


@dataclass(frozen=True, eq=False)
class VerifiedMap:
    """One fine map compared with its prediction, and the comparisons that came before."""

    analysed: AnalysedMap
    """The fine map."""
    predicted: EnhancedMaps
    """What had been predicted there."""
    beamline: str
    offset: FineOffset
    """How far from where it was expected the map was flown; the comparison allows for it."""
    agreements: Mapping[str, Agreement]
    """The comparison by element; empty where `reason` says why there is none."""
    entries: Sequence[Entry]
    """What the ledger gets about this map."""
    history: Sequence[Entry]
    """What the ledger knew about the model before this map, in order of time."""
    reason: str
    """Why the maps could not be compared; empty where they were."""

    @property
    def overall(self) -> Verdict:
        """Verdict on the model over all elements, with this map included."""
        return judge([*self.history, *self.entries])

    @property
    def notes(self) -> list[str]:
        """What to tell about where the map was flown; empty where that is as expected."""
        metadata = self.analysed.start["xrf_sr"]
        grid = ScanGrid.from_dict(metadata["grid"])
        stage = "the stage" if metadata.get("placement") is None else "the fine stage"
        here = self.offset.in_words(stage, grid.fast.name, grid.slow.name)
        always = stage_offset([*self.history, *self.entries]) if self.entries else None
        if always is None:
            return [here] if here else []
        mean = f"{always.dx_um:+.2f}, {always.dy_um:+.2f} um (x, y)"
        advice = (
            f"in {always.fine_maps} fine maps of this survey the fine stage was off by {mean} on"
            " average: add that to its offset_um"
        )
        return [text for text in (here, advice) if text]

    def documents(self) -> Documents:
        """Return the documents of the verification run, which has one event per element."""
        time, history = self.analysed.end_time, content_key(self.history)
        facts = [self.analysed.source_uid, self.predicted.model, self.predicted.factor, history]
        uid = str(uuid.uuid5(NAMESPACE, json.dumps(["verification", facts], sort_keys=True)))
        documents: Documents = [("start", self._start(uid, history))]
        rows = [self._row(element) for element in self.agreements]
        if rows:
            keys = {name: _key_of(value) for name, value in rows[0].items()}
            documents += stream_documents(uid, time, STREAM_VERIFICATION, keys, {}, rows)
        stop = {
            "uid": child_uid(uid, "stop"),
            "run_start": uid,
            "time": time,
            "exit_status": "success" if rows else "fail",
            "reason": self.reason,
            "num_events": {STREAM_VERIFICATION: len(rows)} if rows else {},
        }
        return in_order([*documents, ("stop", stop)])

    def _start(self, uid: str, history: str) -> dict[str, Any]:
        metadata = self.analysed.start["xrf_sr"]
        start: dict[str, Any] = {
            "uid": uid,
            "time": self.analysed.end_time,
            "plan_name": PLAN_VERIFICATION,
            "purpose": "verification",
            "original_run_uid": self.analysed.source_uid,
            "parent_uid": metadata["parent_uid"],
            "prediction_uid": str(self.predicted.dataset.attrs.get("result_uid") or ""),
            "beamline": self.beamline,
            "model": self.predicted.model,
            "factor": self.predicted.factor,
            "sampling": self.predicted.sampling,
            "fallback": self.predicted.fallback,
            "complete": self.analysed.complete,
            "offset": self.offset.to_dict(),
            "notes": self.notes,
            "ledger_before": {"entries": len(self.history), "key": history},
            "versions": package_versions(),
            "hints": {},
        }
        if self.entries:
            start["overall"] = self.overall.to_dict()
        if metadata.get("survey_uid") is not None:
            start["survey_uid"] = metadata["survey_uid"]
        return start

    def _row(self, element: str) -> dict[str, Any]:
        verdict = judge([*self.history, *self.entries], element).to_dict()
        pooled = {f"pooled_{name}": verdict[name] for name in _POOLED}
        words = {name: verdict[name] for name in _WORDS}
        return {**self.agreements[element].to_dict(), **pooled, **words}


def prediction_of(analysed: AnalysedMap) -> EnhancedMaps:
    """Return the enhanced map with the attributes that a later comparison needs.

    These are the uids of the map run and of the result run, the dwell time and the beam intensity.
    """
    assert analysed.enhanced is not None
    dataset = analysed.enhanced.dataset.assign_attrs(
        source_uid=analysed.source_uid, result_uid=analysed.result_uid, **analysed.beam
    )
    return EnhancedMaps(dataset, analysed.enhanced.grid)


def _is_fine(analysed: AnalysedMap) -> bool:
    metadata = analysed.start.get("xrf_sr", {})
    follows = metadata.get("purpose") == "fine" and bool(metadata.get("parent_uid"))
    return follows and analysed.maps is not None and bool(analysed.rows_used)


def _entry(
    analysed: AnalysedMap,
    predicted: EnhancedMaps,
    survey_uid: str,
    offset: FineOffset,
    agreement: Agreement,
) -> Entry:
    figures, placement = agreement.to_dict(), analysed.start["xrf_sr"].get("placement")
    known = not offset.measured.problem
    return Entry(
        time=analysed.end_time,
        fine_uid=analysed.source_uid,
        parent_uid=analysed.start["xrf_sr"]["parent_uid"],
        survey_uid=survey_uid,
        factor=predicted.factor,
        sampling=predicted.sampling,
        model=predicted.model["name"],
        model_sha256=predicted.model["sha256"],
        calibration=predicted.model["calibration"],
        stage="" if placement is None else str(placement["fast"]["name"]),
        dx_um=offset.measured.dx_um if known else None,
        dy_um=offset.measured.dy_um if known else None,
        **{name: value for name, value in figures.items() if name in Entry.model_fields},
    )


def _key_of(value: str | float) -> dict[str, Any]:
    return data_key("string" if isinstance(value, str) else "number", [])
