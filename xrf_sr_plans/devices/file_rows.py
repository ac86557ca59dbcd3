"""`rows_of_file`: the rows of a map that was asked for, out of the file of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.rows import RowFrames
from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import MapsFile, as_photons
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid

_STEP_TOLERANCE = 0.1
"""How far, relatively, the steps of a file may differ from those that were asked for."""

_ROUNDING = 1e-6
"""How far beyond half a pixel, in pixels, a position may lie and still be of that pixel."""


@dataclass(frozen=True)
class FileRows:
    """What a file holds of a map that was asked for.

    Parameters
    ----------
    frames
        The frames of each row that is there, by its index; ascending along the fast axis.
    missing
        Why a row is not there, by its index.
    notes
        What is odd about the file, in words.
    """

    frames: Mapping[int, RowFrames]
    missing: Mapping[int, str]
    notes: tuple[str, ...]


def rows_of_file(
    file: MapsFile,
    grid: ScanGrid,
    rows: Sequence[RowRequest],
    *,
    elements: Mapping[str, str],
    dwell_ms: float,
    units: str | None = None,
    bad_columns: tuple[int, int] = (0, 0),
    fast: Literal["x", "y"] = "x",
) -> FileRows:
    """Return the rows of a map, each placed by the positions that the file has.

    A row of the map is the one of the file that lies nearest, if that is less than half a row
    away. Columns of the file beside the map are left out. Where a file has no positions at all,
    order places rows and frames, and their numbers must be those that were asked for.

    Parameters
    ----------
    file
        What a reader found.
    grid
        The pixels that were asked for, as positions of the axes.
    rows
        The rows that were asked for.
    elements
        Name of the channel in the file, by element.
    dwell_ms
        Time at each pixel that was asked for, in ms. It turns rates into photons where the file
        has no live time.
    units
        Unit of the values where the user knows better than the file.
    bad_columns
        How many columns at the low and the high end of the file's fast axis say nothing.
    fast
        Which axis of the file runs along the rows.

    Raises
    ------
    FileFormatError
        The file lacks a channel, has other steps or no row of the map, or its values can't be
        turned into photons.
    """
    path = file.meta.get("path", "the scan's file")
    absent = [channel for channel in elements.values() if channel not in file.elements]
    if absent:
        raise FileFormatError(
            f"{path}: no channel {', '.join(map(repr, absent))}; there are"
            f" {', '.join(file.elements)}"
        )
    file, live_time_s = _photons(file if fast == "x" else _turned(file), dwell_ms, units)
    row_of = _rows_asked(file, grid, rows, path)
    columns, fast_um = _columns_asked(file, grid.fast, path)
    counts = file.maps[[file.elements.index(channel) for channel in elements.values()]].copy()
    low, high = bad_columns
    bad = np.zeros(counts.shape[2], dtype=bool)
    bad[:low], bad[counts.shape[2] - high :] = True, True
    counts[:, :, bad] = np.nan
    i0 = np.full(counts.shape[1:], np.nan) if file.i0 is None else file.i0
    slow_um = np.full(counts.shape[1], np.nan) if file.y_um is None else file.y_um
    frames: dict[int, RowFrames] = {}
    missing: dict[int, str] = {}
    partly: list[int] = []
    for request in rows:
        index, line = request["row"], row_of.get(request["row"])
        here = None if line is None else counts[:, line, columns]
        if line is None or here is None or not np.isfinite(here).any():
            missing[index] = f"not in {path}" if line is None else f"empty in {path}"
            continue
        seen: np.ndarray = np.asarray(np.isfinite(here).any(axis=0))
        if not seen[~bad[columns]].all() or columns.size < request["num"]:
            partly.append(index)
        frames[index] = RowFrames(
            here,
            i0[line, columns],
            live_time_s[line, columns],
            fast_um,
            np.full(columns.size, slow_um[line]),
        )
    if not frames:
        raise FileFormatError(f"{path}: none of the {len(rows)} rows is there; {_where(file)}")
    notes = list(file.notes)
    if bad[columns].any():
        notes.append(f"columns of the map left out as bad ones: {int(bad[columns].sum())}")
    if partly:
        notes.append(f"pixels are missing in {len(partly)} rows, the first of them row {partly[0]}")
    if file.x_um is None or file.y_um is None:
        notes.append("the file has no positions along an axis: order places its frames")
    return FileRows(frames, missing, tuple(notes))


def _turned(file: MapsFile) -> MapsFile:
    """Return a file with its y along the rows; readers return x there, however it was flown."""
    live, i0 = file.live_time, file.i0
    if live is not None and live.seconds.ndim == 2:
        live = replace(live, seconds=live.seconds.T)
    return replace(
        file,
        maps=np.swapaxes(file.maps, 1, 2),
        x_um=file.y_um,
        y_um=file.x_um,
        live_time=live,
        i0=None if i0 is None else i0.T,
        coverage=None if file.coverage is None else file.coverage.T,
    )


def _photons(file: MapsFile, dwell_ms: float, units: str | None) -> tuple[MapsFile, np.ndarray]:
    """Return the file in photons, and the live time of each pixel in s [row, column]."""
    shape = file.maps.shape[1:]
    live = np.full(shape, np.nan)
    if file.live_time is not None:
        live = np.broadcast_to(np.asarray(file.live_time.seconds, dtype=float), shape)
    says_it = np.isfinite(live).any() and (live[np.isfinite(live)] > 0).mean() > 0.5
    file = as_photons(file, dwell_ms=None if says_it else dwell_ms, units=units)
    return file, live if says_it else np.full(shape, dwell_ms * 1e-3)


def _rows_asked(
    file: MapsFile, grid: ScanGrid, rows: Sequence[RowRequest], path: str
) -> dict[int, int]:
    """Return the row of the file, by index of the row that was asked for."""
    by_place = sorted(rows, key=lambda request: request["slow_um"])
    if file.y_um is None:
        if file.maps.shape[1] != len(rows):
            raise FileFormatError(
                f"{path}: {file.maps.shape[1]} rows without positions; {len(rows)} were asked for"
            )
        return {request["row"]: line for line, request in enumerate(by_place)}
    _check_step(file.y_um, grid.slow, f"{path}: rows")
    found = {}
    for request in rows:
        away = np.abs(file.y_um - request["slow_um"])
        line = int(np.argmin(away))
        if away[line] <= (0.5 + _ROUNDING) * grid.slow.step_um:
            found[request["row"]] = line
    if not found:
        asked = f"{by_place[0]['slow_um']:g}..{by_place[-1]['slow_um']:g} um"
        raise FileFormatError(f"{path}: {_where(file)}, none of them in {asked} as asked for")
    return found


def _columns_asked(file: MapsFile, fast: AxisGrid, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the file that lie on the map, and where they are in um; NaN unknown."""
    num = file.maps.shape[2]
    if file.x_um is None:
        if num != fast.num:
            raise FileFormatError(
                f"{path}: {num} columns without positions; {fast.num} were asked for"
            )
        return np.arange(num), np.full(num, np.nan)
    _check_step(file.x_um, fast, f"{path}: columns")
    pixel = np.floor((file.x_um - fast.start_um) / fast.step_um + 0.5 - _ROUNDING)
    columns = np.flatnonzero((pixel >= 0) & (pixel < fast.num))
    if not columns.size:
        asked = f"{fast.start_um:g}..{fast.stop_um:g} um"
        raise FileFormatError(f"{path}: {_where(file)}, no column in {asked} as asked for")
    return columns, file.x_um[columns]


def _check_step(centers_um: np.ndarray, axis: AxisGrid, what: str) -> None:
    """Refuse another step than was asked for: something other than this map is in the file."""
    if centers_um.size < 2 or axis.num < 2:
        return
    step_um = float(np.ptp(centers_um)) / (centers_um.size - 1)
    if abs(step_um - axis.step_um) > _STEP_TOLERANCE * axis.step_um:
        raise FileFormatError(
            f"{what} are {step_um:.4g} um apart; {axis.step_um:.4g} um were asked for"
        )


def _where(file: MapsFile) -> str:
    """Return in words where the pixels of a file lie."""

    def span(centers_um: np.ndarray | None) -> str:
        return "unknown" if centers_um is None else f"{centers_um[0]:g}..{centers_um[-1]:g} um"

    return f"its columns lie at {span(file.x_um)}, its rows at {span(file.y_um)}"
