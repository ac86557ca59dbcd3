"""`SuperResolution`: a measured map to an enhanced one; always an answer, and why it is which."""

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
        Which model, on which device.
    fallback_reason
        Not empty: don't even try the network, and say so.
    """

    def __init__(self, settings: AnalysisSettings, fallback_reason: str = "") -> None:
        self._settings = settings
        self._fallback_reason = fallback_reason

    def __call__(self, maps: ElementalMaps, request: AnalysisRequest) -> EnhancedMaps:
        """Return the enhanced map; its attribute `fallback` says why the model was not used."""
        reason = self._fallback_reason
        if not reason:
            try:
                return self._network(maps, request)
            except Exception as error:  # whatever it is, a bicubic map is better
                logger.warning("bicubic because the network failed", exc_info=True)
                reason = in_words(error)
        from xrf_sr_plans.sr.bicubic import enhance_bicubic

        return enhance_bicubic(maps, request.factor, reason)

    def _network(self, maps: ElementalMaps, request: AnalysisRequest) -> EnhancedMaps:
        from xrf_sr_plans.sr.predict import enhance_maps

        settings = self._settings
        return enhance_maps(maps, request.factor, model=settings.model, device=settings.device)
