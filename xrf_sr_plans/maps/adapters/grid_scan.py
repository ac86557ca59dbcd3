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
    photons_per_value,
    single,
    total,
    without_pages,
)
from xrf_sr_plans.maps.adapters.trajectory import Trajectory, trajectory
from xrf_sr_plans.maps.grid import check_size


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

    The place of a pixel follows from its ``seq_num``, the trajectory (`maps.adapters.trajectory`)
    and the measured position. Relative scans, and list scans whose points are equally spaced, are
    grid scans too.
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
        numbers = np.array(sorted(pixels), dtype=int)
        motors = list(zip(fields, scales, strict=True))
        # Readings of the slow and the fast motor in um [event, motor].
        positions_um = np.array(
            [
                [single(pixels[number]["data"], field) * scale for field, scale in motors]
                for number in numbers.tolist()
            ]
        ).reshape(-1, 2)
        flown = _trajectory(start, scales, numbers, positions_um)
        check_size(flown.grid, len(channels))
        request = analysis or schema.AnalysisRequest()
        adapted = AdaptedMap(start, flown.grid, list(channels), dwell_ms, "point", request)
        if i0_key is None:
            adapted.channels = ("fast_um", "slow_um")
        keys = list(channels.values())
        photons = photons_per_value(descriptor, keys, dwell_ms, f"run {start.get('uid')}")
        for seq_num, position_um in zip(numbers.tolist(), positions_um, strict=True):
            data = pixels[seq_num]["data"]
            line, place = divmod(seq_num - 1, flown.grid.fast.num)
            if not 0 <= line < flown.grid.slow.num:
                continue
            empty = _empty_row(len(keys), flown.grid.fast.num, flown.forward(line))
            row = adapted.rows.setdefault(flown.row_of(line), empty)
            row.counts[:, place] = [total(data, key) for key in keys] * photons
            row.slow_um[place], row.fast_um[place] = position_um
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


def _trajectory(
    start: Mapping[str, Any], scales: list[float], seq_nums: np.ndarray, positions_um: np.ndarray
) -> Trajectory:
    extents_um = [
        (float(first) * scale, float(last) * scale)
        for (first, last), scale in zip(start["extents"], scales, strict=True)
    ]
    return trajectory(
        extents_um,
        [int(num) for num in start["shape"]],
        [str(motor) for motor in start["motors"]],
        bool(start.get("snaking", [False, False])[1]),
        seq_nums,
        positions_um,
        f"run {start.get('uid')}",
    )


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
