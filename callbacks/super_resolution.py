"""`SuperResolution`: enhance a measured map with the network, or bicubically where that fails."""

from __future__ import annotations

import logging

from xrf_sr_plans.callbacks.pinned_model import PinnedModel
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
    folder
        Folder in which it is remembered which model a survey has; see `PinnedModel`.
    """

    def __init__(
        self, settings: AnalysisSettings, fallback_reason: str = "", folder: str | None = None
    ) -> None:
        self._settings = settings
        self._fallback_reason = fallback_reason
        self._model = PinnedModel(settings.model, folder)

    def __call__(
        self, maps: ElementalMaps, request: AnalysisRequest, survey_uid: str = ""
    ) -> EnhancedMaps:
        """Return the enhanced map.

        All maps of the survey with that uid are enhanced with one model. Where the result is
        bicubic, its attribute `fallback` says why.
        """
        reason = self._fallback_reason
        if not reason:
            try:
                return self._network(maps, request, survey_uid)
            except Exception as error:  # a bicubic map is better than none, whatever happened
                # Not a warning: whoever waits for the result warns of it, once, with the reason.
                logger.info("the network failed, the map becomes bicubic", exc_info=True)
                reason = in_words(error)
        from xrf_sr_plans.sr.bicubic import enhance_bicubic

        return enhance_bicubic(maps, request.factor, reason)

    def _network(
        self, maps: ElementalMaps, request: AnalysisRequest, survey_uid: str
    ) -> EnhancedMaps:
        from xrf_sr_plans.sr.predict import enhance_maps

        model = self._model(survey_uid)
        return enhance_maps(maps, request.factor, model=model, device=self._settings.device)
