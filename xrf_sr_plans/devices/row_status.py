"""The status of a row, whose watchers are told how far the whole map is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from ophyd.status import Status

from xrf_sr_plans.devices.protocols import RowRequest

logger = logging.getLogger(__name__)


class RowStatus(Status):
    """Status of going to, or of measuring, one row of a map.

    `watch` makes bluesky's ProgressBarManager, where it is the RunEngine's waiting hook, show
    the rows of the map while the RunEngine waits for one of them.

    Parameters
    ----------
    device
        The flyer.
    request
        The row. Where it doesn't tell the number of rows, watchers are told the name alone.
    map_began_s
        When the first row of the map was prepared, by `time.monotonic`.
    """

    def __init__(self, device: Any, request: RowRequest, map_began_s: float) -> None:
        self._watchers: list[Callable[..., object]] = []
        self._row, self._rows = request["row"], request.get("rows")
        self._name = f"{device.name} row {self._row + 1}"
        self._map_began_s = map_began_s
        self._measured = False
        super().__init__(device)
        self.add_callback(lambda _: [self._tell(watcher) for watcher in self._watchers])

    def row_measured(self) -> None:
        """Count the row as done; for the flyer, before it finishes the status."""
        self._measured = True

    def watch(self, func: Callable[..., object]) -> None:
        """Have a function called now, and once more when the status is done.

        Parameters
        ----------
        func
            Takes the keyword arguments that ophyd's ``MoveStatus.watch`` gives: ``name``,
            ``current``, ``initial`` and ``target`` in rows of the map, ``unit``, ``precision``,
            ``fraction`` (the share of the map that is still to do), ``time_elapsed`` since the
            map began and ``time_remaining`` until its end, in seconds. Where it raises, it is
            logged.
        """
        self._watchers.append(func)
        self._tell(func)

    def _progress(self) -> dict[str, Any]:
        if not self._rows:
            return {"name": self._name}
        current = self._row + self._measured
        elapsed_s = time.monotonic() - self._map_began_s
        left = max(self._rows - current, 0)
        return {
            "name": self._name,
            "current": current,
            "initial": 0,
            "target": self._rows,
            "unit": "rows",
            "precision": 0,
            "fraction": left / self._rows,
            "time_elapsed": elapsed_s,
            "time_remaining": elapsed_s / current * left if current else None,
        }

    def _tell(self, watcher: Callable[..., object]) -> None:
        try:
            watcher(**self._progress())
        except Exception as error:  # noqa: BLE001 - a broken display must not stop the scan
            logger.warning("%s: a watcher of its progress failed: %r", self._name, error)
