"""`BicubicFallback`: the bicubic result of a run, made in this process from its kept documents."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.schema import Documents

logger = logging.getLogger(__name__)


class BicubicFallback:
    """Run the analysis chain without the model for runs whose result is late or failed.

    Parameters
    ----------
    settings
        Settings of the analysis. Pairs and predictions are not recorded here.
    results
        Where the outcome is published.
    sinks
        Where the documents of the result run are delivered.
    documents_of
        Returns the kept documents of the run with the given uid, and [] where none are kept any
        more. It is called in the fallback's own thread.
    settled
        Called with a run's uid once the fallback is its outcome.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        results: ResultBoard,
        sinks: SinkThread,
        documents_of: Callable[[str], Documents],
        settled: Callable[[str], None] = lambda run: None,
    ) -> None:
        # Pairs and predictions are recorded by the real chain only; else they'd be there twice.
        self._settings = settings.model_copy(update={"pair_dir": None, "ledger_dir": None})
        self._results = results
        self._sinks = sinks
        self._documents_of = documents_of
        self._settled = settled

    def __call__(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Return the future of a run's outcome: the model's if it is in, else a bicubic one.

        Parameters
        ----------
        source_uid
            Uid of the measured run.
        reason
            Why the model's result is not waited for. The result run says so.
        """
        known = self._results.request(source_uid)
        if known.done() and known.result().status != "failed":
            return known
        future = self._results.reopen(source_uid)
        threading.Thread(
            target=self._run, args=(source_uid, reason), name="xrf-sr-fallback", daemon=True
        ).start()
        return future

    def _run(self, source_uid: str, reason: str) -> None:
        result: Documents = []
        summaries: list[AnalysisSummary] = []
        try:
            chain = AnalysisChain(
                self._settings,
                lambda name, doc: result.append((name, doc)),
                summaries.append,
                fallback_reason=reason,
            )
            documents = self._documents_of(source_uid)
            for name, doc in documents:
                chain.take(source_uid, name, doc)
            if not summaries:
                why = "the run is not over yet" if documents else "no documents of it are at hand"
                summaries.append(failed(source_uid, f"{reason}; {why} (run {source_uid})"))
        except Exception as error:  # whoever waits must be told
            logger.exception("the fallback of run %s failed", source_uid)
            summaries.append(failed(source_uid, f"{reason}; fallback: {error}"))
        if self._results.settle(summaries[0]):
            self._sinks.deliver(result)
            self._settled(source_uid)
