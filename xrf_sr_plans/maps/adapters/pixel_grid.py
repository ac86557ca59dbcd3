"""Scans on a grid with one event or one frame a pixel: bluesky's own, haven's and ophyd-async's.

Counts and readings may be in events (``grid_scan`` with classic devices), in files beside them
(``stream_resource``, ``grid_scan`` with ophyd-async's detectors), or in a stream a detector without
any event (haven's ``grid_fly_scan``). The number of a frame says which pixel of the trajectory it
is; where it is, is said by its readings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps import units
from xrf_sr_plans.maps.adapters.adapted_map import AdaptedMap
from xrf_sr_plans.maps.adapters.assets import Filling, streamed
from xrf_sr_plans.maps.adapters.catalog_arrays import find_arrays, in_pieces
from xrf_sr_plans.maps.adapters.channels import Channel, Part, numbers, pixel_value
from xrf_sr_plans.maps.adapters.lattice import SaidAxis, said_between
from xrf_sr_plans.maps.adapters.options import RunOptions
from xrf_sr_plans.maps.adapters.placed_lines import placed
from xrf_sr_plans.maps.adapters.row_values import (
    chosen_channels,
    left_out,
    monitor_key,
    photons_of,
)
from xrf_sr_plans.maps.adapters.runs import ForeignRun, Stream, listed
from xrf_sr_plans.maps.adapters.scan_lines import Line, SaidScan
from xrf_sr_plans.maps.grid import ScanGrid, check_size

STEP_PLANS = ("grid_scan", "rel_grid_scan", "list_grid_scan", "rel_list_grid_scan")
"""Names of the plans of bluesky that are read."""
_GRID_PATTERNS = ("outer_product", "outer_list_product")
_DWELL_KEYS = ("dwell_time", "dwell", "exposure_time", "exposure", "acquire_time", "count_time")


def is_pixel_grid(run: ForeignRun) -> bool:
    """Return whether a run announces a grid of pixels, by its plan or by the plan's pattern."""
    if run.plan_name in STEP_PLANS or run.start.get("plan_pattern") in _GRID_PATTERNS:
        return True
    return run.plan_name.endswith("grid_fly_scan") and len(_shape(run)) == 2


def is_other_scan(run: ForeignRun) -> bool:
    """Return whether a run is another scan of motors, which has no grid of pixels."""
    return bool(run.plan_name and run.start.get("motors")) and not is_pixel_grid(run)


def read_other_scan(run: ForeignRun, _options: RunOptions) -> AdaptedMap:
    """Refuse a scan that is no grid scan, by its name.

    Raises
    ------
    AssemblyError
        Always.
    """
    raise AssemblyError(
        f"{run.owner}: is a {run.plan_name!r}; of bluesky's plans {', '.join(STEP_PLANS)} are read,"
        " since their points are equally spaced on two axes"
    )


def _shape(run: ForeignRun) -> list[Any]:
    return listed(run.start.get("shape"))


def read_pixel_grid(run: ForeignRun, options: RunOptions) -> AdaptedMap:
    """Return the map of a scan with one event or one frame a pixel.

    Raises
    ------
    AssemblyError
        The run has no two axes, lacks what is asked for, or its positions are not equally spaced.
    """
    shape = _shape(run)
    if len(shape) != 2:
        raise AssemblyError(
            f"{run.owner}: no two-dimensional grid scan: {run.plan_name!r} of the motors"
            f" {listed(run.start.get('motors'))} has the shape {run.start.get('shape')}; scans of"
            " two motors are read, so of a stack of maps none"
        )
    if len(run.start.get("motors") or ()) != 2:
        raise AssemblyError(f"{run.owner}: motors are {run.start.get('motors')!r}; two are needed")
    find_arrays(run, options.assets)
    stream = _main_stream(run, options)
    channels = chosen_channels(_all_keys(run, stream), options, run.owner)
    fields = _position_fields(run, options)
    scales, notes = _scales(run, fields, options)
    slow, fast = _said_axes(run, scales)
    check_size(ScanGrid(fast.grid, slow.grid), len(channels))
    is_flown = "fly" in run.plan_name
    i0_key = monitor_key(_all_keys(run, stream), options.i0_key, ("i0", "I0"), run.owner)
    frames = _Frames(run, options)
    counts = {
        part: frames.counts(part)
        for channel in channels
        for part in channel.parts
    }  # fmt: skip
    once = {
        "slow": frames.once(fields[0], scale=scales[0]),
        "fast": frames.once(fields[1], scale=scales[1]),
        "i0": frames.once(i0_key),
        "live_time": frames.once(options.live_time_key),
    }
    dwell_ms, dwell_note = _dwell_ms(run, stream, options)
    # An upper limit is good enough to tell how long rescans take, but no factor of counts.
    photons = _photons(run, channels, np.nan if dwell_note else dwell_ms)
    table = np.stack(
        [
            np.sum([frames.column(counts[part]) for part in channel.parts], axis=0)
            for channel in channels
        ]
    )
    lines = _lines(
        table * photons[:, None], {role: frames.column(one) for role, one in once.items()},
        frames, fast.num, slow.num,
    )  # fmt: skip
    if not lines:
        raise AssemblyError(f"{run.owner}, stream {stream.name!r}: has no frames on the grid")
    said = SaidScan(fast, slow, bool(_snake(run)), is_flown, lines_are_numbered=True)
    if is_flown and not any(np.isfinite(line.fast).any() for line in lines):
        notes.append("no readings of the axes: frames are placed by their order")
    return AdaptedMap.of(
        run.start,
        placed(said, lines, len(channels), run.owner),
        [channel.element for channel in channels],
        dwell_ms,
        options.analysis,
        {"i0": i0_key, "live_time": options.live_time_key},
        [*left_out(channels, _all_keys(run, stream)), *notes, *run.notes, *dwell_note],
    )


