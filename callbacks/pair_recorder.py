"""`PairRecorder`: maps flown as a pair to the pair store, registered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrf_sr_plans.callbacks.result_run import AnalysedMap
from xrf_sr_plans.metrics.registration import register
from xrf_sr_plans.store.pairs import PairStore, StoredMap

logger = logging.getLogger(__name__)


class PairRecorder:
    """Take each map that is part of a pair; with the last one, register and finish the pair.

    Every map goes to disk as soon as it is assembled, so nothing is lost when this process dies
    between the coarse and the fine map.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = PairStore(folder)

    def __call__(self, analysed: AnalysedMap) -> None:
        """Record a map; maps that belong to no pair are left alone."""
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
        self.store.finish(uid, {m.position: _registered(m, fine) for m in maps if m.factor != 1})
        logger.info("pair %s of %d maps recorded in %s", uid, len(maps), self.store.folder)


def _registered(coarse: StoredMap, fine: StoredMap) -> dict[str, Any]:
    return dict(register(coarse.maps, fine.maps).to_dict())


def _pair_of(start: Mapping[str, Any]) -> Mapping[str, Any] | None:
    metadata = start.get("xrf_sr", {})
    if metadata.get("purpose") not in ("pair_coarse", "pair_fine"):
        return None
    derived = metadata.get("derived_input", {})
    needed = ("pair_uid", "pair_position", "pair_factor", "pair_maps")
    return derived if all(key in derived for key in needed) else None
