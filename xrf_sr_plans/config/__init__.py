"""Settings: of the beamline, of the analysis and of all else that a session needs, in one file."""

from xrf_sr_plans.config.analysis import AnalysisSettings
from xrf_sr_plans.config.places import folder_flaw
from xrf_sr_plans.config.settings import LogSettings, PageSettings, QueueSettings, Settings

__all__ = [
    "AnalysisSettings",
    "LogSettings",
    "PageSettings",
    "QueueSettings",
    "Settings",
    "folder_flaw",
]
