"""Maps enhanced on a Dask cluster of real processes: the same to the bit, and never waited for.

All tests share one scheduler and one worker, which anybody may have started; who stops or kills
one of them leaves another.
"""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.cluster import cluster_connection, remote_enhancing, task
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.sr.registry import model_path

pytest.importorskip("torch")
pytest.importorskip("distributed")
from distributed import Client

from support.dask_clusters import DaskCluster
from support.waiting import until
from xrf_sr_plans.cluster.cluster_connection import ClusterConnection

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(240)]
GRID = small_grid(8, 10)
WAIT_S = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    made = DaskCluster(tmp_path_factory.mktemp("dask"))
    made.start_worker()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """Begin and end without what is known of a cluster."""
    remote_enhancing.forget_clusters()
    yield
    remote_enhancing.forget_clusters()


@pytest.fixture(scope="module")
def here(one_thread: None) -> str:
    """Digest of the map's result without a cluster."""
    return replay(documents("a-run"), settings=AnalysisSettings()).digest


def documents(run: str) -> list[tuple[str, dict]]:
    return list(map_run(GRID, truth(GRID), run))


def on(cluster: DaskCluster, **changed: object) -> AnalysisSettings:
    return AnalysisSettings(**{"dask": cluster.address, "dask_timeout_s": 60.0, **changed})


def submitted(settings: AnalysisSettings) -> LocalAnalysis:
    analysis = LocalAnalysis(settings)
    tap = Tap(analysis)
    for name, doc in documents("a-run"):
        tap(name, doc)
    return analysis


def live(settings: AnalysisSettings) -> AnalysisSummary:
    analysis = submitted(settings)
    try:
        return analysis.request("a-run").result(WAIT_S)
    finally:
        analysis.close()


def test_a_map_enhanced_there_is_the_same_to_the_bit_live_and_replayed(
    cluster: DaskCluster, here: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    done = live(on(cluster))
    assert (done.status, done.reason, done.digest) == ("done", "", here)
    assert "enhanced on the cluster" in caplog.text
    assert done.model["name"] == "folded-shared"
    again = replay(documents("a-run"), settings=on(cluster))
    assert (again.summary.reason, again.digest) == ("", here)


def test_results_that_come_by_the_scheduler_are_the_same(
    cluster: DaskCluster, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClusterConnection, "reaches", lambda *_: False)
    done = live(on(cluster))
    assert (done.reason, done.digest) == ("", here)


def test_a_replay_that_is_itself_a_task_waits_for_no_other_task(
    cluster: DaskCluster, here: str
) -> None:
    with Client(cluster.address, set_as_default=False) as client:
        made = client.submit(replay, documents("a-run"), settings=on(cluster)).result(WAIT_S)
    assert (made.summary.reason, made.digest) == ("", here)


def test_a_model_of_ones_own_is_sent_to_a_worker_once(
    cluster: DaskCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = model_path(None)
    for suffix in (".safetensors", ".json", ".calibration.json"):
        shutil.copy(shipped.with_suffix(suffix), tmp_path / f"own{suffix}")
    model = str(tmp_path / "own.safetensors")
    caplog.set_level(logging.INFO)
    settings = on(cluster, model=model)
    expected = replay(documents("a-run"), settings=AnalysisSettings(model=model))
    assert "no trust boundary" in expected.summary.reason
    for _ in range(2):
        assert live(settings).digest == expected.digest
    assert caplog.text.count("the model is sent") == 1
    assert caplog.text.count("enhanced on the cluster") == 2


def test_a_worker_of_another_version_is_not_used_and_the_versions_are_told(
    cluster: DaskCluster, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = task.versions_here()
    monkeypatch.setattr(task, "versions_here", lambda: {**known, "numpy": "1.0"})
    refused = live(on(cluster))
    assert (refused.status, refused.digest) == ("done", here)
    there = known["numpy"]
    assert f"client and worker of the cluster differ: numpy 1.0 here and {there} there" in (
        refused.reason
    )


def test_a_worker_that_hangs_costs_its_time_once_and_is_used_again_later(
    cluster: DaskCluster, here: str
) -> None:
    worker = cluster.workers[-1]
    worker.send_signal(signal.SIGSTOP)
    settings = on(cluster, dask_timeout_s=2.0)
    try:
        late, at_once = live(settings), live(settings)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert "enhanced on this machine: ClusterError: no answer of the cluster within 2 s" in (
        late.reason
    )
    assert "the cluster is used again once it answers" in at_once.reason
    assert late.digest == at_once.digest == here
    until(lambda: live(settings).reason == "", WAIT_S)


def test_a_scheduler_that_hangs_keeps_no_map_longer_than_its_time(
    cluster: DaskCluster, here: str
) -> None:
    assert live(on(cluster)).reason == ""
    cluster.scheduler.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        late = live(on(cluster, dask_timeout_s=2.0))
        assert time.monotonic() - began < 60.0
    finally:
        cluster.scheduler.send_signal(signal.SIGCONT)
    assert (late.status, late.digest) == ("done", here)
    assert "enhanced on this machine: ClusterError: " in late.reason


def test_a_worker_that_is_killed_costs_a_map_nothing_but_time(
    cluster: DaskCluster, here: str
) -> None:
    slow, waits = cluster.folder / "slow", cluster.folder / "waits"
    slow.touch()
    analysis = submitted(on(cluster))
    try:
        until(waits.exists)
        cluster.start_worker()
        cluster.workers[0].kill()
        done = analysis.request("a-run").result(WAIT_S)
    finally:
        analysis.close()
        waits.unlink(missing_ok=True)
    assert (done.status, done.reason, done.digest) == ("done", "", here)


def test_a_scheduler_that_is_killed_in_the_middle_is_used_again_once_it_is_back(
    cluster: DaskCluster, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, waits = cluster.folder / "slow", cluster.folder / "waits"
    slow.touch()
    analysis = submitted(on(cluster))
    try:
        until(waits.exists)
        monkeypatch.setattr(cluster_connection, "CONNECT_S", 1.0)
        cluster.scheduler.kill()
        cluster.scheduler.wait(30)
        gone = analysis.request("a-run").result(WAIT_S)
    finally:
        analysis.close()
        waits.unlink(missing_ok=True)
    assert (gone.status, gone.digest) == ("done", here)
    assert "no Dask scheduler at" in gone.reason
    monkeypatch.undo()
    cluster.start_scheduler()
    cluster.start_worker()
    remote_enhancing.forget_clusters()
    back = live(on(cluster))
    assert (back.reason, back.digest) == ("", here)
