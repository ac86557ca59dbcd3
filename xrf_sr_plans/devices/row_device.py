"""The base class of row flyers that are ophyd devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bluesky.protocols import Hints, Reading
from event_model import DataKey, PartialEvent
from ophyd import Device

from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.row_status import RowStatus
from xrf_sr_plans.devices.rows import (
    AttemptCounter,
    RowFrames,
    RowPath,
    describe_elements,
    describe_row,
    read_elements,
    row_event,
)


class RowDevice(Device):
    """A flyer that keeps one row, describes it and hands it out once.

    A subclass sets `_path` when it prepares a row, `_attempt` when it begins the row, and
    `_frames`, under `_frames_lock`, when the row is complete. Its `stop` abandons a row under
    way.

    Parameters
    ----------
    name
        Prefix of the event keys.
    elements
        Element names, in the order of the counts.
    """

    def __init__(self, *, name: str, elements: Sequence[str], **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.elements = list(elements)
        self._attempts = AttemptCounter()
        self._path: RowPath | None = None
        self._attempt = 0
        self._frames: RowFrames | None = None
        self._frames_lock = threading.Lock()
        # Key of the map whose rows are being flown, and when its first row was prepared.
        self._map_began: tuple[str, float] = ("", 0.0)

    @property
    def hints(self) -> Hints:
        """Nothing to plot, because BestEffortCallback would draw every column of every row."""
        return {"fields": []}

    def stage(self) -> list[Any]:
        """Stop what is still moving, and forget all attempts."""
        self.stop()
        self._attempts.reset()
        self._path = self._frames = None
        return super().stage()

    def unstage(self) -> list[Any]:
        """Stop what is still moving."""
        self.stop()
        return super().unstage()

    def _status_of(self, request: RowRequest) -> RowStatus:
        """Return a new status of going to, or of measuring, a row."""
        if self._map_began[0] != request["map_key"]:
            self._map_began = (request["map_key"], time.monotonic())
        return RowStatus(self, request, self._map_began[1])

    def collect(self) -> Iterator[PartialEvent]:
        """Yield the row as one event, once. Yield nothing where the row isn't complete."""
        with self._frames_lock:
            frames, self._frames = self._frames, None
        if frames is not None and self._path is not None:
            yield row_event(self.name, frames, self._path.request, self._attempt)

    def describe_collect(self) -> dict[str, dict[str, DataKey]]:
        """Return the data keys of the row event, by stream."""
        num = None if self._path is None else self._path.request["num"]
        return describe_row(self.name, len(self.elements), num)

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return the data key of the element names."""
        return {**super().describe_configuration(), **describe_elements(self.name, self.elements)}

    def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return the element names."""
        return {**super().read_configuration(), **read_elements(self.name, self.elements)}

    def pause(self) -> None:
        """Abandon the row under way, because the RunEngine rewinds and flies it again."""
        self.stop()

    def resume(self) -> None:
        """Do nothing, because the rewound plan prepares the row again."""
