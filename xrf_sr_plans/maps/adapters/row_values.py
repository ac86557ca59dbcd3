"""The lines of fly scans out of their events: one event a line, or one event for the whole map."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError, FileFormatError
from xrf_sr_plans.maps.adapters.adapted_map import photons_per_value
from xrf_sr_plans.maps.adapters.assets import fill
from xrf_sr_plans.maps.adapters.channels import (
    MOST_DETECTOR_ELEMENTS,
    Channel,
    Part,
    channels_of,
    frame_values,
    numbers,
)
from xrf_sr_plans.maps.adapters.element_keys import guessed_channels
from xrf_sr_plans.maps.adapters.lattice import (
    SaidAxis,
    line_slope,
    step_between,
    unit_by_places,
    unit_by_step,
)
from xrf_sr_plans.maps.adapters.options import RunOptions
from xrf_sr_plans.maps.adapters.runs import ForeignRun, Stream, listed
from xrf_sr_plans.maps.adapters.scan_lines import Line
from xrf_sr_plans.maps.files.spectra import HALF_WIDTH_KEV, bins_kev, line_kev

_DETECTOR = re.compile(r"(?i)((?:ch|chan|channel|det|detector|elem|element)_?)\d+")
_I0 = re.compile(r"(?:.*[_-])?i0", re.IGNORECASE)


@dataclass(frozen=True)
class RowKeys:
    """The data keys of a fly scan: of each element, and of what a frame has once."""

    channels: list[Channel]
    i0: str | None
    live_time: str | None
    fast: str | None
    slow: str | None

    @property
    def all(self) -> set[str]:
        """All of them."""
        counts = {part.key for channel in self.channels for part in channel.parts}
        return counts | {
            key for key in (self.i0, self.live_time, self.fast, self.slow) if key is not None
        }


def chosen_channels(
    stream: Stream, options: RunOptions, owner: str, *, but: Collection[str] = ()
) -> list[Channel]:
    """Return the channels that the user named, or those that the data keys are named after.

    Elements that were named without data keys, and after which no key is named, are cut out of the
    only spectra that the stream has.

    Raises
    ------
    AssemblyError
        There is none, or one that is named isn't there.
    """
    where = f"{owner}, stream {stream.name!r}"
    there = sorted(
        {*stream.data_keys, *(key for one in stream.in_order[:1] for key in one["data"])}
    )
    given = options.channels
    if given is None:
        numeric = [key for key in there if key not in but]
        if not options.elements:
            return channels_of(guessed_channels(numeric, where), where)
        given = _wanted(options, stream, numeric, where)
    channels = channels_of(given, where)
    for channel in channels:
        for part in channel.parts:
            if not stream.has(part.key):
                raise AssemblyError(
                    f"{where}: no data key {part.key!r}; there are {', '.join(there)}"
                )
    if options.energy_kev is None:
        return channels
    return [_at_line(channel, stream, options.energy_kev, where) for channel in channels]


def _wanted(
    options: RunOptions, stream: Stream, keys: Sequence[str], where: str
) -> dict[str, list[str]]:
    """Return the data keys of the elements that are wanted, or that of the spectra."""
    try:
        named = guessed_channels(keys, where)
    except AssemblyError:
        named = {}
    if all(element in named for element in options.elements):
        return {element: named[element] for element in options.elements}
    asked = ", ".join(options.elements)
    spectra = [key for key in keys if _are_spectra(stream.data_keys.get(key, {}))]
    if len(spectra) != 1:
        which = f"that may be in {', '.join(spectra)}" if spectra else "and none has spectra"
        raise AssemblyError(
            f"{where}: no data keys are named after all of {asked}, {which}; give"
            f" channels={{{options.elements[0]!r}: data key}}. There are {', '.join(keys)}"
        )
    if options.energy_kev is None:
        raise AssemblyError(
            f"{where}, data key {spectra[0]!r}: the energies of its bins are not in the documents;"
            f" give energy_kev, that of bin 0 and the width of a bin, for the lines of {asked}"
        )
    return dict.fromkeys(options.elements, spectra)


def _are_spectra(facts: Mapping[str, Any]) -> bool:
    """Return whether a data key holds spectra, by its last axis and one of frames before it."""
    shape = listed(facts.get("shape"))
    return len(shape) > 1 and isinstance(shape[-1], int) and shape[-1] > MOST_DETECTOR_ELEMENTS


def _at_line(
    channel: Channel, stream: Stream, energy_kev: tuple[float, float], where: str
) -> Channel:
    """Return a channel with the bins around the element's line where it names spectra only."""
    parts = []
    for part in channel.parts:
        shape = listed(stream.data_keys.get(part.key, {}).get("shape"))
        if part.bins is not None or not shape or int(shape[-1] or 0) <= MOST_DETECTOR_ELEMENTS:
            parts.append(part)
            continue
        try:
            line = line_kev(channel.element, f"{where}, data key {part.key!r}")
        except FileFormatError as error:
            raise AssemblyError(str(error)) from error
        energies = bins_kev(int(shape[-1]), energy_kev)
        inside = np.flatnonzero(np.abs(energies - line) <= HALF_WIDTH_KEV)
        if not inside.size:
            raise AssemblyError(
                f"{where}, data key {part.key!r}: the line of {channel.element} at {line:.3f} keV"
                f" is outside of its spectra, {energies[0]:.3f} to {energies[-1]:.3f} keV"
            )
        parts.append(Part(part.key, (int(inside[0]), int(inside[-1]) + 1)))
    return Channel(channel.element, tuple(parts))


