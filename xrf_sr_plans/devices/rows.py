"""The row event that every row flyer emits, described and composed in one place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bluesky.protocols import Reading
from event_model import DataKey, PartialEvent

from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.schema import STREAM_ROWS, elements_key, row_keys

_UNITS = {"counts": "photons", "i0": "counts/s", "live_time": "s", "fast_um": "um", "slow_um": "um"}
"""Unit of each array of a row event, by its role in `schema.row_keys`."""


@dataclass(frozen=True)
class RowFrames:
    """The frames of one row, in order of acquisition.

    Parameters
    ----------
    counts
        Photons of each elemental line, shape (element, frame).
    i0
        Rate of the beam monitor in counts/s, shape (frame,); NaN where it is unknown.
    live_time_s
        Live time of the detector in s, shape (frame,).
    fast_um
        Encoder position of the fast axis in the middle of each frame, in um, shape (frame,); NaN
        where it is unknown.
    slow_um
        The same of the slow axis.
    """

    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray
    fast_um: np.ndarray
    slow_um: np.ndarray

    @property
    def num(self) -> int:
        """The number of frames."""
        return self.counts.shape[-1]

    def first(self, num: int) -> RowFrames:
        """Return the first `num` frames alone."""
        return RowFrames(**{name: array[..., :num] for name, array in vars(self).items()})


@dataclass(frozen=True)
class RowPath:
    """Where the fast axis goes for a row.

    Parameters
    ----------
    request
        The row.
    start_um
        Where the run-up begins, in um of the stage.
    end_um
        Where the axis has come to rest after the row, in um of the stage.
    first_edge_um
        Outer edge of the first pixel, which is where its frame begins, in um of the stage.
    velocity_um_s
        Velocity that covers one step in one dwell.
    """

    request: RowRequest
    start_um: float
    end_um: float
    first_edge_um: float
    velocity_um_s: float

    @classmethod
    def from_request(cls, request: RowRequest) -> RowPath:
        """Return the path of a row, which has half a pixel and the run-up on either side."""
        direction, half = request["direction"], request["step_um"] / 2
        first_edge = request["first_um"] - direction * half
        last_edge = request["last_um"] + direction * half
        return cls(
            request,
            first_edge - direction * request["run_up_um"],
            last_edge + direction * request["run_up_um"],
            first_edge,
            request["step_um"] / (request["dwell_ms"] * 1e-3),
        )


@dataclass
class AttemptCounter:
    """Counts how often each row of each map was begun."""

    _begun: dict[tuple[str, int], int] = field(default_factory=dict)

    def begin(self, request: RowRequest) -> int:
        """Count one more attempt at a row, and return its index, which is 0 for the first."""
        key = (request["map_key"], request["row"])
        attempt = self._begun.get(key, 0)
        self._begun[key] = attempt + 1
        return attempt

    def reset(self) -> None:
        """Forget all rows of all maps."""
        self._begun.clear()


def describe_row(
    detector: str, num_elements: int, num: int | None
) -> dict[str, dict[str, DataKey]]:
    """Return the data keys of a row event by stream, as `describe_collect` of a flyer does.

    Parameters
    ----------
    detector
        Name of the flyer, with which the keys begin.
    num_elements
        Number of elements.
    num
        Number of pixels of a row; None: not known yet.
    """
    keys = row_keys(detector)
    source = f"xrf-sr-plans:{detector}"
    data_keys: dict[str, DataKey] = {}
    for role, unit in _UNITS.items():
        data_keys[keys[role]] = DataKey(
            source=source,
            dtype="array",
            shape=[num_elements, num] if role == "counts" else [num],
            dtype_numpy="<f8",
            units=unit,
            dims=["element", "frame"] if role == "counts" else ["frame"],
        )
    for role in ("row", "attempt", "direction", "n_frames"):
        data_keys[keys[role]] = DataKey(source=source, dtype="integer", shape=[], dtype_numpy="<i8")
    return {STREAM_ROWS: data_keys}


def row_event(detector: str, frames: RowFrames, request: RowRequest, attempt: int) -> PartialEvent:
    """Return the event of a row, as `collect` of a flyer yields it.

    Arrays become Python lists. A row with fewer frames than `request` asks for is padded with
    NaN, and its ``n_frames`` tells how many were taken.
    """
    keys = row_keys(detector)
    columns = {
        "counts": frames.counts,
        "i0": frames.i0,
        "live_time": frames.live_time_s,
        "fast_um": frames.fast_um,
        "slow_um": frames.slow_um,
    }
    data: dict[str, Any] = {
        keys[role]: _padded(array, request["num"]).tolist() for role, array in columns.items()
    }
    data[keys["row"]] = int(request["row"])
    data[keys["attempt"]] = int(attempt)
    data[keys["direction"]] = int(request["direction"])
    data[keys["n_frames"]] = int(frames.num)
    now = time.time()
    return PartialEvent(data=data, timestamps=dict.fromkeys(data, now), time=now)


def describe_elements(detector: str, elements: Sequence[str]) -> dict[str, DataKey]:
    """Return the data key of the element names, as `describe_configuration` of a flyer does."""
    return {
        elements_key(detector): DataKey(
            source=f"xrf-sr-plans:{detector}",
            dtype="array",
            shape=[len(elements)],
            dtype_numpy="<U8",
        )
    }


def read_elements(detector: str, elements: Sequence[str]) -> dict[str, Reading[list[str]]]:
    """Return the element names, as `read_configuration` of a flyer does."""
    return {elements_key(detector): {"value": list(elements), "timestamp": time.time()}}


def _padded(array: np.ndarray, num: int) -> np.ndarray:
    """Cut (..., frame) to `num` frames, or fill it up with NaN."""
    array = np.asarray(array, dtype=float)
    missing = num - array.shape[-1]
    if missing <= 0:
        return array[..., :num]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=np.nan)
