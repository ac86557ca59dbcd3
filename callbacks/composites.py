"""`Composites`: put the maps of each survey together once it is over, and after later fine maps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xrf_sr_plans.callbacks.composite_run import SurveyAsKnown, composite_documents
from xrf_sr_plans.callbacks.result_run import AnalysedMap
from xrf_sr_plans.errors import FileFormatError, XrfSrError, in_words
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.schema import Documents
from xrf_sr_plans.store.predictions import Predictions
from xrf_sr_plans.store.surveys import KeptFineMap, SurveyEnd, Surveys

if TYPE_CHECKING:
    from xrf_sr_plans.composite.displacement import Displacement

logger = logging.getLogger(__name__)


class Composites:
    """Emit a composite run when a survey is over, and again after each fine map flown later.

    What counts is what had ended by then, whenever it is asked for, so that a replay gets the same
    documents as the live run. Fine maps and ends of surveys are remembered where predictions are,
    and another process can go on where this one ended.

    Parameters
    ----------
    predictions
        The enhanced tiles.
    surveys
        Fine maps and ends of surveys.
    emit
        Called with the documents of each composite run.
    """

    def __init__(
        self, predictions: Predictions, surveys: Surveys, emit: Callable[[Documents], None]
    ) -> None:
        self._predictions = predictions
        self._surveys = surveys
        self._emit = emit
        # What the displacements by uid of the fine map were found with, and these: of one survey.
        self._found_with: list[object] = []
        self._displacements: dict[str, Displacement] = {}

    def __call__(self, analysed: AnalysedMap) -> None:
        """Remember a fine map of a survey; where that was over before, put it together again."""
        metadata = analysed.start.get("xrf_sr", {})
        survey_uid = str(metadata.get("survey_uid") or "")
        if metadata.get("purpose") != "fine" or not survey_uid:
            return
        if analysed.maps is None or not analysed.rows_used:
            return
        fine = KeptFineMap(analysed.source_uid, analysed.end_time, analysed.maps)
        self._displacements.pop(fine.uid, None)
        try:
            self._surveys.keep_fine(survey_uid, fine)
        except OSError as error:
            # It is in memory, so that only another process would miss it.
            logger.error("fine map %s can't be remembered: %s", fine.uid, error)
        end = self._surveys.end_of(survey_uid)
        if end is not None and end.time < fine.time:
            self._put_together(end, fine.uid, fine.order)

    def survey_over(self, end: SurveyEnd) -> Documents:
        """Put a survey together, and return the documents of its run; [] where there is none."""
        try:
            self._surveys.keep_end(end)
        except OSError as error:
            logger.error("the end of survey %s can't be remembered: %s", end.survey_uid, error)
        # Fine maps that end at the same time come before, whatever their uids are.
        return self._put_together(end, end.outcomes_uid, (end.time, chr(0x10FFFF)))

    def _put_together(self, end: SurveyEnd, after_uid: str, until: tuple[float, str]) -> Documents:
        from xrf_sr_plans.composite.compose import FineMap, compose

        tiles, notes = self._tiles(end)
        if not tiles:
            logger.info("survey %s: no enhanced map, so no composite one", end.survey_uid)
            return []
        kept = [fine for fine in self._surveys.fine_maps(end.survey_uid) if fine.order <= until]
        fine_maps = [FineMap(fine.uid, fine.maps) for fine in kept]
        known = SurveyAsKnown(
            end, after_uid, until[0], tiles, [fine.uid for fine in fine_maps], notes
        )
        composite, reason = None, ""
        try:
            composite = compose(
                tiles,
                fine_maps,
                displacements=self._known_displacements(end, tiles),
                further_notes=notes,
                survey_uid=end.survey_uid,
            )
        except XrfSrError as error:
            reason = in_words(error)
            logger.warning("survey %s: no composite map: %s", end.survey_uid, reason)
        documents = composite_documents(known, composite, reason)
        self._emit(documents)
        return documents

    def _known_displacements(
        self, end: SurveyEnd, tiles: Sequence[EnhancedMaps]
    ) -> dict[str, Displacement]:
        """Return those that were found with the same tiles, for others to be added."""
        found_with = [
            end.survey_uid,
            *(
                (str(tile.dataset.attrs["source_uid"]), tile.model, int(tile.estimate.count()))
                for tile in tiles
            ),
        ]
        if found_with != self._found_with:
            self._found_with, self._displacements = found_with, {}
        return self._displacements

    def _tiles(self, end: SurveyEnd) -> tuple[list[EnhancedMaps], list[str]]:
        """Return the enhanced tiles as far as they are known, and what is to be told of them."""
        tiles: list[EnhancedMaps] = []
        notes = [f"the survey ended early: {end.ended_by}"] if end.ended_by else []
        for number, uid in enumerate(end.tiles, start=1):
            problem = "no enhanced map of it is known"
            try:
                tile = self._predictions.recall(uid)
            except FileFormatError as error:
                tile, problem = None, in_words(error)
            if tile is not None:
                tiles.append(tile)
            else:
                notes.append(f"tile {number} of {len(end.tiles)} is missing: {problem}")
        return tiles, notes
