"""How many beamlines a cluster of GPUs serves, and what saturates first: a simulation.

    python benchmarks/cluster_plan.py [--gpu-speedup 20] [--map-s 24] [--link-gbit 10] [--seeds 3]
    python benchmarks/cluster_plan.py --measure
    python benchmarks/cluster_plan.py --check

The first prints the tables of docs/explanation/cluster-plan.md: 1 to 100 beamlines on 1 to 16 GPUs,
with a replay beside that takes whatever is left. What is simulated are the stages that a map goes
through: its request is packed and sent over one network link that all share, the scheduler has it
for a moment, a GPU does one map at a time, live maps before replayed ones, and its result comes
back over the link. Nothing is interrupted: a live map waits for the replayed map that the GPU has.

How long a stage takes was measured on a CPU by ``--measure`` (`MEASURED`). No GPU was at hand: a
GPU is taken to compute ``--gpu-speedup`` times as fast as one core, which is an assumption.

``--check`` starts a Dask cluster on this machine with 1 and 2 workers, lets 1, 2 and 4 clients ask
for one map after the other, and compares throughput and latency with the simulation. The tasks take
a request and return a reply of a map's size, but sleep as long as a device would compute: so what
is checked is how requests travel, wait and are shared out, whatever else this machine has to do.
What that takes without waiting is taken from the row with one client and one worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simpy

ELEMENTS, FACTOR = 10, 4
SIZES = {64: 0.6, 128: 0.3, 256: 0.1}
"""Side of a live map in coarse pixels, and the share of maps that have it. At 1 ms a pixel and
0.1 s a row they take 10, 29 and 91 s, on average 24 s."""
WAIT_S = 30.0
"""`analysis.dask_timeout_s`: after it a map is enhanced at the beamline."""
CHECK_S, CHECK_MAPS = 0.4, 15
"""How long the tasks of ``--check`` take, and how many each client asks for."""
TOLERANCE = 0.15
"""How far the simulation may be from what is measured."""


@dataclass(frozen=True)
class Stages:
    """How long the stages of a map take, and how much is moved."""

    fixed_s: float
    """On the device, whatever the size."""
    value_s: float
    """On the device, for each value (element, pixel) of the coarse map."""
    request_bytes: float
    """For each value of the coarse map."""
    reply_bytes: float
    """The same, of the enhanced map that comes back."""
    pack_s_per_byte: float
    """For packing, unpacking and copying at either end together."""
    scheduler_s: float
    """The scheduler and its messages, for a map, in seconds of its core."""
    link_bytes_s: float = 1.25e9
    """The network link that all share: 10 Gbit/s."""

    def on_device_s(self, side: int, elements: int = ELEMENTS) -> float:
        """Return the seconds on the device for a square map of so many coarse pixels."""
        return self.fixed_s + self.value_s * elements * side**2

    def bytes_of(self, side: int, elements: int = ELEMENTS) -> tuple[float, float]:
        """Return the bytes of request and reply."""
        values = elements * side**2
        return self.request_bytes * values, self.reply_bytes * values


MEASURED = Stages(
    fixed_s=0.061,
    value_s=9.8e-6,
    request_bytes=16.2,
    reply_bytes=353.0,
    pack_s_per_byte=3.8e-9,
    scheduler_s=0.0080,
)
"""By ``--measure``, with one core of the machine on which this was written."""


@dataclass
class Usage:
    """What became of maps, and how long they took."""

    until_s: float = float("inf")
    """Maps that begin later don't count as flown, as there is no time left to wait for them."""
    latency_s: list[float] = field(default_factory=list)
    """Of all live maps that came back."""
    flown: int = 0
    in_time: int = 0
    """Of those flown, how many came back within `WAIT_S`."""
    bulk: int = 0


@dataclass(frozen=True)
class Cluster:
    """The resources of a cluster in a simulation."""

    env: Any
    devices: Any
    """As many as there are GPUs; a map has one. Live maps come first."""
    scheduler: Any
    link: Any


def cluster_of(env: Any, devices: int) -> Cluster:
    """Return the resources of a cluster."""
    return Cluster(
        env, simpy.PriorityResource(env, devices), simpy.Resource(env, 1), simpy.Resource(env, 1)
    )


def on_device(cluster: Cluster, seconds: float, priority: int) -> Iterator[Any]:
    """Compute for so long once a device is free."""
    with cluster.devices.request(priority=priority) as turn:
        yield turn
        yield cluster.env.timeout(seconds)


