"""Adapter of fly scans with one event a row and ``scan`` in the start document, as SRX has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import AssemblyError, in_our_words
from xrf_sr_plans.maps.adapters.adapted_map import (
    AdaptedMap,
    Document,
    FlownRow,
    axis_between,
    numbers,
    photons_per_value,
    without_pages,
)
from xrf_sr_plans.maps.grid import ScanGrid, check_size
from xrf_sr_plans.maps.units import um_per_unit


@dataclass(frozen=True)
class _DataKeys:
    """The data keys of a row event: one for each element, flux monitor, fast encoder."""

    channels: list[str]
    i0: str | None
    fast: str | None


def adapt_row_events(
    documents: Iterable[Document],
    channels: Mapping[str, str],
    *,
    stream: str = "stream0",
    i0_key: str | None = None,
    fast_key: str | None = None,
    analysis: schema.AnalysisRequest | None = None,
) -> Iterator[Document]:
    """Yield a fly scan with one event a row as row documents.

    ``scan.scan_input`` is [x first, x last, nx, y first, y last, ny, dwell in s], where first and
    last are the centers of the outermost pixels, in the ``units`` of ``scan.fast_axis`` and
    ``scan.slow_axis``. Axes without units count as um. ``seq_num`` is the row, and of two events
    with the same ``seq_num`` the later one counts. The values of a row are in order of
    acquisition; rows that are too short are filled up with NaN.

    Parameters
    ----------
    documents
        The documents of one run, in order.
    channels
        The data key of the detected photons of a row's pixels, by element. External arrays have
        to be filled first (`event_model.Filler`). Data keys with the ``units`` of a rate (counts/s)
        are turned into photons by the dwell time.
    stream
        Name of the stream with the row events.
    i0_key
        Data key of the flux monitor; None: there is none.
    fast_key
        Data key of the fast axis's encoder, in the axis's units; None: there is none.
    analysis
        What the analysis is to do; None: its defaults.

    Raises
    ------
    AssemblyError
        There is no ``scan`` of that kind or no such stream, an axis has an unknown unit, a data key
        isn't there or isn't filled, or its values are no photons.
    """
    with in_our_words("no rows that can be read", AssemblyError):
        keys = _DataKeys(list(channels.values()), i0_key, fast_key)
        start, stop = {}, None
        # Photons of a value of 1, for each data key, by the uid of the descriptor.
        descriptors: dict[str, np.ndarray] = {}
        adapted: AdaptedMap | None = None
        for name, doc in without_pages(iter(documents)):
            if name == "start":
                start = doc
                adapted = _empty_map(doc, list(channels), analysis)
                there_are = {"i0": keys.i0, "fast_um": keys.fast}
                adapted.channels = [role for role, key in there_are.items() if key]
            elif name == "descriptor" and doc["name"] == stream and adapted is not None:
                owner = f"run {start.get('uid')}"
                descriptors[doc["uid"]] = photons_per_value(
                    doc, keys.channels, adapted.dwell_ms, owner
                )
            elif name == "event" and doc["descriptor"] in descriptors and adapted is not None:
                _take(adapted, doc, keys, descriptors[doc["descriptor"]])
            elif name == "stop":
                stop = doc
        if adapted is None or not descriptors:
            raise AssemblyError(f"run {start.get('uid')}: no stream {stream!r} with row events")
        yield from adapted.documents(stop)


def _axis(start: Mapping[str, Any], which: str) -> Mapping[str, Any]:
    return start.get("scan", {}).get(f"{which}_axis") or {}


def _scale(start: Mapping[str, Any], which: str) -> float:
    """Return how many um one unit of the "fast" or the "slow" axis is."""
    return um_per_unit(
        _axis(start, which).get("units"),
        f"run {start.get('uid')}, scan.{which}_axis",
        error=AssemblyError,
    )


def _empty_map(
    start: Mapping[str, Any], elements: list[str], analysis: schema.AnalysisRequest | None
) -> AdaptedMap:
    inputs = start.get("scan", {}).get("scan_input") or ()
    if len(inputs) < 7:
        raise AssemblyError(
            f"run {start.get('uid')}: scan.scan_input is {inputs!r}; "
            "[x first, x last, nx, y first, y last, ny, dwell] is needed"
        )
    fast, slow = (
        axis_between(
            str(_axis(start, which).get("motor_name", which)),
            float(first) * _scale(start, which),
            float(last) * _scale(start, which),
            int(num),
        )
        for which, (first, last, num) in (("fast", inputs[:3]), ("slow", inputs[3:6]))
    )
    grid = ScanGrid(fast, slow, bool(start["scan"].get("snake")))
    check_size(grid, len(elements))
    return AdaptedMap(
        start,
        grid,
        elements,
        float(inputs[6]) * 1e3,
        "fly",
        analysis or schema.AnalysisRequest(),
    )


def _take(
    adapted: AdaptedMap, event: Mapping[str, Any], keys: _DataKeys, photons: np.ndarray
) -> None:
    """Add the row of an event to the map, as the next attempt where the row is there already."""
    data, num, rows = event["data"], adapted.grid.fast.num, adapted.grid.slow.num
    inputs = adapted.start["scan"]["scan_input"]
    line = int(event["seq_num"]) - 1
    if not 0 <= line < rows:
        return
    index = line if inputs[3] <= inputs[4] else rows - 1 - line
    forward = (inputs[0] <= inputs[1]) != (adapted.grid.snake and line % 2 == 1)
    before = adapted.rows.get(index)
    unknown = np.full(num, np.nan)
    fast_um = unknown
    if keys.fast:
        fast_um = numbers(data, keys.fast, num) * _scale(adapted.start, "fast")
    adapted.rows[index] = FlownRow(
        counts=np.stack([numbers(data, key, num) for key in keys.channels]) * photons[:, None],
        i0=numbers(data, keys.i0, num) if keys.i0 else unknown,
        fast_um=fast_um,
        slow_um=unknown,
        direction=1 if forward else -1,
        attempt=0 if before is None else before.attempt + 1,
        time=float(event["time"]),
    )