def left_out(channels: Sequence[Channel], stream: Stream) -> list[str]:
    """Return a note for each element of which only some detector elements were named."""
    notes = []
    for channel in channels:
        keys = [part.key for part in channel.parts]
        kinds = {_DETECTOR.sub(r"\1#", key) for key in keys}
        others = [
            key
            for key in stream.data_keys
            if key not in keys and _DETECTOR.sub(r"\1#", key) in kinds and _DETECTOR.search(key)
        ]
        if others:
            notes.append(
                f"{channel.element} is that of {', '.join(keys)} alone; there are also"
                f" {', '.join(others)}"
            )
    return notes


def monitor_key(stream: Stream, wanted: str | None, usual: Sequence[str], owner: str) -> str | None:
    """Return the data key of the flux monitor; None where there is none.

    Raises
    ------
    AssemblyError
        The one that the user named isn't there.
    """
    if wanted is not None:
        if not stream.has(wanted):
            raise AssemblyError(f"{owner}, stream {stream.name!r}: no data key {wanted!r}")
        return wanted
    for key in usual:
        if stream.has(key):
            return key
    named = [key for key in stream.data_keys if _I0.fullmatch(key)]
    return named[0] if len(named) == 1 else None


def encoder_keys(
    run: ForeignRun,
    stream: Stream,
    options: RunOptions,
    fast: SaidAxis,
    slow: SaidAxis,
    usual: Sequence[str],
) -> tuple[str | None, str | None]:
    """Return the data keys of the readings of the fast and of the slow axis.

    Which of a controller's encoders is which axis is wired differently from stage to stage. Those
    are taken whose readings move as the axes are announced to.

    Parameters
    ----------
    usual
        Data keys that may be readings, in the order of preference.
    """
    keys = [key for key in dict.fromkeys(usual) if stream.has(key)]
    found: dict[str, str | None] = {"fast": options.fast_key, "slow": options.slow_key}
    for role, key in found.items():
        if key is not None and not stream.has(key):
            raise AssemblyError(
                f"{run.owner}, stream {stream.name!r}: no data key {key!r} for {role}_key"
            )
    if None in found.values() and keys:
        fill(run, stream, keys, options.assets)
    tests = {"fast": _moves_along, "slow": _moves_across}
    for role, axis in (("fast", fast), ("slow", slow)):
        for key in keys:
            if found[role] is None and key not in found.values():
                lines = readings_of_lines(stream, key, fast.num)
                if lines is not None and tests[role](lines, axis):
                    found[role] = key
    return found["fast"], found["slow"]


def readings_of_lines(stream: Stream, key: str, num: int) -> list[np.ndarray] | None:
    """Return the readings of each line [frame]; None where there are none.

    Parameters
    ----------
    num
        Frames of a line, for events that hold a whole map.
    """
    lines: list[np.ndarray] = []
    try:
        for event in stream.in_order:
            values = np.asarray(event["data"].get(key, ()), dtype=float).ravel()
            lines += [values[at : at + num] for at in range(0, max(values.size, 1), num)]
    except (TypeError, ValueError):
        return None
    return lines if any(np.isfinite(line).any() for line in lines) else None


def _moves_along(lines: list[np.ndarray], axis: SaidAxis) -> bool:
    slopes = [line_slope(np.arange(line.size), line) for line in lines]
    steps = [abs(slope) for slope in slopes if slope]
    return bool(steps) and unit_by_step(float(np.median(steps)), axis.step_um) is not None


