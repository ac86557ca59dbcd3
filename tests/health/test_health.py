"""What a session counts, and the line that says how it is doing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine

from xrf_sr_plans.callbacks.analysis_link import LinkState
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.health.monitor import HealthMonitor
from xrf_sr_plans.health.report import STALE_S, HealthReport, ReportFile, reports
from xrf_sr_plans.session import start_session

SURVEY = {
    "width_um": 36,
    "height_um": 16,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 0,
    "y_center_um": 0,
    "budget_s": 20,
    "analysis_timeout_s": 200,
}


def status(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xrf_sr_plans.cli", "status", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.timeout(300)
def test_a_session_counts_rows_results_latency_and_coverage(tmp_path):
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    # Of a session that is over before the program configures OpenTelemetry, nothing is shown.
    HealthMonitor("earlier", folder=str(tmp_path)).close()
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(sdk.MeterProvider([reader]))
    engine = RunEngine({}, call_returns_result=True)
    with start_session(
        engine,
        make_beamline("grains"),
        settings=AnalysisSettings(threads=1),
        in_process=True,
        approvals=str(tmp_path),
    ) as session:
        outcome = engine(session.plans["coarse_survey_with_sr"](**SURVEY)).plan_result
        report = session.health.report()
        assert report.results == 1
        assert report.rows > 8
        assert report.coverage_90 is not None
        assert report.latency_s is not None
        assert not report.problems
        text = str(report)
        assert ": ok: " in text
        assert "% inside the 90 % intervals" in text
        data = reader.get_metrics_data()
        found: dict[str, Any] = {
            metric.name: metric.data.data_points[0]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.data.data_points
        }
        assert found["xrf_sr.rows"].value == report.rows
        assert found["xrf_sr.latency"].count == 1
        assert found["xrf_sr.coverage_90"].value == report.coverage_90
        assert found["xrf_sr.queue_depth"].value == 0
        assert found["xrf_sr.restarts"].value == 0
        # The file is written again every few seconds.
        until = time.monotonic() + 60
        told = status("--folder", str(session.health._file.folder))
        while "1 results" not in told.stdout and time.monotonic() < until:
            time.sleep(0.5)
            told = status("--folder", str(session.health._file.folder))
        assert told.returncode == 0, told.stderr
        assert "1 results" in told.stdout
    assert outcome.rescan_uids
    assert not list(reports())
    # OpenTelemetry keeps gauges for good; those of a session that is over tell nothing.
    assert not observed(reader) & {"xrf_sr.coverage_90", "xrf_sr.queue_depth", "xrf_sr.restarts"}


def observed(reader: Any) -> set[str]:
    """Return the names of what OpenTelemetry has values of now."""
    data = reader.get_metrics_data()
    return {
        metric.name
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.data.data_points
    }


def test_what_is_wrong_is_said_and_the_exit_code_says_it_too(tmp_path):
    assert status("--folder", str(tmp_path)).stdout.strip() == "no session is running"
    file = ReportFile(tmp_path)
    file.write(HealthReport(beamline="sim", ready=True, time=time.time() - STALE_S - 5))
    told = status("--folder", str(tmp_path))
    assert told.returncode == 1
    assert "TROUBLE: no sign of life for " in told.stdout
    file.write(HealthReport(beamline="sim"))
    [report] = reports(tmp_path)
    assert report.problems == ["the analysis is not ready"]


def test_reports_of_sessions_that_are_gone_or_damaged_are_left_out(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(30)
    (tmp_path / "a.json").write_text(HealthReport(pid=dead.pid).model_dump_json())
    (tmp_path / "b.json").write_text("{")
    assert not list(reports(tmp_path))
    assert not (tmp_path / "a.json").exists()


class Link:
    """An analysis that has been replaced twice and is not there at the moment."""

    def state(self) -> LinkState:
        return LinkState(False, None, 3, 2)


def test_restarts_and_fallbacks_are_counted(tmp_path):
    monitor = HealthMonitor("sim", folder=str(tmp_path))
    monitor.open(Link())  # type: ignore[arg-type]
    start = {"uid": "r", "time": 0.0, "plan_name": "xrf_super_resolution", "fallback": "no torch"}
    monitor.results("start", {**start, "original_run_uid": "m", "purpose": "result"})
    report = monitor.report()
    assert (report.restarts, report.waiting_runs, report.fallbacks) == (2, 2, 1)
    assert "TROUBLE: the analysis is not ready" in str(report)
    monitor.close()