def busy(cluster: Cluster, resource: Any, seconds: float) -> Iterator[Any]:
    """Have a resource of which there is one for so long."""
    with resource.request() as turn:
        yield turn
        yield cluster.env.timeout(seconds)


def one_map(
    cluster: Cluster, stages: Stages, side: int, live: bool, used: Usage, elements: int = ELEMENTS
) -> Iterator[Any]:
    """Let a map go through all stages; its latency counts where it is live."""
    began = cluster.env.now
    counts = live and began < used.until_s
    used.flown += counts
    request, reply = stages.bytes_of(side, elements)
    yield cluster.env.timeout(stages.pack_s_per_byte * (request + reply))
    yield from busy(cluster, cluster.link, request / stages.link_bytes_s)
    yield from busy(cluster, cluster.scheduler, stages.scheduler_s)
    yield from on_device(cluster, stages.on_device_s(side, elements), 0 if live else 1)
    yield from busy(cluster, cluster.link, reply / stages.link_bytes_s)
    if live:
        took_s = cluster.env.now - began
        used.latency_s.append(took_s)
        used.in_time += counts and took_s <= WAIT_S
    else:
        used.bulk += 1


def beamline(
    cluster: Cluster, stages: Stages, map_s: float, used: Usage, rng: np.random.Generator
) -> Iterator[Any]:
    """Fly maps one after the other; none waits for the result of the one before."""
    sides, shares = list(SIZES), list(SIZES.values())
    yield cluster.env.timeout(rng.uniform(0, map_s))
    while True:
        cluster.env.process(one_map(cluster, stages, int(rng.choice(sides, p=shares)), True, used))
        yield cluster.env.timeout(map_s * rng.uniform(0.5, 1.5))


def bulk(cluster: Cluster, stages: Stages, used: Usage) -> Iterator[Any]:
    """Replay small maps one after the other, as one place of the window of a replay does."""
    while True:
        yield from one_map(cluster, stages, min(SIZES), False, used)


def simulated(
    stages: Stages, beamlines: int, gpus: int, map_s: float, seed: int, span_s: float
) -> Usage:
    """Return what became of a span of time with so many beamlines and GPUs, and a replay beside."""
    env, rng = simpy.Environment(), np.random.default_rng(seed)
    used = Usage(until_s=span_s - WAIT_S)
    cluster = cluster_of(env, gpus)
    for _ in range(beamlines):
        env.process(beamline(cluster, stages, map_s, used, rng))
    for _ in range(2 * gpus):
        env.process(bulk(cluster, stages, used))
    env.run(until=span_s)
    return used


def on_gpu(stages: Stages, speedup: float) -> Stages:
    """Return the stages with a device that computes so much faster than what was measured."""
    return replace(stages, fixed_s=0.01, value_s=stages.value_s / speedup)


def closed_loop(stages: Stages, workers: int, clients: int) -> tuple[float, float]:
    """Return maps per second and their mean latency where clients ask for one after the other."""
    env, used = simpy.Environment(), Usage()
    cluster = cluster_of(env, workers)

    def client() -> Iterator[Any]:
        while True:
            yield from one_map(cluster, stages, 1, True, used, 1)

    for _ in range(clients):
        env.process(client())
    env.run(until=500 * stages.on_device_s(1, 1))
    return len(used.latency_s) / env.now, statistics.mean(used.latency_s)


def stand_in(_request: bytes, seconds: float, reply_bytes: int) -> bytes:
    """Take as long as a device that computes, and return as much."""
    time.sleep(seconds)
    return bytes(reply_bytes)


def measured_loop(address: str, clients: int, sizes: tuple[int, int]) -> tuple[float, float]:
    """Return the same of a real cluster, whose tasks sleep for `CHECK_S`."""
    from xrf_sr_plans.cluster.connection import ClusterAddress, connect
    from xrf_sr_plans.cluster.lanes import placement

    request, reply = sizes
    taken: list[list[float]] = [[] for _ in range(clients)]
    start = threading.Barrier(clients)

    def ask(mine: list[float]) -> None:
        with connect(ClusterAddress(address), timeout_s=60) as client:
            place = placement(client, "live")
            start.wait(120)
            for _ in range(CHECK_MAPS):
                began = time.perf_counter()
                task = client.submit(stand_in, bytes(request), CHECK_S, reply, pure=False, **place)
                task.result(timeout=120)
                mine.append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    # Each client's rate: all of them ask as often.
    rate = sum(len(mine) / sum(mine) for mine in taken)
    return rate, statistics.mean(one for mine in taken for one in mine)


