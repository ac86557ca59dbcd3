"""Maps enhanced on a Dask cluster of real processes: the same to the bit, and never waited for."""

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
from xrf_sr_plans.cluster import remote_enhancing
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.sr.registry import model_path

pytest.importorskip("torch")
pytest.importorskip("distributed")
from support.dask_clusters import DaskCluster, until

pytestmark = pytest.mark.timeout(240)
GRID = small_grid(8, 10)
WAIT_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler with one worker that anybody may have started."""
    made = DaskCluster(tmp_path_factory.mktemp("dask"))
    made.start_worker()
    made.wait_for_workers(1)
    yield made
    made.close()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    made = DaskCluster(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_connections() -> Iterator[None]:
    """Begin and end without what is known of a cluster."""
    remote_enhancing.forget_clusters()
    yield
    remote_enhancing.forget_clusters()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Have this process use as many threads as an analysis process does by default."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def here(one_thread: None) -> str:
    """Digest of the map's result without a cluster."""
    return replay(documents("a-run"), settings=AnalysisSettings()).digest


def documents(run: str) -> list[tuple[str, dict]]:
    return list(map_run(GRID, truth(GRID), run))


def on(cluster: DaskCluster, **changed: object) -> AnalysisSettings:
    return AnalysisSettings(**{"dask": cluster.address, "dask_timeout_s": 60.0, **changed})


def live(settings: AnalysisSettings, run: str = "a-run") -> AnalysisSummary:
    analysis = LocalAnalysis(settings)
    try:
        tap = Tap(analysis)
        for name, doc in documents(run):
            tap(name, doc)
        return analysis.request(run).result(WAIT_S)
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


def test_a_worker_that_is_killed_costs_a_map_nothing_but_time(
    own_cluster: DaskCluster, here: str
) -> None:
    own_cluster.start_worker()
    own_cluster.wait_for_workers(1)
    (own_cluster.folder / "slow").touch()
    analysis = LocalAnalysis(on(own_cluster))
    try:
        tap = Tap(analysis)
        for name, doc in documents("a-run"):
            tap(name, doc)
        until((own_cluster.folder / "waits").exists)
        own_cluster.start_worker()
        own_cluster.wait_for_workers(2)
        own_cluster.workers[0].kill()
        done = analysis.request("a-run").result(WAIT_S)
    finally:
        analysis.close()
    assert (done.status, done.reason, done.digest) == ("done", "", here)


@pytest.mark.parametrize("who", ["worker", "scheduler"])
def test_what_hangs_costs_its_time_once_and_is_used_again_later(
    own_cluster: DaskCluster, here: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = own_cluster.start_worker()
    own_cluster.wait_for_workers(1)
    hung = worker if who == "worker" else own_cluster.scheduler
    assert live(on(own_cluster)).reason == ""
    hung.send_signal(signal.SIGSTOP)
    settings = on(own_cluster, dask_timeout_s=2.0)
    began = time.monotonic()
    late, at_once = live(settings), live(settings)
    assert time.monotonic() - began < 30
    assert "enhanced on this machine: ClusterError: " in late.reason
    assert "asked again in" in at_once.reason
    assert late.digest == at_once.digest == here
    hung.send_signal(signal.SIGCONT)
    monkeypatch.setattr(remote_enhancing, "AGAIN_AFTER_S", 0.0)
    remote_enhancing.forget_clusters()
    until(lambda: live(on(own_cluster)).reason == "")


def test_a_scheduler_that_is_killed_and_started_again_is_used_again(
    own_cluster: DaskCluster, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_enhancing, "AGAIN_AFTER_S", 1.0)
    monkeypatch.setattr(remote_enhancing, "CONNECT_S", 1.0)
    own_cluster.start_worker()
    own_cluster.wait_for_workers(1)
    assert live(on(own_cluster)).reason == ""
    own_cluster.scheduler.kill()
    own_cluster.scheduler.wait(30)
    gone = live(on(own_cluster))
    assert (gone.status, gone.digest) == ("done", here)
    assert "no Dask scheduler at" in gone.reason
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    own_cluster.wait_for_workers(1)
    time.sleep(1.0)
    back = live(on(own_cluster))
    assert (back.reason, back.digest) == ("", here)
