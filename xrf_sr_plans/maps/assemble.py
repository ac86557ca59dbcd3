"""Assembly of row documents to elemental maps, by row number and encoder.

Frames are never just counted and reshaped. The rules, which docs/explanation/documents.md gives
too, are:

* A row is the one whose number its event carries. Of several attempts at one row the highest
  counts, as a whole. Two attempts are never mixed.
* Within the row a frame lies where the encoder says. A row whose frames follow each other one
  pixel apart moves as a whole by the median offset, rounded, so that half a pixel of backlash
  moves nothing. In any other row each frame goes to the nearest pixel. Where the encoder says
  nothing, order and direction decide.
* Several frames in one pixel are *averaged*: counts stay per pixel dwell, so that a pixel hit
  twice is not twice as bright. `coverage` says how many frames there were.
* A frame without beam (I0 at or below 1 % of the map's median) or without live time measured
  nothing. Its pixel is NaN with coverage 0, because a zero there would read as "no Fe here". A
  monitor that never counted says nothing about the beam and masks nothing.
* A map is complete when every row of the grid is there. The run's exit status is never asked.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from xrf_sr_plans.errors import AssemblyError, GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.schema import STREAM_ROWS, MapMetadata, elements_key, row_keys

logger = logging.getLogger(__name__)

BEAM_FLOOR = 0.01
"""Share of the map's median I0 at or below which a frame counts as taken without beam."""

SLOW_TOLERANCE_STEPS = 0.75
"""Distance from its row, in steps, beyond which a frame is left out (a stuck slow motor)."""

_MOST_PROBLEMS = 100


@dataclass(frozen=True, eq=False)
class _Row:
    """The frames of one attempt at one row that lie on the grid.

    Parameters
    ----------
    attempt
        Number of the attempt, from 0.
    x
        Index of each frame's pixel along the fast axis [frame].
    counts
        Detected photons [element, frame].
    i0
        Flux monitor [frame].
    live_time_s
        Live time of the detector [frame].
    note
        What was odd about the row; "" where nothing was.
    """

    attempt: int
    x: np.ndarray
    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray
    note: str = ""


