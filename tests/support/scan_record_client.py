"""Maps by scan records over Channel Access, for test_own_plan_over_epics.py; a process of its own.

``python -m support.scan_record_client RESULTS.json`` sets up what the documentation shows, in a
folder that has a folder ``scans``, and flies maps and a survey with its rescans.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky.utils import Msg, RunEngineInterrupted

from support.docs_pages import DOCS, blocks
from support.sim_support import Documents, grid_of
from xrf_sr_plans import start_session
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.scan_file import text_of
from xrf_sr_plans.maps.files import hdf5_process
from xrf_sr_plans.plans.fly_map import fly_map

PAGE = DOCS / "how-to" / "your-beamline.md"
GRID = grid_of(nx=12, ny=4, x_um=3.0, y_um=-2.0, run_up_um=5.0)
DWELL_MS = 20.0
SURVEY = {
    "x_center_um": 0.0,
    "y_center_um": 0.0,
    "width_um": 32,
    "height_um": 20,
    "step_um": 4,
    "dwell_ms": 40,
    "factor": 2,
    "find": "Fe > p80",
    "max_regions": 1,
    "budget_s": 60,
    "analysis_timeout_s": 120,
}


class Client:
    """Flies plans, and notes what came of them."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.pv, self.beamline = names["pv"], names["beamline"]
        self.found: dict[str, Any] = {}

    def fly(
        self,
        name: str,
        plan: Iterator[Msg],
        run_engine: RunEngine | None = None,
        when_rows: Callable[[RunEngine], object] | None = None,
        then: Callable[[RunEngine], object] | None = None,
    ) -> Any:
        """Run a plan; `when_rows` once two rows are flown, `then` once it is interrupted."""
        run_engine, documents = run_engine or RunEngine({}), Documents()
        error, paused, result = "", {}, None
        if when_rows is not None:
            self.after_two_rows(lambda: when_rows(run_engine))
        token = run_engine.subscribe(documents)
        try:
            try:
                result = run_engine(plan)
            except RunEngineInterrupted:
                paused = self.state()
                if then is not None:
                    then(run_engine)
        except Exception as raised:  # noqa: BLE001 - the test looks at it
            error = f"{type(raised).__name__}: {raised}"
        run_engine.unsubscribe(token)
        self.found[name] = {
            "documents": list(documents),
            "error": error,
            "paused": paused,
            "after": self.state(),
        }
        return result

    def after_two_rows(self, act: Callable[[], object]) -> None:
        def wait() -> None:
            deadline = time.monotonic() + 60
            seen_none = False
            while time.monotonic() < deadline:
                rows = self.pv["scan1.CPT"].get(use_monitor=False)
                seen_none = seen_none or rows == 0
                if seen_none and rows >= 2:
                    act()
                    return
                time.sleep(0.02)

        threading.Thread(target=wait, daemon=True).start()

    def state(self) -> dict[str, Any]:
        """What the scan records do a moment later."""
        time.sleep(0.5)
        return {
            "busy": self.pv["scan1.BUSY"].get(use_monitor=False),
            "message": text_of(self.pv["scan1.SMSG"].get(use_monitor=False)),
            "velocity": self.beamline.fast.velocity.get(use_monitor=False),
        }


def main(results: Path) -> None:
    from ophyd import EpicsSignalRO

    # A busy machine may take longer for a small file than a damaged one is given.
    hdf5_process.SILENCE_S = 60.0
    here = Path(__file__).name
    (code,) = [one.code for one in blocks(PAGE) if Path(one.what).name == here]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    for name in ("scan1.CPT", "scan1.SMSG"):
        names["pv"][name] = EpicsSignalRO(f"xrfsim:{name}", name=name)
        names["pv"][name].wait_for_connection(timeout=10)
    client = Client(names)
    beamline = client.beamline

    def whole() -> Iterator[Msg]:
        return fly_map(beamline, GRID, dwell_ms=DWELL_MS)

    try:
        client.fly("whole", whole())
        client.fly(
            "paused",
            whole(),
            when_rows=lambda run_engine: run_engine.request_pause(),
            then=lambda run_engine: run_engine.resume(),
        )
        client.fly(
            "aborted by somebody",
            whole(),
            when_rows=lambda _: client.pv["AbortScans.PROC"].put(1),
        )
        run_engine = RunEngine({}, call_returns_result=True)
        settings = AnalysisSettings(threads=1)
        with start_session(run_engine, beamline, settings=settings, in_process=True) as session:
            plan = session.plans["coarse_survey_with_sr"](**SURVEY)
            result = client.fly("survey", plan, run_engine)
        if result is not None:
            outcome = result.plan_result
            client.found["survey"]["regions"] = [one.disposition for one in outcome.regions]
            client.found["survey"]["analyses"] = [one.status for one in outcome.analyses]
    finally:
        results.write_text(json.dumps(client.found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
