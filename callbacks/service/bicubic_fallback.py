"""`BicubicFallback`: the bicubic result of a run, made from its kept documents."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.service.result_board import ResultBoard, failed
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.schema import Document, Documents

logger = logging.getLogger(__name__)


class MadeFallback(NamedTuple):
    """A fallback."""

    summary: AnalysisSummary
    """What came of the run."""
    runs: Sequence[Documents] = ()
    """The documents of each result run."""
    others: Sequence[AnalysisSummary] = ()
    """What else has come of it, such as the choice among all tiles of a survey."""


FallbackMaker = Callable[[str, str], MadeFallback]
"""Makes the fallback of a run, given its uid and why the model isn't used."""


class BicubicFallback:
    """Give a bicubic result to runs whose own is late or failed, each in a thread of its own.

    Parameters
    ----------
    make
        Makes the result. It is called in the fallback's thread, and may take its time.
    results
        Where the outcome is published.
    sinks
        Where the documents of the result run are delivered.
    settled
        Called with a run's uid once the fallback is its outcome.
    """

    def __init__(
        self,
        make: FallbackMaker,
        results: ResultBoard,
        sinks: SinkThread,
        settled: Callable[[str], None] = lambda run: None,
    ) -> None:
        self._make = make
        self._results = results
        self._sinks = sinks
        self._settled = settled
        self._under_way: set[threading.Thread] = set()

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
        thread = threading.Thread(
            target=self._run, args=(source_uid, reason), name="xrf-sr-fallback", daemon=True
        )
        self._under_way.add(thread)
        thread.start()
        return future

    @property
    def busy(self) -> bool:
        """Whether a fallback is under way."""
        return bool(self._under_way)

    def _run(self, source_uid: str, reason: str) -> None:
        try:
            made = self._make(source_uid, reason)
        except Exception as error:  # whoever waits must be told
            logger.exception("the fallback of run %s failed", source_uid)
            made = MadeFallback(failed(source_uid, f"{reason}; fallback: {error}"))
        if self._results.settle(made.summary, is_fallback=True):
            for documents in made.runs:
                self._sinks.deliver(documents)
            for other in made.others:
                self._results.settle(other)
            self._settled(source_uid)
        self._under_way.discard(threading.current_thread())


class FallbackInThread:
    """Make a bicubic result in this process.

    Parameters
    ----------
    settings
        Settings of the analysis.
    documents_of
        Returns the kept documents of the run with the given uid, and [] where none are kept any
        more.
    """

    def __init__(
        self, settings: AnalysisSettings, documents_of: Callable[[str], Documents]
    ) -> None:
        self._settings = settings_of_fallback(settings)
        self._documents_of = documents_of

    def __call__(self, run: str, reason: str) -> MadeFallback:
        """Return the fallback."""
        result: Documents = []
        summaries: list[AnalysisSummary] = []
        chain = AnalysisChain(
            self._settings,
            lambda name, doc: result.append((name, doc)),
            summaries.append,
            fallback_reason=reason,
        )
        documents = self._documents_of(run)
        for name, doc in documents:
            chain.take(run, name, doc)
        if not summaries:
            return MadeFallback(no_result(run, reason, bool(documents)))
        return MadeFallback(summaries[0], whole_runs(result))


def whole_runs(documents: Iterable[Document]) -> list[Documents]:
    """Return the documents of runs that come one after the other, run by run."""
    runs: list[Documents] = [[]]
    for name, doc in documents:
        runs[-1].append((name, doc))
        if name == "stop":
            runs.append([])
    return runs[:-1]


def settings_of_fallback(settings: AnalysisSettings) -> AnalysisSettings:
    """Return settings with which no pairs are recorded.

    The model's analysis records them, or did so before it was late; else they'd be there twice.
    Predictions are kept only where a scratch folder is given, once for each model. Wherever the
    model's analysis runs, the fallback runs here, where its folders need not be.
    """
    changed: dict[str, None] = {"pair_dir": None, "ledger_dir": None}
    if settings.worker_command is not None:
        changed |= {"result_dir": None, "worker_command": None}
    return settings.model_copy(update=changed)


def no_result(run: str, reason: str, is_known: bool) -> AnalysisSummary:
    """Return the summary of a run of which no result can be made."""
    why = "the run is not over yet" if is_known else "no documents of it are at hand"
    return failed(run, f"{reason}; {why} (run {run})")
