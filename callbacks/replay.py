"""`replay`: analyze a stored run with the same callbacks that analyze a live one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.result_run import AnalysedMap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.maps.adapters.channels import ChannelKeys
from xrf_sr_plans.schema import AnalysisRequest, Document, Documents, DocumentSink, kind_of_run

logger = logging.getLogger(__name__)

RequestChange = Callable[[Mapping[str, Any]], AnalysisRequest | None]
"""Returns what a run with that start document is to be asked; None: what the run itself says."""


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


@dataclass(frozen=True)
class Analyses:
    """What the analysis made of one run or of several."""

    documents: Documents
    """The documents of all result runs in the order in which they were emitted, with arrays."""
    summaries: tuple[AnalysisSummary, ...]
    """What plans would have been told, in that order."""
    maps: tuple[AnalysedMap, ...]
    """The maps, in the order in which they were finished."""
    map_uids: frozenset[str]
    """Uids of all runs but those that only say how a survey ended."""

    @property
    def of_maps(self) -> tuple[AnalysisSummary, ...]:
        """The summaries without what is told of all tiles of a survey, or of its end."""
        return tuple(one for one in self.summaries if one.source_uid in self.map_uids)


def analyse(
    documents: Iterable[Document],
    settings: AnalysisSettings | None = None,
    change: RequestChange = lambda _: None,
) -> Analyses:
    """Give documents to a new chain of the analysis, as if they came from a RunEngine.

    Parameters
    ----------
    documents
        Documents of one run or of several. Runs without a stop document get one.
    settings
        Settings of the analysis; None stands for the built-in values.
    change
        Called with each start document but those of the outcomes of surveys.
    """
    from xrf_sr_plans.store.unfinished import with_stops

    emitted: Documents = []
    summaries: list[AnalysisSummary] = []
    maps: list[AnalysedMap] = []
    chain = AnalysisChain(
        settings,
        lambda name, doc: emitted.append((name, doc)),
        summaries.append,
        lane="bulk",
    )
    chain.consumers.append(maps.append)
    uids: set[str] = set()
    for name, doc in with_stops(documents):
        if name == "start" and kind_of_run(doc) != "outcomes":
            uids.add(doc["uid"])
            if request := change(doc):
                doc = _with_request(doc, request)
        chain(name, doc)
    return Analyses(emitted, tuple(summaries), tuple(maps), frozenset(uids))


def replay(
    run: Any,
    *,
    request: AnalysisRequest | None = None,
    settings: AnalysisSettings | None = None,
    sinks: Iterable[DocumentSink] = (),
    reader: str | None = None,
    channels: Mapping[str, ChannelKeys] | None = None,
    dwell_ms: float | None = None,
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
    reader, channels, dwell_ms
        What the documents of a run of another program don't say: who reads it, the data keys of
        the elements, and the time at each pixel (see `maps.adapters.adapted`, which takes more).

    Raises
    ------
    AnalysisError
        There is no run that asks for analysis among the documents, or one of another program that
        can't be read.
    FileFormatError
        `run` is neither a run nor a path of one, or the file is damaged.

    Notes
    -----
    A run without a stop document is analyzed as far as it goes, as where the session died during
    the scan. The result's start document then says so in its ``notes``, and its summary in its
    reason.
    """
    from xrf_sr_plans.maps.adapters import adapted
    from xrf_sr_plans.maps.readers.roots import roots_of
    from xrf_sr_plans.store.documents import arrays_of, documents

    readable = adapted(
        documents(run),
        reader,
        channels,
        dwell_ms=dwell_ms,
        roots=roots_of(run),
        arrays=arrays_of(run),
    )
    made = analyse(readable, settings, lambda _: request)
    if not made.of_maps:
        raise AnalysisError(f"{run!r:.200} holds no run that asks for analysis; give `request`")
    summary = made.of_maps[-1]
    if summary.status != "done" or summary.reason:
        logger.warning(
            "replay of run %s: %s %s", summary.source_uid, summary.status, summary.reason
        )
    as_stored: Documents = [(name, as_lists(doc)) for name, doc in made.documents]
    for sink in sinks:
        for name, doc in as_stored:
            sink(name, doc)
    return Replay(summary, as_stored)


def _with_request(start: dict[str, Any], request: AnalysisRequest) -> dict[str, Any]:
    metadata = {**start.get("xrf_sr", {}), "analysis": request.model_dump(mode="json")}
    return {**start, "xrf_sr": metadata}
