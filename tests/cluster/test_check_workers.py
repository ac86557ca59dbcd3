"""Whether the workers of a cluster are fit for our tasks, with real processes."""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

distributed = pytest.importorskip("distributed")

from xrf_sr_plans.checkup.services import service_findings  # noqa: E402
from xrf_sr_plans.cluster.check_workers import VERSIONS, check_workers, worker_flaws  # noqa: E402
from xrf_sr_plans.cluster.connection import ClusterAddress, connect  # noqa: E402
from xrf_sr_plans.cluster.status import cluster_status  # noqa: E402
from xrf_sr_plans.cluster.versions import versions_here  # noqa: E402
from xrf_sr_plans.config import AnalysisSettings, Settings  # noqa: E402
from xrf_sr_plans.errors import ConfigError  # noqa: E402

# Without `site` nobody reads the files that lead to an editable installation of this package.
_WITHOUT_OURS = (
    f"import sys; sys.path.insert(0, {sysconfig.get_path('purelib')!r});"
    "from distributed.cli.dask_worker import main; main()"
)


@pytest.fixture(scope="module")
def client() -> Iterator["distributed.Client"]:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        connect(ClusterAddress(cluster.scheduler_address)) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        yield client


def test_workers_of_the_same_versions_are_counted(client) -> None:
    assert check_workers(client, timeout_s=60) == 1


def test_a_worker_that_said_other_versions_is_refused_by_name(client) -> None:
    told = {"tcp://127.0.0.1:1": {"name": "live-0", VERSIONS: {**versions_here(), "numpy": "1.0"}}}
    flaws = worker_flaws(client, told)
    assert flaws.keys() == {"live-0"}
    assert "numpy" in flaws["live-0"]
    assert "1.0 there" in flaws["live-0"]


@pytest.mark.skipif(
    Path(sysconfig.get_path("purelib"), "xrf_sr_plans").exists(), reason="installed for all"
)
def test_a_worker_without_the_package_or_that_hangs_is_refused_in_time(client, tmp_path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    worker = subprocess.Popen(
        [
            *(sys.executable, "-S", "-c", _WITHOUT_OURS, client.scheduler.address, "--no-nanny"),
            *("--nthreads", "1", "--name", "foreign", "--dashboard-address", "127.0.0.1:0"),
        ],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        client.wait_for_workers(2, timeout=60)
        with pytest.raises(
            ConfigError, match=r"worker foreign: it lacks a package: .*xrf_sr_plans"
        ):
            check_workers(client, timeout_s=60)
        worker.send_signal(signal.SIGSTOP)
        with pytest.raises(ConfigError, match=r"foreign: it or another one doesn't answer within"):
            check_workers(client, timeout_s=2)
    finally:
        worker.kill()
        worker.wait(20)


def test_the_check_of_settings_says_whether_the_cluster_can_be_used(client) -> None:
    address = client.scheduler.address
    settings = Settings(analysis=AnalysisSettings(dask=address))
    found = next(one for one in service_findings(settings) if one.part == "analysis.dask")
    assert found.state == "ok", found.text
    assert f"{address} answers, with 1 workers" in found.text


def test_the_scheduler_of_somebody_else_counts_nothing_and_that_is_said(client) -> None:
    found = cluster_status(client, "tcp://theirs:8786", timeout_s=60)
    assert found.problems == []
    assert found.lines() == [
        "tcp://theirs:8786: ok: 1 workers (1 any), its scheduler counts nothing,"
        " as it has none of this package",
        "worker 0: ok: any, 0 running",
    ]


def test_a_cluster_without_workers_is_refused() -> None:
    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as cluster,
        connect(ClusterAddress(cluster.scheduler_address)) as client,
        pytest.raises(ConfigError, match="no workers"),
    ):
        check_workers(client)
