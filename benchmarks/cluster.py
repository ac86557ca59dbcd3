"""What a Dask cluster on this machine gives: throughput, latency beside a replay, fair shares.

    python benchmarks/cluster.py [--only throughput live fair] [--maps 1000] [--json OUT]

``throughput``: maps of phantoms are replayed on a cluster with one worker and with two, as
`benchmarks/replay.py` does without a cluster, with the rate after the start. ``live``: one
RunEngine flies maps one after the other, each with its result from the cluster before the next one;
first alone, then while ``--maps`` stored maps are replayed on the same two workers, then alone
again. The latency is the time from a map's stop document to its summary. ``fair``: ``--engines``
RunEngines, each in a process with an analysis process of its own, do the same at the same time on
two workers, with no pause between their maps.

Everything runs on this machine and competes for its cores: client, scheduler, workers and
RunEngines. The load that other work makes is printed as well, since a busy machine spoils ratios.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from cluster_processes import Cluster, wait_until
from replay import most_for_two, run_of

from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.replays.batch import Progress, replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.store.jsonl import JsonlWriter

RESULT_S = 300.0
TARGETS = {"throughput": 1.8, "live": 1.5, "fair": 1.3}


def stored(folder: Path, maps: int, pixels: int) -> Path:
    """Write maps of phantoms as runs into a folder, and return it."""
    runs = folder / "runs"
    write = JsonlWriter(runs)
    for index in range(maps):
        for name, doc in run_of(index, pixels):
            write(name, doc)
    return runs


def replayed(runs: Path, out: Path, address: str, ignored: int) -> dict[str, float]:
    """Replay a folder on a cluster; the first `ignored` maps don't count for the rate."""
    times: list[float] = []

    def told(progress: Progress) -> None:
        if progress.report is not None:
            times.append(time.perf_counter())

    began = time.perf_counter()
    report = replay_all(
        [runs], out, ReplayOptions(pictures=False), dask=ClusterAddress(address), progress=told
    )
    rate = (len(times) - 1 - ignored) / (times[-1] - times[ignored])
    return {
        "maps": len(times),
        "failed": len(report.failures),
        "maps_per_s": rate,
        "start_s": times[ignored] - began,
    }


