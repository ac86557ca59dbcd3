"""How long rows really take, and how far the map is that is being flown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from event_model import DocumentRouter

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import RowTimeModel


def recalibrated(
    model: RowTimeModel, num: int, dwell_ms: float, rows_s: Sequence[float]
) -> RowTimeModel:
    """Return a time model with the median overhead of rows that were flown.

    A row that took less than its dwell was flown on a simulated clock and says nothing. The model
    stays as it is where there is no other row.

    Parameters
    ----------
    model
        The beamline's own model.
    num
        Pixels of a row.
    dwell_ms
        Time at each pixel in ms.
    rows_s
        Seconds that each row took. The few that were interrupted hardly change the median.
    """
    exposure_s = num * dwell_ms * 1e-3
    real = [row_s for row_s in rows_s if row_s >= exposure_s]
    if not real:
        return model
    overhead_s = statistics.median(real) - exposure_s * model.dwell_scale
    return replace(model, overhead_s=max(overhead_s, 0.0))


class RowProgress(DocumentRouter):
    r"""Count the rows of the map that is being flown, and tell the time that is left.

    Subscribe it to the RunEngine; give `waiting_hook` to ``RE.waiting_hook`` to have a line
    shown while the RunEngine waits::

        progress = RowProgress(show=lambda line: print(line, end="\r"))
        RE.subscribe(progress)
        RE.waiting_hook = progress.waiting_hook

    Parameters
    ----------
    show
        Called with one line of text whenever there is something new. None means that
        rows are only counted.
    """

    def __init__(self, show: Callable[[str], object] | None = None) -> None:
        super().__init__()
        self._show = show
        self._shown = ""
        self._uid = ""
        self._descriptors: set[str] = set()
        self._row_key = ""
        self._title = ""
        self._rows: set[int] = set()
        self._times: list[float] = []
        self._expected_s = 0.0
        self.rows_total = 0

    @property
    def rows_done(self) -> int:
        """Number of rows measured so far, where a row that was flown twice counts once."""
        return len(self._rows)

    @property
    def row_s(self) -> float:
        """Median time of a row in seconds, or the plan's estimate until there are two rows."""
        steps = [late - early for early, late in pairwise(self._times)]
        return statistics.median(steps) if steps else self._expected_s

    @property
    def time_left_s(self) -> float:
        """Seconds that the rest of the map will take."""
        return (self.rows_total - self.rows_done) * self.row_s

    def line(self) -> str:
        """Return the progress as one line for a person, or "" while no map is flown."""
        if not self.rows_total:
            return ""
        return (
            f"{self._title}: row {self.rows_done}/{self.rows_total}, {self.time_left_s:.0f} s left"
        )

    def waiting_hook(self, statuses: object) -> None:
        """Show the line if it changed, for ``RE.waiting_hook``. This never raises."""
        text = self.line()
        if self._show is None or not text or text == self._shown:
            return
        self._shown = text
        try:
            self._show(text)
        except Exception:  # noqa: BLE001 - a broken display must not stop the scan
            self._show = None

    def start(self, doc: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Begin to count where the run is a map, and ignore other runs."""
        if schema.kind_of_run(doc) != "map":
            return
        facts = doc["xrf_sr"]
        self._uid = doc["uid"]
        self._descriptors = set()
        self._rows, self._times = set(), [doc["time"]]
        self.rows_total = int(facts["grid"]["slow"]["num"])
        self._expected_s = float(facts.get("derived_input", {}).get("row_s", 0.0))
        self._title = f"{facts.get('purpose', 'map')}{_which(facts)}"

    def descriptor(self, doc: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Remember which events are rows."""
        if doc["run_start"] != self._uid or doc.get("name") != schema.STREAM_ROWS:
            return
        self._descriptors.add(doc["uid"])
        self._row_key = next((key for key in doc["data_keys"] if key.endswith("_row")), "")

    def event(self, doc: Mapping[str, Any]) -> Any:  # type: ignore[override]
        """Count the row of an event."""
        if doc["descriptor"] in self._descriptors and self._row_key in doc["data"]:
            self._rows.add(int(doc["data"][self._row_key]))
            self._times.append(doc["time"])

    def stop(self, doc: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Stop counting when the map is over."""
        if doc["run_start"] == self._uid:
            self.rows_total = 0


def _which(facts: Mapping[str, Any]) -> str:
    """Return which of several maps this is, such as " tile 1/2", or "" where it is the only one.

    `facts` is its `xrf_sr` metadata.
    """
    tile = facts.get("tile")
    if tile:
        return f" tile {tile['index'] + 1}/{tile['of']}"
    derived = facts.get("derived_input", {})
    for kind in ("rescan", "pair"):
        of = derived.get(f"{kind}_maps", 1)
        if of > 1:
            return f" {derived[f'{kind}_position'] + 1}/{of}"
    return ""
