"""Whether a long session stays small: memory, descriptors and threads over many maps.

    python benchmarks/soak.py [--maps 1000] [--network] [--seed 0] [--json OUT]

Maps of several small sizes are flown on a simulated beamline without waiting and analyzed in the
analysis process, results and all, with a ledger, pairs and files of every run. One in ten has no
stop document, as after RE.halt(); one in ten was stopped half-way. For every fiftieth the process
is stopped, so that the map falls back to a bicubic one. With ``--network`` the shipped network
enhances the maps; otherwise bicubic interpolation does, which is quicker.

Resident memory, open file descriptors and threads of both processes are printed at intervals. The
script fails if between the first fifth and the end the memory of either has grown by more than
``--allowed-mb``, if descriptors or threads have grown by more than `ALLOWED_MORE`, if anything
is left of them once all is closed, or if a map has no result.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from quick_worker import COMMAND

from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.schema import AnalysisRequest, Documents
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.jsonl import JsonlWriter

ALLOWED_MORE = 3
"""Number of descriptors, and of threads, by which a process may have grown."""
RESULT_S = 300.0


def use_of(pid: int | str) -> dict[str, float]:
    """Return resident memory (MB), open descriptors and threads of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
    }


class Session:
    """A RunEngine, a beamline and the analysis, and maps of all kinds."""

    def __init__(self, folder: Path, seed: int, network: bool) -> None:
        self._random = random.Random(seed)
        self._beamline = make_beamline()
        self._engine = RunEngine({})
        self._documents: Documents = []
        self._engine.subscribe(lambda name, doc: self._documents.append((name, doc)))
        files = [JsonlWriter(folder / name) for name in ("results", "measured")]
        self._writers = [(BackgroundSink(writer, name="files"), writer) for writer in files]
        (results, _), (self._measured, _) = self._writers
        settings = AnalysisSettings(
            ledger_dir=str(folder / "ledger"), pair_dir=str(folder / "pairs"), memory_limit_mb=64
        )
        self.analysis = AnalysisProcess(settings, [results], command=None if network else COMMAND)
        self._tap = Tap(self.analysis)
        self.outcomes: Counter[str] = Counter()

    def fly(self, number: int) -> None:
        """Fly one map, pass on what there is of its documents, and wait for its result."""
        self._documents.clear()
        (uid,) = self._engine(
            fly_map(
                self._beamline,
                self._grid(),
                dwell_ms=5.0,
                purpose="coarse",
                analysis=AnalysisRequest(factor=self._random.choice((2, 4))),
            )
        )
        kind = self._random.random()
        documents = list(self._documents)
        if kind < 0.2:
            # The rows of a map that was ended half-way, with a stop document or without.
            rows = self._random.randint(1, len(documents) - 3)
            documents = [*documents[: 2 + rows], *documents[-1:]]
        if 0.1 <= kind < 0.2:
            documents[-1] = ("stop", {**documents[-1][1], "exit_status": "abort"})
        falls_back = number % 50 == 49 and kind >= 0.1
        if falls_back:
            self._signal(signal.SIGSTOP)
        for name, doc in documents if kind >= 0.1 else documents[:-1]:
            self._tap(name, doc)
            self._measured(name, doc)
        if kind < 0.1:
            self.outcomes["no stop document"] += 1
        elif falls_back:
            fallen = self.analysis.fall_back(uid, "the process is stopped").result(RESULT_S)
            self.outcomes[fallen.status] += 1
            self._signal(signal.SIGCONT)
        else:
            self.outcomes[self.analysis.request(uid).result(RESULT_S).status] += 1

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.analysis.pid) is not None:
            os.kill(pid, number)

    def close(self) -> None:
        """End the analysis, the writers, and the RunEngine's loop."""
        self.analysis.close(60.0)
        for background, writer in self._writers:
            background.close(60.0)
            writer.close()
        self._engine.loop.call_soon_threadsafe(self._engine.loop.stop)
        self._engine._th.join(5.0)
        self._engine.loop.close()

    def use(self) -> dict[str, dict[str, float]]:
        """Return what this process and the analysis process use."""
        gc.collect()
        pid = self.analysis.pid
        return {"session": use_of("self"), "analysis": use_of(pid) if pid else {}}

    def _grid(self) -> ScanGrid:
        return ScanGrid.from_center(
            x_center_um=self._random.uniform(-3, 3),
            y_center_um=self._random.uniform(-3, 3),
            width_um=self._random.randint(8, 32),
            height_um=self._random.randint(6, 24),
            step_um=1,
            fast="samx",
            slow="samy",
        )


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fly the maps and return what was used at intervals, and what is left at the end."""
    # What libraries open once, and keep, is opened here.
    first = Session(folder / "first", options.seed, options.network)
    first.fly(0)
    first.close()
    before = {"fds": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}
    session = Session(folder, options.seed, options.network)
    every = max(options.maps // 10, 1)
    at_intervals: dict[int, dict[str, dict[str, float]]] = {}
    for number in range(options.maps):
        session.fly(number)
        if number % every == every - 1:
            at_intervals[number + 1] = use = session.use()
            figures = "   ".join(
                f"{process} {u['rss_mb']:.0f} MB, {u['fds']} fds, {u['threads']} threads"
                for process, u in use.items()
                if u
            )
            print(f"{number + 1:6} maps   {figures}", flush=True)
    outcomes = dict(session.outcomes)
    session.close()
    left = {
        "fds": len(os.listdir("/proc/self/fd")) - before["fds"],
        "threads": threading.active_count() - before["threads"],
    }
    return {"outcomes": outcomes, "at intervals": at_intervals, "left when closed": left}


def flaws(figures: dict[str, Any], allowed_mb: float) -> list[str]:
    """Return in words what has grown, or was left."""
    at_intervals = figures["at intervals"]
    numbers = sorted(at_intervals)
    first, last = at_intervals[numbers[len(numbers) // 5]], at_intervals[numbers[-1]]
    found = []
    for process in ("session", "analysis"):
        for name, value in last[process].items():
            grown = value - first[process].get(name, 0.0)
            if grown > (allowed_mb if name == "rss_mb" else ALLOWED_MORE):
                found.append(f"{process}: {name} has grown by {grown:g}")
    if failed := figures["outcomes"].get("failed"):
        found.append(f"{failed} maps have no result")
    found += [f"{left} {name} left" for name, left in figures["left when closed"].items() if left]
    return found


def main() -> int:
    """Measure, print, and return 1 where anything has grown or was left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--allowed-mb", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    figures["seconds"] = round(time.perf_counter() - began)
    for name in ("outcomes", "left when closed", "seconds"):
        print(f"{name:20}{figures[name]}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    wrong = flaws(figures, options.allowed_mb)
    for flaw in wrong:
        print(flaw)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
