"""`StoredContents`: what the areas of the stored pairs hold, each read once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.errors import XrfSrError, in_words

if TYPE_CHECKING:
    from xrf_sr_plans.rois.pair_areas import KnownContents
    from xrf_sr_plans.store.pairs import PairStore
    from xrf_sr_plans.store.pairs.pair_log import MapAdded

logger = logging.getLogger(__name__)

MOST_MAPS = 500
"""So many coarse maps are compared at most, those of the latest pairs."""


class StoredContents:
    """The contents of the coarse maps of a pair store.

    Parameters
    ----------
    folder
        Folder of the `PairStore`; None: there is none.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._folder = folder
        self._store: PairStore | None = None
        self._version = ""
        self._known: KnownContents | None = None
        # By what was measured, so that each file is read once.
        self._numbers: dict[str, np.ndarray] = {}

    def known(self) -> KnownContents:
        """Return what the store has of usable pairs; where it can't be read, the note says so."""
        from xrf_sr_plans.rois.pair_areas import KnownContents

        if self._folder is None:
            return KnownContents(
                note="no pair store to compare with: areas are compared with each other"
            )
        try:
            return self._read(self._folder)
        except (XrfSrError, OSError, ValueError) as error:
            logger.warning("the pair store isn't compared with: %s", in_words(error))
            reason = f"the pair store can't be read: {in_words(error)}"
            return KnownContents(note=f"{reason}; areas are compared with each other")

    def _read(self, folder: str | Path) -> KnownContents:
        from xrf_sr_plans.rois.pair_areas import KnownContents
        from xrf_sr_plans.store.pairs import PairStore

        store = self._store = self._store or PairStore(folder)
        version = store.version
        if self._known is not None and version == self._version:
            return self._known
        pairs = [known for known in store.known_pairs() if not known.problem]
        pairs.sort(key=lambda known: known.record.time)
        maps = [one for known in pairs for one in known.coarse]
        compared = maps[-MOST_MAPS:]
        contents = [self._content(store, one) for one in compared]
        of = "" if len(compared) == len(maps) else f" the latest {len(compared)} of"
        note = f"compared with{of} {len(maps)} coarse maps of {len(pairs)} pairs, store {version}"
        known = KnownContents(np.stack(contents), note) if contents else KnownContents(note=note)
        self._version, self._known = version, known
        return known

    def _content(self, store: PairStore, one: MapAdded) -> np.ndarray:
        if one.content not in self._numbers:
            from xrf_sr_plans.rois.area_content import coarse_counts, content_of
            from xrf_sr_plans.store.pairs.map_file import read_map

            maps = read_map(store.folder, one.file)
            self._numbers[one.content] = content_of(coarse_counts(maps)).numbers
        return self._numbers[one.content]