def map_of(side: int, elements: int) -> Any:
    """Return a measured map of a phantom."""
    from xrf_sr_plans.maps.elemental import ElementalMaps
    from xrf_sr_plans.maps.grid import ScanGrid

    grid = ScanGrid.from_center(
        x_center_um=0, y_center_um=0, width_um=side, height_um=side, step_um=1
    )
    rng = np.random.default_rng(side)
    shape = (grid.slow.num, grid.fast.num)
    smooth = np.add.outer(np.sin(np.arange(shape[0]) / 5), np.cos(np.arange(shape[1]) / 4)) + 2.5
    counts = rng.poisson(30 * smooth, (elements, *shape)).astype(float)
    names = [f"E{index}" for index in range(elements)]
    return ElementalMaps.from_arrays(
        grid=grid,
        elements=names,
        counts=counts,
        i0=np.ones(shape),
        live_time_s=np.full(shape, 0.01),
        coverage=np.ones(shape, int),
        run_uid="plan",
        dwell_ms=10.0,
    )


def device_seconds(side: int, elements: int, repeats: int = 2) -> float:
    """Return the least seconds of a core in which this process enhances such a map.

    Seconds of the core and not of the clock, because other work on the machine is no matter here.
    """
    import torch

    from xrf_sr_plans.sr.predict import enhance_maps

    torch.set_num_threads(1)
    maps, times = map_of(side, elements), []
    for _ in range(repeats + 1):
        began = time.process_time()
        enhance_maps(maps, FACTOR)
        times.append(time.process_time() - began)
    return min(times)


def measure(address: str) -> Stages:
    """Return the stages as they are on this machine, of a cluster with one worker."""
    from distributed import Client

    from xrf_sr_plans.cluster.packed_maps import maps_of_plain, plain_of_maps
    from xrf_sr_plans.cluster.task import request_of
    from xrf_sr_plans.maps.elemental import EnhancedMaps
    from xrf_sr_plans.packing import pack, unpack
    from xrf_sr_plans.sr.predict import enhance_maps

    small, large = device_seconds(24, 3), device_seconds(64, 3)
    value_s = (large - small) / (3 * (64**2 - 24**2))
    maps = map_of(64, 3)
    enhanced = enhance_maps(maps, FACTOR)
    values = 3 * 64**2
    request = len(request_of(maps, FACTOR, "0" * 64, lane="live", threads=1, within_s=1.0))
    began = time.process_time()
    packed = pack({"maps": plain_of_maps(enhanced)})
    maps_of_plain(unpack(packed)["maps"], EnhancedMaps)
    packing = (time.process_time() - began) / len(packed)
    with Client(address, set_as_default=False, timeout=30) as client:

        def taken(function: Any, given: Any) -> float:
            began = time.perf_counter()
            client.submit(function, given, pure=False).result(timeout=60)
            return time.perf_counter() - began

        taken(len, b"warm")
        # The scheduler and the client are both in this process.
        began = time.process_time()
        for _ in range(300):
            taken(len, b"x")
        scheduler_s = (time.process_time() - began) / 300
        moved_s = min(taken(bytes, 50_000_000) for _ in range(5))
    return Stages(
        fixed_s=max(small - value_s * 3 * 24**2, 0.0),
        value_s=value_s,
        request_bytes=request / values,
        reply_bytes=len(packed) / values,
        pack_s_per_byte=packing,
        scheduler_s=scheduler_s,
        link_bytes_s=50e6 / moved_s,
    )


def local_cluster(workers: int) -> Any:
    """Return a Dask cluster on this machine with so many workers for live maps."""
    from distributed import LocalCluster

    from xrf_sr_plans.cluster.lanes import resources_of

    os.environ["OMP_NUM_THREADS"] = "1"
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=":0",
        resources=resources_of("live"),
    )


def check_model() -> bool:
    """Compare throughput and latency with a real cluster; return whether all are close."""
    print("workers clients   maps/s   model  latency s   model")
    side, close, stages = 64, True, None
    sizes = tuple(round(number) for number in MEASURED.bytes_of(side, 3))
    for workers in (1, 2):
        with local_cluster(workers) as cluster:
            address = cluster.scheduler_address
            measured_loop(address, workers, sizes)
            for clients in (1, 2, 4):
                rate, latency = measured_loop(address, clients, sizes)
                stages = stages or sleeping(latency)
                made = closed_loop(stages, workers, clients)
                near = all(
                    abs(model / found - 1) <= TOLERANCE
                    for model, found in zip(made, (rate, latency), strict=True)
                )
                close &= near
                print(
                    f"{workers:7d} {clients:7d} {rate:8.2f} {made[0]:7.2f} {latency:10.3f}"
                    f" {made[1]:7.3f}{'' if near else '  apart'}",
                    flush=True,
                )
    print(f"all within {TOLERANCE:.0%}" if close else f"not all within {TOLERANCE:.0%}")
    return close


