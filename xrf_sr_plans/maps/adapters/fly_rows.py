"""Fly scans of SRX, TES and HXN, as their documents are.

=====  ==========================  =====================================  =====================
       events                      announced in the start document        centers of the pixels
=====  ==========================  =====================================  =====================
SRX    one a row, ``stream0``      ``scan.scan_input`` [first, last, num  first, last
                                   of the fast and the slow axis, s]
TES    one a row, ``primary``      ``user_input``, ``derived_input``      fast: half a step in;
                                   in mm                                  slow: on it
HXN    one a map, ``primary``      ``scan.scan_input`` [start, end, num   fast: half a step in;
                                   of both axes], 2D_FLY_PANDA            slow: on it; step
                                                                          (end - start) / num
HXN    one a map, ``primary``      [center, range, num] of the fast and   first, last
                                   [first, last, num] of the slow axis,
                                   FIP_2D_FLY
=====  ==========================  =====================================  =====================

Sources: the beamlines' own profile collections and what PyXRF reads of their runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.adapted_map import AdaptedMap
from xrf_sr_plans.maps.adapters.assets import Filling
from xrf_sr_plans.maps.adapters.catalog_arrays import CatalogRows, find_arrays
from xrf_sr_plans.maps.adapters.lattice import SaidAxis, said_between
from xrf_sr_plans.maps.adapters.options import RunOptions
from xrf_sr_plans.maps.adapters.placed_lines import placed
from xrf_sr_plans.maps.adapters.row_values import (
    RowKeys,
    chosen_channels,
    encoder_keys,
    left_out,
    line_of,
    monitor_key,
    photons_of,
    split,
)
from xrf_sr_plans.maps.adapters.runs import ForeignRun, Stream, listed
from xrf_sr_plans.maps.adapters.scan_lines import Line, SaidScan
from xrf_sr_plans.maps.grid import ScanGrid, check_size
from xrf_sr_plans.maps.units import um_per_unit, unit_name

_HXN_TYPES = ("2D_FLY_PANDA", "FIP_2D_FLY")
_SRX_ENCODERS = ("enc1", "enc2", "enc3")
_PANDA_ENCODERS = ("inenc2_val", "inenc3_val", "inenc4_val", "inenc1_val")


@dataclass(frozen=True)
class _Announced:
    """What a start document announces, and what the kind of run is read by.

    Parameters
    ----------
    fast, slow
        The axes in um.
    snake
        Whether every other line runs the other way.
    dwell_ms
        Time at each pixel.
    scales_um
        Micrometers in the unit of the readings of the fast and the slow axis, where nobody says
        another one.
    """

    fast: SaidAxis
    slow: SaidAxis
    snake: bool
    dwell_ms: float
    scales_um: tuple[float, float]


def is_srx(run: ForeignRun) -> bool:
    """Return whether a run is a fly scan with one event a row and ``scan.scan_input``."""
    return len(_inputs(run)) >= 6 and not is_hxn(run)


def is_hxn(run: ForeignRun) -> bool:
    """Return whether a run is a fly scan of HXN with one event for the whole map."""
    return len(_inputs(run)) >= 6 and run.scan.get("type") in _HXN_TYPES


def is_tes(run: ForeignRun) -> bool:
    """Return whether a run is a fly scan of TES, ``xy_fly``."""
    user, derived = (run.start.get(key) for key in ("user_input", "derived_input"))
    return (
        isinstance(user, Mapping)
        and isinstance(derived, Mapping)
        and "xstart" in user
        and "xpixels" in derived
    )


def _inputs(run: ForeignRun) -> list[Any]:
    return listed(run.scan.get("scan_input"))


def read_srx(run: ForeignRun, options: RunOptions) -> AdaptedMap:
    """Return the map of a fly scan of SRX, with one event a row.

    Raises
    ------
    AssemblyError
        The documents don't add up to a map.
    """
    kind = str(run.scan.get("type") or "XRF_FLY")
    if not kind.startswith("XRF"):
        raise AssemblyError(f"{run.owner}: scan.type is {kind!r}; XRF fly scans are read")
    inputs = _inputs(run)
    if len(inputs) < 6:
        raise AssemblyError(
            f"{run.owner}: scan.scan_input is {inputs!r}; [first, last, num] of the fast and of the"
            " slow axis are needed"
        )
    axes = _axes(run, inputs, options)
    dwell_s = inputs[6] if len(inputs) > 6 else run.scan.get("dwell")
    announced = _Announced(
        *axes,
        bool(run.scan.get("snake")),
        _dwell_ms(run, options, dwell_s),
        (_axis_scale(run, "fast", options), _axis_scale(run, "slow", options)),
    )
    stream = run.stream(options.stream, "stream0", "primary")
    return _map_of_rows(run, stream, options, announced, _SRX_ENCODERS, ("i0", "sclr_i0"))


def read_tes(run: ForeignRun, options: RunOptions) -> AdaptedMap:
    """Return the map of a fly scan of TES, with one event a row and lengths in mm.

    Raises
    ------
    AssemblyError
        The documents don't add up to a map.
    """
    user, derived = run.start["user_input"], run.start["derived_input"]
    mm = 1e3 if options.um_per_unit is None else options.um_per_unit
    step_x, step_y = (
        float(derived.get(f"actual_{axis}step_size") or user[f"{axis}step_size"]) * mm
        for axis in "xy"
    )
    # Pixels may be counted where the stage is driven from high to low.
    if float(user.get("xstop", np.inf)) < float(user["xstart"]):
        step_x = -abs(step_x)
    if not step_x or not step_y:
        raise AssemblyError(f"{run.owner}: step sizes are {step_x} and {step_y} um; 0 is no step")
    announced = _Announced(
        SaidAxis("xy_stage_x", float(user["xstart"]) * mm + step_x / 2, step_x,
                 int(derived["xpixels"])),
        SaidAxis("xy_stage_y", float(user["ystart"]) * mm, step_y, int(derived["ypixels"])),
        bool(run.scan.get("snake")),
        _dwell_ms(run, options, user.get("dwell_time")),
        (mm, mm),
    )  # fmt: skip
    stream = run.stream(options.stream, "primary")
    usual = ("x_centers", "y_centers", "xy_stage_x", "xy_stage_y", "xy_stage_y_readback")
    return _map_of_rows(run, stream, options, announced, usual, ("I0", "i0"))


def read_hxn(run: ForeignRun, options: RunOptions) -> AdaptedMap:
    """Return the map of a fly scan of HXN, whose one event holds all pixels.

    Raises
    ------
    AssemblyError
        The documents don't add up to a map.
    """
    inputs = [float(value) for value in _inputs(run)[:6]]
    if run.scan["type"] == "FIP_2D_FLY":
        center, extent = inputs[:2]
        inputs[:2] = [center - extent / 2, center + extent / 2]
        fast, slow = _axes(run, inputs, options)
    else:
        fast, slow = (
            _of_pixels(run, which, inputs[at : at + 3], options)
            for which, at in (("fast", 0), ("slow", 3))
        )
    announced = _Announced(
        fast,
        slow,
        bool(run.scan.get("snake")),
        _dwell_ms(run, options, run.scan.get("dwell")),
        (_axis_scale(run, "fast", options), _axis_scale(run, "slow", options)),
    )
    stream = run.stream(options.stream, "primary", "stream0")
    return _map_of_rows(
        run, stream, options, announced, (*_PANDA_ENCODERS, *_SRX_ENCODERS),
        ("sclr1_ch4", "sclr3_ch4"), is_whole=True,
    )  # fmt: skip


def _axis(run: ForeignRun, which: str) -> Mapping[str, Any]:
    axis = run.scan.get(f"{which}_axis")
    return axis if isinstance(axis, Mapping) else {}


def _axis_scale(run: ForeignRun, which: str, options: RunOptions) -> float:
    """Return how many um one unit of the "fast" or the "slow" axis is; um where none is named."""
    if options.um_per_unit is not None:
        return options.um_per_unit
    owner = f"{run.owner}, scan.{which}_axis"
    return um_per_unit(_axis(run, which).get("units"), owner, error=AssemblyError)


def _name(run: ForeignRun, which: str) -> str:
    return str(_axis(run, which).get("motor_name") or which)


def _axes(run: ForeignRun, inputs: Sequence[Any], options: RunOptions) -> tuple[SaidAxis, SaidAxis]:
    """Return the axes whose outermost pixels are centered on the positions of ``scan_input``."""
    fast, slow = (
        said_between(
            _name(run, which),
            float(inputs[at]) * _axis_scale(run, which, options),
            float(inputs[at + 1]) * _axis_scale(run, which, options),
            int(inputs[at + 2]),
            run.owner,
        )
        for which, at in (("fast", 0), ("slow", 3))
    )
    return fast, slow


def _of_pixels(
    run: ForeignRun, which: str, inputs: Sequence[float], options: RunOptions
) -> SaidAxis:
    """Return the axis whose range is cut into `num` pixels; the slow one stands at their start."""
    begin, end = (value * _axis_scale(run, which, options) for value in inputs[:2])
    num = int(inputs[2])
    if num < 1 or not np.isfinite([begin, end]).all() or (begin == end and num > 1):
        raise AssemblyError(
            f"{run.owner}: axis {_name(run, which)!r} has {num} pixels between {begin:.6g} and"
            f" {end:.6g} um"
        )
    step_um = (end - begin) / num or 1.0
    # The fast axis is in the middle of a pixel when half of its time is over.
    first_um = begin + (end - begin) / num / 2 if which == "fast" else begin
    return SaidAxis(_name(run, which), first_um, step_um, num)


def _dwell_ms(run: ForeignRun, options: RunOptions, dwell_s: Any) -> float:
    if options.dwell_ms is not None:
        return options.dwell_ms
    try:
        dwell_ms = float(dwell_s) * 1e3
    except (TypeError, ValueError):
        dwell_ms = np.nan
    if not 0 < dwell_ms < np.inf:
        raise AssemblyError(
            f"{run.owner}: the dwell time is {dwell_s!r} s; it should be above 0, or give dwell_ms"
        )
    return dwell_ms


def _map_of_rows(
    run: ForeignRun,
    stream: Stream,
    options: RunOptions,
    announced: _Announced,
    encoders: Sequence[str],
    monitors: Sequence[str],
    *,
    is_whole: bool = False,
) -> AdaptedMap:
    """Return the map of the events of a stream, each of which is a row, or all rows."""
    find_arrays(run, options.assets)
    fast, slow = announced.fast, announced.slow
    where = f"{run.owner}, stream {stream.name!r}"
    channels = chosen_channels(stream, options, run.owner, but=(*encoders, *monitors))
    check_size(ScanGrid(fast.grid, slow.grid), len(channels))
    photons = photons_of(stream, channels, announced.dwell_ms, run.owner)
    if not stream.events:
        raise AssemblyError(f"{where}: has no events")
    of_encoders = CatalogRows(run, stream, encoders)
    for event in stream.events.values():
        event["data"] |= of_encoders.data(event)
    fast_key, slow_key = encoder_keys(run, stream, options, fast, slow, encoders)
    i0_key = monitor_key(stream, options.i0_key, monitors, run.owner)
    keys = RowKeys(channels, i0_key, options.live_time_key, fast_key, slow_key)
    filling = Filling(run, stream, keys.all, options.assets)
    catalog = CatalogRows(run, stream, keys.all)

    def data_of(event: Mapping[str, Any]) -> dict[str, Any]:
        return {**filling.data(event), **catalog.data(event)}

    notes = left_out(channels, stream)
    lines: list[Line] = []
    if is_whole:
        event = stream.in_order[-1]
        if len(stream.events) > 1:
            notes.append(f"{len(stream.events)} events of whole maps: the last one counts")
        usual = fast.num * slow.num
        whole = line_of(run, stream, data_of(event), keys, 0, usual, photons, _time(event))
        lines = split(whole, fast.num)
    else:
        for event in filter(catalog.has, stream.in_order):
            number = int(event["seq_num"]) - 1
            lines.append(
                line_of(run, stream, data_of(event), keys, number, fast.num, photons, _time(event))
            )
    has_units = _in_um(stream, lines, announced, keys, options)
    # Events that a store lost leave gaps in their numbers, rows that were never finished don't.
    # Only if the last number is that of the last row, none is missing that leaves no gap.
    is_numbered = is_whole or max(line.number for line in lines) == slow.num - 1
    said = SaidScan(
        fast,
        slow,
        announced.snake,
        is_flown=True,
        has_units=has_units,
        is_finished=(run.stop or {}).get("exit_status") == "success",
        lines_are_numbered=is_numbered,
    )
    found = placed(said, lines, len(channels), run.owner)
    return AdaptedMap.of(
        run.start,
        found,
        [channel.element for channel in channels],
        announced.dwell_ms,
        options.analysis,
        {
            "i0": i0_key,
            "live_time": options.live_time_key,
            "fast_um": fast_key,
            "slow_um": slow_key,
        },
        (*notes, *run.notes),
    )


def _time(event: Mapping[str, Any]) -> float:
    return float(event.get("time") or 0.0)


def _in_um(
    stream: Stream,
    lines: list[Line],
    announced: _Announced,
    keys: RowKeys,
    options: RunOptions,
) -> tuple[bool, bool]:
    """Bring readings into um where their unit is known, and return for which axis it is.

    Readings without a unit stay in the announced axis's one for a first guess.
    """
    known = []
    for role, key, scale_um in (
        ("fast", keys.fast, announced.scales_um[0]), ("slow", keys.slow, announced.scales_um[1])
    ):  # fmt: skip
        unit = stream.data_keys.get(key or "", {}).get("units")
        is_known = options.um_per_unit is not None or bool(unit_name(unit))
        if is_known and options.um_per_unit is None:
            scale_um = um_per_unit(unit, f"data key {key!r}", error=AssemblyError)
        for line in lines:
            setattr(line, role, getattr(line, role) * scale_um)
        known.append(is_known)
    return known[0], known[1]
