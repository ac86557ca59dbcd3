"""`RoiPicker`: an enhanced map to the regions worth a fine rescan."""

from __future__ import annotations

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import AnalysisRequest


class RoiPicker:
    """Pick regions as the map's request says.

    Raises
    ------
    QueryError
        The request's element query can't be read or names an element that isn't measured.
    """

    def __call__(
        self, enhanced: EnhancedMaps, request: AnalysisRequest, source_uid: str
    ) -> list[Region]:
        """Return regions, best first; none is a normal outcome."""
        # Imported here so that assembling fine maps doesn't load scikit-image.
        from xrf_sr_plans.rois.pick import pick_regions

        return pick_regions(enhanced, request, source_uid=source_uid)
