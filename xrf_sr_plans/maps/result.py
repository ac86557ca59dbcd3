"""Enhanced maps from the documents of a result run, in which the analysis tells its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError, in_our_words
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.result_file import filled
from xrf_sr_plans.maps.well_formed import checked
from xrf_sr_plans.schema import STREAM_ENHANCED, STREAM_PREVIEW, kind_of_run

FLAGS = ("trusted", "doubtful")
"""Names of the arrays [row, column] of yes and no that a result run holds of each element."""
FIELDS = ("estimate", "sigma", "lower", "upper", "baseline", *FLAGS)
"""Names of all its arrays. Runs of before there was `doubtful` don't have that."""


def enhanced_from_documents(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> EnhancedMaps:
    """Return the enhanced map in the documents of a result run or of a preview.

    Parameters
    ----------
    documents
        The documents of one run, live or stored, in order, each with its name.

    Raises
    ------
    AssemblyError
        The documents are not those of a result run, are damaged, or lack the map of an element.
    """
    with in_our_words("no enhanced map in these documents", AssemblyError):
        return _from_documents(documents)


def _from_documents(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> EnhancedMaps:
    start: Mapping[str, Any] = {}
    stream = ""
    events: dict[str, Mapping[str, Any]] = {}
    for name, doc in filled(checked(documents)):
        if name == "start":
            start = doc
        elif name == "descriptor" and doc["name"] in (STREAM_ENHANCED, STREAM_PREVIEW):
            stream = doc["uid"]
        elif name == "event" and doc["descriptor"] == stream:
            events[str(doc["data"]["element"])] = doc["data"]
        elif name == "event_page" and doc["descriptor"] == stream:
            columns = doc["data"]
            for index, element in enumerate(columns["element"]):
                events[str(element)] = {key: values[index] for key, values in columns.items()}
    if kind_of_run(start) not in ("result", "preview"):
        raise AssemblyError(f"run {start.get('uid')}: not a result run")
    missing = [element for element in start.get("elements", []) if element not in events]
    if missing or not events:
        raise AssemblyError(
            f"result run {start['uid']}: no map of {', '.join(missing) or 'any element'} in its"
            f" documents ({start.get('reason', '')})"
        )
    return _maps(start, events)


def _maps(start: Mapping[str, Any], events: dict[str, Mapping[str, Any]]) -> EnhancedMaps:
    elements = list(start["elements"])
    # Each [element, row, column] on the fine grid.
    arrays = {
        name: np.stack([np.asarray(events[element][name], dtype=float) for element in elements])
        for name in FIELDS
        if name != "doubtful" or all(name in event for event in events.values())
    }
    arrays |= {name: arrays[name] > 0 for name in FLAGS if name in arrays}
    return EnhancedMaps.from_arrays(
        ScanGrid.from_dict(start["grid"]),
        elements,
        **arrays,
        factor=int(start["factor"]),
        sampling=str(start.get("sampling", "fly")),
        model=dict(start["model"]),
        source_uid=start["original_run_uid"],
        fallback=start["fallback"],
        complete=start["complete"],
        dwell_ms=start.get("dwell_ms"),
        i0_median=start.get("i0_median"),
        forecast=start.get("forecast"),
    )
