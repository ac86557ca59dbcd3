"""`SuperResolution`: enhance a measured map on a cluster, with the network here, or bicubically."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xrf_sr_plans.callbacks.pinned_model import PinnedModel
from xrf_sr_plans.cluster.connection import ENHANCED_HERE, address_of, inside_a_task
from xrf_sr_plans.cluster.device_lock import device_of_worker
from xrf_sr_plans.cluster.lanes import Lane
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import XrfSrError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.schema import AnalysisRequest

if TYPE_CHECKING:
    from xrf_sr_plans.cluster.remote_enhancing import RemoteEnhancing

logger = logging.getLogger(__name__)


class Enhancement(NamedTuple):
    """An enhanced map, and what was unusual about where it was made."""

    maps: EnhancedMaps
    remark: str = ""
    """Why it was not enhanced on the cluster; empty where it was, or where there is none."""


class SuperResolution:
    """Enhance maps on a cluster if there is one, else with the network here, else bicubically.

    Parameters
    ----------
    settings
        Settings of the analysis, of which model, device, threads and cluster are used.
    fallback_reason
        Why the network must not be tried. Empty: it is tried.
    folder
        Folder in which it is remembered which model a survey has; see `PinnedModel`.
    lane
        What the maps are for, where a cluster enhances them.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        fallback_reason: str = "",
        folder: str | None = None,
        lane: Lane = "live",
    ) -> None:
        self._settings = settings
        self._fallback_reason = fallback_reason
        self._model = PinnedModel(settings.model, folder)
        self._lane: Lane = lane

    def __call__(
        self,
        maps: ElementalMaps,
        request: AnalysisRequest,
        survey_uid: str = "",
        wait_s: float | None = None,
    ) -> Enhancement:
        """Return the enhanced map.

        All maps of the survey with that uid are enhanced with one model. Where the result is
        bicubic, its attribute `fallback` says why. The cluster is waited for `wait_s` seconds at
        most, where that is less than the settings say.
        """
        remark = ""
        if self._has_cluster:
            try:
                return Enhancement(self._there(maps, request, survey_uid, wait_s))
            except Exception as error:  # it is tried here, whatever happened there
                # Not a warning: whoever waits for the result warns of it, as of a bicubic map.
                why = in_words(error)
                told = not isinstance(error, XrfSrError)
                logger.info("not enhanced on the cluster: %s", why, exc_info=told)
                remark = f"{ENHANCED_HERE}{why}"
        return Enhancement(self._here(maps, request, survey_uid), remark)

    def warm_up(
        self, maps: ElementalMaps, request: AnalysisRequest, survey_uid: str = ""
    ) -> EnhancedMaps:
        """Load what maps of that kind need; on the cluster too, which is not waited for."""
        if self._has_cluster:
            self._remote().warm_up(maps, request.factor, self._weights(survey_uid))
        return self._here(maps, request, survey_uid)

    @property
    def _has_cluster(self) -> bool:
        # A replay that is itself a task is where its maps are enhanced.
        return self._settings.dask is not None and not self._fallback_reason and not inside_a_task()

    def _there(
        self, maps: ElementalMaps, request: AnalysisRequest, survey_uid: str, wait_s: float | None
    ) -> EnhancedMaps:
        return self._remote()(maps, request.factor, self._weights(survey_uid), wait_s)

    def _remote(self) -> RemoteEnhancing:
        from xrf_sr_plans.cluster.remote_enhancing import enhancing_on

        where, settings = address_of(self._settings), self._settings
        assert where is not None
        return enhancing_on(where, self._lane, settings.threads, settings.dask_timeout_s)

    def _weights(self, survey_uid: str) -> Path:
        from xrf_sr_plans.sr.registry import model_path

        return model_path(self._model(survey_uid))

    def _here(self, maps: ElementalMaps, request: AnalysisRequest, survey_uid: str) -> EnhancedMaps:
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

        model, device = self._model(survey_uid), self._settings.device
        with device_of_worker(self._lane):
            return enhance_maps(maps, request.factor, model=model, device=device)


def half_the_patience_s(start: Mapping[str, Any]) -> float | None:
    """Return half of how long a map's survey waits for its result; None where it doesn't say.

    The other half is left for the map to be enhanced here.
    """
    told: Any = start
    for key in ("xrf_sr", "user_input", "analysis_timeout_s"):
        told = told.get(key) if isinstance(told, Mapping) else None
    return told / 2 if isinstance(told, int | float) and told > 0 else None
