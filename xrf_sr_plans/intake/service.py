"""`listen`: the analysis behind a bus, as the command `xrf-sr listen` runs it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from threading import Event

from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.cluster.connection import check_settings
from xrf_sr_plans.config import Settings
from xrf_sr_plans.config.logs import close_log, open_log
from xrf_sr_plans.health.monitor import HealthMonitor
from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.bus import Told, open_intake, open_outlet
from xrf_sr_plans.intake.listener import Listener
from xrf_sr_plans.intake.ordered_runs import PATIENCE_S, SILENT_S
from xrf_sr_plans.intake.result_publisher import ResultPublisher
from xrf_sr_plans.ranges import Range, check
from xrf_sr_plans.schema import DocumentSink
from xrf_sr_plans.store.run_store import OFF, RunStore, open_store

FINISH_S = 60.0
"""Longest wait at the end for results that are under way, in seconds."""
_STORE_S = 10.0
_SETTLE_S = 2.0
_PATIENCE = Range(0.0, 600.0)
_SILENT = Range(1.0, 7 * 86_400.0)
_FINISH = Range(0.0, 3600.0)


@dataclass(frozen=True)
class Listening:
    """Where documents come from, where results go, and how long to wait for what."""

    bus: BusAddress
    publish: BusAddress | None = None
    store: str = OFF
    """Where results are kept, as `store.run_store.RunStore` takes it; "off": nowhere."""
    settings: Settings = field(default_factory=Settings)
    patience_s: float = PATIENCE_S
    silent_s: float = SILENT_S
    finish_s: float = FINISH_S

    def check(self) -> None:
        """Refuse what can't work, before anything is connected.

        Raises
        ------
        ConfigError
            A time is outside its range, a folder can't be written to, results go nowhere, or the
            address of the cluster that enhances maps is none.
        MissingExtraError
            The cluster's client is not installed.
        """
        nowhere = self.publish is None and self.store == OFF
        check(
            "listen",
            _PATIENCE.flaw("patience_s", self.patience_s),
            _SILENT.flaw("silent_s", self.silent_s),
            _FINISH.flaw("finish_s", self.finish_s),
            "results would go nowhere: give publish, store, or both" if nowhere else "",
            _own_topic(self.bus, self.publish),
        )
        self.settings.check_places()
        if self.settings.analysis.worker_command is None:
            check_settings(self.settings.analysis)


def listen(wanted: Listening, told: Told, stop: Event) -> int:
    """Analyse the runs of a bus until `stop` is set.

    Parameters
    ----------
    wanted
        What to listen to.
    told
        Called with a sentence on whatever happens, from several threads.
    stop
        Ends it. What is under way is finished first, within ``finish_s``.

    Returns
    -------
    int
        How many result runs were not published, or not taken by the store.

    Raises
    ------
    ConfigError
        Something can't work (`Listening.check`), or the client of a bus refuses its options.
    MissingExtraError
        The client of a bus is not installed.
    """
    wanted.check()
    with contextlib.ExitStack() as stack:
        log = open_log(wanted.settings.log)
        stack.callback(close_log, log)
        intake = open_intake(wanted.bus, told)
        stack.callback(intake.close)
        sinks: list[DocumentSink] = []
        publisher: ResultPublisher | None = None
        if wanted.publish is not None:
            outlet = open_outlet(wanted.publish, told)
            stack.callback(outlet.close, _STORE_S)
            publisher = ResultPublisher(outlet, told)
            sinks.append(publisher)
        store: RunStore | None = open_store(wanted.store)
        if store is not None:
            stack.callback(store.close, _STORE_S)
            sinks.append(store)
        health = monitor_of(wanted)
        stack.callback(health.close)
        link = AnalysisProcess(wanted.settings.of_analysis, [*sinks, health.results])
        stack.callback(link.close, 0.0)
        health.open(link)
        listener = Listener(
            intake,
            link,
            told,
            patience_s=wanted.patience_s,
            silent_s=wanted.silent_s,
            # The other half is for what comes of one message, such as the run that is being read.
            most_bytes=wanted.settings.of_analysis.memory_limit_mb * 2**20 / 2,
            followers=(health,),
        )
        told(_what_it_does(wanted))
        try:
            listener.run(stop)
        finally:
            if not link.flush(wanted.finish_s):
                told(f"results under way were not finished in {wanted.finish_s:g} s")
            listener.tell_results()
            # Else the next one would make the latest results once more.
            listener.settle(_SETTLE_S)
        failures = link.sink_thread.failures
        return failures + (publisher.failures if publisher else 0)


def monitor_of(wanted: Listening) -> HealthMonitor:
    """Return what tells `xrf-sr status` how a listener is doing, and its cluster if it has one."""
    return HealthMonitor(str(wanted.bus), cluster=wanted.settings.analysis.dask or "")


def _what_it_does(wanted: Listening) -> str:
    where = [f"publishing results at {wanted.publish}"] if wanted.publish else []
    where += [f"keeping them in {wanted.store}"] if wanted.store != OFF else []
    return f"listening to {wanted.bus}, {' and '.join(where)}"


def _own_topic(bus: BusAddress, publish: BusAddress | None) -> str:
    """Return why results can't go to where documents come from, or ""."""
    if publish is None or bus.kind != publish.kind or bus.kind == "0mq":
        return ""
    if bus.hosts != publish.hosts or not set(bus.topics) & set(publish.topics):
        return ""
    return f"results would go to {publish}, which it listens to; give them a topic of their own"
