"""`replay`: an old run through the live callbacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.result_run import Documents
from xrf_sr_plans.callbacks.service.sink_thread import Sink
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.schema import AnalysisRequest


@dataclass(frozen=True)
class Replay:
    """What a replayed run gives; `digest` equals the live result's."""

    summary: AnalysisSummary
    documents: Documents

    @property
    def digest(self) -> str:
        """The sha256 over the result documents."""
        return self.summary.digest


def replay(
    run: Any,
    *,
    request: AnalysisRequest | None = None,
    settings: AnalysisSettings | None = None,
    sinks: Iterable[Sink] = (),
) -> Replay:
    """Analyse a stored map run as if it were being measured.

    Parameters
    ----------
    run
        Whatever `store.documents` reads: a JSONL path, a run of Tiled or of databroker; or an
        iterable of ``(name, doc)``.
    request
        Ask for something else than the run itself did (another factor, another query); the
        result then has another uid and digest.
    settings
        Which model on which device.
    sinks
        Each is called with ``(name, doc)`` of the result run.

    Raises
    ------
    AnalysisError
        The documents contain no finished map run that asks for analysis.
    """
    from xrf_sr_plans.store.documents import documents

    result: Documents = []
    summaries: list[AnalysisSummary] = []
    chain = AnalysisChain(settings, lambda name, doc: result.append((name, doc)), summaries.append)
    for name, doc in documents(run):
        chain(name, _asking(doc, request) if name == "start" and request else doc)
    if not summaries:
        raise AnalysisError(
            f"{run!r:.200} holds no finished map run that asks for analysis; give `request`"
        )
    plain: Documents = [(name, as_lists(doc)) for name, doc in result]
    for sink in sinks:
        for name, doc in plain:
            sink(name, doc)
    return Replay(summaries[-1], plain)


def _asking(start: dict[str, Any], request: AnalysisRequest) -> dict[str, Any]:
    metadata = {**start.get("xrf_sr", {}), "analysis": request.model_dump(mode="json")}
    return {**start, "xrf_sr": metadata}
