"""`SurveyChoice`: choose the regions of a survey on all of its tiles as one map.

An object on the border of two tiles is one object there, thresholds are those of the whole survey,
and the beam time goes to the best places of all tiles. The choice becomes a run of its own, whose
documents follow from the tiles' results, so that a replay of all tiles gives the same one.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.result_run import (
    NAMESPACE,
    AnalysedMap,
    child_uid,
    in_order,
    package_versions,
    region_documents,
)
from xrf_sr_plans.callbacks.roi_picker import RoiPicker
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.mosaic import mosaic
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import PLAN_CHOICE, STREAM_REGIONS, Documents

logger = logging.getLogger(__name__)

MOST_BYTES = 2**30
"""Largest size of the tiles that are kept in memory; the oldest are then asked for again."""

Recall = Callable[[str], EnhancedMaps | None]
"""Returns the enhanced map of a tile by the uid of its run, or None where it isn't at hand."""


@dataclass(frozen=True, eq=False)
class ChosenRegions:
    """The regions of a survey, or the reason why they could not be chosen on all tiles at once."""

    survey_uid: str
    last: AnalysedMap
    """The survey's last tile."""
    tile_uids: Sequence[str]
    """Uids of the tiles' runs in the order of flight."""
    whole: EnhancedMaps | None = None
    """All tiles as one map; None where there is none."""
    regions: Sequence[Region] = ()
    notes: Sequence[str] = ()
    """What a user must know of the choice."""
    forecast: Mapping[str, float] | None = None
    reason: str = ""
    """Why there is no choice; empty where there is one."""

    @property
    def uid(self) -> str:
        """Uid of the run of the choice, which follows from the tiles' results."""
        facts = [self.last.result_uid, list(self.tile_uids), self.status]
        return str(uuid.uuid5(NAMESPACE, json.dumps(["choice", facts])))

    @property
    def status(self) -> Literal["done", "failed"]:
        """Status that the analysis device reports for the survey.

        Which tiles are bicubic is told with them, once, and in the documents of the choice.
        """
        return "failed" if self.whole is None else "done"

    def documents(self) -> Documents:
        """Return the run of the choice, or [] where there is none."""
        if self.whole is None:
            return []
        time = self.last.end_time
        start: dict[str, Any] = {
            "uid": self.uid,
            "time": time,
            "plan_name": PLAN_CHOICE,
            "purpose": "choice",
            "original_run_uid": self.last.source_uid,
            "survey_uid": self.survey_uid,
            "tiles": list(self.tile_uids),
            "grid": self.whole.grid.to_dict(),
            "elements": self.whole.elements,
            "model": self.whole.model,
            "fallback": self.whole.fallback,
            "settings": self.last.request.model_dump(mode="json"),
            "notes": list(self.notes),
            "versions": package_versions(),
            "hints": {},
        }
        if self.forecast is not None:
            start["forecast"] = dict(self.forecast)
        regions = region_documents(self.uid, time, self.regions)
        stop = {
            "uid": child_uid(self.uid, "stop"),
            "run_start": self.uid,
            "time": time,
            "exit_status": "success",
            "reason": "; ".join(self.notes),
            "num_events": {STREAM_REGIONS: len(self.regions)} if self.regions else {},
        }
        return in_order([("start", start), *regions, ("stop", stop)])

    def summary(self, documents: Documents) -> AnalysisSummary:
        """Return what a plan is told that asks for the survey by its uid."""
        told = self.notes if self.whole is not None else [self.reason]
        return AnalysisSummary(
            source_uid=self.survey_uid,
            result_uid=self.uid if documents else "",
            status=self.status,
            reason="; ".join(told),
            regions=tuple(self.regions),
            model=self.whole.model if self.whole is not None else {},
            digest=digest(documents) if documents else "",
        )


