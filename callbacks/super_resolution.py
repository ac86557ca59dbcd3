"""`SuperResolution`: enhance a measured map with the network, or bicubically where that fails."""

from __future__ import annotations

import logging

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.schema import AnalysisRequest

logger = logging.getLogger(__name__)


class SuperResolution:
    """Enhance maps with the network, and bicubically where that can't be done.

    Parameters
    ----------
    settings
        Settings of the analysis, of which the model and the device are used.
    fallback_reason
        Why the network must not be tried. Empty: it is tried.
    """

    def __init__(self, settings: AnalysisSettings, fallback_reason: str = "") -> None:
        self._settings = settings
        self._fallback_reason = fallback_reason

    def __call__(self, maps: ElementalMaps, request: AnalysisRequest) -> EnhancedMaps:
        """Return the enhanced map.

        Where it is bicubic, its attribute `fallback` says why.
        """
        reason = self._fallback_reason
        if not reason:
            try:
                return self._network(maps, request)
            except Exception as error:  # a bicubic map is better than none, whatever happened
                # Not a warning: whoever waits for the result warns of it, once, with the reason.
                logger.info("the network failed, the map becomes bicubic", exc_info=True)
                reason = in_words(error)
        from xrf_sr_plans.sr.bicubic import enhance_bicubic

        return enhance_bicubic(maps, request.factor, reason)

    def _network(self, maps: ElementalMaps, request: AnalysisRequest) -> EnhancedMaps:
        from xrf_sr_plans.sr.predict import enhance_maps

        settings = self._settings
        return enhance_maps(maps, request.factor, model=settings.model, device=settings.device)
