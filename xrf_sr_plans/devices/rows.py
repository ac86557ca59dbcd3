"""The row event: what every row flyer emits, described and composed in one place."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.schema import STREAM_ROWS, elements_key, row_keys

_UNITS = {"counts": "photons", "i0": "counts/s", "live_time": "s", "fast_um": "um", "slow_um": "um"}


@dataclass(frozen=True)
class RowFrames:
    """The frames of one row, in order of acquisition.

    `counts` is (element, frame); `i0` (a rate, counts/s), `live_time_s`, `fast_um` and `slow_um`
    are (frame,).
    """

    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray
    fast_um: np.ndarray
    slow_um: np.ndarray

    @property
    def num(self) -> int:
        """Number of frames."""
        return self.counts.shape[-1]

    def first(self, num: int) -> RowFrames:
        """Return only the first `num` frames."""
        return RowFrames(**{name: array[..., :num] for name, array in vars(self).items()})


@dataclass(frozen=True)
class RowPath:
    """Where the fast axis goes for a row: from `start_um` through the row to `end_um`.

    `first_edge_um` is where the first frame begins; `velocity_um_s` covers a step in a dwell.
    """

    request: RowRequest
    start_um: float
    end_um: float
    first_edge_um: float
    velocity_um_s: float

    @classmethod
    def from_request(cls, request: RowRequest) -> RowPath:
        """Return the path of a row: half a pixel and the run-up on either side."""
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
    """How often each row of each map was begun."""

    _begun: dict[tuple[str, int], int] = field(default_factory=dict)

    def begin(self, request: RowRequest) -> int:
        """Count one more attempt at a row; return its index, 0 for the first."""
        key = (request["map_key"], request["row"])
        attempt = self._begun.get(key, 0)
        self._begun[key] = attempt + 1
        return attempt

    def reset(self) -> None:
        """Forget all rows."""
        self._begun.clear()


def describe_row(detector: str, num_elements: int, num: int | None) -> dict[str, dict[str, Any]]:
    """Return what `describe_collect` of a row flyer returns; `num` None: not yet known."""
    keys = row_keys(detector)
    source = f"xrf-sr-plans:{detector}"
    described: dict[str, Any] = {}
    for role in _UNITS:
        shape = [num_elements, num] if role == "counts" else [num]
        described[keys[role]] = {
            "source": source,
            "dtype": "array",
            "shape": shape,
            "dtype_numpy": "<f8",
            "units": _UNITS[role],
            "dims": ["element", "frame"] if role == "counts" else ["frame"],
        }
    for role in ("row", "attempt", "direction", "n_frames"):
        described[keys[role]] = {
            "source": source,
            "dtype": "integer",
            "shape": [],
            "dtype_numpy": "<i8",
        }
    return {STREAM_ROWS: described}


def row_event(
    detector: str, frames: RowFrames, request: RowRequest, attempt: int
) -> dict[str, Any]:
    """Return the partial event of a row: plain lists, padded with NaN to the length asked for."""
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
    return {"data": data, "timestamps": dict.fromkeys(data, now), "time": now}


def describe_elements(detector: str, elements: Sequence[str]) -> dict[str, Any]:
    """Return what `describe_configuration` says of the element names."""
    return {
        elements_key(detector): {
            "source": f"xrf-sr-plans:{detector}",
            "dtype": "array",
            "shape": [len(elements)],
            "dtype_numpy": "<U8",
        }
    }


def read_elements(detector: str, elements: Sequence[str]) -> Mapping[str, Any]:
    """Return the element names as `read_configuration` does."""
    return {elements_key(detector): {"value": list(elements), "timestamp": time.time()}}


def _padded(array: np.ndarray, num: int) -> np.ndarray:
    array = np.asarray(array, dtype=float)
    missing = num - array.shape[-1]
    if missing <= 0:
        return array[..., :num]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=np.nan)
