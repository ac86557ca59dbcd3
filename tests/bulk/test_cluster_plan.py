"""The simulation of a cluster: what can be said without it must come out of it."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("simpy")
FILE = Path(__file__).parents[2] / "benchmarks" / "cluster_plan.py"


@pytest.fixture(scope="module")
def plan() -> Any:
    spec = importlib.util.spec_from_file_location("cluster_plan_tested", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_more_clients_than_workers_wait_for_each_other(plan: Any) -> None:
    stages = plan.Stages(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for workers, clients in ((1, 1), (1, 4), (2, 2), (2, 4)):
        rate, latency = plan.closed_loop(stages, workers, clients)
        assert rate == pytest.approx(min(workers, clients), rel=0.02)
        assert latency == pytest.approx(max(1.0, clients / workers), rel=0.02)


def test_a_live_map_waits_for_one_replayed_map_at_most(plan: Any) -> None:
    # Maps of any size take a second, and a replay keeps the GPU busy all the time.
    stages = plan.Stages(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    used = plan.simulated(stages, beamlines=1, gpus=1, map_s=30.0, seed=0, span_s=3000.0)
    assert used.flown == pytest.approx(100, rel=0.1)
    assert 1.0 <= min(used.latency_s) <= max(used.latency_s) <= 2.0
    assert used.in_time == used.flown
    assert used.bulk == pytest.approx(2900, rel=0.02)


def test_more_maps_than_gpus_can_do_are_late_and_leave_nothing_to_a_replay(plan: Any) -> None:
    stages = plan.Stages(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    used = plan.simulated(stages, beamlines=20, gpus=1, map_s=10.0, seed=0, span_s=1000.0)
    assert used.in_time < 0.2 * used.flown
    assert used.bulk < 20, "before the first maps came"
    loads = plan.loads_of(stages, 2.0, 1)
    assert loads["GPUs"] == pytest.approx(2.0)
    slow = replace(stages, scheduler_s=0.1)
    assert plan.loads_of(slow, 2.0, 1)["scheduler"] == pytest.approx(0.2)
