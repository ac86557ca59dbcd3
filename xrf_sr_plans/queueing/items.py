"""`rescan_item`: the queue server item that maps one region finely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xrf_sr_plans.maps.region import Region

PLAN_NAME = "rescan_regions"
"""The plan that the items call."""


def rescan_item(
    region: Region,
    *,
    fine_step_um: float,
    dwell_ms: float,
    survey_uid: str | None,
    row_attempts: int,
    md: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the item that maps one region, in JSON types.

    Parameters
    ----------
    region
        What is mapped.
    fine_step_um
        Pixel size in um.
    dwell_ms
        Time at each pixel in ms.
    survey_uid
        The survey that the region comes from.
    row_attempts
        How often a failing row is flown.
    md
        The user's metadata.
    """
    return {
        "name": PLAN_NAME,
        "kwargs": {
            "regions": [region.to_dict()],
            "fine_step_um": fine_step_um,
            "dwell_ms": dwell_ms,
            "survey_uid": survey_uid,
            "parent_uid": region.source_uid,
            "row_attempts": row_attempts,
            "md": dict(md),
        },
    }
