"""What both adapters end in: rows of arrays, told as the documents of a map run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.measurement import Sampling

Document = tuple[str, dict[str, Any]]

DETECTOR = "xrf"
_NAMESPACE = uuid.UUID("8f0c6a52-7b0e-5b52-9d1c-6f2f0a8d1e90")
_UM_PER_UNIT = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0,
                "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "m": 1e6}  # fmt: skip


@dataclass
class FlownRow:
    """One row in order of acquisition; counts (element, frame), NaN where a frame is missing."""

    counts: np.ndarray
    i0: np.ndarray
    fast_um: np.ndarray
    slow_um: np.ndarray
    direction: int
    attempt: int = 0
    time: float = 0.0

    @property
    def n_frames(self) -> int:
        """Frames up to the last one with any counts."""
        measured = np.flatnonzero(np.isfinite(self.counts).any(axis=0))
        return int(measured[-1]) + 1 if measured.size else 0


@dataclass
class AdaptedMap:
    """A map run in the making: rows by index along the slow axis."""

    start: Mapping[str, Any]
    grid: ScanGrid
    elements: Sequence[str]
    dwell_ms: float
    sampling: Sampling
    analysis: schema.AnalysisRequest | None
    rows: dict[int, FlownRow] = field(default_factory=dict)

    def documents(self, stop: Mapping[str, Any] | None) -> Iterator[Document]:
        """Yield the run: the source's own start and stop, with our rows between them."""
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
        for number, index in enumerate(sorted(self.rows), start=1):
            yield "event", self._event(descriptor["uid"], number, index)
        if stop is not None:
            yield "stop", dict(stop)

    def _descriptor(self) -> dict[str, Any]:
        keys = schema.row_keys(DETECTOR)
        columns = self.grid.fast.num
        shapes = {"counts": [len(self.elements), columns]} | {
            role: [columns] for role in ("i0", "live_time", "fast_um", "slow_um")
        }
        facts = {
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
            "data_keys": facts,
            "object_keys": {DETECTOR: list(facts)},
            "hints": {DETECTOR: {"fields": []}},
            "configuration": {
                DETECTOR: {
                    "data": {name: list(self.elements)},
                    "timestamps": {name: time},
                    "data_keys": {name: elements},
                }
            },
        }

    def _event(self, descriptor: str, number: int, index: int) -> dict[str, Any]:
        row, keys = self.rows[index], schema.row_keys(DETECTOR)
        data = {
            keys["counts"]: row.counts.tolist(),
            keys["i0"]: row.i0.tolist(),
            keys["live_time"]: np.full(row.i0.size, np.nan).tolist(),
            keys["fast_um"]: row.fast_um.tolist(),
            keys["slow_um"]: row.slow_um.tolist(),
            keys["row"]: index,
            keys["attempt"]: row.attempt,
            keys["direction"]: row.direction,
            keys["n_frames"]: row.n_frames,
        }
        return {
            "uid": str(uuid.uuid5(_NAMESPACE, f"{descriptor}/{index}")),
            "descriptor": descriptor,
            "seq_num": number,
            "time": row.time,
            "data": data,
            "timestamps": dict.fromkeys(data, row.time),
            "filled": {},
        }


def axis_between(name: str, first_um: float, last_um: float, num: int) -> AxisGrid:
    """Return the axis whose first and last pixels are centred there, in either order."""
    if num < 1:
        raise AssemblyError(f"axis {name!r} has {num} pixels")
    step = abs(last_um - first_um) / (num - 1) if num > 1 else 1.0
    return AxisGrid(name, min(first_um, last_um), step, num)


def length_scale(units: str | None, given: float | None, what: str) -> float:
    """Return the factor to um; `given` wins.

    Raises
    ------
    AssemblyError
        Units that are missing or unknown, and none given.
    """
    if given is not None:
        return given
    if units not in _UM_PER_UNIT:
        raise AssemblyError(
            f"{what}: units are {units!r}; known: {', '.join(_UM_PER_UNIT)}; or give um_per_unit"
        )
    return _UM_PER_UNIT[units]


def split(documents: Iterator[Document]) -> Iterator[Document]:
    """Yield documents with pages taken apart into events."""
    for name, doc in documents:
        if name != "event_page":
            yield name, doc
            continue
        for place in range(len(doc["seq_num"])):
            event = {key: doc[key][place] for key in ("uid", "seq_num", "time")}
            data = {key: column[place] for key, column in doc["data"].items()}
            yield "event", {**event, "descriptor": doc["descriptor"], "data": data}


def column(data: Mapping[str, Any], key: str, num: int | None = None) -> np.ndarray:
    """Return a data key as floats, cut or NaN-padded to `num`.

    Raises
    ------
    AssemblyError
        A key that isn't there, or holds no numbers (an external array that was not filled).
    """
    if key not in data:
        raise AssemblyError(f"no data key {key!r}; there are {', '.join(data)}")
    try:
        values = np.asarray(data[key], dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise AssemblyError(f"{key!r} holds no numbers (is it filled?): {error}") from error
    if num is None:
        return values
    return np.pad(values[:num], (0, max(num - values.size, 0)), constant_values=np.nan)
