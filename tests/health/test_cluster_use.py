"""What a session says of its cluster: how many maps it enhanced, and why not the others."""

from __future__ import annotations

import time
from concurrent.futures import Future

import pytest
from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.health.cluster_use import ClusterUse
from xrf_sr_plans.session import start_session

ADDRESS = "tls://gpu1:8786"


def outcome(status: str, reason: str = "") -> Future[AnalysisSummary]:
    future: Future[AnalysisSummary] = Future()
    future.set_result(AnalysisSummary("map", "result", status, reason, ()))  # type: ignore[arg-type]
    return future


def test_maps_are_counted_by_where_they_were_enhanced() -> None:
    use = ClusterUse(ADDRESS)
    assert use.take(outcome("done", "a row is missing")) == "cluster"
    assert use.trouble == ""
    here = "a row is missing; enhanced on this machine: ClusterError: no answer within 2 s"
    assert use.take(outcome("done", here)) == "here"
    assert use.trouble == "ClusterError: no answer within 2 s"
    assert use.take(outcome("fallback", "no torch; enhanced on this machine: gone")) == "bicubic"
    assert use.trouble == "gone"
    assert use.take(outcome("failed", "no map")) is None
    assert use.take(outcome("done")) == "cluster"
    assert use.trouble == ""
    assert use.maps == {"cluster": 2, "here": 1, "bicubic": 1}


def test_without_a_cluster_nothing_is_in_trouble() -> None:
    use = ClusterUse("")
    assert use.take(outcome("done")) == "here"
    assert use.take(outcome("fallback", "no torch")) == "bicubic"
    assert use.trouble == ""


@pytest.mark.timeout(300)
def test_a_session_whose_cluster_is_gone_says_so_and_enhances_here(tmp_path) -> None:
    pytest.importorskip("distributed")
    pytest.importorskip("torch")
    from xrf_sr_plans.cluster.remote_enhancing import forget_clusters

    engine = RunEngine({}, call_returns_result=True)
    settings = AnalysisSettings(dask="tcp://127.0.0.1:1", dask_timeout_s=2)
    with start_session(
        engine,
        make_beamline("grains"),
        settings=settings,
        in_process=True,
        approvals=str(tmp_path),
    ) as session:
        engine(
            session.plans["coarse_survey_with_sr"](
                width_um=24,
                height_um=16,
                step_um=2,
                dwell_ms=10,
                x_center_um=0,
                y_center_um=0,
                rescan="propose",
                budget_s=20,
                analysis_timeout_s=200,
            )
        )
        assert session.link.flush(100)
        ends = time.monotonic() + 30
        while not session.health.report().maps_here and time.monotonic() < ends:
            time.sleep(0.05)
        report = session.health.report()
    forget_clusters()
    assert (report.maps_on_cluster, report.maps_here, report.fallbacks) == (0, 1, 0)
    assert "0 maps enhanced on tcp://127.0.0.1:1, 1 on this machine instead" in str(report)
    assert "TROUBLE: the cluster did not enhance the last map: ClusterError: " in str(report)
