"""`start_session`: connect a RunEngine, a beamline and the analysis; a profile calls it once."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky import RunEngine

from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.callbacks.analysis_link import AnalysisLink
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.cluster.connection import check_settings
from xrf_sr_plans.config import AnalysisSettings, PageSettings, Settings
from xrf_sr_plans.config.logs import OpenLog, close_log, open_log
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.health.monitor import HealthMonitor
from xrf_sr_plans.page.watching import Watching
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.queueing.from_settings import rescan_queue
from xrf_sr_plans.review.approval_keeper import ApprovalKeeper
from xrf_sr_plans.schema import DocumentSink
from xrf_sr_plans.store.run_store import DEFAULT, OFF, RunStore, open_store

if TYPE_CHECKING:
    from xrf_sr_plans.console.console import Console

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Session:
    """Plans bound to a beamline, and the analysis of their maps.

    It can be used in a ``with`` statement, which closes it.

    Attributes
    ----------
    run_engine
        The RunEngine whose documents are analyzed; None where each plan sees to that itself.
    beamline
        The beamline that the plans use.
    link
        The analysis process, or thread, behind the device `analysis`.
    analysis
        The device whose readings are the results. A profile puts it into its namespace.
    plans
        The bound plans by name. A profile puts them into its namespace.
    store
        What keeps all runs, whose attribute ``catalog`` is the client of the catalog; None where
        the session keeps nothing itself.
    approvals
        The desk at which people decide about regions; None where nobody can.
    console
        What is shown and typed at the prompt; None where that is left to others.
    health
        Counts what happens, for OpenTelemetry and for ``xrf-sr status``.
    watching
        The files, reports, page and window of the session's surveys; None where there are none.
    """

    run_engine: RunEngine | None
    beamline: Beamline
    link: AnalysisLink
    analysis: AnalysisDevice
    plans: Mapping[str, Callable[..., Any]]
    store: RunStore | None = None
    approvals: ApprovalDesk | None = None
    console: Console | None = None
    health: HealthMonitor | None = None
    watching: Watching | None = None
    _keeper: ApprovalKeeper | None = None
    _tokens: Sequence[int] = ()
    _log: OpenLog | None = None

    @property
    def names(self) -> dict[str, Any]:
        """What a profile puts into its namespace: plans, what is typed besides, the device."""
        typed = {} if self.console is None else self.console.names
        return {**self.plans, **typed, "analysis": self.analysis}

    def close(self, timeout_s: float = 10.0) -> None:
        """Unsubscribe from the RunEngine, end the analysis, and close the store.

        Parameters
        ----------
        timeout_s
            How long to wait, in seconds, for documents that are still being analyzed, and again
            for what is still being stored.
        """
        atexit.unregister(self.close)
        if self.run_engine is not None:
            for token in self._tokens:
                self.run_engine.unsubscribe(token)
        if self.approvals is not None:
            self.approvals.flush(timeout_s)
        if self._keeper is not None:
            self._keeper.close()
        self.link.close(timeout_s)
        if self.store is not None:
            self.store.close(timeout_s)
        if self.watching is not None:
            self.watching.close(timeout_s)
        if self.console is not None:
            self.console.close()
        close_log(self._log)
        if self.health is not None:
            self.health.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_session(
    run_engine: RunEngine | None,
    beamline: Beamline,
    *,
    settings: Settings | AnalysisSettings | str | Path | None = None,
    in_process: bool = False,
    result_sinks: Sequence[DocumentSink] = (),
    store: str | None = None,
    approvals: str | None = None,
    console: bool = False,
    page: PageSettings | None = None,
) -> Session:
    """Start the analysis, subscribe it to the RunEngine, and bind the plans.

    Parameters
    ----------
    run_engine
        The RunEngine of the session, as this package never makes one itself. It may have been
        made long before, in another thread and with subscriptions of its own. None where there
        is none yet or it can't be had, as in blueapi: then each plan subscribes the analysis to
        the RunEngine that runs it, for as long as it runs.
    beamline
        The beamline, of which the device `analysis` is replaced by that of this session.
    settings
        All settings or those of the analysis alone, or a settings file; by default those that the
        beamline was made from, else those of the environment.
    in_process
        Whether the analysis runs in a thread of this process, instead of in a process of its own.
    result_sinks
        Each is called as ``sink(name, doc)`` with the documents of result runs, in a thread in
        which an exception is only logged.
    store
        Where all runs are kept, measured and analyzed ones: a folder, the address of a Tiled
        server, or another place of `store.run_store.RunStore`. "off": this session keeps
        nothing, as where the profile has a catalog of its own. None: what the settings say; where
        they say nothing, the default place in a session with a console, and nothing in others.
    approvals
        Folder in which regions wait for approval, which pages and other sessions of this machine
        share. None: what the settings say, or else `approval.folder.default_approval_dir`; "off":
        nobody is asked.
    console
        Whether to show progress, news and refusals at the prompt in one line each, and to keep the
        survey that was flown last at hand. In IPython, plans and what is typed besides them
        (`Session.names`) are put into its namespace.
    page
        Where surveys are kept for reports, and whether there are a page in the browser and a live
        window. None: what the settings say. Where nobody names a folder, the default one is taken
        in a session with a console, a page or a window, and others keep none.

    Returns
    -------
    Session
        The session, which is closed when the interpreter exits at the latest.

    Raises
    ------
    ConfigError
        A setting in the environment is not allowed, a folder that the settings name can't be
        written to, the cluster can't be used as it is set, there is no RunEngine for the console,
        or the analysis is to run both in this process and on another host.
    """
    if console and run_engine is None:
        raise ConfigError("console=True needs the RunEngine; run_engine is None")
    told = _all_settings(settings, beamline)
    told.check_places()
    _check_where(told.analysis, in_process=in_process)
    if told.queue is not None and beamline.rescan_queue is None:
        beamline = replace(beamline, rescan_queue=rescan_queue(told.queue))
    if store is None:
        store = told.store.where or (DEFAULT if console else OFF)
    kept = open_store(store)
    approvals = told.approvals.folder if approvals is None else approvals
    desk = _desk(approvals)
    shown = None
    if console and run_engine is not None:
        shown = _console(run_engine, beamline, desk, kept)
    health = HealthMonitor(
        beamline.name,
        lambda: "" if desk is None else desk.waits_for,
        cluster=told.analysis.dask or "",
    )
    sinks = [*result_sinks, *([] if shown is None else shown.result_sinks), health.results]
    watching = _watching(told.page if page is None else page, approvals, told, console=console)
    keepers = [one for one in (kept, watching) if one is not None]
    link = _link(told.of_analysis, [*sinks, *keepers], in_process=in_process)
    analysis = AnalysisDevice(name="analysis", source=link)
    bound = replace(beamline, analysis=analysis, approvals=desk)
    keeper = None if desk is None else ApprovalKeeper(desk, link.deliver)
    takers: list[DocumentSink | None] = [Tap(link), *keepers, keeper, health]
    subscribers = [taker for taker in takers if taker is not None]
    session = Session(
        run_engine,
        bound,
        link,
        analysis,
        bind_plans(bound, subscribers if run_engine is None else ()),
        kept,
        desk,
        shown,
        health,
        watching,
        keeper,
        [] if run_engine is None else [run_engine.subscribe(one) for one in subscribers],
        open_log(told.log),
    )
    atexit.register(session.close)
    if kept is not None:
        logger.info("all runs are kept in %s (see session.store.catalog)", kept.where)
    health.open(link)
    if keeper is not None:
        keeper.open()
    if shown is not None:
        shown.open()
        shown.show_in_ipython(session.names)
    return session


def _check_where(settings: AnalysisSettings, *, in_process: bool) -> None:
    """Refuse places to analyse maps that exclude each other, or can't be used as they are set."""
    if settings.worker_command is None:
        check_settings(settings)
    elif in_process:
        raise ConfigError(
            "in_process=True runs the analysis in this process; analysis.worker_command is "
            f"{list(settings.worker_command)!r:.200}, which starts it elsewhere: leave out one"
        )