def throughput(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Replay on one worker and on two, in turn."""
    runs = stored(folder, options.maps, options.pixels)
    rows: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for turn in range(options.turns):
        for workers in (1, 2):
            cluster = Cluster(workers, folder / "cluster.log")
            try:
                cluster.wait()
                out = folder / f"out-{turn}-{workers}"
                rows[workers].append(replayed(runs, out, cluster.address, 2 * workers))
            finally:
                cluster.close()
            print(f"{workers} workers: {rows[workers][-1]}", flush=True)
    one, two = (statistics.median(row["maps_per_s"] for row in rows[n]) for n in (1, 2))
    return {
        "workers": rows,
        "ratio": two / one,
        "two processes that only compute": most_for_two(),
        "reached": two / one >= TARGETS["throughput"],
    }


class Engine:
    """A RunEngine with a simulated beamline and an analysis process that uses a cluster."""

    def __init__(self, address: str, pixels: int, log_file: str | None = None) -> None:
        self._beamline = make_beamline()
        self._grid = ScanGrid.from_center(
            x_center_um=0.0,
            y_center_um=0.0,
            width_um=pixels,
            height_um=pixels,
            step_um=1.0,
            fast="samx",
            slow="samy",
        )
        self._engine = RunEngine({})
        self.analysis = AnalysisProcess(
            AnalysisSettings(dask=address or None, dask_timeout_s=60.0, log_file=log_file)
        )
        self._stopped = 0.0
        self._engine.subscribe(Tap(self.analysis))
        self._engine.subscribe(lambda name, doc: self._stop(name))

    def fly(self) -> float:
        """Fly a map, wait for its result, and return the latency in seconds."""
        (uid,) = self._engine(
            fly_map(self._beamline, self._grid, dwell_ms=10.0, analysis=AnalysisRequest(factor=2))
        )
        summary = self.analysis.request(uid).result(RESULT_S)
        if summary.status != "done":
            raise RuntimeError(f"{summary.status}: {summary.reason}")
        return time.perf_counter() - self._stopped

    def _stop(self, name: str) -> None:
        if name == "stop":
            self._stopped = time.perf_counter()


def live(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fly maps alone, beside a replay, and alone again."""
    runs = stored(folder, options.maps, options.pixels)
    cluster = Cluster(2, folder / "cluster.log")
    found: dict[str, list[float]] = {"alone": [], "beside a replay": []}
    try:
        cluster.wait()
        engine = Engine(cluster.address, options.pixels, str(folder / "analysis.log"))
        with engine.analysis:
            for _ in range(5):
                engine.fly()
            found["alone"] += [engine.fly() for _ in range(options.flown)]
            context = multiprocessing.get_context("spawn")
            progress = context.Value("i", 0)
            process = context.Process(
                target=_replay_for, args=(runs, folder / "out", cluster.address, progress)
            )
            process.start()
            wait_until(lambda: progress.value >= 8, 120.0)
            first, began = progress.value, time.perf_counter()
            while progress.value < options.maps - 8 and process.is_alive():
                found["beside a replay"].append(engine.fly())
            bulk = {
                "maps replayed meanwhile": progress.value - first,
                "replayed a second": (progress.value - first) / (time.perf_counter() - began),
            }
            process.join(120.0)
            found["alone"] += [engine.fly() for _ in range(options.flown)]
    finally:
        cluster.close()
    table = {name: spread(values) for name, values in found.items()}
    ratios = {
        figure: table["beside a replay"][figure] / table["alone"][figure]
        for figure in ("median_s", "mean_s", "p90_s")
    }
    return {
        "latency": table,
        **bulk,
        "ratios": ratios,
        "reached": ratios["median_s"] <= TARGETS["live"],
    }


def _replay_for(runs: Path, out: Path, address: str, progress: Any) -> None:
    """Replay a folder in a process of its own, and count the maps for another process."""
    logging.disable(logging.CRITICAL)

    def told(step: Progress) -> None:
        progress.value = step.done

    replay_all(
        [runs], out, ReplayOptions(pictures=False), dask=ClusterAddress(address), progress=told
    )


def fair(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let several RunEngines ask two workers at the same time."""
    cluster = Cluster(2, folder / "cluster.log")
    try:
        cluster.wait()
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(options.engines)
        queue = context.Queue()
        processes = [
            context.Process(
                target=_engine_for,
                args=(number, cluster.address, options.pixels, options.fair_s, ready, queue),
            )
            for number in range(options.engines)
        ]
        for process in processes:
            process.start()
        found = dict(queue.get(timeout=options.fair_s + 300.0) for _ in processes)
        for process in processes:
            process.join(60.0)
    finally:
        cluster.close()
    means = {number: statistics.fmean(values) for number, values in sorted(found.items())}
    ratio = max(means.values()) / statistics.fmean(means.values())
    return {
        "engines": {number: spread(found[number]) for number in means},
        "slowest over mean": ratio,
        "reached": ratio <= TARGETS["fair"],
    }


def _engine_for(
    number: int, address: str, pixels: int, seconds: float, ready: Any, queue: Any
) -> None:
    """Fly maps for some seconds, together with others, and tell the latencies."""
    logging.disable(logging.CRITICAL)
    engine = Engine(address, pixels)
    with engine.analysis:
        engine.fly()
        ready.wait(120.0)
        until = time.perf_counter() + seconds
        latencies = []
        while time.perf_counter() < until:
            latencies.append(engine.fly())
        ready.wait(120.0)
    queue.put((number, latencies))


def spread(values: list[float]) -> dict[str, float]:
    """Return median, mean and 90 % of latencies."""
    ordered = sorted(values)
    return {
        "maps": len(values),
        "median_s": statistics.median(values),
        "mean_s": statistics.fmean(values),
        "p90_s": ordered[min(int(0.9 * len(ordered)), len(ordered) - 1)],
    }


PARTS = {"throughput": throughput, "live": live, "fair": fair}


def main() -> int:
    """Measure, print, and return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--maps", type=int, default=1000, help="stored maps that are replayed")
    parser.add_argument("--turns", type=int, default=1, help="of the throughput")
    parser.add_argument("--pixels", type=int, default=32, help="of the side of a map")
    parser.add_argument("--flown", type=int, default=40, help="maps flown alone, before and after")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--fair-s", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    figures: dict[str, Any] = {"cores": os.cpu_count(), "load before": os.getloadavg()}
    for part in options.only:
        with tempfile.TemporaryDirectory() as folder:
            figures[part] = PARTS[part](options, Path(folder))
        print(part, json.dumps(figures[part], indent=1), flush=True)
    figures["load after"] = os.getloadavg()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return int(not all(figures[part]["reached"] for part in options.only))


if __name__ == "__main__":
    sys.exit(main())
