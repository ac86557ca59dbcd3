"""`composite_from_documents`: the composite map in the documents of a composite run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xrf_sr_plans.composite.composite_map import FIELDS, CompositeMap
from xrf_sr_plans.errors import AssemblyError, in_our_words
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.result_file import filled
from xrf_sr_plans.maps.well_formed import checked
from xrf_sr_plans.schema import STREAM_COMPOSITE, kind_of_run

_FACTS = (
    *("survey_uid", "tile_uids", "rescan_uids", "placements", "model", "factor", "sampling"),
    *("fallback", "dwell_ms", "i0_median", "notes"),
)


def composite_from_documents(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> CompositeMap:
    """Return the map in the documents of a composite run.

    Parameters
    ----------
    documents
        The documents of one run, live or stored, in order, each with its name.

    Raises
    ------
    AssemblyError
        The documents are not those of a composite run, are damaged, or lack the map of an element.
    """
    with in_our_words("no composite map in these documents", AssemblyError):
        return _from_documents(documents)


def _from_documents(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> CompositeMap:
    start: Mapping[str, Any] = {}
    stream = reason = ""
    rows: dict[str, Mapping[str, Any]] = {}
    for name, doc in filled(checked(documents)):
        if name == "start":
            start = doc
        elif name == "descriptor" and doc["name"] == STREAM_COMPOSITE:
            stream = doc["uid"]
        elif name == "event" and doc["descriptor"] == stream:
            rows[str(doc["data"]["element"])] = doc["data"]
        elif name == "event_page" and doc["descriptor"] == stream:
            columns = doc["data"]
            for index, element in enumerate(columns["element"]):
                rows[str(element)] = {key: values[index] for key, values in columns.items()}
        elif name == "stop":
            reason = str(doc.get("reason") or "")
    if kind_of_run(start) != "composite":
        raise AssemblyError(f"run {start.get('uid')}: not a composite run")
    elements = [str(name) for name in start.get("elements", ())]
    missing = [element for element in elements if element not in rows]
    if missing or not elements:
        raise AssemblyError(
            f"composite run {start['uid']}: no map of {', '.join(missing) or 'any element'} in its"
            f" documents ({reason})"
        )
    fields = {
        name: np.stack([np.asarray(rows[element][name], dtype=np.float32) for element in elements])
        for name in FIELDS
    }
    facts = {key: start.get(key) for key in _FACTS}
    # Composite maps of before were all of squares.
    facts["sampling"] = facts["sampling"] or "fly"
    return CompositeMap.from_arrays(ScanGrid.from_dict(start["grid"]), elements, fields, **facts)
