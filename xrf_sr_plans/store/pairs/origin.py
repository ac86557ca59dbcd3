"""`origin_of_run`: where a map comes from, and of which sample it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xrf_sr_plans.store.pairs.stored_pair import MapOrigin

SAMPLE_KEYS = ("samplename", "sample", "sampleid")
"""Keys under which start documents name a sample, the best first, without case and underscores."""
_NESTED = ("scan", "md", "metadata")
"""Keys of what beamlines put into a start document as a whole, and what may name the sample too."""
_NAMES = ("name", "samplename", "id", "sampleid", "uid")
"""Keys under which a sample that is an object itself has its name."""
_LONGEST = 200


def origin_of_run(start: Mapping[str, Any]) -> MapOrigin:
    """Return where the map of a run comes from.

    Parameters
    ----------
    start
        Start document of the run. What is damaged in it counts as unknown.
    """
    ours = start.get("xrf_sr")
    ours = ours if isinstance(ours, Mapping) else {}
    time = start.get("time")
    stage = ours.get("stage")
    return MapOrigin(
        run_uid=_text(start.get("uid")),
        beamline=_text(ours.get("beamline") or start.get("beamline_id")),
        sample=sample_named(start),
        time=float(time) if isinstance(time, int | float) else None,
        parent_uid=_text(ours.get("parent_uid")),
        survey_uid=_text(ours.get("survey_uid")),
        stage=_positions(stage) if isinstance(stage, Mapping) else {},
    )


def sample_named(start: Mapping[str, Any]) -> str:
    """Return the name that a start document gives the sample, or "" where it gives none."""
    for source in (start, *(start.get(key) for key in _NESTED)):
        if isinstance(source, Mapping) and (name := _named(source, SAMPLE_KEYS)):
            return name
    return ""


def _named(source: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    plain = {str(key).lower().replace("_", ""): value for key, value in source.items()}
    for key in keys:
        value = plain.get(key)
        name = _named(value, _NAMES) if isinstance(value, Mapping) else _text(value)
        if name:
            return name
    return ""


def _positions(stage: Mapping[str, Any]) -> dict[str, float]:
    return {
        str(axis): float(position)
        for axis, position in stage.items()
        if isinstance(position, int | float)
    }


def _text(value: Any) -> str:
    """Return a name in one line, or "" for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return " ".join(str(value).split())[:_LONGEST]