def _console(
    run_engine: RunEngine,
    beamline: Beamline,
    desk: ApprovalDesk | None,
    kept: RunStore | None,
) -> Console:
    # Imported here, because a session without a console needs none of it.
    from xrf_sr_plans.console.console import Console

    return Console(run_engine, beamline, desk, kept)


def _watching(
    page: PageSettings, approvals: str | None, told: Settings, *, console: bool
) -> Watching | None:
    """Return what keeps surveys to be watched, or None where nobody wants it."""
    if _is_off(page.surveys):
        return None
    if not (page.surveys or page.serve or page.live or console):
        return None
    return Watching(page, None if _is_off(approvals) else approvals, told.queue)


def _is_off(setting: str | None) -> bool:
    """Return whether a setting says "off"."""
    return setting is not None and setting.strip().lower() == OFF


def _desk(approvals: str | None) -> ApprovalDesk | None:
    if _is_off(approvals):
        return None
    return ApprovalDesk(ApprovalFolder(approvals))


def _all_settings(
    settings: Settings | AnalysisSettings | str | Path | None, beamline: Beamline
) -> Settings:
    """Return all settings, of which those of the beamline count where nothing else was given."""
    if isinstance(settings, AnalysisSettings):
        return (beamline.settings or Settings()).model_copy(update={"analysis": settings})
    if isinstance(settings, Settings):
        return settings
    if settings is None and beamline.settings is not None:
        return beamline.settings
    return Settings.load(settings)


def _link(
    settings: AnalysisSettings, sinks: Sequence[DocumentSink], *, in_process: bool
) -> AnalysisLink:
    if in_process:
        from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis

        return LocalAnalysis(settings, sinks)
    from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess

    return AnalysisProcess(settings, sinks)
