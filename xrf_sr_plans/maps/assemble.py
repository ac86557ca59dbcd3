"""Assembly of row documents to elemental maps, by row number and encoder.

Frames are never just counted and reshaped. The rules, which docs/explanation/documents.md gives
too, are:

* A row is the one whose number its event carries. Of several attempts at one row the highest
  counts, as a whole. Two attempts are never mixed. An event that the slow encoder saw in another
  row's place doesn't take the place of one that it saw where it belongs.
* Within the row a frame lies where the encoder says (`maps.encoders`). Where the encoder says
  nothing, order and direction decide. Encoders of a fine stage read its own coordinates: where
  those are on the sample is said by the start document (`maps.stage_placement`).
* Several frames in one pixel are *averaged*: counts stay per pixel dwell, so that a pixel hit
  twice is not twice as bright. `coverage` says how many frames there were.
* A frame without beam or without live time (`maps.monitors`) measured nothing. Its pixel is NaN
  with coverage 0, because a zero there would read as "no Fe here".
* A channel that says nothing masks nothing, and is named in the notes. One that contradicts the
  request or the counts is named too, and what it makes unusable is unmeasured.
* A map is complete when every pixel of the grid was measured. The run's exit status is never asked.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.encoders import place_row
from xrf_sr_plans.maps.grid import ScanGrid, check_size
from xrf_sr_plans.maps.judged_rows import JudgedRows, RawRow, judge_rows
from xrf_sr_plans.maps.stage_placement import StagePlacement
from xrf_sr_plans.schema import STREAM_ROWS, MapMetadata, elements_key, row_keys

logger = logging.getLogger(__name__)

_MOST_PROBLEMS = 100


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
            check_size(self.grid, len(self.metadata.elements))
            placed = self.metadata.placement
            placement = None if placed is None else StagePlacement.from_dict(placed)
        except Exception as error:  # damaged metadata can raise anything
            raise AssemblyError(f"run {self.uid}: no map in its start document: {error}") from error
        # What the encoders are compared with, and the signs that their readings are given first.
        self._encoder_grid, self._signs = self.grid, (1, 1)
        if placement is not None:
            self._encoder_grid = placement.grid_without_origin(self.grid)
            self._signs = placement.fast.sign, placement.slow.sign
        self.elements = list(self.metadata.elements)
        self.problems: list[str] = []
        self._keys: dict[str, dict[str, str]] = {}
        self._raw: dict[int, RawRow] = {}
        self._judged: JudgedRows | None = None

    @property
    def rows_received(self) -> int:
        """Number of rows that have come in, whatever they are worth."""
        return len(self._raw)

    @property
    def rows_used(self) -> list[int]:
        """Indices of the rows with at least one frame on the grid, ascending."""
        return [index for index, row in self._judge().rows.items() if row.x.size]

    @property
    def notes(self) -> list[str]:
        """What is odd about the rows and their channels.

        The notes don't depend on the order of the documents, so that a replay gives the same ones.
        """
        return [*self.metadata.notes, *self._judge().notes]

    @property
    def coverage(self) -> np.ndarray:
        """Number of frames that measured something, of each pixel (row, column)."""
        coverage = np.zeros(self.grid.shape, dtype=int)
        for index, row in self._judge().rows.items():
            coverage[index] = np.bincount(row.x[~row.nothing], minlength=self.grid.fast.num)
        return coverage

    @property
    def complete(self) -> bool:
        """Whether every pixel of the grid was measured."""
        return bool((self.coverage > 0).all())

    def descriptor(self, doc: Mapping[str, Any]) -> None:
        """Learn the keys and the element names of the row stream. Other streams are ignored."""
        try:
            self._learn(doc)
        except Exception as error:  # noqa: BLE001 - damaged ones can raise anything
            self._problem(f"a descriptor can't be read: {error!r:.200}")

    def event(self, doc: Mapping[str, Any]) -> None:
        """Take one row. The same attempt again, or an older one, changes nothing."""
        try:
            keys = self._keys.get(doc["descriptor"])
            if keys is not None:
                self._take(doc["data"], keys)
        except Exception as error:  # noqa: BLE001 - damaged ones can raise anything
            self._problem(f"event {_seq_num(doc)} is no row: {error!r:.200}")

    def event_page(self, doc: Mapping[str, Any]) -> None:
        """Take the rows of an event page, whose columns may be lists or arrays."""
        try:
            events = [
                {
                    "descriptor": doc["descriptor"],
                    "seq_num": seq_num,
                    "data": {key: column[position] for key, column in doc["data"].items()},
                }
                for position, seq_num in enumerate(doc["seq_num"])
            ]
        except Exception as error:  # noqa: BLE001 - damaged ones can raise anything
            self._problem(f"an event page {_seq_num(doc)} can't be read: {error!r:.200}")
            return
        for event in events:
            self.event(event)

    def maps(self) -> ElementalMaps:
        """Return the map as measured so far; pixels not measured are NaN."""
        shape = self.grid.shape
        num = self.grid.fast.num
        # counts [element, row, column]; i0 and live_time_s [row, column].
        counts = np.full((len(self.elements), *shape), np.nan)
        i0, live_time_s = np.full(shape, np.nan), np.full(shape, np.nan)
        for index, row in self._judge().rows.items():
            measured = ~row.nothing
            x = row.x[measured]
            counts[:, index] = _pixel_means(row.counts[:, measured], x, num)
            i0[index] = _pixel_means(row.i0[measured], x, num)
            live_time_s[index] = _pixel_means(row.live_time_s[measured], x, num)
        return ElementalMaps.from_arrays(
            counts,
            self.grid,
            self.elements,
            i0=i0,
            live_time_s=live_time_s,
            coverage=self.coverage,
            **self._attributes(),
        )

    def _judge(self) -> JudgedRows:
        if self._judged is None:
            self._judged = judge_rows(self._raw, self._encoder_grid)
        return self._judged

    def _attributes(self) -> dict[str, Any]:
        metadata = self.metadata
        return {
            "source_uid": self.uid,
            "dwell_ms": metadata.counting_ms,
            "step_um": metadata.step_um,
            "probe_fwhm_um": metadata.probe_fwhm_um,
            "sampling": metadata.sampling,
            "complete": self.complete,
            "notes": self.notes,
        }

    def _learn(self, doc: Mapping[str, Any]) -> None:
        if doc.get("name") != STREAM_ROWS:
            return
        data_keys = doc["data_keys"]
        for key in data_keys:
            detector = key.removesuffix("_counts")
            keys = row_keys(detector)
            if key == keys["counts"] and keys["row"] in data_keys:
                elements = _configured_elements(doc, detector) or self.elements
                check_size(self.grid, len(elements))
                self._keys[doc["uid"]] = keys
                self.elements = elements
                return

    def _take(self, data: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        index, attempt = int(data[keys["row"]]), _integer(data.get(keys["attempt"]), 0)
        if not 0 <= index < self.grid.slow.num:
            self._problem(f"row {index} is not on the grid of {self.grid.slow.num} rows")
            return
        row, known = self._read_row(data, keys, attempt), self._raw.get(index)
        if known is None or self._rank(row, index) > self._rank(known, index):
            self._raw[index] = row
            self._judged = None
        elif not row.is_same_as(known) and attempt >= known.attempt:
            self._problem(f"another event says that it is attempt {attempt} at row {index}")

    def _rank(self, row: RawRow, index: int) -> tuple[bool, int]:
        """Return what decides between two events of a row, the higher one counting."""
        return row.is_in_place(index, self._encoder_grid), row.attempt

    def _read_row(self, data: Mapping[str, Any], keys: Mapping[str, str], attempt: int) -> RawRow:
        # [element, frame]; the detector may hand out more frames than the row has.
        counts = np.asarray(data[keys["counts"]], dtype=float)
        if counts.ndim != 2 or counts.shape[0] != len(self.elements):
            raise ValueError(f"counts of shape {counts.shape} for {len(self.elements)} elements")
        num = min(counts.shape[1], _integer(data.get(keys["n_frames"]), counts.shape[1]))
        roles = ("i0", "live_time", "fast_um", "slow_um")
        i0, live, fast, slow = (_padded(data.get(keys[role]), num) for role in roles)
        channels = frozenset(role for role in roles if data.get(keys[role]) is not None)
        fast_sign, slow_sign = self._signs
        fast, slow = fast_sign * fast, slow_sign * slow
        direction = fast_sign * _integer(data.get(keys["direction"]), fast_sign)
        places = place_row(fast, self._encoder_grid.fast, direction)
        return RawRow(attempt, direction, counts[:, :num], i0, live, fast, slow, places, channels)

    def _problem(self, text: str) -> None:
        logger.warning("run %s: %s", self.uid, text)
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)


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


def _seq_num(doc: Any) -> Any:
    """Return the number of an event in its stream, for messages."""
    return doc.get("seq_num") if isinstance(doc, Mapping) else "without keys"


def _configured_elements(descriptor: Mapping[str, Any], detector: str) -> list[str]:
    """Return the element names in a detector's configuration; none where it has none."""
    for configuration in descriptor.get("configuration", {}).values():
        names = configuration.get("data", {}).get(elements_key(detector))
        if names is not None and len(names):
            return [str(name) for name in names]
    return []