def _main_stream(run: ForeignRun, options: RunOptions) -> Stream:
    """Return the stream that has most of the channels, or the one that was named."""
    if options.stream is not None or "primary" in run.streams:
        return run.stream(options.stream, "primary")
    sizes = {name: one.size for name, one in run.streams.items()}
    if not any(sizes.values()):
        raise AssemblyError(f"{run.owner}: has no stream with events or data")
    return run.streams[max(sizes, key=lambda name: sizes[name])]


def _all_keys(run: ForeignRun, stream: Stream) -> Stream:
    """Return a stream with the data keys of all streams: each detector may have its own."""
    whole = Stream(stream.name, dict(stream.descriptors), stream.events)
    for other in run.streams.values():
        if other.name != "baseline":
            whole.descriptors |= other.descriptors
    return whole


def _position_fields(run: ForeignRun, options: RunOptions) -> list[str]:
    """Return the data keys of the slow and the fast motor's positions."""
    dimensions = (run.start.get("hints") or {}).get("dimensions") or ()
    fields = [str(motor) for motor in run.start["motors"]]
    if len(dimensions) == 2:
        fields = [str(names[0]) for names, _ in dimensions]
    return [options.slow_key or fields[0], options.fast_key or fields[1]]


def _scales(
    run: ForeignRun, fields: Sequence[str], options: RunOptions
) -> tuple[list[float], list[str]]:
    """Return the micrometers in a unit of the slow and of the fast motor, and notes."""
    if options.um_per_unit is not None:
        return [options.um_per_unit] * 2, []
    described: dict[str, Any] = {}
    for stream in run.streams.values():
        for key, facts in stream.data_keys.items():
            if facts.get("units") or key not in described:
                described[key] = facts.get("units")
    missing = [field for field in fields if not units.unit_name(described.get(field))]
    if len(missing) == 1:
        other = next(field for field in fields if field not in missing)
        described[missing[0]] = described[other]
        notes = [f"{missing[0]} has no unit: that of {other} is taken"]
    else:
        notes = []
    scales = [
        units.um_per_unit(
            described.get(field),
            f"{run.owner}, data key {field!r}",
            missing_um=None,
            error=AssemblyError,
            otherwise="or give um_per_unit",
        )
        for field in fields
    ]
    return scales, notes


def _said_axes(run: ForeignRun, scales: Sequence[float]) -> tuple[SaidAxis, SaidAxis]:
    is_relative = run.plan_name.startswith("rel_")
    extents = run.start.get("extents")
    if extents is None or len(extents) != 2:
        raise AssemblyError(f"{run.owner}: extents are {extents!r}; those of two axes are needed")
    slow, fast = (
        said_between(
            str(motor),
            float(first) * scale,
            float(last) * scale,
            int(num),
            run.owner,
            is_relative=is_relative,
        )
        for motor, (first, last), num, scale in zip(
            run.start["motors"], extents, _shape(run), scales, strict=True
        )
    )
    return slow, fast


def _snake(run: ForeignRun) -> Any:
    snaking = run.start.get("snaking")
    if isinstance(snaking, Sequence) and len(snaking) == 2:
        return snaking[1]
    return snaking if isinstance(snaking, bool) else False


def _photons(run: ForeignRun, channels: Sequence[Channel], dwell_ms: float) -> np.ndarray:
    factors = []
    for channel in channels:
        owner = _owner_of(run, channel.parts[0].key)
        factors.append(float(photons_of(owner, [channel], dwell_ms, run.owner)[0]))
    return np.array(factors)


def _owner_of(run: ForeignRun, key: str) -> Stream:
    """Return the stream that has values of a data key."""
    having = [one for one in run.streams.values() if one.name != "baseline" and one.has(key)]
    if not having:
        raise AssemblyError(f"{run.owner}: no data key {key!r}")
    return max(having, key=lambda one: bool(one.events) + bool(one.data) + bool(one.arrays))


