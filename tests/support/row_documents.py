"""Documents of a map run as plain dicts: what the assembler and the chain are fed in tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.schema import AnalysisRequest, MapMetadata, row_keys

KEYS = row_keys("xrf")
ELEMENTS = ("Fe", "Zn", "Ca")


def small_grid(ny: int = 4, nx: int = 5, snake: bool = True) -> ScanGrid:
    return ScanGrid.from_center(
        x_center_um=10, y_center_um=-3, width_um=2 * nx, height_um=2 * ny, step_um=2, snake=snake
    )


def truth(grid: ScanGrid, elements: Sequence[str] = ELEMENTS) -> np.ndarray:
    """Every pixel of every element has a value of its own; a bright blob for the picker."""
    ny, nx = grid.shape
    yy, xx = np.mgrid[0:ny, 0:nx]
    blob = 200 * np.exp(-((yy - ny / 2) ** 2 + (xx - nx / 2) ** 2) / (2 * max(1.0, nx / 12) ** 2))
    base = np.arange(ny * nx).reshape(ny, nx) % 7
    return np.stack([np.round(base + (index + 1) * blob) for index in range(len(elements))])


def start_document(grid: ScanGrid, uid: str = "source-run", **metadata: Any) -> dict[str, Any]:
    metadata.setdefault("analysis", AnalysisRequest())
    described = MapMetadata(
        grid=grid.to_dict(),
        elements=list(ELEMENTS),
        step_um=grid.fast.step_um,
        dwell_ms=10.0,
        **metadata,
    )
    return {"uid": uid, "time": 1.0e9, "plan_name": "xrf_fly_map", "xrf_sr": described.to_dict()}


def descriptor_document(run: str = "source-run") -> dict[str, Any]:
    return {
        "uid": f"{run}-rows",
        "run_start": run,
        "name": "primary",
        "time": 1.0e9,
        "data_keys": {key: {"source": "t", "dtype": "array", "shape": []} for key in KEYS.values()},
        "configuration": {"xrf": {"data": {"xrf_elements": list(ELEMENTS)}}},
    }


def row_event(
    grid: ScanGrid,
    counts: np.ndarray,
    row: int,
    *,
    attempt: int = 0,
    run: str = "source-run",
    frames: Sequence[int] | None = None,
    **changed: Any,
) -> dict[str, Any]:
    """Event of one row; `frames`: the pixels visited, in order of time (default: all of them)."""
    nx = grid.fast.num
    direction = grid.direction(row)
    if frames is None:
        frames = list(range(nx))[::direction]
    visited = np.asarray(frames, dtype=int)

    def padded(values: np.ndarray) -> Any:
        short = max(0, nx - values.shape[-1])
        pad = [(0, 0)] * (values.ndim - 1) + [(0, short)]
        return np.pad(values.astype(float), pad, constant_values=np.nan).tolist()

    data = {
        KEYS["counts"]: padded(counts[:, row, visited]),
        KEYS["i0"]: padded(np.full(visited.size, 1e5)),
        KEYS["live_time"]: padded(np.full(visited.size, 0.0099)),
        KEYS["fast_um"]: padded(grid.fast.centers_um[visited]),
        KEYS["slow_um"]: padded(np.full(visited.size, grid.slow.centers_um[row])),
        KEYS["row"]: row,
        KEYS["attempt"]: attempt,
        KEYS["direction"]: direction,
        KEYS["n_frames"]: int(visited.size),
    }
    data.update({KEYS[role]: value for role, value in changed.items()})
    return {
        "uid": f"{run}-{row}-{attempt}",
        "descriptor": f"{run}-rows",
        "seq_num": row + 1,
        "time": 1.0e9 + row,
        "data": data,
        "timestamps": dict.fromkeys(data, 1.0e9 + row),
        "filled": {},
    }


def as_page(events: Sequence[dict[str, Any]], arrays: bool = False) -> dict[str, Any]:
    """Event page of several events, columns as lists or as ndarrays."""
    convert = np.asarray if arrays else list
    names = events[0]["data"]
    return {
        "descriptor": events[0]["descriptor"],
        "uid": [event["uid"] for event in events],
        "seq_num": [event["seq_num"] for event in events],
        "time": [event["time"] for event in events],
        "data": {name: convert([event["data"][name] for event in events]) for name in names},
        "timestamps": {name: [event["time"] for event in events] for name in names},
        "filled": {},
    }


def map_run(
    grid: ScanGrid, counts: np.ndarray, run: str = "source-run", **metadata: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a whole run, row by row."""
    yield "start", start_document(grid, run, **metadata)
    yield "descriptor", descriptor_document(run)
    for row in range(grid.slow.num):
        yield "event_page", as_page([row_event(grid, counts, row, run=run)])
    yield (
        "stop",
        {
            "uid": f"{run}-stop",
            "run_start": run,
            "time": 1.0e9 + 500,
            "exit_status": "success",
            "num_events": {"primary": grid.slow.num},
        },
    )
