"""`PairRecorder`: store maps that were flown as a pair, and how they are displaced."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrf_sr_plans.callbacks.result_run import AnalysedMap
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.store.pairs import PairStore

logger = logging.getLogger(__name__)


class PairRecorder:
    """Store each map that is part of a pair, and register the pair when its last map comes.

    A map goes to disk as soon as it is assembled, so nothing is lost when the process dies between
    the coarse and the fine map.

    Parameters
    ----------
    folder
        Folder of the `PairStore`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = PairStore(folder)

    def __call__(self, analysed: AnalysedMap) -> None:
        """Store a map, unless it belongs to no pair or nothing of it was measured.

        Raises
        ------
        GridError
            The maps of a pair don't nest, or have different elements.
        OSError
            The disk is full, or writing is not permitted.
        """
        pair = _pair_of(analysed.start)
        if pair is None or analysed.maps is None or not analysed.rows_used:
            return
        uid = str(pair["pair_uid"])
        factor = int(pair["pair_factor"])
        self.store.save_map(uid, int(pair["pair_position"]), factor, analysed.maps)
        maps = self.store.maps(uid)
        if len(maps) < int(pair["pair_maps"]):
            return
        fine = next(stored for stored in maps if stored.factor == 1)
        coarse = [stored for stored in maps if stored.factor != 1]
        displacements = {stored.position: register(stored.maps, fine.maps) for stored in coarse}
        self.store.finish(uid, displacements)
        logger.info("pair %s of %d maps recorded in %s", uid, len(maps), self.store.folder)


def _pair_of(start: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a start document says about the run's pair, or None."""
    metadata = start.get("xrf_sr", {})
    if metadata.get("purpose") not in ("pair_coarse", "pair_fine"):
        return None
    derived = metadata.get("derived_input", {})
    needed = ("pair_uid", "pair_position", "pair_factor", "pair_maps")
    return derived if all(key in derived for key in needed) else None