class MapBuilder:
    """Builds one `ElementalMaps` from the documents of one map run, in any order of rows.

    Parameters
    ----------
    start
        The start document, with `schema.MapMetadata` under ``xrf_sr``.

    Raises
    ------
    AssemblyError
        The start document describes no map.

    Attributes
    ----------
    uid
        Uid of the run.
    metadata
        What the run says about its map.
    grid
        Pixels of the map.
    elements
        Element names, in the order of the counts.
    problems
        Why events were left out, the first 100 of them.
    """

    def __init__(self, start: Mapping[str, Any]) -> None:
        self.uid = str(start.get("uid", ""))
        try:
            self.metadata = MapMetadata.model_validate(start["xrf_sr"])
            self.grid = ScanGrid.from_dict(self.metadata.grid)
        except (KeyError, ValidationError, GridError) as error:
            raise AssemblyError(f"run {self.uid}: no map in its start document: {error}") from error
        self.elements = list(self.metadata.elements)
        self.problems: list[str] = []
        self._keys: dict[str, dict[str, str]] = {}
        self._rows: dict[int, _Row] = {}

    @property
    def rows_used(self) -> list[int]:
        """Indices of the rows with at least one frame on the grid, ascending."""
        return sorted(index for index, row in self._rows.items() if row.x.size)

    @property
    def notes(self) -> list[str]:
        """What is odd about the rows that count.

        The notes are in the order of the rows, whatever the order of the documents was, so that a
        replay gives the same ones.
        """
        return [note for index in sorted(self._rows) if (note := self._rows[index].note)]

    @property
    def complete(self) -> bool:
        """Whether every row of the grid is there. A row that is too short counts as there."""
        return len(self.rows_used) == self.grid.slow.num

    def descriptor(self, doc: Mapping[str, Any]) -> None:
        """Learn the keys and the element names of the row stream. Other streams are ignored."""
        if doc.get("name") != STREAM_ROWS:
            return
        data_keys = doc["data_keys"]
        for key in data_keys:
            detector = key.removesuffix("_counts")
            keys = row_keys(detector)
            if key == keys["counts"] and keys["row"] in data_keys:
                self._keys[doc["uid"]] = keys
                self.elements = _configured_elements(doc, detector) or self.elements
                return

    def event(self, doc: Mapping[str, Any]) -> None:
        """Take one row. The same row again, or an older attempt at it, changes nothing."""
        keys = self._keys.get(doc["descriptor"])
        if keys is None:
            return
        try:
            self._take(doc["data"], keys)
        except (KeyError, TypeError, ValueError) as error:
            self._problem(f"event {doc.get('seq_num')} is no row: {error!r}")

    def event_page(self, doc: Mapping[str, Any]) -> None:
        """Take the rows of an event page, whose columns may be lists or arrays."""
        for position in range(len(doc["seq_num"])):
            self.event(
                {
                    "descriptor": doc["descriptor"],
                    "seq_num": doc["seq_num"][position],
                    "data": {key: column[position] for key, column in doc["data"].items()},
                }
            )

    def maps(self) -> ElementalMaps:
        """Return the map as measured so far; pixels not measured are NaN."""
        shape = self.grid.shape
        num = self.grid.fast.num
        # counts [element, row, column]; i0, live_time_s and coverage [row, column].
        counts = np.full((len(self.elements), *shape), np.nan)
        i0, live_time_s = np.full(shape, np.nan), np.full(shape, np.nan)
        coverage = np.zeros(shape, dtype=int)
        floor = self._beam_floor()
        for index in self.rows_used:
            row = self._rows[index]
            lit = _has_beam(row, floor)
            x = row.x[lit]
            counts[:, index] = _pixel_means(row.counts[:, lit], x, num)
            i0[index] = _pixel_means(row.i0[lit], x, num)
            live_time_s[index] = _pixel_means(row.live_time_s[lit], x, num)
            coverage[index] = np.bincount(x, minlength=num)
        return ElementalMaps.from_arrays(
            counts,
            self.grid,
            self.elements,
            i0=i0,
            live_time_s=live_time_s,
            coverage=coverage,
            **self._attributes(),
        )

    def _attributes(self) -> dict[str, Any]:
        metadata = self.metadata
        return {
            "source_uid": self.uid,
            "dwell_ms": metadata.dwell_ms,
            "step_um": metadata.step_um,
            "probe_fwhm_um": metadata.probe_fwhm_um,
            "sampling": metadata.sampling,
            "complete": self.complete,
            "notes": self.notes,
        }

    def _take(self, data: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        index, attempt = int(data[keys["row"]]), _integer(data.get(keys["attempt"]), 0)
        if not 0 <= index < self.grid.slow.num:
            self._problem(f"row {index} is not on the grid of {self.grid.slow.num} rows")
            return
        known = self._rows.get(index)
        if known is None or attempt >= known.attempt:
            self._rows[index] = self._read_row(data, keys, index, attempt)

    def _read_row(
        self, data: Mapping[str, Any], keys: Mapping[str, str], index: int, attempt: int
    ) -> _Row:
        # [element, frame]; the detector may hand out more frames than the row has.
        counts = np.asarray(data[keys["counts"]], dtype=float)
        if counts.ndim != 2 or counts.shape[0] != len(self.elements):
            raise ValueError(f"counts of shape {counts.shape} for {len(self.elements)} elements")
        num = min(counts.shape[1], _integer(data.get(keys["n_frames"]), counts.shape[1]))
        i0, live, fast, slow = (
            _padded(data.get(keys[role]), num) for role in ("i0", "live_time", "fast_um", "slow_um")
        )
        x = place_frames(fast, self.grid.fast, _integer(data.get(keys["direction"]), 1))
        counted = np.isfinite(counts[:, :num]).any(axis=0)
        on_grid = (x >= 0) & (x < self.grid.fast.num)
        away_steps = np.abs(slow - self.grid.slow.centers_um[index]) / self.grid.slow.step_um
        strayed = np.isfinite(away_steps) & (away_steps > SLOW_TOLERANCE_STEPS)
        lost = int(strayed.sum())
        note = f"row {index}: {lost} frames were taken in another row's place" if lost else ""
        keep = on_grid & counted & ~strayed
        return _Row(attempt, x[keep], counts[:, :num][:, keep], i0[keep], live[keep], note)

    def _beam_floor(self) -> float:
        """Return the reading of the flux monitor at or below which there was no beam."""
        i0 = np.concatenate([row.i0 for row in self._rows.values()] or [np.empty(0)])
        beam = i0[np.isfinite(i0) & (i0 > 0)]
        return BEAM_FLOOR * float(np.median(beam)) if beam.size else -np.inf

    def _problem(self, text: str) -> None:
        logger.warning("run %s: %s", self.uid, text)
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)


