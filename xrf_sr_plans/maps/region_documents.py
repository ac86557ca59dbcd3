"""Regions in documents and in plan arguments: the only place where they take those forms.

Between the processes of the analysis they cross as
`xrf_sr_plans.callbacks.service.messages.RunSummary`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.region import Region

REGION_NUMBERS = (
    "x_low_um",
    "x_high_um",
    "y_low_um",
    "y_high_um",
    "score",
    "predicted_sigma",
    "trusted_fraction",
)
"""Names of the columns of a region that hold a number."""

MOST_REGIONS = 1000
"""Largest number of regions of one call. The time to choose among them grows with its square."""

REGION_WORDS = ("key", "elements", "reason", "model_sha256", "fallback", "stage")
"""Names of the columns of a region that hold a text."""


def region_columns(region: Region) -> dict[str, float | str]:
    """Return a region as columns of an event: one for each of `REGION_NUMBERS`, `REGION_WORDS`.

    ``elements`` is a list with commas, and ``stage`` is JSON.
    """
    return {
        **{name: float(getattr(region, name)) for name in REGION_NUMBERS},
        "key": region.key,
        "elements": ",".join(region.elements),
        "reason": region.reason,
        "model_sha256": region.model_sha256,
        "fallback": region.fallback,
        "stage": json.dumps(dict(region.stage), sort_keys=True),
    }


def regions_to_json(regions: Iterable[Region]) -> str:
    """Return regions as JSON: what the results device reads."""
    return json.dumps([region.to_dict() for region in regions])


def regions_from_json(text: str) -> tuple[Region, ...]:
    """Return the regions that `regions_to_json` has written.

    Raises
    ------
    GridError
        The text is not JSON, or not a list of regions.
    """
    try:
        return tuple(Region.from_dict(plain) for plain in json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, GridError):
            raise
        raise GridError(f"not a list of Regions: {error}") from error


def regions_from_arguments(
    arguments: Iterable[Mapping[str, Any]], source_uid: str | None = None
) -> list[Region]:
    """Return the regions of a plan's argument, with defaults for what a person doesn't type.

    Parameters
    ----------
    arguments
        `Region.to_dict()` of each region, or at least its four edges.
    source_uid
        Uid of the map run that those regions come from which don't say it themselves.

    Raises
    ------
    GridError
        A region is no dictionary, lacks edges, holds NaN, or has fields that aren't known; or
        there are more than `MOST_REGIONS`.
    """
    defaults = {"elements": (), "score": 1.0, "reason": "asked for", "source_uid": source_uid or ""}
    arguments = list(arguments)
    if len(arguments) > MOST_REGIONS:
        raise GridError(f"{len(arguments)} regions at once; it must be at most {MOST_REGIONS}")
    regions = []
    for argument in arguments:
        if not isinstance(argument, Mapping):
            raise GridError(f"not a Region: {argument!r:.80} is no dictionary")
        regions.append(Region.from_dict({**defaults, **argument}))
    return regions
