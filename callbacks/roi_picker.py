"""`RoiPicker`: choose the regions of an enhanced map that are worth a fine rescan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.schema import AnalysisRequest

if TYPE_CHECKING:
    from xrf_sr_plans.rois.pick import Picked


class RoiPicker:
    """Pick regions as a map's request asks for."""

    def __call__(self, enhanced: EnhancedMaps, request: AnalysisRequest, source_uid: str) -> Picked:
        """Return the regions of a map, best first, of which there may be none, and notes.

        Raises
        ------
        QueryError
            The query of the request can't be read, or it names an element that isn't measured.
        """
        # Imported here, so that scikit-image isn't loaded where fine maps are only assembled.
        from xrf_sr_plans.rois.pick import pick_regions

        return pick_regions(enhanced, request, source_uid=source_uid)
