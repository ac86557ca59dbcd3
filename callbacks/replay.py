"""`replay`: analyze a stored run with the same callbacks that analyze a live one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.schema import AnalysisRequest, Documents, DocumentSink, kind_of_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """Result of a replayed run."""

    summary: AnalysisSummary
    """What a plan would have been told about the run."""
    documents: Documents
    """The documents of the result run, without arrays."""

    @property
    def digest(self) -> str:
        """The sha256 of the result documents, which equals that of the live result."""
        return self.summary.digest


def replay(
    run: Any,
    *,
    request: AnalysisRequest | None = None,
    settings: AnalysisSettings | None = None,
    sinks: Iterable[DocumentSink] = (),
) -> Replay:
    """Analyze a stored map run as if it were being measured.

    Parameters
    ----------
    run
        The path of a JSON-lines file, a run of Tiled or databroker, or an iterable of
        ``(name, doc)`` pairs (see `store.documents.documents`).
    request
        Replaces what the run itself asked for, such as the factor or the query. The result then
        has another uid and digest.
    settings
        Settings of the analysis, such as the model; None stands for the built-in values.
    sinks
        Each is called as ``sink(name, doc)`` with the documents of the result run.

    Raises
    ------
    AnalysisError
        There is no run that asks for analysis among the documents.
    FileFormatError
        `run` is neither a run nor a path of one, or the file is damaged.

    Notes
    -----
    A run without a stop document is analyzed as far as it goes, as where the session died during
    the scan. The result's start document then says so in its ``notes``, and its summary in its
    reason.
    """
    from xrf_sr_plans.store.documents import documents
    from xrf_sr_plans.store.unfinished import with_stops

    result: Documents = []
    summaries: list[AnalysisSummary] = []
    chain = AnalysisChain(settings, lambda name, doc: result.append((name, doc)), summaries.append)
    maps: set[str] = set()
    for name, doc in with_stops(documents(run)):
        if name == "start" and kind_of_run(doc) != "outcomes":
            maps.add(doc["uid"])
            if request:
                doc = _with_request(doc, request)
        chain(name, doc)
    # What is told of all tiles of a survey together, or of its end, is no result of a map.
    of_maps = [summary for summary in summaries if summary.source_uid in maps]
    if not of_maps:
        raise AnalysisError(f"{run!r:.200} holds no run that asks for analysis; give `request`")
    summary = of_maps[-1]
    if summary.status != "done" or summary.reason:
        logger.warning(
            "replay of run %s: %s %s", summary.source_uid, summary.status, summary.reason
        )
    as_stored: Documents = [(name, as_lists(doc)) for name, doc in result]
    for sink in sinks:
        for name, doc in as_stored:
            sink(name, doc)
    return Replay(summary, as_stored)


def _with_request(start: dict[str, Any], request: AnalysisRequest) -> dict[str, Any]:
    metadata = {**start.get("xrf_sr", {}), "analysis": request.model_dump(mode="json")}
    return {**start, "xrf_sr": metadata}
