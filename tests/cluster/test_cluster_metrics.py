"""What a scheduler tells OpenTelemetry, in a process of its own: a meter provider is set once."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("distributed")
pytest.importorskip("opentelemetry.sdk")

_SCRIPT = """
import json, time
from distributed import LocalCluster
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from xrf_sr_plans.cluster.connection import ClusterAddress, connect
from xrf_sr_plans.cluster.lanes import resources_of
from xrf_sr_plans.cluster.status import cluster_status

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))


def used(address_of_client):
    with connect(ClusterAddress(address_of_client), 60) as client:
        done = client.submit(abs, -1, key="enhance-1", priority=10)
        failed = client.submit(int, "x", key="replay-1")
        assert done.result(60) == 1
        assert failed.exception(60) is not None
        waits = client.submit(abs, -2, key="enhance-2", priority=10, resources={"none": 1})
        lines = before = cluster_status(client, address_of_client).lines()
        shown = json.loads(reader.get_metrics_data().to_json())
        waits.cancel()
        ends = time.monotonic() + 60
        while "1 cancelled" not in lines[1] and time.monotonic() < ends:
            lines = cluster_status(client, address_of_client).lines()
        return before, lines, shown


found = []
for number in range(2):
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
        dashboard_address=":0", resources=resources_of("live"),
        preload="xrf_sr_plans.cluster.preload",
        scheduler_kwargs={"preload": "xrf_sr_plans.cluster.preload"},
    ) as cluster:
        found.append(used(cluster.scheduler_address))
print(json.dumps(found))
"""


def points(shown: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the data points of each metric of ours."""
    return {
        metric["name"]: metric["data"]["data_points"]
        for resource in shown["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }


@pytest.mark.timeout(200)
def test_each_scheduler_of_a_process_is_counted_by_lane_and_kind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    (first_lines, later_lines, _), (_, _, second) = json.loads(done.stdout.splitlines()[-1])
    assert "live: 0 running, 1 waiting, 1 done, 0 failed" in first_lines[1]
    assert "enhance/s, latency" in first_lines[1]
    assert "bulk: 0 running, 0 waiting, 0 done, 1 failed" in first_lines[2]
    assert "live: 0 running, 0 waiting, 1 done, 0 failed, 1 cancelled" in later_lines[1]
    # Counters go on over both schedulers; gauges are those of the second, the first being closed.
    told = points(second)
    tasks = {
        tuple(point["attributes"][name] for name in ("lane", "kind", "outcome")): point["value"]
        for point in told["xrf_sr.cluster.tasks"]
    }
    assert tasks["live", "enhance", "done"] == 2
    assert tasks["bulk", "replay", "failed"] == 2
    queue = {point["attributes"]["lane"]: point["value"] for point in told["xrf_sr.cluster.queue"]}
    assert queue == {"live": 1, "bulk": 0}
    (workers,) = told["xrf_sr.cluster.workers"]
    assert workers["value"] == 1
    assert workers["attributes"] == {"lane": "live"}
    (latency,) = told["xrf_sr.cluster.latency"]
    assert latency["count"] == 2
