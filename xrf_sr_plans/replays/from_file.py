"""`documents_of_file`: a file of maps as the documents of a map run, which the analysis reads."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import MapsFile, ReadOptions, as_photons
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.readers import read_map
from xrf_sr_plans.measurement import COARSER_FACTORS, Factor, Sampling
from xrf_sr_plans.schema import Document

_DETECTOR = "file"
_NAMESPACE = uuid.UUID("d1b6a7a0-3f0a-5a35-8f5b-0d6c3a6f4d11")
_SAME = 0.02
"""Relative difference of two steps that are meant to be the same."""
_UNKNOWN_DWELL_MS = 100.0


def documents_of_file(
    path: str | Path,
    reader: str | None = None,
    *,
    dwell_ms: float | None = None,
    options: ReadOptions | None = None,
) -> Iterator[Document]:
    """Yield the map in a file as a run, one event a row.

    The same values at the same places give the same documents, whatever the file is called and
    whenever it was written; the time in all of them is 0.

    Parameters
    ----------
    path
        The file.
    reader
        Name of the reader; None: the first one that matches the file.
    dwell_ms
        Time at each pixel in ms; None: as the file says.
    options
        What is known better than the file says.

    Raises
    ------
    ConfigError
        There is no reader of that name.
    FileFormatError
        The file can't be read, holds neither photons nor rates, or doesn't say where its pixels
        lie; or they are neither square nor 2 or 4 times as long as wide.
    """
    read = read_map(path, reader=reader, options=options)
    measured = as_photons(read, dwell_ms=dwell_ms)
    file = _placed(measured, str(path), dwell_ms)
    uid = _uid(measured, file)
    yield "start", _start(uid, measured, file)
    descriptor = _descriptor(uid, measured, file)
    yield "descriptor", descriptor
    events = 0
    for row in range(file.grid.slow.num):
        data = _row(row, measured, file)
        if data is None:
            continue
        events += 1
        yield (
            "event",
            {
                "uid": _child(uid, f"row {row}"),
                "descriptor": descriptor["uid"],
                "seq_num": events,
                "time": 0.0,
                "data": data,
                "timestamps": dict.fromkeys(data, 0.0),
                "filled": {},
            },
        )
    yield (
        "stop",
        {
            "uid": _child(uid, "stop"),
            "run_start": uid,
            "time": 0.0,
            "exit_status": "success",
            "reason": "",
            "num_events": {schema.STREAM_ROWS: events},
        },
    )


@dataclass(frozen=True)
class _Placed:
    grid: ScanGrid
    sampling: Sampling
    fast_pixels: Factor
    live_time_s: np.ndarray | None
    """Of each pixel [row, column]; None where the file doesn't say."""
    dwell_ms: float
    notes: tuple[str, ...]


def _placed(measured: MapsFile, path: str, dwell_ms: float | None) -> _Placed:
    """Return where the pixels of a file lie and how they were measured."""
    if measured.x_um is None or measured.y_um is None:
        raise FileFormatError(
            f"{path}: doesn't say where its pixels lie; `xrf-sr enhance --step-um` takes it"
        )
    n_rows, n_columns = measured.maps.shape[1:]
    step_x, step_y = float(measured.pixel_size_um), float(measured.pixel_size_y_um)
    if not (step_x > 0 and step_y > 0):
        raise FileFormatError(f"{path}: its pixels are {step_x} um x {step_y} um")
    sampling, fast_pixels = _sampling(step_x, step_y, path)
    if fast_pixels == 1:
        step_y = step_x
    grid = ScanGrid(
        fast=AxisGrid("x", float(np.min(measured.x_um)), step_x, n_columns),
        slow=AxisGrid("y", float(np.min(measured.y_um)), step_y, n_rows),
        snake=False,
    )
    live_s, notes = None, list(measured.notes)
    if measured.live_time is not None:
        live_s = np.broadcast_to(np.asarray(measured.live_time.seconds, float), (n_rows, n_columns))
    usable = None if live_s is None else live_s[np.isfinite(live_s) & (live_s > 0)]
    if usable is None or not usable.size:
        live_s = None
    elif dwell_ms is None:
        dwell_ms = float(np.median(usable)) * 1e3
    if dwell_ms is None:
        dwell_ms = _UNKNOWN_DWELL_MS
        notes.append(f"no dwell time in the file; rescans are reckoned with {dwell_ms:g} ms")
    return _Placed(grid, sampling, fast_pixels, live_s, dwell_ms, tuple(notes))


