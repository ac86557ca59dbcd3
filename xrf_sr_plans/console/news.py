"""`RunNews`: how maps end and how predictions did, each in one line at the prompt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.console.screen import Screen
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.plans.timing import RowProgress
from xrf_sr_plans.review.verdicts import MapVerdict

logger = logging.getLogger(__name__)


class RunNews:
    """Tell what is worth a line of measured runs and of result runs.

    Subscribe it to the RunEngine, and give `results` to the analysis as a sink. It never raises.

    Parameters
    ----------
    screen
        Where lines are shown.
    progress
        Counts the rows of the map that is being flown. It has to get each document before this.
    has_shutter
        Whether there is a shutter to be told of.
    """

    def __init__(self, screen: Screen, progress: RowProgress, *, has_shutter: bool) -> None:
        self._screen = screen
        self._progress = progress
        self.has_shutter = has_shutter
        self._index = RunIndex()
        self._verifying: dict[str, list[schema.Document]] = {}
        self._map_uid = ""
        self._total = 0

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the RunEngine."""
        try:
            if name == "start" and schema.kind_of_run(doc) == "map":
                self._map_uid = str(doc["uid"])
                self._total = int(doc["xrf_sr"]["grid"]["slow"]["num"])
            elif name == "stop" and doc.get("run_start") == self._map_uid:
                self._map_ended(doc)
        except Exception:  # a scan must not end because of a line at the prompt
            logger.exception("a %s document was not understood", name)

    def where(self) -> str:
        """Return in words how far the map is that is being flown; "" where none is."""
        if not self._map_uid:
            return ""
        return f"row {self._progress.rows_done} of {self._total}"

    def _map_ended(self, stop: Mapping[str, Any]) -> None:
        where, status, reason = self.where(), stop.get("exit_status"), str(stop.get("reason") or "")
        done = self._progress.rows_done
        self._map_uid = ""
        lost = int((stop.get("num_events") or {}).get(schema.STREAM_LOST_ROWS, 0))
        # Rows that were given up are told of one by one.
        if status == "success" and done + lost >= self._total:
            return
        usable = "the map so far is usable" if done else "nothing was measured"
        shutter = "shutter closed" if self.has_shutter and "shutter" not in reason else ""
        what = "failed" if status == "fail" else "stopped"
        parts = [f"{what} at {where}", reason, usable, shutter]
        self._screen.tell("; ".join(part for part in parts if part))

    def results(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of a result run, in the thread of the results."""
        uid = self._index.run_of(name, dict(doc))
        if uid is None:
            return
        if name == "start" and schema.kind_of_run(doc) == "verification":
            self._verifying[uid] = []
        if uid not in self._verifying:
            return
        self._verifying[uid].append((name, dict(doc)))
        if name == "stop":
            self._screen.tell(str(MapVerdict.from_documents(self._verifying.pop(uid))))
