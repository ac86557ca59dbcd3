"""A survey during which the analysis and the page are killed again and again."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings, PageSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.schema import kind_of_run
from xrf_sr_plans.session import Session, start_session

pytest.importorskip("starlette")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SURVEY = {
    "width_um": 40,
    "height_um": 24,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 10,
    "y_center_um": 0,
    "find": "K",
    "max_regions": 3,
    # Else rescans may take as long as a fine map, which goes by how long this machine's rows take.
    "budget_s": 600,
    "analysis_timeout_s": 300,
    "approval_timeout_s": 200,
    "rescan": "ask",
}
KILLED_AT = ((0, 2), (0, 6), (1, 1), (2, 1), (3, 1))
"""Number of the map, and of its row, at which both are killed: no run that often that it is given
up."""


def ask(address: str, path: str, wish: dict[str, Any] | None = None) -> Any:
    """Ask the page for something, or tell it; as long as it takes to be there again."""
    headers = {"x-xrf-sr": "1", "content-type": "application/json"}
    data = None if wish is None else json.dumps(wish).encode()
    until = time.monotonic() + 100
    while True:
        try:
            request = urllib.request.Request(address + path, data, headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            assert time.monotonic() < until, path
            time.sleep(0.2)


def killed(one: Any) -> None:
    """Kill a process, once there is one."""
    until = time.monotonic() + 60
    while one.pid is None and time.monotonic() < until:
        time.sleep(0.02)
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)


def approve_all_twice(session: Session) -> None:
    """Approve all regions at the page once they are there, and once more when they were."""
    page = session.watching.page
    address = page.wait_until_open(90)
    until = time.monotonic() + 200
    while not session.approvals.waits_for:
        assert time.monotonic() < until
        time.sleep(0.1)
    place = f"api/surveys/{session.approvals.waits_for}"
    while not (regions := ask(address, place)["regions"]):
        assert time.monotonic() < until
        time.sleep(0.1)
    wish = {"action": "approve", "numbers": [one["number"] for one in regions], "who": "Ann"}
    for _ in range(2):
        ask(address, f"{place}/decide", wish)


def test_five_restarts_of_both_lose_nothing_and_fly_nothing_twice(tmp_path: Path) -> None:
    documents: list[tuple[str, dict[str, Any]]] = []
    results: list[tuple[str, dict[str, Any]]] = []
    engine = RunEngine({}, call_returns_result=True)
    maps = rows = 0
    with start_session(
        engine,
        make_beamline(clock=4),
        settings=AnalysisSettings(threads=1),
        result_sinks=[lambda name, doc: results.append((name, doc))],
        approvals=str(tmp_path / "approvals"),
        page=PageSettings(surveys=str(tmp_path / "surveys"), serve=True, port=0),
    ) as session:
        assert session.watching is not None
        page = session.watching.page
        assert page is not None

        def count(name: str, doc: dict[str, Any]) -> None:
            nonlocal maps, rows
            documents.append((name, doc))
            if name == "start":
                rows = 0
            elif name == "stop":
                maps += 1
            elif name in ("event", "event_page"):
                rows += 1
                if (maps, rows) in KILLED_AT:
                    killed(session.link)
                    killed(page)

        engine.subscribe(count)
        with ThreadPoolExecutor(1) as pool:
            approved = pool.submit(approve_all_twice, session)
            outcome = engine(session.plans["coarse_survey_with_sr"](**SURVEY)).plan_result
            approved.result(100)
        assert session.link.flush(200)
        address = page.wait_until_open(90)
        name = ask(address, "api/surveys")[0]["name"]
        until = time.monotonic() + 60
        shown: dict[str, Any] = {"layers": []}
        while "composite" not in {layer["name"] for layer in shown["layers"]}:
            assert time.monotonic() < until
            time.sleep(0.3)
            shown = ask(address, f"api/surveys/{name}")
        assert session.link.state().starts >= 1 + len(KILLED_AT)
        assert page.starts >= 1 + len(KILLED_AT)
    starts = [doc for kind, doc in documents if kind == "start"]
    flown = [one["xrf_sr"]["region"] for one in starts if one["xrf_sr"]["purpose"] == "fine"]
    assert len(flown) == len(outcome.rescan_uids) == 3
    assert len({json.dumps(one, sort_keys=True) for one in flown}) == 3
    assert [one["disposition"] for one in shown["regions"]] == ["rescanned"] * 3
    kinds = [kind_of_run(doc) for kind, doc in results if kind == "start"]
    assert kinds.count("result") == 1
    assert kinds.count("verification") == 3
    assert kinds.count("composite") >= 1
