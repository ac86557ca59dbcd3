"""What the row flyers that are ophyd devices have in common: the row as an event."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ophyd import Device

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
    """Keeps the row under way, describes it and hands it out once.

    A subclass sets `_path` when it prepares a row, `_attempt` when it begins it and `_frames`,
    under `_frames_lock`, when it is complete; its `stop` abandons a row under way.
    """

    def __init__(self, *, name: str, elements: Sequence[str], **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.elements = list(elements)
        """Element names, in the order of the counts."""
        self._ledger = AttemptCounter()
        self._path: RowPath | None = None
        self._attempt = 0
        self._frames: RowFrames | None = None
        self._frames_lock = threading.Lock()

    @property
    def hints(self) -> dict[str, Any]:
        """Nothing to plot: BestEffortCallback would draw every column of every row."""
        return {"fields": []}

    def stage(self) -> list[Any]:
        """Forget all attempts."""
        self.stop()
        self._ledger.reset()
        self._path = self._frames = None
        return super().stage()

    def unstage(self) -> list[Any]:
        """Stop whatever is still moving."""
        self.stop()
        return super().unstage()

    def collect(self) -> Iterator[dict[str, Any]]:
        """Yield the row as one event, once; nothing where the row isn't complete."""
        with self._frames_lock:
            frames, self._frames = self._frames, None
        if frames is not None and self._path is not None:
            yield row_event(self.name, frames, self._path.request, self._attempt)

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Describe the row event."""
        num = None if self._path is None else self._path.request["num"]
        return describe_row(self.name, len(self.elements), num)

    def describe_configuration(self) -> dict[str, Any]:
        """Describe the element names."""
        return {**super().describe_configuration(), **describe_elements(self.name, self.elements)}

    def read_configuration(self) -> dict[str, Any]:
        """Return the element names."""
        return {**super().read_configuration(), **read_elements(self.name, self.elements)}

    def pause(self) -> None:
        """Abandon the row under way: the RunEngine rewinds and flies it again."""
        self.stop()

    def resume(self) -> None:
        """Nothing: the rewound plan prepares the row again."""
