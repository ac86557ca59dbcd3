"""What analysis and store cost the scan: row intervals with them off, on, and stalled.

    python benchmarks/overhead.py [--seconds 60] [--dwell-ms 1] [--nx 40] [--json OUT]
    python benchmarks/overhead.py --store

One RunEngine, one simulated beamline in real time, maps in turn. First off and on alternate: while
an "on" map is flown its documents go to the analysis process, which at the same time enhances the
map before it. Then the process is stopped (SIGSTOP) for ``--seconds`` on end, and off and stalled
alternate. Each map is compared with the "off" maps flown right before and after it, and these
with each other: what that control shows is the machine's own unrest, and no difference below it
means anything. Row intervals are those between row events, as a subscriber sees them.

With ``--store`` the analysis is left out, and what is measured is the default store, an embedded
Tiled catalog in a folder: while it is opened for its first map ("opening") and while the map before
is being put into it ("kept").
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bluesky import RunEngine

from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import Settings
from xrf_sr_plans.devices.protocols import RowTimeModel
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.schema import AnalysisRequest, DocumentSink
from xrf_sr_plans.store.run_store import RunStore

TARGET_MS = 1.0
TARGET_SHARE = 0.005


class TimedSink:
    """A subscriber of the RunEngine whose every call is timed."""

    def __init__(self, sink: DocumentSink) -> None:
        self.sink = sink
        self.seconds: list[float] = []

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Pass a document on."""
        began = time.perf_counter()
        self.sink(name, doc)
        self.seconds.append(time.perf_counter() - began)


class RowClock:
    """When rows came, as any subscriber sees it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document."""
        if name == "start":
            self.times.clear()
        elif name in ("event", "event_page"):
            self.times.append(time.perf_counter())

    def intervals_ms(self) -> np.ndarray:
        """Milliseconds between successive rows."""
        return 1e3 * np.diff(self.times)


class Bench:
    """The beamline, the RunEngine, and the intervals by phase and mode."""

    def __init__(self, options: argparse.Namespace, sink: DocumentSink) -> None:
        self.engine = RunEngine({})
        self.clock = RowClock()
        self.tap = TimedSink(sink)
        self.engine.subscribe(self.clock)
        self.beamline = make_beamline(
            clock="real",
            acceleration_s=0.005,
            time_model=RowTimeModel(overhead_s=0.0, grace_s=60.0),
        )
        self.dwell_ms = options.dwell_ms
        step_um = 0.5
        self.grid = ScanGrid.from_center(
            x_center_um=0.0,
            y_center_um=0.0,
            width_um=options.nx * step_um,
            height_um=options.rows * step_um,
            step_um=step_um,
            fast="samx",
            slow="samy",
        )
        self.intervals: dict[str, list[np.ndarray]] = {}
        self.last_uid = ""

    def fly(self, label: str, *, tapped: bool) -> None:
        """Fly one map and file its row intervals under `label`."""
        token = self.engine.subscribe(self.tap) if tapped else None
        plan = fly_map(
            self.beamline, self.grid, dwell_ms=self.dwell_ms, analysis=AnalysisRequest(factor=4)
        )
        self.engine(plan)
        if token is not None:
            self.engine.unsubscribe(token)
        self.intervals.setdefault(label, []).append(self.clock.intervals_ms())


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Fly all maps and return the table."""
    patience = {"hang_timeout_s": 10 * options.seconds + 600}
    settings = Settings.load(analysis=patience).of_analysis
    with AnalysisProcess(settings) as analysis:
        bench = Bench(options, Tap(analysis))
        bench.fly("warm-up", tapped=True)
        analysis.flush(120)
        until = time.monotonic() + 2 * options.seconds
        while time.monotonic() < until:
            analysis.flush(120)
            bench.fly("off before on", tapped=False)
            # The first of two maps is what the analysis is busy with during the second.
            bench.fly("preparing", tapped=True)
            bench.fly("on", tapped=True)
            analysis.flush(120)
            bench.fly("off after on", tapped=False)
        analysis.flush(120)
        on_calls = np.array(bench.tap.seconds)
        bench.tap.seconds.clear()
        assert analysis.pid is not None
        os.kill(analysis.pid, signal.SIGSTOP)
        until = time.monotonic() + options.seconds
        stalled_s = -time.monotonic()
        try:
            while time.monotonic() < until:
                bench.fly("off before stalled", tapped=False)
                bench.fly("stalled", tapped=True)
                bench.fly("off after stalled", tapped=False)
        finally:
            os.kill(analysis.pid, signal.SIGCONT)
        stalled_s += time.monotonic()
        caught_up = analysis.flush(300)
        starts = analysis.starts
    calls = {"on": on_calls, "stalled": np.array(bench.tap.seconds)}
    return {
        **report(bench, calls),
        "stalled_s": stalled_s,
        "caught_up_without_restart": caught_up and starts == 1,
    }


def run_store(options: argparse.Namespace) -> dict[str, Any]:
    """Fly all maps with the store off and on, and return the table."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        bench = Bench(options, store)
        bench.fly("warm-up", tapped=False)
        # As many maps as it takes until the store is open, the second time in an old catalog.
        for number in range(2):
            idle = False
            while not idle:
                bench.fly("off before opening", tapped=False)
                bench.fly("opening", tapped=True)
                bench.fly("off after opening", tapped=False)
                idle = store.flush(0.1)
            if number == 0:
                store.close(300)
                store = bench.tap.sink = RunStore(folder)
        opening_calls = np.array(bench.tap.seconds)
        bench.tap.seconds.clear()
        until = time.monotonic() + 2 * options.seconds
        while time.monotonic() < until:
            store.flush(300)
            bench.fly("off before kept", tapped=False)
            # The first of two maps is what the store is busy with during the second.
            bench.fly("preparing", tapped=True)
            bench.fly("kept", tapped=True)
            store.flush(300)
            bench.fly("off after kept", tapped=False)
        kept = store.close(300)
    calls = {"opening": opening_calls, "kept": np.array(bench.tap.seconds)}
    return {**report(bench, calls), "everything_was_kept": kept}


