"""`HealthMonitor`: counts what a session does, for OpenTelemetry and for `xrf-sr status`."""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from xrf_sr_plans import schema
from xrf_sr_plans.callbacks.analysis_link import AnalysisLink
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import in_words
from xrf_sr_plans.health.cluster_use import ClusterUse
from xrf_sr_plans.health.report import HealthReport, ReportFile
from xrf_sr_plans.plans.timing import RowProgress

logger = logging.getLogger(__name__)

WRITE_S = 5.0
"""How often the report is written."""
_METER = "xrf_sr_plans"
_MINUTE_S = 60.0
_REMEMBERED = 256


class HealthMonitor:
    """Follow a session. Subscribe it to the RunEngine, and give `results` to the analysis.

    The counters are those of the OpenTelemetry API, which do nothing unless a program configures
    its SDK. What is asked of the analysis is asked in a thread. It never raises.

    Parameters
    ----------
    beamline
        Name of the beamline.
    waits_for
        Returns the uid of the survey that waits for approval, or "".
    folder
        Folder of the reports; None: the default one.
    cluster
        Address of the Dask cluster that enhances maps; "": there is none.
    """

    wants_preview = False

    def __init__(
        self,
        beamline: str,
        waits_for: Callable[[], str] = lambda: "",
        folder: str | None = None,
        cluster: str = "",
    ) -> None:
        self._beamline = beamline
        self._cluster = ClusterUse(cluster)
        self._waits_for = waits_for
        self._file = ReportFile(folder)
        self._link: AnalysisLink | None = None
        self._started = time.time()
        self._progress = RowProgress()
        self._row_times: deque[float] = deque(maxlen=10_000)
        self._stopped: OrderedDict[str, float] = OrderedDict()
        self._rows = self._results = self._fallbacks = 0
        self._latency_s: float | None = None
        self._coverage: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="xrf-sr-health", daemon=True)
        self._tags = {"beamline": beamline}
        meter = metrics.get_meter(_METER)
        self._row_counter = meter.create_counter("xrf_sr.rows", "{row}", "Rows measured")
        self._fallback_counter = meter.create_counter(
            "xrf_sr.fallbacks", "{map}", "Maps that became bicubic"
        )
        self._latency = meter.create_histogram(
            "xrf_sr.latency", "s", "From the end of a map to its result"
        )
        self._map_counter = meter.create_counter(
            "xrf_sr.maps", "{map}", "Maps that were enhanced, by where"
        )
        self._gauges: dict[str, Callable[[], float | None]] = {
            "xrf_sr.rows_per_second": self._rows_per_s,
            "xrf_sr.queue_depth": self._depth,
            "xrf_sr.restarts": self._restarts,
            "xrf_sr.coverage_90": self._covered,
        }
        _create_gauges()
        _open_monitors.add(self)

    def open(self, link: AnalysisLink) -> None:
        """Begin to write reports, also of the analysis."""
        self._link = link
        self._thread.start()

    def close(self) -> None:
        """Write no more, and remove the report."""
        _open_monitors.discard(self)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
        self._file.remove()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the RunEngine."""
        try:
            before = self._progress.rows_done
            self._progress(name, dict(doc))
            new = self._progress.rows_done - before
            if name in ("event", "event_page") and new > 0:
                self._rows += new
                self._row_counter.add(new, self._tags)
                self._row_times.extend([time.monotonic()] * new)
            elif name == "stop":
                self._stopped[str(doc.get("run_start"))] = time.monotonic()
                while len(self._stopped) > _REMEMBERED:
                    self._stopped.popitem(last=False)
        except Exception as error:  # counting must not end a scan
            logger.warning("a %s document is not counted: %s", name, in_words(error))
            logger.debug("a document is not counted", exc_info=True)

    def results(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of a result run."""
        if name != "start":
            return
        kind = schema.kind_of_run(doc)
        if kind == "result":
            self._results += 1
            if doc.get("fallback"):
                self._fallbacks += 1
                self._fallback_counter.add(1, self._tags)
            if self._link is not None and self._cluster.address:
                asked = self._link.request(str(doc.get("original_run_uid")))
                asked.add_done_callback(self._enhanced)
            stopped = self._stopped.get(str(doc.get("original_run_uid")))
            if stopped is not None:
                self._latency_s = time.monotonic() - stopped
                self._latency.record(self._latency_s, self._tags)
        elif kind == "verification" and doc.get("overall"):
            self._coverage = float(doc["overall"]["coverage_90"])

    def _enhanced(self, outcome: Future[AnalysisSummary]) -> None:
        where = self._cluster.take(outcome)
        if where is not None:
            self._map_counter.add(1, {**self._tags, "where": where})

    def observations(self, gauge: str) -> list[Observation]:
        """Return what the gauge of that name shows now: one value, or none."""
        value = self._gauges[gauge]()
        return [] if value is None else [Observation(value, self._tags)]

    def report(self) -> HealthReport:
        """Return how the session is doing now."""
        link = self._link
        state = None if link is None else link.state()
        line = self._progress.line()
        maps = self._cluster.maps
        return HealthReport(
            beamline=self._beamline,
            started=self._started,
            ready=state is not None and state.ready,
            analysis_pid=None if state is None else state.pid,
            analysis_host="" if state is None else state.host,
            waiting_runs=0 if state is None else state.waiting_runs,
            restarts=self._restarts() or 0,
            fallbacks=self._fallbacks,
            results=self._results,
            latency_s=self._latency_s,
            rows=self._rows,
            rows_per_s=self._rows_per_s() or 0.0,
            coverage_90=self._coverage,
            flying=line,
            waits_for_approval=self._waits_for(),
            cluster=self._cluster.address,
            maps_on_cluster=maps["cluster"],
            maps_here=maps["here"],
            cluster_trouble=self._cluster.trouble,
        )

    def _rows_per_s(self) -> float | None:
        since = time.monotonic() - _MINUTE_S
        return sum(at >= since for at in list(self._row_times)) / _MINUTE_S

    def _depth(self) -> float | None:
        return None if self._link is None else self._link.state().waiting_runs

    def _restarts(self) -> int | None:
        return None if self._link is None else max(self._link.state().starts - 1, 0)

    def _covered(self) -> float | None:
        return self._coverage

    def _write(self) -> None:
        while True:
            try:
                self._file.write(self.report())
            except Exception:  # the next report may work
                logger.exception("no report of how the session is doing")
            if self._over.wait(WRITE_S):
                return


_open_monitors: weakref.WeakSet[HealthMonitor] = weakref.WeakSet()


@functools.cache
def _create_gauges() -> None:
    """Create the gauges, which show what the monitors of all open sessions have.

    OpenTelemetry calls the function that a gauge of a name was first created with, and no later
    one, for as long as the process lives. So this function belongs to no session.
    """

    def observing(gauge: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> list[Observation]:
            return [one for monitor in list(_open_monitors) for one in monitor.observations(gauge)]

        return observe

    meter = metrics.get_meter(_METER)
    for name, unit, what in (
        ("xrf_sr.rows_per_second", "{row}/s", "Over the last minute"),
        ("xrf_sr.queue_depth", "{run}", "Runs whose results are not in"),
        ("xrf_sr.restarts", "{process}", "Analysis processes replaced"),
        ("xrf_sr.coverage_90", "1", "Rescanned pixels inside the 90 % interval"),
    ):
        meter.create_observable_gauge(name, [observing(name)], unit, what)
