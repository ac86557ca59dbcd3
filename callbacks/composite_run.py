"""The composite run: one map of a survey as a Bluesky run that any consumer can store.

As with a result run, everything in it follows from the runs of the survey, so that a replay gives
exactly the same documents.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.callbacks.result_run import (
    NAMESPACE,
    axes_configuration,
    child_uid,
    data_key,
    in_order,
    package_versions,
    stream_documents,
)
from xrf_sr_plans.composite.composite_map import FIELDS, CompositeMap
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.schema import PLAN_COMPOSITE, STREAM_COMPOSITE, Documents
from xrf_sr_plans.store.surveys import SurveyEnd

_DTYPES = {"measured": "|u1", "trusted": "|u1", "source": "<u2"}
"""Types of the planes that are no photons."""


@dataclass(frozen=True, eq=False)
class SurveyAsKnown:
    """What is known of a survey after one of its runs, and when that run ended."""

    end: SurveyEnd
    after_uid: str
    """Uid of the run after which it is put together: the outcomes, or a later fine map."""
    time: float
    """When that run stopped, in seconds since 1970."""
    tiles: Sequence[EnhancedMaps]
    rescan_uids: Sequence[str]
    notes: Sequence[str] = ()

    @property
    def models(self) -> list[dict[str, Any]]:
        """The model of each tile."""
        return [tile.model for tile in self.tiles]

    @property
    def composite_uid(self) -> str:
        """Uid of the composite run."""
        tiles = [[tile.dataset.attrs["source_uid"], tile.model, tile.factor] for tile in self.tiles]
        facts = ["composite", self.end.survey_uid, self.after_uid, tiles, list(self.rescan_uids)]
        return str(uuid.uuid5(NAMESPACE, json.dumps(facts, sort_keys=True)))


def composite_documents(
    known: SurveyAsKnown, composite: CompositeMap | None, reason: str = ""
) -> Documents:
    """Return the documents of a composite run.

    Parameters
    ----------
    known
        What is known of the survey.
    composite
        Its map, or None where it could not be made.
    reason
        Why there is none; empty where there is one.
    """
    uid = known.composite_uid
    documents: Documents = [("start", _start(known, composite))]
    counts: dict[str, int] = {}
    if composite is not None:
        rows = [_row(composite, index) for index in range(len(composite.elements))]
        axes = axes_configuration(composite.grid)
        keys = _keys(composite)
        documents += stream_documents(uid, known.time, STREAM_COMPOSITE, keys, axes, rows)
        counts[STREAM_COMPOSITE] = len(rows)
    stop = {
        "uid": child_uid(uid, "stop"),
        "run_start": uid,
        "time": known.time,
        "exit_status": "success" if composite is not None else "fail",
        "reason": reason,
        "num_events": counts,
    }
    return in_order([*documents, ("stop", stop)])


def _start(known: SurveyAsKnown, composite: CompositeMap | None) -> dict[str, Any]:
    start: dict[str, Any] = {
        "uid": known.composite_uid,
        "time": known.time,
        "plan_name": PLAN_COMPOSITE,
        "purpose": "composite",
        "original_run_uid": known.after_uid,
        "survey_uid": known.end.survey_uid,
        "outcomes_uid": known.end.outcomes_uid,
        "tile_uids": [str(tile.dataset.attrs["source_uid"]) for tile in known.tiles],
        "result_uids": [str(tile.dataset.attrs.get("result_uid") or "") for tile in known.tiles],
        "rescan_uids": list(known.rescan_uids),
        "models": known.models,
        "beamline": known.end.beamline,
        "versions": package_versions(),
        "hints": {},
    }
    if composite is not None:
        attributes = composite.dataset.attrs
        start |= {
            "grid": composite.grid.to_dict(),
            "elements": composite.elements,
            "model": attributes["model"],
            "factor": attributes["factor"],
            "sampling": attributes["sampling"],
            "fallback": attributes["fallback"],
            "placements": [_without_nan(one) for one in attributes["placements"]],
            "measured_share": float(composite.measured.values.any(axis=0).mean()),
            "notes": composite.notes,
        }
        start |= {
            key: attributes[key]
            for key in ("dwell_ms", "i0_median")
            if attributes.get(key) is not None
        }
    elif known.notes:
        start["notes"] = list(known.notes)
    return start


def _without_nan(placement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a placement without what is unknown, since start documents are JSON."""
    return {
        name: value
        for name, value in placement.items()
        if not (isinstance(value, float) and value != value)
    }


def _keys(composite: CompositeMap) -> dict[str, Any]:
    keys: dict[str, Any] = {"element": data_key("string", [])}
    for name in FIELDS:
        keys[name] = {
            **data_key("array", list(composite.grid.shape)),
            "dtype_numpy": _DTYPES.get(name, "<f4"),
            "dims": ["y", "x"],
            "units": "" if name in _DTYPES else "photons",
        }
    return keys


def _row(composite: CompositeMap, index: int) -> dict[str, Any]:
    """Return the data of one event: the planes (y, x) of one element."""
    data: dict[str, Any] = {"element": composite.elements[index]}
    for name in FIELDS:
        plane = composite.dataset[name].values[index]
        data[name] = np.ascontiguousarray(plane, dtype=_DTYPES.get(name, "<f4"))
    return data
