"""`Tap`: all that the RunEngine holds of the analysis."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from xrf_sr_plans.callbacks.analysis_link import DocumentLink
from xrf_sr_plans.maps.run_index import MAX_FOLLOWED_RUNS, RunIndex, wants_analysis

logger = logging.getLogger(__name__)


class Tap:
    """Hand the documents of runs that ask for analysis to a link: ``RE.subscribe(Tap(link))``.

    Whatever happens behind it, the RunEngine sees no exception and waits for nothing.

    Parameters
    ----------
    link
        Takes the documents, such as the analysis process.

    Attributes
    ----------
    errors : int
        How many documents the link did not get. Only the first one is logged.
    """

    def __init__(self, link: DocumentLink) -> None:
        self._link = link
        self._index = RunIndex(wants_analysis, MAX_FOLLOWED_RUNS)
        self.errors = 0

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Pass on a document, unless its run asks for no analysis."""
        try:
            run = self._index.run_of(name, doc)
            if run is None:
                return
            copy = dict(doc)
            if isinstance(copy.get("data"), Mapping):
                # A later subscriber may fill in or rename data while the link still reads them.
                copy["data"] = dict(copy["data"])
            self._link.submit(run, name, copy)
        except Exception:  # an exception here would end the user's scan
            self.errors += 1
            if self.errors == 1:
                logger.exception("the analysis misses a %s document; the scan goes on", name)
