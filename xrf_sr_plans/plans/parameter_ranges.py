"""Which numbers the plans' parameters take.

The plans and `preview` refuse other numbers before anything moves. The queue server refuses them
when an item is submitted, because `bind_plans` tells it the same ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from xrf_sr_plans.errors import BudgetError, ConfigError, GridError, RefusedError
from xrf_sr_plans.ranges import Range

_POSITION_UM = Range(-1e7, 1e7)
_SIZE_UM = Range(1e-4, 1e7)
_STEP_UM = Range(1e-4, 1e5)
_DWELL_MS = Range(1e-4, 3.6e6)
_MARGIN_UM = Range(0.0, 1e7)
_PIXELS = Range(1, 10_000_000, whole=True)

PARAMETER_RANGES: Mapping[str, Range] = MappingProxyType(
    {
        **dict.fromkeys(("x_center_um", "y_center_um"), _POSITION_UM),
        **dict.fromkeys(("x_start_um", "x_stop_um", "y_start_um", "y_stop_um"), _POSITION_UM),
        **dict.fromkeys(("x_num", "y_num"), _PIXELS),
        **dict.fromkeys(("width_um", "height_um", "tile_um", "pair_um"), _SIZE_UM),
        **dict.fromkeys(("step_um", "fine_step_um"), _STEP_UM),
        **dict.fromkeys(
            ("dwell_ms", "fine_dwell_ms", "coarse_dwell_ms", "survey_dwell_ms"), _DWELL_MS
        ),
        **dict.fromkeys(("pad_um", "min_size_um"), _MARGIN_UM),
        "max_regions": Range(1, 1000, whole=True),
        "number": Range(1, 1000, whole=True),
        "preview_every_rows": Range(0, 10_000_000, whole=True),
        "row_attempts": Range(1, 100, whole=True),
        "analysis_timeout_s": Range(1e-3, 86_400.0),
        "approval_timeout_s": Range(1e-3, 604_800.0),
        "budget_s": Range(0.0, 1e8),
        "time_s": Range(1e-3, 1e8),
        "counts_per_s": Range(1e-3, 1e12),
        "max_dose": Range(0.0, 1e40),
    }
)
"""By name of the parameter. They are so wide that only slips of the pen lie outside: a stage of
20 m, a pixel of an ångström, an hour at a pixel. What a beamline allows is checked besides."""

_KINDS: Mapping[str, type[RefusedError]] = {
    **dict.fromkeys(("budget_s", "time_s", "max_dose"), BudgetError),
    **dict.fromkeys(
        (
            "pad_um",
            "min_size_um",
            "max_regions",
            "number",
            "preview_every_rows",
            "row_attempts",
            "counts_per_s",
        ),
        ConfigError,
    ),
}


def kind_of_refusal(parameter: str) -> type[RefusedError]:
    """Return the error with which a wrong number of a parameter is refused."""
    return _KINDS.get(parameter, GridError)
