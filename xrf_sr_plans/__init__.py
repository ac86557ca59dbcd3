"""Survey an XRF sample coarsely, super-resolve it with honest error bars, rescan what matters.

The public names are loaded when they are first used, so that importing this package imports
neither torch nor tiled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name is defined.
_HOMES = {
    "AnalysisSettings": "xrf_sr_plans.config",
    "Beamline": "xrf_sr_plans.devices.protocols",
    "ElementalMaps": "xrf_sr_plans.maps.elemental",
    "EnhancedMaps": "xrf_sr_plans.maps.elemental",
    "Region": "xrf_sr_plans.maps.region",
    "ScanGrid": "xrf_sr_plans.maps.grid",
    "coarse_survey_with_sr": "xrf_sr_plans.plans.survey",
    "design_survey": "xrf_sr_plans.plans.survey_design",
    "enhance": "xrf_sr_plans.sr.predict",
    "preview": "xrf_sr_plans.plans.preview",
    "replay": "xrf_sr_plans.callbacks.replay",
    "start_session": "xrf_sr_plans.session",
}
__all__ = [
    "AnalysisSettings",
    "Beamline",
    "ElementalMaps",
    "EnhancedMaps",
    "Region",
    "ScanGrid",
    "__version__",
    "coarse_survey_with_sr",
    "design_survey",
    "enhance",
    "preview",
    "replay",
    "start_session",
]

if TYPE_CHECKING:
    __version__: str
    from xrf_sr_plans.callbacks.replay import replay as replay
    from xrf_sr_plans.config import AnalysisSettings as AnalysisSettings
    from xrf_sr_plans.devices.protocols import Beamline as Beamline
    from xrf_sr_plans.maps.elemental import ElementalMaps as ElementalMaps
    from xrf_sr_plans.maps.elemental import EnhancedMaps as EnhancedMaps
    from xrf_sr_plans.maps.grid import ScanGrid as ScanGrid
    from xrf_sr_plans.maps.region import Region as Region
    from xrf_sr_plans.plans.preview import preview as preview
    from xrf_sr_plans.plans.survey import coarse_survey_with_sr as coarse_survey_with_sr
    from xrf_sr_plans.plans.survey_design import design_survey as design_survey
    from xrf_sr_plans.session import start_session as start_session
    from xrf_sr_plans.sr.predict import enhance as enhance


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _installed_version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'xrf_sr_plans' has no attribute {name!r}")


def _installed_version() -> str:
    """Return the version that was installed, which the build took from the git tag."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("xrf-sr-plans")
    except PackageNotFoundError:  # a source tree on PYTHONPATH
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
