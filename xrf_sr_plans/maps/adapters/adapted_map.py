"""Map runs of other programs, row by row, and the documents that the analysis reads of them.

Every reader returns an `AdaptedMap`, which yields the documents.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.value_units import value_unit
from xrf_sr_plans.measurement import Factor, Sampling

if TYPE_CHECKING:
    from xrf_sr_plans.maps.adapters.scan_lines import PlacedMap

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
    live_time
        Live time in s [frame]; NaN where unknown.
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
    live_time: np.ndarray
    fast_um: np.ndarray
    slow_um: np.ndarray
    direction: int
    attempt: int = 0
    time: float = 0.0

    @classmethod
    def empty(cls, n_elements: int, num: int, direction: int) -> FlownRow:
        """Return a row of `num` frames of which nothing is known yet."""
        nothing = np.full(num, np.nan)
        return cls(
            counts=np.full((n_elements, num), np.nan),
            i0=nothing.copy(),
            live_time=nothing.copy(),
            fast_um=nothing.copy(),
            slow_um=nothing.copy(),
            direction=direction,
        )

    @property
    def n_frames(self) -> int:
        """Number of frames up to the last one in which any element has counts."""
        measured = np.flatnonzero(np.isfinite(self.counts).any(axis=0))
        return int(measured[-1]) + 1 if measured.size else 0


@dataclass
class AdaptedMap:
    """A map run of another program, as it is handed to the analysis.

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
    sampling, fast_pixels
        How a pixel was measured, and pixels per distance of two rows where it is "rows".
    analysis
        What the analysis is to do with the map.
    channels
        Which channels the run has besides the counts: "i0", "live_time", "fast_um", "slow_um". One
        that it doesn't have is left out of the documents; one that says nothing there is named in
        the result.
    rows
        The rows by index along the slow axis.
    notes
        What is odd about the run.
    """

    start: Mapping[str, Any]
    grid: ScanGrid
    elements: Sequence[str]
    dwell_ms: float
    sampling: Sampling
    fast_pixels: Factor
    analysis: schema.AnalysisRequest
    channels: Sequence[str]
    rows: Mapping[int, FlownRow]
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        start: Mapping[str, Any],
        placed: PlacedMap,
        elements: Sequence[str],
        dwell_ms: float,
        analysis: schema.AnalysisRequest | None,
        keys: Mapping[str, str | None],
        notes: Sequence[str] = (),
    ) -> AdaptedMap:
        """Return the map whose frames were placed.

        Parameters
        ----------
        start
            Start document of the run.
        placed
            The frames in their places.
        elements
            Element names, in the order of the counts.
        dwell_ms
            Time at each pixel.
        analysis
            What the analysis is to do; None: its defaults, with the factor of the rows' pixels.
        keys
            The data key of each channel besides the counts; None: there is none.
        notes
            What is odd about the run, besides the places of its frames.
        """
        if analysis is None:
            factor = placed.fast_pixels if placed.sampling == "rows" else 2
            analysis = schema.AnalysisRequest(factor=factor)
        # Which reading is that of the fast axis of a map that was turned is not in its key.
        roles = [
            role
            for role in ("i0", "live_time", "fast_um", "slow_um")
            if keys.get(role) is not None or role in ("fast_um", "slow_um")
        ]
        return cls(
            start,
            placed.grid,
            list(elements),
            dwell_ms,
            placed.sampling,
            placed.fast_pixels,
            analysis,
            [role for role in roles if _says_something(placed, role)],
            placed.rows,
            [*notes, *placed.notes],
        )

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
            step_um=self.grid.fast.step_um * self.fast_pixels,
            fast_pixels=self.fast_pixels,
            dwell_ms=self.dwell_ms,
            sampling=self.sampling,
            analysis=self.analysis,
            notes=list(self.notes),
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


def _says_something(placed: PlacedMap, role: str) -> bool:
    """Return whether a channel has a value in any row, or was not left out on purpose."""
    if role not in ("fast_um", "slow_um"):
        return True
    return any(np.isfinite(getattr(row, role)).any() for row in placed.rows.values())