def _moves_across(lines: list[np.ndarray], axis: SaidAxis) -> bool:
    medians = np.array([np.nanmedian(line) for line in lines if np.isfinite(line).any()])
    if axis.num == 1 or medians.size < 2:
        return False
    step = step_between(medians)
    spread = [np.ptp(line[np.isfinite(line)]) for line in lines if np.isfinite(line).any()]
    still = step is not None and float(np.median(spread)) < step / 2
    return still and unit_by_places(medians, axis) is not None


def photons_of(
    stream: Stream, channels: Sequence[Channel], dwell_ms: float, owner: str
) -> np.ndarray:
    """Return how many photons a value of 1 is, for each channel [element].

    Raises
    ------
    AssemblyError
        See `photons_per_value`; or the parts of a channel have different units.
    """
    where = f"{owner}, stream {stream.name!r}"
    described = {"data_keys": stream.data_keys}
    scales = []
    for channel in channels:
        keys = [part.key for part in channel.parts]
        factors = photons_per_value(described, keys, dwell_ms, where)
        if np.ptp(factors) > 0:
            raise AssemblyError(f"{where}: {', '.join(keys)} have different units")
        scales.append(float(factors[0]))
    return np.array(scales)


def line_of(
    run: ForeignRun,
    stream: Stream,
    data: Mapping[str, Any],
    keys: RowKeys,
    number: int,
    usual: int,
    photons: np.ndarray,
    time: float,
) -> Line:
    """Return the line of an event, its readings in the unit in which they are written.

    Parameters
    ----------
    usual
        Number of frames of a whole line.
    photons
        Photons of a value of 1 [element].

    Raises
    ------
    AssemblyError
        A data key isn't there, holds no numbers, or has a shape that isn't understood.
    """
    where = f"{run.owner}, stream {stream.name!r}"
    num = _frames(data, keys, usual)
    counts = []
    for channel in keys.channels:
        parts = []
        for part in channel.parts:
            owner = f"{where}, data key {part.key!r}"
            if part.key not in data:
                raise AssemblyError(f"{owner}: is missing in event {number + 1}")
            dims = stream.data_keys.get(part.key, {}).get("dims") or ()
            parts.append(frame_values(data[part.key], part, num, usual, dims, owner))
        counts.append(_sum(parts))
    width = max([values.size for values in counts])
    stacked = np.stack([_padded(values, width) for values in counts]) * photons[:, None]
    once = {
        role: _once(data, key, width, where)
        for role, key in (
            ("fast", keys.fast), ("slow", keys.slow), ("i0", keys.i0), ("live_time", keys.live_time)
        )
    }  # fmt: skip
    return Line(number, np.arange(width), stacked, time=time, **once)


def _frames(data: Mapping[str, Any], keys: RowKeys, usual: int) -> int | None:
    """Return the number of frames of an event by what a frame has once; None where unknown."""
    for key in (keys.fast, keys.i0, keys.live_time, keys.slow):
        if key is not None and np.ndim(data.get(key, 0.0)) == 1:
            size = np.size(data[key])
            # Encoders may be read out several times a frame.
            return size if size < 2 * usual else None
    return None


def _sum(parts: list[np.ndarray]) -> np.ndarray:
    """Return the sum over detector elements; a frame that one of them lacks is NaN."""
    width = max(part.size for part in parts)
    return np.sum([_padded(part, width) for part in parts], axis=0)


def _padded(values: np.ndarray, num: int) -> np.ndarray:
    return np.pad(values[:num], (0, max(num - values.size, 0)), constant_values=np.nan)


def _once(data: Mapping[str, Any], key: str | None, num: int, where: str) -> np.ndarray:
    """Return what a frame has once [frame], NaN where it is missing."""
    if key is None or key not in data:
        return np.full(num, np.nan)
    values = numbers(data[key], f"{where}, data key {key!r}")
    if values.ndim == 0:
        return np.full(num, float(values))
    values = values.ravel()
    if values.size > num and values.size % num == 0 and num:
        # Several readings a frame: their mean is at its center.
        values = values.reshape(num, -1).mean(axis=1)
    return _padded(values, num)


def split(line: Line, num: int) -> list[Line]:
    """Return a line that holds a whole map as its lines of `num` frames each."""
    lines = []
    for number, first in enumerate(range(0, line.order.size, num)):
        part = slice(first, first + num)
        size = line.order[part].size
        lines.append(
            Line(
                number,
                np.arange(size),
                line.counts[:, part],
                line.fast[part],
                line.slow[part],
                line.i0[part],
                line.live_time[part],
                line.time,
            )
        )
    return lines
