"""Runs without a stop document, because the process that wrote them died."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.schema import Document

NO_STOP = "no stop document: the session ended before the run did"
"""Reason that a stop document gives which was made up for a run that had none."""


def made_up_stop(start: Mapping[str, Any], time: float) -> dict[str, Any]:
    """Return a stop document with the exit status "abort" for a run that has none.

    It is the same one whenever it is made from the same documents.

    Parameters
    ----------
    start
        Start document of the run.
    time
        Time of the run's latest document, in seconds since 1970.
    """
    return {
        "uid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{start['uid']}/abandoned")),
        "run_start": start["uid"],
        "time": time,
        "exit_status": "abort",
        "reason": NO_STOP,
        "num_events": {},
    }


def with_stops(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield documents, and after the last one a stop document for each run that has none.

    Parameters
    ----------
    documents
        Documents of one run or of several, in their order and without pages.
    """
    index = RunIndex()
    starts: dict[str, Mapping[str, Any]] = {}
    latest: dict[str, float] = {}
    for name, doc in documents:
        yield name, doc
        try:
            run = index.run_of(name, doc)
        except (KeyError, TypeError, AttributeError):
            # A malformed document is the concern of whoever reads what is yielded here.
            continue
        if run is None:
            continue
        if name == "start":
            starts[run] = doc
        time = doc.get("time")
        if isinstance(time, int | float):
            latest[run] = max(latest.get(run, 0.0), time)
    for run in index.open_runs:
        yield "stop", made_up_stop(starts[run], latest.get(run, 0.0))
