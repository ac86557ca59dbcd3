"""Flights over Channel Access, for test_epics_row_flyer.py; run as a process of its own.

``python -m support.epics_client RESULTS.json IOC_PID`` sets up what the documentation shows, flies,
and kills the IOC at the end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky.utils import Msg, RunEngineInterrupted

from support.sim_support import Documents, grid_of, row_request
from xrf_sr_plans import Beamline
from xrf_sr_plans.config import Settings
from xrf_sr_plans.config.examples import example
from xrf_sr_plans.devices.epics_flyer import EpicsRowFlyer
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.plans.xrf_map import xrf_map

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "your-beamline.md"
BLOCK = re.compile(r"^% flown by tests/support/epics_client.py\n```python\n(.*?)^```$", re.M | re.S)
GRID = grid_of(nx=12, ny=4, run_up_um=5.0)
DWELL_MS = 30.0
MID_ROW_UM = -3.0
"""In the direction of flight: a quarter of the row, and most of its time is still to come."""


def documented_beamline() -> Any:
    (block,) = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    return names["beamline"]


class Flights:
    """Flights of one beamline, and what to write down of each."""

    def __init__(self, beamline: Any) -> None:
        self.beamline = beamline
        self.found: dict[str, Any] = {}

    def fly(
        self,
        name: str,
        plan: Iterator[Msg],
        in_row: int | None = None,
        act: Callable[[RunEngine], object] | None = None,
        then: Callable[[RunEngine], object] | None = None,
    ) -> None:
        """Run a plan; `act` in the middle of a row, `then` once that interrupts the plan."""
        run_engine, documents, flown = RunEngine({}), Documents(), []

        def watch(msg: Msg) -> None:
            if msg.command == "complete":
                flown.append(msg)
                if act is not None and len(flown) - 1 == in_row:
                    self.in_mid_row(in_row, lambda: act(run_engine))

        run_engine.msg_hook = watch
        began, error, paused = time.monotonic(), "", {}
        try:
            try:
                run_engine(plan, documents)
            except RunEngineInterrupted:
                paused = self.state()
                if then is not None:
                    then(run_engine)
        except Exception as raised:  # noqa: BLE001 - the test looks at it
            error = f"{type(raised).__name__}: {raised}"
        self.found[name] = {
            "documents": list(documents),
            "rows": documents.rows(),
            "error": error,
            "took_s": time.monotonic() - began,
            "paused": paused,
            "after": self.state(),
        }

    def in_mid_row(self, row: int, act: Callable[[], object]) -> None:
        """Do something as soon as the fast axis is in the middle of a row."""

        def wait() -> None:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                if self.beamline.fast.position * 1e3 * GRID.direction(row) > MID_ROW_UM:
                    act()
                    return
                time.sleep(0.005)

        threading.Thread(target=wait, daemon=True).start()

    def state(self) -> dict[str, Any]:
        """Where the axes are, 0.1 s apart, and how the flyer was left."""
        beamline = self.beamline
        if not beamline.flyer.connected:
            return {}
        # The last monitors of what has just been stopped are under way.
        time.sleep(0.1)
        places = []
        for _ in range(2):
            places.append([beamline.fast.position, beamline.slow.position])
            time.sleep(0.1)
        return {
            "places": places,
            "velocity": beamline.fast.velocity.get(use_monitor=False),
            "busy": beamline.flyer.detector.busy.get(),
        }


def main(results: Path, ioc_pid: int) -> None:
    beamline = documented_beamline()
    flights = Flights(beamline)
    described = Beamline.from_settings(Settings.load(example("epics"), {}))
    of_file = Flights(described)
    of_file.fly("from a settings file", fly_map(described, GRID, dwell_ms=DWELL_MS))
    flights.found |= of_file.found
    flights.fly("whole", fly_map(beamline, GRID, dwell_ms=DWELL_MS))
    flights.fly(
        "rows",
        xrf_map(
            beamline,
            x_center_um=0.0,
            y_center_um=0.0,
            width_um=16.0,
            height_um=8.0,
            step_um=2.0,
            dwell_ms=2 * DWELL_MS,
        ),
    )
    flights.fly(
        "beyond the limits",
        fly_map(beamline, grid_of(nx=12, ny=4, x_um=100.0, run_up_um=5.0), dwell_ms=DWELL_MS),
    )
    request = {**row_request(GRID, 0, DWELL_MS, "m"), "slow_um": 1e4}
    flights.fly("row beyond the limits", iter([Msg("prepare", beamline.flyer, request)]))
    flights.fly(
        "paused",
        fly_map(beamline, GRID, dwell_ms=DWELL_MS),
        in_row=2,
        act=lambda run_engine: run_engine.request_pause(),
        then=lambda run_engine: run_engine.resume(),
    )
    flights.fly(
        "aborted",
        fly_map(beamline, GRID, dwell_ms=DWELL_MS),
        in_row=1,
        act=lambda run_engine: run_engine.request_pause(),
        then=lambda run_engine: run_engine.abort("enough"),
    )
    # Nobody tells the detector where a row begins: it waits for triggers that don't come.
    blind = EpicsRowFlyer(
        replace(beamline.flyer.pvs, start=None),
        name="xrf",
        fast=beamline.fast,
        slow=beamline.slow,
        timeout_s=0.5,
    )
    blind.wait_for_connection(timeout=10)
    flights.fly(
        "without triggers",
        fly_map(
            replace(beamline, flyer=blind),
            grid_of(nx=12, ny=3, x_um=40.0, run_up_um=5.0),
            dwell_ms=DWELL_MS,
            row_attempts=1,
        ),
    )
    flights.fly(
        "killed",
        fly_map(beamline, GRID, dwell_ms=DWELL_MS),
        in_row=2,
        act=lambda _: os.kill(ioc_pid, signal.SIGKILL),
    )
    results.write_text(json.dumps(flights.found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    # Nothing is left to tidy up: the other end is gone.
    os._exit(0)
