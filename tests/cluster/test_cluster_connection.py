"""How a cluster is reached: addresses, keys, lanes and versions, with a real scheduler."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

distributed = pytest.importorskip("distributed")

from xrf_sr_plans.cluster.connection import ClusterAddress, connect, security  # noqa: E402
from xrf_sr_plans.cluster.lanes import placement, resources_of  # noqa: E402
from xrf_sr_plans.cluster.versions import mismatch, versions_here  # noqa: E402
from xrf_sr_plans.errors import ConfigError  # noqa: E402


def started(**options: Any) -> "distributed.LocalCluster":
    """Return a cluster of one worker in this process, which is spoken to over a socket."""
    return distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=":0",
        **options,
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator["distributed.LocalCluster"]:
    with started() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("address", "plain", "told"),
    [
        ("tls://gpu1:8786", False, ""),
        ("tcp://localhost:8786", False, ""),
        ("tcp://127.0.0.1:8786", False, ""),
        ("tcp://[::1]:8786", False, ""),
        ("tcp://gpu1:8786", True, ""),
        ("tcp://gpu1:8786", False, "another machine"),
        ("tcp://127.0.0.1.example.org:8786", False, "another machine"),
        ("gpu1:8786", False, "is needed"),
        ("tls://gpu1", False, "is needed"),
        ("tls://:8786", False, "is needed"),
        ("http://gpu1:8786", False, "is needed"),
        ("tls://gpu1:eight", False, "is needed"),
    ],
)
def test_beyond_this_machine_only_tls_is_spoken(address: str, plain: bool, told: str) -> None:
    flaw = ClusterAddress(address, plain=plain).flaw
    assert told in flaw if told else flaw == ""


def test_a_folder_without_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ConfigError, match=r"has no cert\.pem and no key\.pem"):
        connect(ClusterAddress("tls://localhost:1", str(tmp_path)))


def test_tls_without_any_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs keys"):
        security(None, encrypted=True)


def test_no_scheduler_is_told_in_time() -> None:
    with pytest.raises(ConfigError, match="no Dask scheduler at 'tcp://localhost:1'"):
        connect(ClusterAddress("tcp://localhost:1"), timeout_s=0.5)


def test_a_live_task_comes_before_others_on_any_cluster(cluster) -> None:
    with connect(ClusterAddress(cluster.scheduler_address)) as client:
        live, bulk = placement(client, "live"), placement(client, "bulk")
        assert live["priority"] > bulk["priority"]
        assert live["resources"] is bulk["resources"] is None
        assert client.submit(sum, [1, 2], **live).result(timeout=30) == 3


def test_workers_with_lanes_take_one_task_of_theirs_at_a_time_and_live_ones_no_other() -> None:
    with (
        started(resources=resources_of("live")) as cluster,
        connect(ClusterAddress(cluster.scheduler_address)) as client,
    ):
        assert placement(client, "live")["resources"] == resources_of("live")
        assert placement(client, "bulk")["resources"] == resources_of("bulk"), "it waits"


def test_versions_that_differ_are_told() -> None:
    here = versions_here()
    assert mismatch(here, here) == ""
    assert {"Python", "xrf-sr-plans", "distributed", "numpy"} <= here.keys()
    other = {**here, "numpy": "1.0"}
    assert mismatch(here, other) == (
        f"client and worker of the cluster differ: numpy {here['numpy']} here and 1.0 there"
    )
    del other["numpy"]
    assert mismatch(here, other) == ""
