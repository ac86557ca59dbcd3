"""`LatestSurvey`: the survey that was flown last, to look at from the prompt."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.review.feed import survey_of
from xrf_sr_plans.review.picture import draw_survey
from xrf_sr_plans.review.record import SurveyRecord, read_survey
from xrf_sr_plans.review.report import view_of
from xrf_sr_plans.rois.forecast import Forecast
from xrf_sr_plans.store.exports import comparisons, export_map, format_for

logger = logging.getLogger(__name__)

_OF_A_SURVEY_BEFORE = ("result", "preview", "choice", "verification", "composite", "approvals")
"""Kinds of runs that may come after the next survey has begun."""


class LatestSurvey:
    """Keep the documents of the latest survey in memory, and draw it when asked.

    Subscribe it to the RunEngine, which brings the measured maps, *and* give it to `start_session`
    as a result sink, which brings the enhanced ones::

        latest_survey = LatestSurvey()
        RE.subscribe(latest_survey)
        start_session(RE, beamline, result_sinks=[latest_survey])

    ``print(latest_survey)`` lists the regions and `picture` draws the maps. If the survey was
    started with ``preview_every_rows``, it can be drawn while it is still being flown. An error in
    here is logged and never reaches the scan.
    """

    wants_preview = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._survey_uid = ""
        self._index = RunIndex()
        self._documents: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document of any run."""
        try:
            with self._lock:
                self._take(name, doc)
        except Exception:  # a scan must not end because a picture can't be drawn
            logger.exception("a %s document is missing from the latest survey", name)

    def _take(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            survey_uid = survey_of(doc)
            if not survey_uid:
                return
            if survey_uid != self._survey_uid:
                if schema.kind_of_run(doc) in _OF_A_SURVEY_BEFORE or _is_fine(doc):
                    # A result that came late, or a region that is approved or flown only now.
                    return
                self._survey_uid, self._index, self._documents = survey_uid, RunIndex(), []
        uid = self._index.run_of(name, doc)
        if uid is None:
            return
        if name == "start" and schema.kind_of_run(doc) in ("preview", "composite"):
            self._forget_older(doc)
        self._documents.append((uid, name, doc))

    def _forget_older(self, start: Mapping[str, Any]) -> None:
        # Only the newest preview of a map, and composite map of the survey, is worth its memory.
        kind = schema.kind_of_run(start)
        old = {
            uid
            for uid, name, doc in self._documents
            if name == "start"
            and schema.kind_of_run(doc) == kind
            and (kind == "composite" or doc["original_run_uid"] == start["original_run_uid"])
        }
        self._documents = [kept for kept in self._documents if kept[0] not in old]

    @property
    def record(self) -> SurveyRecord:
        """The maps, predictions and regions in the documents so far."""
        with self._lock:
            documents = [(name, doc) for _, name, doc in self._documents]
        return read_survey(documents)

    def picture(self, path: Path | str = "survey.png") -> Path:
        """Save a picture of the survey as it is now.

        Each element has a row with its coarse map, that without a network, the enhanced map, the
        uncertainty and, where something was rescanned, the composite map with the outlines of
        what was measured finely. The regions are drawn into the others.

        Parameters
        ----------
        path
            Name of the PNG file.

        Returns
        -------
        pathlib.Path
            The file that was written.

        Raises
        ------
        RefusedError
            No survey was flown in this session, or no enhanced map has come in yet.
        """
        record = self._with_enhanced_maps()
        models = sorted({str(maps.model["name"]) for maps in record.enhanced.values()})
        title = f"survey {self._survey_uid[:8]}, enhanced by {', '.join(models)}"
        view = view_of(record, title, [str(verdict) for verdict in record.verdicts])
        return draw_survey(view, path)

    def composite(self) -> CompositeMap:
        """Return one map of the survey as it is now: measured where rescanned, else estimated.

        Raises
        ------
        RefusedError
            No survey was flown in this session, no enhanced map has come in yet, or the tiles
            can't be joined.
        """
        return self._with_enhanced_maps().composite()

    def export(self, path: Path | str = "survey.h5", format: str | None = None) -> Path:
        """Save that map with its error bars for other programs (`store.exports`).

        A NeXus file also says how the fine maps compared with what had been predicted.

        Parameters
        ----------
        path
            File name. The folder must exist, and an existing file is replaced.
        format
            ``nexus``, ``maps``, ``pyxrf`` or ``ome-tiff``; None: what the ending of `path` stands
            for.

        Returns
        -------
        pathlib.Path
            The file that was written.

        Raises
        ------
        RefusedError
            As in `composite`, or there is no such format.
        OSError
            The file can't be written.
        """
        # Refused before the map is made.
        format = format_for(path, format)
        composite = self.composite()
        with self._lock:
            documents = [(name, doc) for _, name, doc in self._documents]
        return export_map(composite, path, format, verification=list(comparisons(documents)))

    def _with_enhanced_maps(self) -> SurveyRecord:
        record = self.record
        if not record.coarse:
            raise RefusedError("no survey was flown in this session; there is nothing to show")
        if not record.enhanced:
            raise RefusedError(
                f"survey {self._survey_uid}: no enhanced map yet (is the analysis running?)"
            )
        return record

    def __str__(self) -> str:
        """Return a list of the regions, numbered as in the picture."""
        record = self.record
        if not record.coarse:
            return "no survey was flown in this session"
        lines = [
            f"survey {self._survey_uid}: {len(record.coarse)} coarse maps,"
            f" {len(record.enhanced)} enhanced, {len(record.regions)} regions,"
            f" {len(record.fine)} fine maps"
        ]
        fallbacks = Counter(maps.fallback for maps in record.enhanced.values() if maps.fallback)
        lines += [
            f"  {count} of {len(record.enhanced)} enhanced maps bicubic only, no model: {reason}"
            for reason, count in fallbacks.items()
        ]
        lines += [f"  {words}" for words in _forecasts(record)]
        verdicts = {verdict.fine_uid: verdict for verdict in record.verdicts}
        for number, region in enumerate(record.regions, start=1):
            lines.append(
                f"  {number}. {region['elements']} x"
                f" {region['x_low_um']:g}..{region['x_high_um']:g}, y {region['y_low_um']:g}.."
                f"{region['y_high_um']:g} um: {region['disposition']}: {region['reason']}"
            )
            if region["run_uid"] in verdicts:
                lines.append(f"     {verdicts[region['run_uid']]}")
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("LatestSurvey(...)" if cycle else str(self))


def _forecasts(record: SurveyRecord) -> Iterator[str]:
    """Yield what the regions were expected to hold, of the survey or else of each map, in words.

    Where no region was proposed, as after an abort before that, there is nothing to tell.
    """
    of_maps = [maps.dataset.attrs.get("forecast") for maps in record.enhanced.values()]
    told = [record.forecast] if record.forecast else of_maps
    for number, facts in enumerate(told, start=1):
        if facts and record.regions:
            which = f"map {number} of {len(told)}: " if len(told) > 1 else ""
            with suppress(KeyError, TypeError, ValueError):
                yield f"{which}{Forecast.from_dict(facts)}"


def _is_fine(start: Mapping[str, Any]) -> bool:
    return schema.kind_of_run(start) == "map" and start["xrf_sr"].get("purpose") == "fine"
