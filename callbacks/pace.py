"""`Pace`: how fast the rows of a map come, and whether there is time for a preview."""

from __future__ import annotations

import time


class Pace:
    """How fast rows come and how long previews take, to tell whether there is time for one."""

    def __init__(self) -> None:
        self._row_s = 0.0
        self._last_row: float | None = None
        self._preview_s = 0.0

    def new_run(self) -> None:
        """Begin with a map."""
        self._last_row = None
        self._row_s = 0.0

    def row(self) -> None:
        """Note that a row has come."""
        now = time.perf_counter()
        if self._last_row is not None:
            self._row_s = now - self._last_row
        self._last_row = now

    def preview_took(self, seconds: float) -> None:
        """Note how long a preview took."""
        self._preview_s = seconds

    def leaves_time(self, rows_left: int) -> bool:
        """Return whether a preview is likely done before so many rows have come."""
        # With a margin, as the next preview covers more rows than the last one.
        return rows_left * self._row_s > 1.5 * self._preview_s
