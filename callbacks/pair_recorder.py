"""`PairRecorder`: store the pairs among the maps that are analyzed, with a verdict on each.

A pair is what `acquire_pair` flies, or a rescan and the part of its survey's map that it covers.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrf_sr_plans.callbacks.result_run import NAMESPACE, AnalysedMap
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.store.pairs.complete import complete
from xrf_sr_plans.store.pairs.nested import nested
from xrf_sr_plans.store.pairs.origin import origin_of_run
from xrf_sr_plans.store.pairs.survey_maps import SurveyMaps

logger = logging.getLogger(__name__)


class PairRecorder:
    """Store each map that is part of a pair, and complete the pair when its last map comes.

    A map goes to disk as soon as it is assembled, so nothing is lost when the process dies between
    the coarse and the fine map.

    Parameters
    ----------
    folder
        Folder of the `PairStore`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = PairStore(folder)
        self._surveys = SurveyMaps(Path(folder) / "surveys")

    def __call__(self, analysed: AnalysedMap) -> None:
        """Store a map, unless it belongs to no pair or nothing of it was measured.

        Raises
        ------
        FileFormatError
            The store is damaged.
        OSError
            The disk is full, or writing is not permitted.
        """
        if analysed.maps is None or not analysed.rows_used:
            return
        metadata = analysed.start.get("xrf_sr", {})
        pair = _pair_of(metadata)
        if pair is not None:
            self._map_of_pair(analysed, pair)
        elif metadata.get("purpose") == "fine" and metadata.get("parent_uid"):
            self._rescan(analysed, str(metadata["parent_uid"]))
        elif analysed.request.enhance:
            self._surveys.keep(analysed.maps, origin_of_run(analysed.start))

    def _map_of_pair(self, analysed: AnalysedMap, pair: Mapping[str, Any]) -> None:
        assert analysed.maps is not None
        uid, position = str(pair["pair_uid"]), int(pair["pair_position"])
        origin = origin_of_run(analysed.start)
        self.store.save_map(uid, position, int(pair["pair_factor"]), analysed.maps, origin)
        needed = int(pair["pair_maps"])
        if self.store.waiting().get(uid, needed) >= needed:
            complete(self.store, uid)

    def _rescan(self, analysed: AnalysedMap, parent_uid: str) -> None:
        """Store a rescan with the coarse pixels that it covers as a whole."""
        assert analysed.maps is not None
        known = self._surveys.recall(parent_uid)
        if known is None:
            logger.info("rescan %s: the map of its survey is not known", analysed.source_uid)
            return
        coarse, coarse_origin = known
        names = f"map {parent_uid}", f"rescan {analysed.source_uid}"
        try:
            pair = nested(coarse, analysed.maps, names)
        except ConfigError as error:
            logger.info("no pair: %s", error)
            return
        uid = str(uuid.uuid5(NAMESPACE, f"rescan {parent_uid} {analysed.source_uid}"))
        self.store.save_map(uid, 0, pair.factor, pair.coarse, coarse_origin)
        self.store.save_map(uid, 1, 1, pair.fine, origin_of_run(analysed.start))
        complete(self.store, uid, source="rescan")


def _pair_of(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the metadata of a map say about its pair, or None."""
    if metadata.get("purpose") not in ("pair_coarse", "pair_fine"):
        return None
    derived = metadata.get("derived_input", {})
    needed = ("pair_uid", "pair_position", "pair_factor", "pair_maps")
    return derived if all(key in derived for key in needed) else None
