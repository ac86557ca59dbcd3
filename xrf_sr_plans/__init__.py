"""Survey an XRF sample coarsely, super-resolve it with honest error bars, rescan what matters.

The public names are loaded on first use: importing this package imports neither torch nor tiled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ElementalMaps": "xrf_sr_plans.maps.elemental",
    "EnhancedMaps": "xrf_sr_plans.maps.elemental",
    "Region": "xrf_sr_plans.maps.region",
    "ScanGrid": "xrf_sr_plans.maps.grid",
    "Beamline": "xrf_sr_plans.devices.protocols",
    "enhance": "xrf_sr_plans.sr.predict",
}
__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from xrf_sr_plans.devices.protocols import Beamline as Beamline
    from xrf_sr_plans.maps.elemental import ElementalMaps as ElementalMaps
    from xrf_sr_plans.maps.elemental import EnhancedMaps as EnhancedMaps
    from xrf_sr_plans.maps.grid import ScanGrid as ScanGrid
    from xrf_sr_plans.maps.region import Region as Region
    from xrf_sr_plans.sr.predict import enhance as enhance


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'xrf_sr_plans' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
