"""Map runs of other programs, row by row, and the documents that the analysis reads of them.

Both adapters fill an `AdaptedMap` with rows and let it yield the documents.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.value_units import value_unit
from xrf_sr_plans.maps.well_formed import checked
from xrf_sr_plans.measurement import Sampling

Document = tuple[str, dict[str, Any]]
"""The name of a document ("start", "event", ...) and the document itself."""

DETECTOR = "xrf"
"""Name of the detector in the documents that an adapter yields."""

# Part of every uid that an adapter makes: the same run always gets the same uids.
_NAMESPACE = uuid.UUID("8f0c6a52-7b0e-5b52-9d1c-6f2f0a8d1e90")


@dataclass
class FlownRow:
    """One row of a map, its frames in order of acquisition.

    Parameters
    ----------
    counts
        Detected photons [element, frame]; NaN where a frame is missing.
    i0
        Flux monitor [frame]; NaN where unknown.
    fast_um, slow_um
        Measured position of each frame [frame], in um; NaN where unknown.
    direction
        1 where the row ran from low to high, else -1.
    attempt
        Number of earlier attempts at this row.
    time
        Time of the row's last event, in seconds since 1970.
    """

    counts: np.ndarray
    i0: np.ndarray
    fast_um: np.ndarray
    slow_um: np.ndarray
    direction: int
    attempt: int = 0
    time: float = 0.0

    @property
    def n_frames(self) -> int:
        """Number of frames up to the last one in which any element has counts."""
        measured = np.flatnonzero(np.isfinite(self.counts).any(axis=0))
        return int(measured[-1]) + 1 if measured.size else 0


@dataclass
class AdaptedMap:
    """A map run of another program while its rows are being collected.

    Parameters
    ----------
    start
        Start document of the run.
    grid
        Pixels of the map.
    elements
        Element names, in the order of the rows' counts.
    dwell_ms
        Time at each pixel.
    sampling
        How a pixel was measured: "fly", "area" or "point".
    analysis
        What the analysis is to do with the map.
    channels
        Which channels the run has besides the counts: "i0", "fast_um", "slow_um". One that it
        doesn't have is left out of the documents; one that says nothing there is named in the
        result.
    rows
        The rows so far, by index along the slow axis.
    """

    start: Mapping[str, Any]
    grid: ScanGrid
    elements: Sequence[str]
    dwell_ms: float
    sampling: Sampling
    analysis: schema.AnalysisRequest | None
    channels: Sequence[str] = ("i0", "fast_um", "slow_um")
    rows: dict[int, FlownRow] = field(default_factory=dict)

    def documents(self, stop: Mapping[str, Any] | None) -> Iterator[Document]:
        """Yield the run as row documents, between its own start and stop documents.

        Parameters
        ----------
        stop
            Stop document of the run; None where it was cut off.
        """
        metadata = schema.MapMetadata(
            purpose="map",
            grid=self.grid.to_dict(),
            elements=list(self.elements),
            step_um=self.grid.fast.step_um,
            dwell_ms=self.dwell_ms,
            sampling=self.sampling,
            analysis=self.analysis,
        )
        yield "start", {**self.start, "xrf_sr": metadata.to_dict()}
        descriptor = self._descriptor()
        yield "descriptor", descriptor
        for seq_num, index in enumerate(sorted(self.rows), start=1):
            yield "event", self._event(descriptor["uid"], seq_num, index)
        if stop is not None:
            yield "stop", dict(stop)

    def _descriptor(self) -> dict[str, Any]:
        num = self.grid.fast.num
        # Counts are [element, frame], what a frame has once is [frame]; the rest are numbers.
        shapes = {"counts": [len(self.elements), num]} | {role: [num] for role in self.channels}
        keys = {
            role: key
            for role, key in schema.row_keys(DETECTOR).items()
            if role in (*shapes, "row", "attempt", "direction", "n_frames")
        }
        data_keys = {
            key: {
                "source": "adapter",
                "dtype": "array" if role in shapes else "integer",
                "shape": shapes.get(role, []),
            }
            for role, key in keys.items()
        }
        name = schema.elements_key(DETECTOR)
        elements = {"source": "adapter", "dtype": "array", "shape": [len(self.elements)]}
        time = float(self.start["time"])
        return {
            "uid": str(uuid.uuid5(_NAMESPACE, f"{self.start['uid']}/rows")),
            "run_start": self.start["uid"],
            "name": schema.STREAM_ROWS,
            "time": time,
            "data_keys": data_keys,
            "object_keys": {DETECTOR: list(data_keys)},
            "hints": {DETECTOR: {"fields": []}},
            "configuration": {
                DETECTOR: {
                    "data": {name: list(self.elements)},
                    "timestamps": {name: time},
                    "data_keys": {name: elements},
                }
            },
        }

    def _event(self, descriptor: str, seq_num: int, index: int) -> dict[str, Any]:
        row, keys = self.rows[index], schema.row_keys(DETECTOR)
        data = {
            keys["counts"]: row.counts.tolist(),
            **{keys[role]: getattr(row, role).tolist() for role in self.channels},
            keys["row"]: index,
            keys["attempt"]: row.attempt,
            keys["direction"]: row.direction,
            keys["n_frames"]: row.n_frames,
        }
        return {
            "uid": str(uuid.uuid5(_NAMESPACE, f"{descriptor}/{index}")),
            "descriptor": descriptor,
            "seq_num": seq_num,
            "time": row.time,
            "data": data,
            "timestamps": dict.fromkeys(data, row.time),
            "filled": {},
        }


def axis_between(name: str, first_um: float, last_um: float, num: int) -> AxisGrid:
    """Return the axis whose outermost pixels are centered on two positions.

    Parameters
    ----------
    name
        Name of the axis.
    first_um, last_um
        Centers of the first and the last pixel, in either order.
    num
        Number of pixels. A single pixel is centered on the lower position and 1 um wide.

    Raises
    ------
    AssemblyError
        There is no pixel.
    GridError
        The positions are not finite, or the same for several pixels.
    """
    if num < 1:
        raise AssemblyError(f"axis {name!r} has {num} pixels; at least 1 is needed")
    step = abs(last_um - first_um) / (num - 1) if num > 1 else 1.0
    return AxisGrid(name, min(first_um, last_um), step, num)


def without_pages(documents: Iterator[Document]) -> Iterator[Document]:
    """Yield documents with every event page taken apart into its events.

    Raises
    ------
    AssemblyError
        A document lacks what every reader relies on.
    """
    for name, doc in checked(documents):
        if name != "event_page":
            yield name, doc
            continue
        for place in range(len(doc["seq_num"])):
            event = {key: doc[key][place] for key in ("uid", "seq_num", "time")}
            data = {key: values[place] for key, values in doc["data"].items()}
            yield "event", {**event, "descriptor": doc["descriptor"], "data": data}


def numbers(data: Mapping[str, Any], key: str, num: int | None = None) -> np.ndarray:
    """Return the values of a data key as floats [frame].

    Parameters
    ----------
    data
        The data of an event.
    key
        The data key.
    num
        Number of frames: more are cut off, missing ones are NaN. The values of several detector
        elements, in an array with one axis of this length, are added up. None: all values.

    Raises
    ------
    AssemblyError
        The key isn't there, or holds no numbers (an external array that was not filled), or an
        array of which no single axis has one number a frame.
    """
    if key not in data:
        raise AssemblyError(f"no data key {key!r}; there are {', '.join(data)}")
    try:
        values = np.asarray(data[key], dtype=float)
    except (TypeError, ValueError) as error:
        raise AssemblyError(f"{key!r} holds no numbers (is it filled?): {error}") from error
    if num is None:
        return values.ravel()
    if values.ndim > 1:
        of_frames = [axis for axis, length in enumerate(values.shape) if length == num]
        if len(of_frames) != 1:
            raise AssemblyError(
                f"{key!r} has the shape {values.shape}; one axis of {num} frames is needed"
            )
        others = tuple(axis for axis in range(values.ndim) if axis != of_frames[0])
        values = values.sum(axis=others)
    values = values.ravel()
    return np.pad(values[:num], (0, max(num - values.size, 0)), constant_values=np.nan)


def photons_per_value(
    descriptor: Mapping[str, Any], keys: Sequence[str], dwell_ms: float, owner: str
) -> np.ndarray:
    """Return how many photons a value of 1 is, for each data key [key].

    Counts per time are multiplied by the dwell time. A missing unit stands for photons.

    Parameters
    ----------
    descriptor
        Descriptor with the data keys and their ``units``.
    keys
        Data keys of the elements.
    dwell_ms
        Time at each pixel.
    owner
        Whose data keys they are, for the message.

    Raises
    ------
    AssemblyError
        A unit is neither one of photons nor one of photons per time, or the dwell that a rate
        needs is not above 0.
    """
    scales = []
    for key in keys:
        unit = value_unit(descriptor["data_keys"].get(key, {}).get("units"))
        if unit.kind == "other":
            raise AssemblyError(
                f"{owner}, data key {key!r}: unit is {unit.name[:40]!r}; counts are needed, or"
                " counts per time"
            )
        if unit.kind == "rate" and not 0 < dwell_ms < math.inf:
            raise AssemblyError(
                f"{owner}, data key {key!r}: unit is {unit.name!r}, which needs a dwell time above"
                f" 0; it is {dwell_ms} ms"
            )
        scales.append(unit.per_s * dwell_ms / 1e3 if unit.kind == "rate" else 1.0)
    return np.array(scales)


def total(data: Mapping[str, Any], key: str) -> float:
    """Return the value of a data key; the values of several detector elements are added up.

    Raises
    ------
    AssemblyError
        See `numbers`; or the key holds no value at all.
    """
    values = numbers(data, key)
    if not values.size:
        raise AssemblyError(f"{key!r} is empty; a number is needed")
    return float(values.sum())


def single(data: Mapping[str, Any], key: str) -> float:
    """Return the only value of a data key.

    Raises
    ------
    AssemblyError
        See `numbers`; or the key holds another number of values than one.
    """
    values = numbers(data, key)
    if values.size != 1:
        raise AssemblyError(f"{key!r} has {values.size} values; one position is needed")
    return float(values[0])
