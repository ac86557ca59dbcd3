"""`Tap`: all that the RunEngine holds of the analysis."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from xrf_sr_plans.maps.run_index import MAX_OPEN_RUNS, RunIndex, wants_analysis

logger = logging.getLogger(__name__)


class Link(Protocol):
    """Where the tap sends documents; microseconds, never raises, never blocks."""

    def submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the run with that uid."""
        ...


class Tap:
    """Hand the documents of runs that ask for analysis to a link: ``RE.subscribe(Tap(link))``.

    Whatever happens behind it, the RunEngine sees no exception and waits for nothing.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._index = RunIndex(wants_analysis, MAX_OPEN_RUNS)
        self.errors = 0

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Pass a document on."""
        try:
            run = self._index.run_of(name, doc)
            if run is None:
                return
            copy = dict(doc)
            if "data" in copy:
                # A subscriber after us may fill in or rename data while we still read them.
                copy["data"] = dict(copy["data"])
            self._link.submit(run, name, copy)
        except Exception:  # an exception here would end the user's scan
            self.errors += 1
            if self.errors == 1:
                logger.exception("the analysis misses a %s document; the scan goes on", name)
