"""Fly scans with one event a row, as SRX and its kin make them: ``scan`` in the start document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.adapted_map import (
    AdaptedMap,
    Document,
    FlownRow,
    axis_between,
    column,
    length_scale,
    split,
)
from xrf_sr_plans.maps.grid import ScanGrid


def adapt_row_events(
    documents: Iterable[Document],
    channels: Mapping[str, str],
    *,
    stream: str = "stream0",
    i0_key: str | None = None,
    fast_key: str | None = None,
    analysis: schema.AnalysisRequest | None = None,
) -> Iterator[Document]:
    """Yield a fly scan with row events as the documents of a map of ours.

    ``scan.scan_input`` is [x first, x last, nx, y first, y last, ny, dwell in s] (centres of the
    first and last pixels); ``seq_num`` is the row; of two events with one ``seq_num`` the later
    one counts. Rows are in order of acquisition; short ones are padded with NaN.

    Parameters
    ----------
    channels
        Element -> data key with the detected photons of a row's pixels; external arrays have
        to be filled (`event_model.Filler`).
    stream
        Stream with the row events.
    i0_key, fast_key
        Data keys of the flux monitor and of the fast axis' encoder (in the axis' units).
    analysis
        What the analysis is to do; None: its defaults.

    Raises
    ------
    AssemblyError
        No ``scan`` of that kind, no such stream, or a data key that isn't there or isn't filled.
    """
    start, stop, ours = {}, None, set()
    adapted: AdaptedMap | None = None
    scale = 1.0
    for name, doc in split(iter(documents)):
        if name == "start":
            start = doc
            scale = length_scale(_axis(doc, "fast").get("units", "um"), None, "scan.fast_axis")
            adapted = _map(doc, list(channels), analysis)
        elif name == "descriptor" and doc["name"] == stream:
            ours.add(doc["uid"])
        elif name == "event" and doc["descriptor"] in ours and adapted is not None:
            keys = (list(channels.values()), i0_key, fast_key)
            _take(adapted, doc, keys, scale, bool(start["scan"].get("snake")))
        elif name == "stop":
            stop = doc
    if adapted is None or not ours:
        raise AssemblyError(f"run {start.get('uid')}: no stream {stream!r} with row events")
    yield from adapted.documents(stop)


def _axis(start: Mapping[str, Any], which: str) -> Mapping[str, Any]:
    return start.get("scan", {}).get(f"{which}_axis") or {}


def _map(
    start: Mapping[str, Any], elements: list[str], analysis: schema.AnalysisRequest | None
) -> AdaptedMap:
    inputs = start.get("scan", {}).get("scan_input") or ()
    if len(inputs) < 7:
        raise AssemblyError(
            f"run {start.get('uid')}: scan.scan_input is {inputs!r}; "
            "[x first, x last, nx, y first, y last, ny, dwell] is needed"
        )
    scales = [
        length_scale(_axis(start, which).get("units", "um"), None, f"scan.{which}_axis")
        for which in ("fast", "slow")
    ]
    fast, slow = (
        axis_between(
            str(_axis(start, which).get("motor_name", which)),
            float(first) * scale,
            float(last) * scale,
            int(num),
        )
        for which, scale, (first, last, num) in zip(
            ("fast", "slow"), scales, (inputs[:3], inputs[3:6]), strict=True
        )
    )
    return AdaptedMap(
        start,
        ScanGrid(fast, slow, bool(start["scan"].get("snake"))),
        elements,
        float(inputs[6]) * 1e3,
        "fly",
        analysis or schema.AnalysisRequest(),
    )


def _take(
    adapted: AdaptedMap,
    doc: Mapping[str, Any],
    keys: tuple[list[str], str | None, str | None],
    scale: float,
    snake: bool,
) -> None:
    channels, i0_key, fast_key = keys
    num, rows = adapted.grid.fast.num, adapted.grid.slow.num
    inputs = adapted.start["scan"]["scan_input"]
    line = int(doc["seq_num"]) - 1
    if not 0 <= line < rows:
        return
    index = line if inputs[3] <= inputs[4] else rows - 1 - line
    forward = (inputs[0] <= inputs[1]) != (snake and line % 2 == 1)
    before = adapted.rows.get(index)
    unknown = np.full(num, np.nan)
    adapted.rows[index] = FlownRow(
        counts=np.stack([column(doc["data"], key, num) for key in channels]),
        i0=column(doc["data"], i0_key, num) if i0_key else unknown,
        fast_um=column(doc["data"], fast_key, num) * scale if fast_key else unknown,
        slow_um=unknown,
        direction=1 if forward else -1,
        attempt=0 if before is None else before.attempt + 1,
        time=float(doc["time"]),
    )
