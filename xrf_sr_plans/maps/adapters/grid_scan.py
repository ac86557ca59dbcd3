"""Adapter of bluesky's `grid_scan`, which has one event a pixel and positions in motor units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import AssemblyError, in_our_words
from xrf_sr_plans.maps import units
from xrf_sr_plans.maps.adapters.adapted_map import (
    AdaptedMap,
    Document,
    FlownRow,
    axis_between,
    photons_per_value,
    single,
    total,
    without_pages,
)
from xrf_sr_plans.maps.grid import ScanGrid, check_size


def adapt_grid_scan(
    documents: Iterable[Document],
    channels: Mapping[str, str],
    *,
    dwell_ms: float,
    i0_key: str | None = None,
    um_per_unit: float | None = None,
    analysis: schema.AnalysisRequest | None = None,
) -> Iterator[Document]:
    """Yield a two-dimensional `grid_scan` as row documents.

    The place of a pixel follows from its ``seq_num``, the trajectory and the measured position.
    Of two events with the same ``seq_num`` (a rewind) the later one counts. The start document
    keeps its uid.

    Parameters
    ----------
    documents
        The documents of one run, in order.
    channels
        The data key of each element's detected photons, by element. Data keys with the ``units``
        of a rate (counts/s) are turned into photons by the dwell time.
    dwell_ms
        Time at each pixel.
    i0_key
        Data key of the flux monitor; None: there is none.
    um_per_unit
        Micrometers in a unit of both motors. It replaces the units that the documents give, and
        is needed where they give none.
    analysis
        What the analysis is to do; None: its defaults.

    Raises
    ------
    AssemblyError
        The run is no two-dimensional grid scan, lacks a data key, has values that are no photons,
        or gives no known units of its axes and `um_per_unit` isn't given.
    """
    with in_our_words("no grid scan that can be read", AssemblyError):
        pixels: dict[int, Mapping[str, Any]] = {}
        start, descriptor, stop = {}, {}, None
        for name, doc in without_pages(iter(documents)):
            if name == "start":
                start = doc
            elif name == "descriptor" and doc["name"] == schema.STREAM_ROWS and not descriptor:
                descriptor = doc
            elif name == "event" and doc["descriptor"] == descriptor.get("uid"):
                pixels[int(doc["seq_num"])] = doc
            elif name == "stop":
                stop = doc
        if len(start.get("shape", ())) != 2 or not descriptor:
            raise AssemblyError(
                f"run {start.get('uid')}: no two-dimensional grid scan (shape {start.get('shape')})"
            )
        fields = _position_fields(start)
        # Micrometers in a unit of the slow and of the fast motor.
        scales = [
            _scale(start, descriptor, field) if um_per_unit is None else um_per_unit
            for field in fields
        ]
        adapted = _empty_map(start, scales, list(channels), dwell_ms, analysis)
        if i0_key is None:
            adapted.channels = ("fast_um", "slow_um")
        keys = list(channels.values())
        photons = photons_per_value(descriptor, keys, dwell_ms, f"run {start.get('uid')}")
        for seq_num in sorted(pixels):
            data = pixels[seq_num]["data"]
            row, place = _place(adapted, seq_num)
            if row is None:
                continue
            row.counts[:, place] = [total(data, key) for key in keys] * photons
            row.slow_um[place], row.fast_um[place] = (
                single(data, field) * scale for field, scale in zip(fields, scales, strict=True)
            )
            if i0_key is not None:
                row.i0[place] = total(data, i0_key)
            row.time = float(pixels[seq_num]["time"])
        yield from adapted.documents(stop)


def _scale(start: Mapping[str, Any], descriptor: Mapping[str, Any], field: str) -> float:
    return units.um_per_unit(
        descriptor["data_keys"].get(field, {}).get("units"),
        f"run {start.get('uid')}, data key {field!r}",
        missing_um=None,
        error=AssemblyError,
        otherwise="or give um_per_unit",
    )


def _empty_map(
    start: Mapping[str, Any],
    scales: list[float],
    elements: list[str],
    dwell_ms: float,
    analysis: schema.AnalysisRequest | None,
) -> AdaptedMap:
    slow, fast = (
        axis_between(motor, first * scale, last * scale, num)
        for motor, (first, last), scale, num in zip(
            start["motors"], start["extents"], scales, start["shape"], strict=True
        )
    )
    grid = ScanGrid(fast, slow, bool(start.get("snaking", [False, False])[1]))
    check_size(grid, len(elements))
    request = analysis or schema.AnalysisRequest()
    return AdaptedMap(start, grid, elements, dwell_ms, "point", request)


def _place(adapted: AdaptedMap, seq_num: int) -> tuple[FlownRow | None, int]:
    """Return the row of an event and the event's place in it, in order of acquisition.

    The row is None where the event is not of this grid.
    """
    grid = adapted.grid
    (y_first, y_last), (x_first, x_last) = adapted.start["extents"]
    line, place = divmod(seq_num - 1, grid.fast.num)
    if not 0 <= line < grid.slow.num:
        return None, 0
    forward = (x_first <= x_last) != (grid.snake and line % 2 == 1)
    index = line if y_first <= y_last else grid.slow.num - 1 - line
    row = _empty_row(len(adapted.elements), grid.fast.num, forward)
    return adapted.rows.setdefault(index, row), place


def _position_fields(start: Mapping[str, Any]) -> list[str]:
    """Return the data keys of the slow and the fast motor's positions."""
    dimensions = start.get("hints", {}).get("dimensions", ())
    if len(dimensions) == 2:
        return [fields[0] for fields, _ in dimensions]
    return list(start["motors"])


def _empty_row(elements: int, num: int, forward: bool) -> FlownRow:
    return FlownRow(
        counts=np.full((elements, num), np.nan),
        i0=np.full(num, np.nan),
        fast_um=np.full(num, np.nan),
        slow_um=np.full(num, np.nan),
        direction=1 if forward else -1,
    )
