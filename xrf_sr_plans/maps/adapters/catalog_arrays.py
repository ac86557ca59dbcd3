"""Arrays that a catalog holds beside a run's events, read through the catalog itself.

A Tiled server tells how many frames an array has and gives any of them, wherever the file is. It
keeps no word of which frames are missing: of an array with fewer frames than were announced only
the number is known. So either all frames are there, or the run was cut off, and those that are
there are its first ones; anything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError, in_words
from xrf_sr_plans.maps.adapters.assets import FRAMES_AT_ONCE, Assets
from xrf_sr_plans.maps.adapters.runs import ForeignRun, Stream, listed
from xrf_sr_plans.maps.computed_here import computed_here


class CatalogArray:
    """The array of a data key, an element of which belongs to each event or frame of its stream.

    Parameters
    ----------
    array
        Has a ``shape`` and takes slices along its first axis.
    where
        Whose array it is, for messages.
    datum_shape
        Shape of what belongs to an event or frame, as the descriptor says it.

    Raises
    ------
    AssemblyError
        Its shape is another one than the descriptor says.
    """

    def __init__(self, array: Any, where: str, datum_shape: tuple[int, ...]) -> None:
        self._array = array
        self._where = where
        shape = tuple(int(size) for size in array.shape)
        # What belongs to an event is stacked along a new axis, or one behind the other.
        stacked = datum_shape == shape[1:] or (datum_shape == (1,) and len(shape) == 1)
        if shape and stacked:
            self._each = 1
        elif shape and datum_shape and shape[1:] == datum_shape[1:] and datum_shape[0] > 0:
            self._each = datum_shape[0]
        else:
            raise AssemblyError(
                f"{where}: the catalog has the shape {shape} for what the descriptor describes as"
                f" {datum_shape}"
            )
        self.num = shape[0] // self._each
        """Number of events or frames."""

    def read(self, low: int, high: int) -> np.ndarray:
        """Return what belongs to some events or frames [frame, ...].

        Raises
        ------
        AssemblyError
            The catalog can't read them, or gives fewer.
        """
        each = self._each
        try:
            with computed_here():
                values = np.asarray(self._array[low * each : high * each])
        except Exception as error:
            raise AssemblyError(
                f"{self._where}: the catalog can't read frames {low} to {high}: {in_words(error)}"
            ) from error
        if len(values) != (high - low) * each:
            raise AssemblyError(
                f"{self._where}: the catalog gave {len(values)} frames, where {(high - low) * each}"
                " were asked for"
            )
        return values if each == 1 else values.reshape(high - low, each, *values.shape[1:])


def find_arrays(run: ForeignRun, assets: Assets) -> None:
    """Put the arrays that a catalog holds of a run into its streams.

    Raises
    ------
    AssemblyError
        See `CatalogArray`.
    """
    if assets.arrays is None:
        return
    for stream in run.streams.values():
        for key, facts in stream.data_keys.items():
            array = assets.arrays(stream.name, key) if facts.get("external") else None
            if array is not None:
                where = f"{run.owner}, stream {stream.name!r}, data key {key!r}"
                shape = tuple(int(size or 0) for size in listed(facts.get("shape")))
                stream.arrays[key] = CatalogArray(array, where, shape)


def in_pieces(run: ForeignRun, stream: Stream, key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the values that a catalog has of a data key, piece by piece; nothing where it has none.

    Yields
    ------
    tuple of ndarray
        Values [frame, ...] and the number of each frame [frame], from 0.

    Raises
    ------
    AssemblyError
        Nothing says which frames these are, or they can't be read.
    """
    array = stream.arrays.get(key)
    if array is None:
        return
    order = frame_numbers(run, stream, key, array.num)
    for low in range(0, array.num, FRAMES_AT_ONCE):
        high = min(low + FRAMES_AT_ONCE, array.num)
        yield array.read(low, high), order[low:high]


class CatalogRows:
    """What a catalog has of the events of a stream, read event by event.

    Parameters
    ----------
    run
        The run.
    stream
        One of its streams.
    keys
        The data keys that are wanted.

    Raises
    ------
    AssemblyError
        Nothing says which events the arrays belong to.
    """

    def __init__(self, run: ForeignRun, stream: Stream, keys: Collection[str]) -> None:
        self._arrays = {key: array for key, array in stream.arrays.items() if key in keys}
        self._places = {
            key: {
                int(number): place
                for place, number in enumerate(frame_numbers(run, stream, key, array.num))
            }
            for key, array in self._arrays.items()
        }

    def has(self, event: Mapping[str, Any]) -> bool:
        """Return whether the catalog has all that is wanted of an event."""
        number = int(event["seq_num"]) - 1
        return all(number in places for places in self._places.values())

    def data(self, event: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the arrays of an event by data key.

        Raises
        ------
        AssemblyError
            They can't be read.
        """
        number = int(event["seq_num"]) - 1
        places = {key: self._places[key].get(number) for key in self._arrays}
        return {
            key: self._arrays[key].read(place, place + 1)[0]
            for key, place in places.items()
            if place is not None
        }


def frame_numbers(run: ForeignRun, stream: Stream, key: str, num: int) -> np.ndarray:
    """Return the number of each of the frames that a catalog has [frame], from 0.

    Raises
    ------
    AssemblyError
        Fewer or more are there than events or announced frames.
    """
    events = np.array(sorted(stream.events), dtype=int) - 1
    expected = events if events.size else np.arange(_announced(run))
    if num == expected.size:
        return expected
    there = "events" if events.size else "announced frames"
    where = f"{run.owner}, stream {stream.name!r}, data key {key!r}"
    was_cut_off = (run.stop or {}).get("exit_status") != "success"
    if num < expected.size and was_cut_off:
        note = f"{key}: the catalog has {num} of {expected.size} {there}: taken as the first ones"
        if note not in run.notes:
            run.notes.append(note)
        return expected[:num]
    raise AssemblyError(
        f"{where}: the catalog has {num} frames for {expected.size} {there}, and no word of which"
        " they are; the files of the run itself tell it (give its documents, not the catalog)"
    )


def _announced(run: ForeignRun) -> int:
    """Return the number of frames that the start document announces."""
    num = run.start.get("num_points")
    if isinstance(num, int) and num > 0:
        return num
    shape = listed(run.start.get("shape"))
    return math.prod(int(size) for size in shape) if shape else 0
