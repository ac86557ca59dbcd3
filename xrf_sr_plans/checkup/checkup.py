"""`check_settings`: what of the settings is there and fits, before anything moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xrf_sr_plans.checkup.devices import device_findings
from xrf_sr_plans.checkup.findings import CheckReport
from xrf_sr_plans.checkup.services import service_findings
from xrf_sr_plans.config import Settings


def check_settings(
    settings: Settings | str | Path | None = None, registry: Any = None
) -> CheckReport:
    """Look for everything that the settings name, and say what is there and what fits.

    Devices are connected and asked where they are; nothing moves, and nothing is written.

    Parameters
    ----------
    settings
        The file, or settings that were loaded already; with None, the file that the variable
        ``XRF_SR_SETTINGS`` names.
    registry
        Where devices are looked up by name, as in `Beamline.from_settings`.

    Raises
    ------
    ConfigError
        A setting is unknown or not allowed, so that there is nothing to look for.
    """
    loaded = settings if isinstance(settings, Settings) else Settings.load(settings)
    return CheckReport((*device_findings(loaded, registry), *service_findings(loaded)))