def place_frames(fast_um: np.ndarray, axis: AxisGrid, direction: int) -> np.ndarray:
    """Return the pixel index of each frame of a row [frame]; it may lie outside 0..num-1.

    Parameters
    ----------
    fast_um
        Encoder position of each frame's center [frame] in order of acquisition; NaN: unknown.
    axis
        The fast axis.
    direction
        -1 where the row was flown from high to low.
    """
    order = np.arange(fast_um.size)
    nominal = axis.num - 1 - order if direction < 0 else order
    # In pixels: where the encoder saw a frame, minus where it belongs by order and direction.
    offset = (fast_um - axis.start_um) / axis.step_um - nominal
    known = np.isfinite(offset)
    if not known.any():
        return nominal
    common = float(np.median(offset[known]))
    if np.abs(offset[known] - common).max() <= 0.5:
        # Just below 0.5: a row displaced by exactly half a pixel stays where it was meant to be.
        return nominal + int(np.fix(common + np.copysign(0.5 - 1e-6, common)))
    filled = np.interp(order, order[known], offset[known])
    return np.floor(nominal + filled + 0.5).astype(int)


def _has_beam(row: _Row, floor: float) -> np.ndarray:
    """Return which frames of a row measured anything [frame]."""
    dark = np.isfinite(row.i0) & (row.i0 <= floor)
    dead = np.isfinite(row.live_time_s) & (row.live_time_s <= 0)
    return ~(dark | dead)


def _pixel_means(values: np.ndarray, x: np.ndarray, num: int) -> np.ndarray:
    """Return values [..., frame] averaged over the frames of each pixel, as [..., pixel].

    Parameters
    ----------
    values
        Values of each frame; those that are not finite are left out.
    x
        Pixel of each frame [frame].
    num
        Number of pixels. A pixel without frames is NaN.
    """
    finite = np.isfinite(values)
    # Not -1 for the planes: a row that was dark all along has no frame to divide by.
    planes = math.prod(values.shape[:-1])
    filled = np.where(finite, values, 0.0).reshape(planes, x.size)
    frames = finite.reshape(planes, x.size).astype(float)
    # [plane, pixel]: sum of the values, and number of frames that they come from.
    total = np.stack([np.bincount(x, weights, num) for weights in filled])
    count = np.stack([np.bincount(x, weights, num) for weights in frames])
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means.reshape(*values.shape[:-1], num)


def _padded(values: Any, num: int) -> np.ndarray:
    """Return `num` floats; a scaler may be longer or shorter than the counts, or be missing."""
    padded = np.full(num, np.nan)
    if values is not None:
        flat = np.asarray(values, dtype=float).ravel()[:num]
        padded[: flat.size] = flat
    return padded


def _integer(value: Any, default: int) -> int:
    """Return a value as a whole number; `default` where it is None or NaN."""
    return default if value is None or value != value else int(value)


def _configured_elements(descriptor: Mapping[str, Any], detector: str) -> list[str]:
    """Return the element names in a detector's configuration; none where it has none."""
    for configuration in descriptor.get("configuration", {}).values():
        names = configuration.get("data", {}).get(elements_key(detector))
        if names is not None and len(names):
            return [str(name) for name in names]
    return []
