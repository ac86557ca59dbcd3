"""`RoiPicker`: choose the regions of an enhanced map that are worth a fine rescan, or a pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.callbacks.known_contents import StoredContents
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.schema import AnalysisRequest

if TYPE_CHECKING:
    from xrf_sr_plans.rois.pick import Picked


class RoiPicker:
    """Pick regions as a map's request asks for.

    Parameters
    ----------
    pair_dir
        Folder of the pair store, with which areas for pairs are compared; None: there is none.
    """

    def __init__(self, pair_dir: str | Path | None = None) -> None:
        self._stored = StoredContents(pair_dir)

    def __call__(
        self,
        enhanced: EnhancedMaps,
        request: AnalysisRequest,
        source_uid: str,
        measured: ElementalMaps | np.ndarray,
    ) -> Picked:
        """Return the regions of a map, best first, of which there may be none, and notes.

        Parameters
        ----------
        enhanced
            The map.
        request
            What is asked for.
        source_uid
            Uid of the run of the coarse map.
        measured
            What was measured of the map, or that in photons per coarse pixel (element, y, x). It
            counts where areas for pairs are asked for.

        Raises
        ------
        QueryError
            The query of the request can't be read, or it names an element that isn't measured.
        """
        # Imported here, so that scikit-image isn't loaded where fine maps are only assembled.
        from xrf_sr_plans.rois.pick import pick_regions

        if request.pair_areas is None:
            return pick_regions(enhanced, request, source_uid=source_uid)
        from xrf_sr_plans.rois.area_content import coarse_counts
        from xrf_sr_plans.rois.pair_areas import KnownContents, choose_pair_areas

        counts = coarse_counts(measured) if isinstance(measured, ElementalMaps) else measured
        by_contents = request.pair_areas.by == "least represented"
        known = self._stored.known() if by_contents else KnownContents()
        return choose_pair_areas(enhanced, counts, request, known, source_uid=source_uid)