class SurveyChoice:
    """Remember the tiles of the survey that is being flown, and choose once the last one is in.

    Parameters
    ----------
    recall
        Asked for a tile that isn't in memory, as after a restart of this process. None: only what
        is in memory counts.
    most_bytes
        Largest size of the tiles that are kept in memory.
    pick
        Picks the regions of all tiles as one map; None: a picker that knows no pair store.
    """

    def __init__(
        self,
        recall: Recall | None = None,
        most_bytes: int = MOST_BYTES,
        *,
        pick: RoiPicker | None = None,
    ) -> None:
        self._recall = recall or (lambda uid: None)
        self._most_bytes = most_bytes
        self._pick = pick or RoiPicker()
        self._survey_uid = ""
        # None: the tile has no enhanced map, as where none of its pixels was measured.
        self._tiles: dict[str, EnhancedMaps | None] = {}
        # Photons per coarse pixel (element, y, x), where areas for pairs are to be chosen.
        self._counts: dict[str, np.ndarray] = {}

    def __call__(self, analysed: AnalysedMap) -> ChosenRegions | None:
        """Take a map, and return the choice where it is the last of several tiles of a survey."""
        metadata = analysed.start.get("xrf_sr") or {}
        tile, survey_uid = metadata.get("tile") or {}, str(metadata.get("survey_uid") or "")
        if not analysed.request.enhance or not survey_uid or tile.get("of", 1) < 2:
            return None
        self._keep(survey_uid, analysed)
        if tile["index"] < tile["of"] - 1:
            return None
        uids = [*tile.get("earlier", ()), analysed.source_uid]
        chosen = ChosenRegions(survey_uid, analysed, uids)
        try:
            return self._chosen(chosen, tile["of"])
        except Exception as error:  # the survey then chooses among the tiles' own regions
            logger.info("choice of survey %s failed", survey_uid, exc_info=True)
            return replace(chosen, reason=in_words(error))
        finally:
            self._clear()

    def _clear(self) -> None:
        self._tiles.clear()
        self._counts.clear()

    def _keep(self, survey_uid: str, analysed: AnalysedMap) -> None:
        if survey_uid != self._survey_uid:
            self._survey_uid = survey_uid
            self._clear()
        # Imported here, because it loads SciPy and scikit-image, which chains of maps that are only
        # assembled don't need.
        from xrf_sr_plans.callbacks.verification import prediction_of
        from xrf_sr_plans.store.predictions import rounded

        # As it is remembered for another process, which has to choose the same.
        enhanced = None if analysed.enhanced is None else rounded(prediction_of(analysed))
        self._tiles[analysed.source_uid] = enhanced
        if analysed.request.pair_areas is not None and analysed.maps is not None:
            from xrf_sr_plans.rois.area_content import coarse_counts

            self._counts[analysed.source_uid] = coarse_counts(analysed.maps)
        sizes = {uid: kept.dataset.nbytes if kept else 0 for uid, kept in self._tiles.items()}
        excess = sum(sizes.values()) - self._most_bytes
        for uid, size in sizes.items():
            if excess > 0 and size and uid != analysed.source_uid:
                del self._tiles[uid]
                excess -= size

    def _chosen(self, chosen: ChosenRegions, of: int) -> ChosenRegions:
        tiles, without, missing = [], 0, of - len(chosen.tile_uids)
        for uid in chosen.tile_uids:
            tile = self._tiles[uid] if uid in self._tiles else self._recall(uid)
            if tile is not None:
                tiles.append(tile)
            elif uid in self._tiles:
                without += 1
            else:
                missing += 1
        if missing or not tiles:
            return replace(chosen, reason=f"{missing or without} of {of} tiles are not at hand")
        whole = mosaic(tiles)
        last = chosen.last
        request = last.request.model_copy(update={"rescans": last.rescans})
        picked = self._pick(whole, request, last.source_uid, self._counted(whole, tiles))
        regions = [_from_its_tile(region, tiles) for region in picked.regions]
        notes = [f"{without} of {of} tiles have no enhanced map"] if without else []
        if request.pair_areas is not None and len(self._counts) < len(tiles):
            # They are in no file, and a process that is killed takes them with it.
            lost = len(tiles) - len(self._counts)
            notes.append(f"no areas for pairs in {lost} of {of} tiles: their counts are lost")
        forecast = picked.forecast.to_dict() if picked.forecast else None
        return replace(
            chosen, whole=whole, regions=regions, notes=[*notes, *picked.notes], forecast=forecast
        )

    def _counted(self, whole: EnhancedMaps, tiles: Sequence[EnhancedMaps]) -> np.ndarray:
        """Return the photons per coarse pixel of all tiles (element, y, x), NaN where unknown."""
        rows, columns = (num // whole.factor for num in whole.grid.shape)
        counts = np.full((len(whole.elements), rows, columns), np.nan)
        for tile in tiles:
            own = self._counts.get(str(tile.dataset.attrs["source_uid"]))
            if own is None:
                continue
            y, x = (
                round((inner.low_um - outer.low_um) / (inner.step_um * whole.factor))
                for inner, outer in (
                    (tile.grid.slow, whole.grid.slow),
                    (tile.grid.fast, whole.grid.fast),
                )
            )
            counts[:, y : y + own.shape[1], x : x + own.shape[2]] = own
        return counts


def _from_its_tile(region: Region, tiles: Sequence[EnhancedMaps]) -> Region:
    """Return a region with the uid of the tile's run that holds most of it."""
    best = max(tiles, key=lambda tile: _shared_um2(region, tile.grid))
    return replace(region, source_uid=str(best.dataset.attrs["source_uid"]))


def _shared_um2(region: Region, grid: ScanGrid) -> float:
    width = min(region.x_high_um, grid.fast.high_um) - max(region.x_low_um, grid.fast.low_um)
    height = min(region.y_high_um, grid.slow.high_um) - max(region.y_low_um, grid.slow.low_um)
    return max(width, 0.0) * max(height, 0.0)