def sleeping(latency_s: float) -> Stages:
    """Return the stages of `stand_in`, of which nothing waits in so long."""
    return Stages(CHECK_S, 0.0, 1.0, 0.0, max(latency_s - CHECK_S, 0.0), 0.0)


def print_stages(stages: Stages) -> None:
    """Print what a map takes and moves, by size."""
    print(
        f"{'side':>5} {'device s':>9} {'maps/s':>7} {'MB there':>9} {'MB back':>8} {'maps/MB':>8}"
    )
    for side in SIZES:
        request, reply = (number / 1e6 for number in stages.bytes_of(side))
        device_s = stages.on_device_s(side)
        print(
            f"{side:5d} {device_s:9.3f} {1 / device_s:7.2f} {request:9.2f} {reply:8.2f}"
            f" {1 / (request + reply):8.4f}"
        )


def print_table(
    stages: Stages, beamlines: Sequence[int], gpus: Sequence[int], map_s: float, seeds: int
) -> None:
    """Print latency, shares and what saturates, for each number of beamlines and GPUs."""
    heads = ("GPUs", "lines", "live/h", "p50 s", "p95 s", "late %", "GPU %", "sched %", "link %")
    print(" ".join(f"{head:>7}" for head in (*heads, "bulk/h")), " first")
    span_s = max(600.0, 40 * map_s)
    for number in gpus:
        for lines in beamlines:
            runs = [simulated(stages, lines, number, map_s, seed, span_s) for seed in range(seeds)]
            latency = np.array([one for run in runs for one in run.latency_s] or [np.nan])
            late = 1 - sum(run.in_time for run in runs) / max(1, sum(run.flown for run in runs))
            loads = loads_of(stages, lines / map_s, number)
            replayed = sum(run.bulk for run in runs) * 3600 / (span_s * seeds)
            numbers = [
                f"{number:d}", f"{lines:d}", f"{lines * 3600 / map_s:.0f}",
                f"{np.median(latency):.2f}", f"{np.percentile(latency, 95):.2f}",
                f"{100 * late:.0f}", *(f"{100 * load:.0f}" for load in loads.values()),
                f"{replayed:.0f}",
            ]  # fmt: skip
            first = max(loads, key=lambda name: loads[name])
            print(" ".join(f"{text:>7}" for text in numbers), f" {first}", flush=True)


def loads_of(stages: Stages, maps_per_s: float, gpus: int) -> dict[str, float]:
    """Return which share of the time live maps alone would keep each resource busy."""
    device_s = sum(share * stages.on_device_s(side) for side, share in SIZES.items())
    moved = sum(share * sum(stages.bytes_of(side)) for side, share in SIZES.items())
    return {
        "GPUs": maps_per_s * device_s / gpus,
        "scheduler": maps_per_s * stages.scheduler_s,
        "link": maps_per_s * moved / stages.link_bytes_s,
    }


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--gpu-speedup", type=float, default=20.0)
    parser.add_argument("--map-s", type=float, default=24.0, help="A beamline flies a map in it.")
    parser.add_argument("--link-gbit", type=float, default=10.0)
    parser.add_argument("--beamlines", type=int, nargs="+", default=[1, 10, 30, 100])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.check:
        raise SystemExit(0 if check_model() else 1)
    if asked.measure:
        with local_cluster(1) as cluster:
            stages = measure(cluster.scheduler_address)
        print(stages)
        print_stages(stages)
        return
    stages = replace(on_gpu(MEASURED, asked.gpu_speedup), link_bytes_s=asked.link_gbit * 1e9 / 8)
    print("on one core, measured:")
    print_stages(MEASURED)
    print(f"\non a GPU, if it computes {asked.gpu_speedup:g} times as fast:")
    print_stages(stages)
    print(f"\na map each {asked.map_s:g} s and beamline, {asked.link_gbit:g} Gbit/s:")
    print_table(stages, asked.beamlines, asked.gpus, asked.map_s, asked.seeds)


if __name__ == "__main__":
    main()
