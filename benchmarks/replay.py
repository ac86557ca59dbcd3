"""How many stored maps are replayed a second, by the number of processes.

    python benchmarks/replay.py [--maps 1000] [--workers 1 2] [--pixels 32] [--json OUT]

Maps of phantoms are written as runs into a folder and replayed from there by `xrf-sr replay`'s own
function: read, assembled, enhanced by the default network with one thread in each process, regions
picked, the result's documents and the enhanced map written. What each number of processes needs to
start is left out of its rate and given beside it: the rate is that of the maps after the first
report of each process. Processes gain only as much as there are free cores, so the cores and the
load of the machine are given as well, and the rate of two processes that only compute, which is
the most that two processes could reach here at that time.

Where other work is running, the clock says little. So the time of the processor is given, too: of
the calling process, which hands out the maps, and of all others, without what they need to start
(as much each as one process needs to its first map). What the calling process takes for a map is
lost where it is one of two that share two cores; what a map takes more in several processes than
in one is lost as well. From both follows the ratio that the processes reach on free cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.replays.batch import Progress, replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.schema import AnalysisRequest, Document, MapMetadata, row_keys
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.training.phantoms import phantom

ELEMENTS = ("Fe", "Zn", "Ca")
SPIN_S = 5.0


@dataclass(frozen=True)
class Rate:
    """What was measured with a number of processes."""

    workers: int
    maps: int
    start_s: float
    """From the call to the first report of as many maps as there are processes."""
    maps_per_s: float
    failed: int
    own_cpu_s: float
    """Time of the processor for a map in the calling process."""
    others_cpu_s: float
    """The same in all others."""

    @property
    def limit_s(self) -> float:
        """Seconds for a map where so many cores are free as there are workers, and no more."""
        return (self.own_cpu_s + self.others_cpu_s) / self.workers


def run_of(index: int, pixels: int) -> Iterator[Document]:
    """Yield the documents of a measured map."""
    grid = ScanGrid.from_center(
        x_center_um=0, y_center_um=0, width_um=pixels, height_um=pixels, step_um=1
    )
    rng = np.random.default_rng(index)
    maps = np.asarray(phantom("thin_section", index % 20, size=pixels, n_elements=len(ELEMENTS)))
    counts = rng.poisson(200 * maps / maps.max()).astype(float)
    uid, keys = f"benchmark-{index:05d}", row_keys("xrf")
    metadata = MapMetadata(
        grid=grid.to_dict(),
        elements=list(ELEMENTS),
        step_um=1.0,
        dwell_ms=10.0,
        analysis=AnalysisRequest(),
    )
    yield "start", {"uid": uid, "time": 1e9, "xrf_sr": metadata.to_dict()}
    yield (
        "descriptor",
        {
            "uid": f"{uid}-rows",
            "run_start": uid,
            "name": "primary",
            "time": 1e9,
            "data_keys": {
                key: {"source": "b", "dtype": "array", "shape": []} for key in keys.values()
            },
            "configuration": {"xrf": {"data": {"xrf_elements": list(ELEMENTS)}}},
        },
    )
    for row in range(pixels):
        direction = grid.direction(row)
        data = {
            keys["counts"]: counts[:, row, ::direction].tolist(),
            keys["i0"]: [1e5] * pixels,
            keys["live_time"]: [0.0099] * pixels,
            keys["fast_um"]: grid.fast.centers_um[::direction].tolist(),
            keys["slow_um"]: [float(grid.slow.centers_um[row])] * pixels,
            keys["row"]: row,
            keys["attempt"]: 0,
            keys["direction"]: direction,
            keys["n_frames"]: pixels,
        }
        yield (
            "event",
            {
                "uid": f"{uid}-{row}",
                "descriptor": f"{uid}-rows",
                "seq_num": row + 1,
                "time": 1e9 + row,
                "data": data,
                "timestamps": dict.fromkeys(data, 1e9 + row),
                "filled": {},
            },
        )
    yield (
        "stop",
        {"uid": f"{uid}-stop", "run_start": uid, "time": 1e9 + pixels, "exit_status": "success"},
    )


def cpu_s() -> tuple[float, float]:
    """Return the time of the processor that this process and its children have had, apart."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    others = 0.0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        others += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used.ru_utime + used.ru_stime, others


def rate_of(folder: Path, out: Path, workers: int, pictures: bool) -> Rate:
    """Replay a folder and return how fast that was."""
    times: list[tuple[float, float, float]] = []

    def note(progress: Progress) -> None:
        if progress.report is not None:
            times.append((time.perf_counter(), *cpu_s()))

    began = time.perf_counter()
    report = replay_all(
        [folder], out, ReplayOptions(pictures=pictures), workers=workers, progress=note
    )
    (first, own_s, others_s), (last, own_last_s, others_last_s) = times[workers - 1], times[-1]
    rest = len(times) - workers
    return Rate(
        workers,
        len(report.reports),
        first - began,
        rest / (last - first),
        len(report.failures),
        (own_last_s - own_s) / rest,
        (others_last_s - others_s) / rest,
    )


def spun(seconds: float) -> int:
    """Compute without memory for a while, and return how often."""
    total, times = 0.0, 0
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        for _ in range(10_000):
            total += 1.0
        times += 1
    return times


def most_for_two() -> float:
    """Return how much more two processes compute here than one, at this moment."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        pool.map(spun, [0.1, 0.1])
        (one,) = pool.map(spun, [SPIN_S])
        two = pool.map(spun, [SPIN_S, SPIN_S], chunksize=1)
    return sum(two) / one


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        write = JsonlWriter(folder)
        for index in range(options.maps):
            for name, doc in run_of(index, options.pixels):
                write(name, doc)
        before = most_for_two()
        for workers in options.workers:
            rate = rate_of(folder, Path(place) / f"out-{workers}", workers, options.pictures)
            rates.append(rate)
            print(
                f"{rate.workers} processes: {rate.maps_per_s:.2f} maps/s after {rate.start_s:.1f} s"
                f" ({rate.maps} maps, {rate.failed} failed); time of the processor for a map:"
                f" {1e3 * rate.own_cpu_s:.1f} ms here, {1e3 * rate.others_cpu_s:.1f} ms elsewhere",
                flush=True,
            )
        after = most_for_two()
    facts: dict[str, Any] = {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "two_that_only_compute": [before, after],
        "rates": [asdict(rate) for rate in rates],
    }
    print(f"{facts['cores']} logical cores, load {facts['load'][0]:.1f}; two processes that only")
    print(f"compute reach {before:.2f} (before) and {after:.2f} (after) times what one does")
    for rate in rates[1:]:
        print(
            f"{rate.workers} processes: {rate.maps_per_s / rates[0].maps_per_s:.2f} x by the clock,"
            f" {rates[0].limit_s / rate.limit_s:.2f} x by the time of the processor"
        )
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
