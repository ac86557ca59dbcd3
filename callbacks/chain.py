"""`AnalysisChain`: assemble each run's map, enhance it, pick regions, and emit a result run.

The same chain works live in the analysis process, live in a thread, and on replayed runs.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.hdf5_assets import is_large, with_maps_in_file
from xrf_sr_plans.callbacks.map_assembler import MapAssembler, odd_about, seconds
from xrf_sr_plans.callbacks.pace import Pace
from xrf_sr_plans.callbacks.result_run import (
    AnalysedMap,
    preview_documents,
    result_documents,
)
from xrf_sr_plans.callbacks.roi_picker import RoiPicker
from xrf_sr_plans.callbacks.super_resolution import SuperResolution, half_the_patience_s
from xrf_sr_plans.callbacks.survey_choice import SurveyChoice
from xrf_sr_plans.cluster.lanes import Lane
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.row_sums import rows_for
from xrf_sr_plans.maps.run_index import (
    MAX_FOLLOWED_RUNS,
    MAX_OPEN_RUNS,
    RunIndex,
    wants_analysis,
)
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.schema import AnalysisRequest, Documents, DocumentSink, kind_of_run

if TYPE_CHECKING:
    from xrf_sr_plans.callbacks.composites import Composites

logger = logging.getLogger(__name__)

MapConsumer = Callable[[AnalysedMap], None]
"""Takes each map after its result was emitted."""


class AnalysisChain:
    """Analyze every run that asks for it.

    Call it with ``(name, doc)`` for each document of all runs. It never raises: what goes wrong is
    told in the result of the run that it happened to.

    Parameters
    ----------
    settings
        Settings of the analysis; None stands for the built-in values.
    emit
        Called as ``emit(name, doc)`` with each document of a result run.
    finished
        Called with the summary of each run once its documents are emitted. What is told to a plan
        is then in other hands than those of this process, which may be killed at any time.
    preview
        Called with the documents of a preview run, made from a map that is still being measured.
        With None no previews are made.
    backlog
        Returns how many documents are waiting. A preview is made only when there are none.
    fallback_reason
        Why the network must not be used. Maps are then enhanced bicubically, and their results
        give this reason. Empty: the network is used.
    warm_up
        Whether to load what the first map of a kind needs when its run starts, instead of when it
        stops.
    scratch_dir
        Folder in which predictions are remembered where the settings name no ``ledger_dir``, for
        another process that takes over. With None they are kept in memory.
    lane
        Whether samples are in the beam or the maps can wait, where a cluster enhances them.

    Attributes
    ----------
    consumers : list of callable
        Called with each `AnalysedMap` after its result was emitted, such as `Verification` and
        `PairRecorder`. An exception in one of them is logged and affects nothing else.
    """

    def __init__(
        self,
        settings: AnalysisSettings | None = None,
        emit: DocumentSink | None = None,
        finished: Callable[[AnalysisSummary], None] | None = None,
        *,
        preview: Callable[[Documents], None] | None = None,
        backlog: Callable[[], int] = lambda: 0,
        fallback_reason: str = "",
        warm_up: bool = False,
        scratch_dir: str | None = None,
        lane: Lane = "live",
    ) -> None:
        self.settings = settings or AnalysisSettings()
        self.consumers: list[MapConsumer] = []
        self._emit = emit
        self._finished = finished
        self._preview = preview
        self._backlog = backlog
        self._warm_up = warm_up
        self._enhance = SuperResolution(
            self.settings, fallback_reason, self.settings.ledger_dir or scratch_dir, lane
        )
        self._pick = RoiPicker(self.settings.pair_dir)
        self._index = RunIndex(wants_analysis, MAX_FOLLOWED_RUNS)
        # In the order of their latest documents.
        self._runs: OrderedDict[str, MapAssembler | AnalysedMap | _Outcomes] = OrderedDict()
        self._choose = SurveyChoice(pick=self._pick)
        self._pace = Pace()
        self._warmed: set[tuple[int, int]] = set()
        if emit is not None or self.settings.ledger_dir:
            from xrf_sr_plans.callbacks.verification import Verification

            verification = Verification(self.settings.ledger_dir, emit, scratch=scratch_dir)
            self.consumers.append(verification)
            self._choose = SurveyChoice(verification.predictions.recall, pick=self._pick)
        self._composites: Composites | None = None
        if emit is not None:
            from xrf_sr_plans.callbacks.composites import Composites
            from xrf_sr_plans.store.surveys import Surveys

            folder = self.settings.ledger_dir or scratch_dir
            self._composites = Composites(verification.predictions, Surveys(folder), self._emit_run)
            self.consumers.append(self._composites)
        if self.settings.pair_dir:
            from xrf_sr_plans.callbacks.pair_recorder import PairRecorder

            # The last one, because registering takes seconds.
            self.consumers.append(PairRecorder(self.settings.pair_dir))

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of any run; runs that ask for no analysis are left alone."""
        try:
            run = self._index.run_of(name, doc)
        except Exception:  # one bad document must not cost the other runs
            logger.exception("a %s document was not understood", name)
            return
        if run is not None:
            self.take(run, name, doc)

    def take(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of the run with that uid, which asks for analysis.

        What goes wrong ends up in the summary of that run. A run whose stop document does not come
        is let go once `MAX_OPEN_RUNS` others have had documents after it, which is logged.
        """
        try:
            if name == "start":
                self._begin(run, doc)
            elif run in self._runs:
                self._runs.move_to_end(run)
                if isinstance(assembler := self._runs[run], MapAssembler):
                    assembler(name, doc)
        except Exception:  # one bad document must not cost the other runs
            logger.exception("a %s document of run %s was not understood", name, run)
        if name == "stop":
            self._end(run, doc)

    def forget(self, run: str) -> None:
        """Let go of what is known of a run, since its result is not needed any more."""
        self._runs.pop(run, None)

    def _begin(self, uid: str, start: Mapping[str, Any]) -> None:
        self._runs.pop(uid, None)
        while len(self._runs) >= MAX_OPEN_RUNS:
            left, _ = self._runs.popitem(last=False)
            logger.warning(
                "run %s is let go by the analysis: its stop document has not come and "
                "%d other runs have started",
                left,
                MAX_OPEN_RUNS,
            )
        if kind_of_run(start) == "outcomes":
            self._runs[uid] = _Outcomes(start)
            return
        try:
            run = MapAssembler(start, self._on_rows, self._on_stop)
        except Exception as error:  # noqa: BLE001 - recorded as this run's failure at its stop
            self._runs[uid] = _failed(start, in_words(error))
            return
        self._runs[uid] = run
        self._pace.new_run()
        if self._warm_up and run.request.enhance and not self._backlog():
            self._warm(run)

    def _warm(self, run: MapAssembler) -> None:
        """Load libraries and weights by enhancing a small flat map of the same kind."""
        elements, factor = run.builder.elements, run.request.factor
        if (len(elements), factor) in self._warmed:
            return
        self._warmed.add((len(elements), factor))
        grid = ScanGrid.from_start_stop(0, 15, 16, 0, 15, 16)
        flat = ElementalMaps.from_arrays(np.ones((len(elements), 16, 16)), grid, elements)
        try:
            enhanced = self._enhance.warm_up(flat, run.request, survey_of(run.start))
            self._pick(enhanced, run.request, "", flat)
        except Exception as error:  # noqa: BLE001 - the map itself will fail likewise and tell why
            logger.info("warming up: %s", error)

    def _end(self, uid: str, stop: Mapping[str, Any]) -> None:
        run = self._runs.pop(uid, None)
        if isinstance(run, AnalysedMap):
            self._publish(run, time.perf_counter())
        elif isinstance(run, _Outcomes):
            self._survey_over(run.start, stop)
        elif run is not None and not run.published:
            self._publish(_failed(run.start, "its stop document was not understood"), 0.0)

    def _on_rows(self, run: MapAssembler) -> None:
        self._pace.row()
        every = run.request.preview_every_rows
        rows = run.builder.rows_received
        if self._preview is None or not run.request.enhance or not every or rows % every:
            return
        # The final result must never have to wait for a preview.
        if self._backlog() or not self._pace.leaves_time(run.builder.grid.slow.num - rows):
            logger.info("preview of run %s at row %d left out", run.builder.uid, rows)
            return
        began = time.perf_counter()
        self._preview(preview_documents(self._analyse(run)))
        self._pace.preview_took(time.perf_counter() - began)

    def _on_stop(self, run: MapAssembler) -> None:
        began = time.perf_counter()
        self._publish(self._analyse(run), began)
        run.published = True

    def _analyse(self, run: MapAssembler) -> AnalysedMap:
        builder, request = run.builder, run.request
        enhanced: EnhancedMaps | None = None
        regions: list[Region] = []
        maps, reason, remark = None, "", ""
        forecast: dict[str, float] | None = None
        rows_used: list[int] = []
        notes = list(run.notes)
        try:
            maps, rows_used = builder.maps(), builder.rows_used
            notes += odd_about(builder)
            if not (builder.coverage > 0).any():
                reason = "; ".join(["no pixel was measured", *notes])
            elif request.enhance:
                began = time.perf_counter()
                maps, as_flown = rows_for(maps, request.factor), maps
                if maps is not as_flown:
                    notes.append(f"pixels of rows were summed for factor {request.factor}")
                wait_s = half_the_patience_s(run.start)
                made = self._enhance(maps, request, survey_of(run.start), wait_s)
                enhanced, remark = made.maps, made.remark
                notes += enhanced.dataset.attrs.get("data_notes", ())
                halfway = time.perf_counter()
                picking = request.model_copy(update={"rescans": run.rescans})
                picked = self._pick(enhanced, picking, builder.uid, maps)
                regions = list(picked.regions)
                notes += picked.notes
                forecast = picked.forecast.to_dict() if picked.forecast else None
                logger.info(
                    "run %s: enhanced in %.3f s, %d regions picked in %.3f s",
                    builder.uid,
                    halfway - began,
                    len(regions),
                    time.perf_counter() - halfway,
                )
            else:
                notes += usable_counts_of(maps).notes
        except Exception as error:  # the survey is told, and goes on
            logger.info("analysis of run %s failed", builder.uid, exc_info=True)
            reason = in_words(error)
        return AnalysedMap(
            run.start,
            run.end_time,
            request,
            maps,
            rows_used,
            enhanced,
            regions,
            reason,
            notes,
            forecast,
            run.rescans,
            remark,
        )

    def _publish(self, analysed: AnalysedMap, began: float) -> None:
        documents = result_documents(analysed)
        self._emit_run(documents)
        if self._finished is not None:
            self._finished(analysed.summary(documents, time.perf_counter() - began))
        for consumer in self.consumers:
            try:
                consumer(analysed)
            except Exception:  # a full disk or a bug there must not affect the others
                logger.exception("%s failed at run %s", consumer, analysed.source_uid)
        self._publish_choice(analysed)

    def _publish_choice(self, analysed: AnalysedMap) -> None:
        """Choose the regions of a survey of several tiles once its last tile is in."""
        chosen = self._choose(analysed)
        if chosen is None:
            return
        documents = chosen.documents()
        self._emit_run(documents)
        if self._finished is not None:
            self._finished(chosen.summary(documents))

    def _survey_over(self, start: Mapping[str, Any], stop: Mapping[str, Any]) -> None:
        """Put the maps of a survey together, and tell of it like of the result of a map."""
        began, reason, documents = time.perf_counter(), "", []
        uid = str(start["uid"])
        try:
            if self._composites is not None:
                from xrf_sr_plans.store.surveys import SurveyEnd

                end = SurveyEnd.of(start, seconds(stop, seconds(start, 0.0)))
                documents = self._composites.survey_over(end)
        except Exception as error:  # the maps themselves are safe, and the next run comes
            logger.exception("the maps of the survey of run %s are not put together", uid)
            reason = in_words(error)
        if self._finished is not None:
            self._finished(
                AnalysisSummary(
                    source_uid=uid,
                    result_uid=documents[0][1]["uid"] if documents else "",
                    status="failed" if reason else "done",
                    reason=reason,
                    regions=(),
                    digest=digest(documents) if documents else "",
                    elapsed_s=time.perf_counter() - began,
                )
            )

    def _emit_run(self, documents: Documents) -> None:
        if self._emit is not None:
            for name, doc in self._with_large_maps_in_file(documents):
                self._emit(name, doc)

    def _with_large_maps_in_file(self, documents: Documents) -> Documents:
        folder = self.settings.result_dir
        if folder is None or not is_large(documents):
            return documents
        try:
            return with_maps_in_file(documents, folder)
        except OSError as error:
            logger.error("result stays in its documents: %s", error)
            return documents


@dataclass(frozen=True)
class _Outcomes:
    """The run of a survey's outcomes, which says at its end that the survey is over."""

    start: Mapping[str, Any]


def survey_of(start: Mapping[str, Any]) -> str:
    """Return the uid of the survey that a map belongs to; "" where it is a map on its own."""
    metadata = start.get("xrf_sr")
    return str(metadata.get("survey_uid") or "") if isinstance(metadata, Mapping) else ""


def _failed(start: Mapping[str, Any], reason: str) -> AnalysedMap:
    request = AnalysisRequest(enhance=False)
    return AnalysedMap(start, seconds(start, 0.0), request, None, [], reason=reason)
