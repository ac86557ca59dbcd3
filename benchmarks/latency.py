"""Seconds from a map's last row to the proposals on the results device.

    python benchmarks/latency.py [--pixels 128] [--elements 8] [--factor 4] [--maps 4] [--json OUT]

A simulated beamline (instant clock), a real RunEngine, the analysis process. The network's own
time is what the process logs for each map; what is left is assembly, region picking, digest,
pipes, and waiting. The first map also waits for torch and the weights: with an instant clock
there were no rows in whose time to load them.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.sim import SimBeamline, make_beamline
from xrf_sr_plans.devices.sim.sample import Sample
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import COARSER_FACTORS
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.training.phantoms import phantom

NAMES = ("Fe", "Zn", "Ca", "K", "Ti", "Cu", "Mn", "Ni", "Cr", "S", "P", "Cl")
TARGET_S = 1.0


class Watch:
    """Remember when the last row and the stop document passed."""

    def __init__(self) -> None:
        self.last_row = self.stop = 0.0

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document."""
        if name in ("event", "event_page"):
            self.last_row = time.perf_counter()
        elif name == "stop":
            self.stop = time.perf_counter()


def beamline_for(options: argparse.Namespace) -> SimBeamline:
    """Return a beamline whose sample is a phantom just as large as the map."""
    size = options.pixels * options.factor
    maps = phantom("thin_section", 5, size=size, n_elements=options.elements)
    names = NAMES[: options.elements]
    sample = Sample.centered(maps, names, 0.5, counts_p99=200.0, name="thin section")
    return make_beamline(sample, probe_fwhm_um=0.5)


def wait_for(device: AnalysisDevice, uid: str, waited: dict[str, float]) -> MsgGenerator[dict]:
    """Set, trigger and read the results device."""
    yield from bps.abs_set(device, {"source_uids": [uid], "timeout_s": 300.0}, wait=True)
    yield from bps.trigger(device, group="analysis")
    yield from bps.wait("analysis")
    waited["until"] = time.perf_counter()
    return {key: part["value"] for key, part in device.read().items()}


def measure(options: argparse.Namespace, log_file: Path) -> list[dict[str, Any]]:
    """Fly maps and return the latency of each."""
    beamline = beamline_for(options)
    step_um = 0.5 * options.factor
    size_um = options.pixels * step_um
    grid = ScanGrid.from_center(
        x_center_um=0.0,
        y_center_um=0.0,
        width_um=size_um,
        height_um=size_um,
        step_um=step_um,
        fast="samx",
        slow="samy",
    )
    request = AnalysisRequest(factor=options.factor)
    engine, watch, rows = RunEngine({}), Watch(), []
    settings = AnalysisSettings(threads=options.threads, log_file=str(log_file))
    with AnalysisProcess(settings) as analysis:
        device = AnalysisDevice(source=analysis)
        engine.subscribe(Tap(analysis))
        engine.subscribe(watch)

        def plan() -> MsgGenerator[None]:
            for number in range(options.maps):
                uid = yield from fly_map(beamline, grid, dwell_ms=10.0, analysis=request)
                waited: dict[str, float] = {}
                reading = yield from wait_for(device, uid, waited)
                rows.append(
                    {
                        "map": number,
                        "uid": uid,
                        "after_last_row_s": waited["until"] - watch.last_row,
                        "after_stop_s": waited["until"] - watch.stop,
                        "status": reading["analysis_status"],
                        "reason": reading["analysis_reason"],
                        "regions": len(json.loads(reading["analysis_regions"])),
                        "chain_s": analysis.request(uid).result(1).elapsed_s,
                    }
                )

        engine(plan())
    times = network_times(log_file.read_text())
    for row in rows:
        row["network_s"], row["pick_s"] = times[row["uid"]]
        row["beyond_network_s"] = row["after_last_row_s"] - row["network_s"]
    return rows


def network_times(log: str) -> dict[str, tuple[float, float]]:
    """Return (seconds to enhance, seconds to pick) by run, as the analysis process logged them."""
    return {
        run: (float(enhanced), float(picked))
        for run, enhanced, picked in re.findall(
            r"run (\S+): enhanced in ([\d.]+) s, \d+ regions picked in ([\d.]+) s", log
        )
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--elements", type=int, default=8, choices=range(1, len(NAMES) + 1))
    parser.add_argument("--factor", type=int, default=4, choices=COARSER_FACTORS)
    parser.add_argument("--maps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder) / "analysis.log")
    settled = rows[1:] or rows
    medians = {
        key: statistics.median(row[key] for row in settled)
        for key in ("after_last_row_s", "network_s", "pick_s", "beyond_network_s")
    }
    result = {
        "map": [options.pixels, options.pixels, options.elements],
        "factor": options.factor,
        "threads": options.threads,
        **medians,
        "target_s": TARGET_S,
        "reached": medians["beyond_network_s"] <= TARGET_S,
        "maps": rows,
    }
    for row in rows:
        print(
            "map {map}: {after_last_row_s:.2f} s after the last row, network {network_s:.2f} s, "
            "beyond it {beyond_network_s:.2f} s; {status}, {regions} regions {reason}".format(**row)
        )
    print(
        "median without the first: {after_last_row_s:.2f} s; network {network_s:.2f} s; beyond it "
        "{beyond_network_s:.2f} s, of which picking {pick_s:.2f} s".format(**medians)
        + f" (to reach: {TARGET_S} s)"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