class _Frames:
    """The values of a run's data keys by the number of their frame, from 0."""

    def __init__(self, run: ForeignRun, options: RunOptions) -> None:
        self._run = run
        self._options = options
        self.numbers: set[int] = set()
        self.times: dict[int, float] = {}

    def counts(self, part: Part) -> dict[int, float]:
        """Return what all detector elements counted, by frame."""
        stream = _owner_of(self._run, part.key)
        owner = f"{self._run.owner}, stream {stream.name!r}, data key {part.key!r}"
        dims = stream.data_keys.get(part.key, {}).get("dims") or ()
        found = self._values(stream, part.key, lambda value: pixel_value(value, part, dims, owner))
        self.numbers |= set(found)
        return found

    def once(self, key: str | None, scale: float = 1.0) -> dict[int, float]:
        """Return what a frame has once, by frame; nothing where no stream has as many frames."""
        if key is None:
            return {}
        having = [one for one in self._run.streams.values() if one.has(key)]
        for stream in sorted(having, key=lambda one: one.name != "primary"):
            if stream.name == "baseline" or (
                stream.name != "primary" and not self._is_along(stream)
            ):
                continue
            owner = f"{self._run.owner}, stream {stream.name!r}, data key {key!r}"
            values = self._values(stream, key, lambda value, owner=owner: _single(value, owner))
            if values:
                return {number: value * scale for number, value in values.items()}
        return {}

    def column(self, values: Mapping[int, float]) -> np.ndarray:
        """Return values by frame as an array over all frames that have counts."""
        return np.array([values.get(number, np.nan) for number in sorted(self.numbers)])

    def _is_along(self, stream: Stream) -> bool:
        """Return whether a stream has a value for each frame; monitors have theirs at any time."""
        return bool(stream.data or stream.arrays) or len(stream.events) == len(self.numbers)

    def _values(
        self, stream: Stream, key: str, reduced: Callable[[Any], float]
    ) -> dict[int, float]:
        """Return what is made of the values of a data key, by frame."""
        found: dict[int, float] = {}
        pieces = (
            in_pieces(self._run, stream, key),
            streamed(self._run, stream, key, self._options.assets),
        )
        for values, numbers_of in itertools.chain(*pieces):
            found |= {
                number: reduced(value)
                for number, value in zip(numbers_of.tolist(), values, strict=True)
            }
        if found:
            return found
        filling = Filling(self._run, stream, (key,), self._options.assets)
        for seq_num, event in stream.events.items():
            if key in event["data"]:
                found[seq_num - 1] = reduced(filling.data(event)[key])
                self.times[seq_num - 1] = float(event.get("time") or 0.0)
        missing = len(stream.events) - len(found)
        if missing and not found:
            where = f"{self._run.owner}, stream {stream.name!r}"
            there = ", ".join(sorted(stream.in_order[0]["data"]))
            raise AssemblyError(f"{where}: no data key {key!r} in its events; there are {there}")
        return found


def _single(value: Any, owner: str) -> float:
    values = numbers(value, owner)
    if values.size != 1:
        raise AssemblyError(f"{owner}: has {values.size} values; one a frame is needed")
    return float(values.ravel()[0])


def _lines(
    counts: np.ndarray,
    once: Mapping[str, np.ndarray],
    frames: _Frames,
    num: int,
    n_lines: int,
) -> list[Line]:
    """Return the frames as lines, by their numbers; counts are [element, frame]."""
    order = np.array(sorted(frames.numbers), dtype=int)
    line_of, place = np.divmod(order, num)
    lines = []
    for number in np.unique(line_of[(line_of >= 0) & (line_of < n_lines)]).tolist():
        part = np.flatnonzero(line_of == number)
        time = max((frames.times.get(int(one), 0.0) for one in order[part]), default=0.0)
        lines.append(
            Line(
                number,
                place[part],
                counts[:, part],
                **{role: values[part] for role, values in once.items()},
                time=time,
            )
        )
    return lines


def _dwell_ms(run: ForeignRun, stream: Stream, options: RunOptions) -> tuple[float, list[str]]:
    """Return the time at each pixel and what to tell of it."""
    if options.dwell_ms is not None:
        return options.dwell_ms, []
    for owner in (run.start, run.start.get("plan_args"), *_configurations(run)):
        for key, value in owner.items() if isinstance(owner, Mapping) else ():
            if str(key).endswith(_DWELL_KEYS):
                seconds = _number(value)
                if 0 < seconds < np.inf:
                    return seconds * 1e3, []
    times = np.array([float(event.get("time") or 0.0) for event in stream.in_order])
    steps = np.diff(times)
    if not (steps > 0).any():
        raise AssemblyError(
            f"{run.owner}, stream {stream.name!r}: no key of it and of the start document says the"
            " dwell time; give dwell_ms"
        )
    dwell_ms = float(np.median(steps[steps > 0])) * 1e3
    note = f"no dwell time in the documents: {dwell_ms:.4g} ms by the times of the events, at most"
    return dwell_ms, [note]


def _configurations(run: ForeignRun) -> list[Mapping[str, Any]]:
    return [
        device.get("data") or {}
        for stream in run.streams.values()
        for descriptor in stream.descriptors.values()
        for device in (descriptor.get("configuration") or {}).values()
        if isinstance(device, Mapping)
    ]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