def statistics_of(maps: list[np.ndarray]) -> dict[str, float]:
    """Return median, p99 and mean over the rows of all maps."""
    values = np.concatenate(maps)
    return {
        "rows": int(values.size),
        "median_ms": float(np.median(values)),
        "p99_ms": float(np.percentile(values, 99)),
        "mean_ms": float(values.mean()),
    }


def compared(maps: list[np.ndarray], references: list[np.ndarray]) -> dict[str, float]:
    """Return how much longer rows take; medians and totals map by map, so that drift drops out."""
    pairs = list(zip(maps, references, strict=True))
    mine, theirs = statistics_of(maps), statistics_of(references)
    return {
        "median_ms": float(np.median([np.median(a) - np.median(b) for a, b in pairs])),
        "p99_ms": mine["p99_ms"] - theirs["p99_ms"],
        "total_share": float(np.median([a.mean() / b.mean() - 1 for a, b in pairs])),
    }


def report(bench: Bench, calls: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return medians, p99 and totals by mode, and whether the targets are reached."""
    found = bench.intervals
    table, differences = {}, {}
    for mode in calls:
        before, after = found[f"off before {mode}"], found[f"off after {mode}"]
        table[f"off, around {mode}"] = statistics_of([*before, *after])
        table[mode] = statistics_of(found[mode])
        off = [np.concatenate(pair) for pair in zip(before, after, strict=True)]
        differences[f"{mode} against off"] = compared(found[mode], off)
        differences[f"off against off, around {mode}"] = compared(after, before)
    reached = all(
        differences[f"{mode} against off"]["median_ms"] <= TARGET_MS
        and differences[f"{mode} against off"]["p99_ms"] <= TARGET_MS
        and differences[f"{mode} against off"]["total_share"] <= TARGET_SHARE
        for mode in calls
    )
    return {
        "modes": table,
        "differences": differences,
        "call_us": {
            mode: {
                "documents": int(seconds.size),
                "median": float(np.median(seconds) * 1e6),
                "p99": float(np.percentile(seconds, 99) * 1e6),
            }
            for mode, seconds in calls.items()
        },
        "targets": {"median_and_p99_ms": TARGET_MS, "total_share": TARGET_SHARE},
        "reached": reached,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of stall, and per other mode")
    parser.add_argument("--dwell-ms", type=float, default=1.0)
    parser.add_argument("--nx", type=int, default=40)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--store", action="store_true", help="measure the store instead")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    measure: Callable[[argparse.Namespace], dict[str, Any]] = run_store if options.store else run
    result = measure(options)
    print(f"{'mode':24}{'rows':>7}{'median ms':>11}{'p99 ms':>9}{'mean ms':>9}")
    for mode, row in result["modes"].items():
        print(
            f"{mode:24}{row['rows']:7d}{row['median_ms']:11.3f}{row['p99_ms']:9.3f}"
            f"{row['mean_ms']:9.3f}"
        )
    for label, row in result["differences"].items():
        print(
            f"{label}: median {row['median_ms']:+.3f} ms, p99 {row['p99_ms']:+.3f} ms, "
            f"total {100 * row['total_share']:+.2f} %"
        )
    for mode, calls in result["call_us"].items():
        print(
            f"RunEngine cost per document, {mode}: median {calls['median']:.1f} us, "
            f"p99 {calls['p99']:.1f} us ({calls['documents']} documents)"
        )
    if options.store:
        print(f"everything was kept: {result['everything_was_kept']}")
    else:
        print(
            f"stalled for {result['stalled_s']:.0f} s; afterwards all results came without a "
            f"restart: {result['caught_up_without_restart']}"
        )
    print(f"targets reached: {result['reached']}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