def _sampling(step_x_um: float, step_y_um: float, path: str) -> tuple[Sampling, Factor]:
    ratio = step_y_um / step_x_um
    if abs(ratio - 1) <= _SAME:
        return "fly", 1
    for factor in COARSER_FACTORS:
        if abs(ratio / factor - 1) <= _SAME:
            return "rows", factor
    raise FileFormatError(
        f"{path}: pixels of {step_x_um:.4g} um x {step_y_um:.4g} um (x, y); they should be square,"
        " or rows 2 or 4 times as far apart as their pixels"
    )


def _start(uid: str, measured: MapsFile, file: _Placed) -> dict[str, Any]:
    metadata = schema.MapMetadata(
        purpose="map",
        grid=file.grid.to_dict(),
        elements=list(measured.elements),
        step_um=file.grid.slow.step_um,
        fast_pixels=file.fast_pixels,
        dwell_ms=file.dwell_ms,
        sampling=file.sampling,
        analysis=schema.AnalysisRequest(factor=2 if file.fast_pixels == 1 else file.fast_pixels),
        derived_input={
            "file": str(measured.meta.get("path", "")),
            "reader": str(measured.meta.get("reader") or measured.meta.get("layout", "")),
        },
        notes=list(file.notes),
    )
    return {
        "uid": uid,
        "time": 0.0,
        "plan_name": "file",
        "xrf_sr": metadata.to_dict(),
    }


def _channels(measured: MapsFile, file: _Placed) -> list[str]:
    known = {"i0": measured.i0 is not None, "live_time": file.live_time_s is not None}
    return [role for role, there in known.items() if there] + ["fast_um", "slow_um"]


def _descriptor(uid: str, measured: MapsFile, file: _Placed) -> dict[str, Any]:
    keys, num = schema.row_keys(_DETECTOR), file.grid.fast.num
    shapes = {"counts": [len(measured.elements), num]}
    shapes |= {role: [num] for role in _channels(measured, file)}
    shapes |= {role: [] for role in ("row", "attempt", "direction", "n_frames")}
    elements = schema.elements_key(_DETECTOR)
    return {
        "uid": _child(uid, "rows"),
        "run_start": uid,
        "name": schema.STREAM_ROWS,
        "time": 0.0,
        "data_keys": {
            keys[role]: {
                "source": "file",
                "dtype": "array" if shape else "integer",
                "shape": shape,
            }
            for role, shape in shapes.items()
        },
        "object_keys": {_DETECTOR: [keys[role] for role in shapes]},
        "hints": {_DETECTOR: {"fields": []}},
        "configuration": {
            _DETECTOR: {
                "data": {elements: list(measured.elements)},
                "timestamps": {elements: 0.0},
                "data_keys": {
                    elements: {
                        "source": "file",
                        "dtype": "array",
                        "shape": [len(measured.elements)],
                    }
                },
            }
        },
    }


def _row(row: int, measured: MapsFile, file: _Placed) -> dict[str, Any] | None:
    """Return the data of the event of a row, or None where none of it was measured."""
    counts = measured.maps[:, row, :]
    frames = np.flatnonzero(np.isfinite(counts).any(axis=0))
    if not frames.size:
        return None
    keys, grid = schema.row_keys(_DETECTOR), file.grid
    columns = {
        "i0": None if measured.i0 is None else measured.i0[row],
        "live_time": None if file.live_time_s is None else file.live_time_s[row],
        "fast_um": grid.fast.centers_um,
        "slow_um": np.full(grid.fast.num, grid.slow.centers_um[row]),
    }
    return {
        keys["counts"]: counts.tolist(),
        **{
            keys[role]: np.asarray(values, dtype=float).tolist()
            for role, values in columns.items()
            if values is not None
        },
        keys["row"]: row,
        keys["attempt"]: 0,
        keys["direction"]: 1,
        keys["n_frames"]: int(frames[-1]) + 1,
    }


def _uid(measured: MapsFile, file: _Placed) -> str:
    hasher = hashlib.sha256(repr((measured.elements, file.grid.to_dict())).encode())
    for array in (measured.maps, measured.i0, file.live_time_s):
        if array is not None:
            hasher.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return str(uuid.uuid5(_NAMESPACE, hasher.hexdigest()))


def _child(uid: str, label: str) -> str:
    return str(uuid.uuid5(uuid.UUID(uid), label))
