"""Time per row learned from rows, and progress for whoever waits."""

from __future__ import annotations

import io
import sys
import threading

import pytest
from bluesky import RunEngine
from bluesky.utils import ProgressBarManager, TerminalProgressBar

from support.plan_support import small_beamline, small_survey
from xrf_sr_plans.devices.protocols import RowTimeModel
from xrf_sr_plans.devices.row_status import RowStatus
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.plans.timing import RowProgress, recalibrated
from xrf_sr_plans.plans.xrf_map import xrf_map

AREA = {"width_um": 5, "height_um": 4, "step_um": 1, "dwell_ms": 10}


def test_the_overhead_is_the_median_of_finished_rows():
    learned = recalibrated(RowTimeModel(overhead_s=3.8), 100, 10.0, [1.5, 1.4, 1.6, 1.5, 61.0])
    assert learned.overhead_s == pytest.approx(0.5)
    assert learned.row_s(100, 10.0) == pytest.approx(1.5)


def test_rows_faster_than_their_dwell_teach_nothing():
    model = RowTimeModel(overhead_s=3.8)
    assert recalibrated(model, 100, 10.0, [0.001, 0.002]) == model
    assert recalibrated(model, 100, 10.0, []) == model


def test_progress_counts_rows_and_tells_the_time_left():
    lines = []
    progress = RowProgress(show=lines.append)
    run_engine = RunEngine({})
    run_engine.subscribe(progress)
    run_engine.waiting_hook = progress.waiting_hook
    counts = []
    run_engine.subscribe(
        lambda name, doc: counts.append((progress.rows_done, progress.rows_total)), "event_page"
    )
    run_engine(xrf_map(small_beamline(), **AREA, x_center_um=0, y_center_um=0))
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert lines[0] == "map: row 0/4, 1 s left"
    assert any("row 3/4" in line for line in lines)
    assert progress.line() == ""


def titles(plan) -> list[str]:
    """Fly a plan; return the title of each of its maps."""
    progress, seen = RowProgress(), []
    run_engine = RunEngine({})
    run_engine.subscribe(progress)
    run_engine.subscribe(lambda name, doc: seen.append(progress.line().split(":")[0]), "start")
    run_engine(plan)
    return seen


def test_maps_that_belong_together_are_numbered():
    boxes = [[(-4.0, -2.0, -1.5, 0.5), (2.0, 3.0, -1.0, 1.0), (0.0, 1.0, -1.0, 0.0)], []]
    survey = titles(small_survey(small_beamline(boxes)))
    assert [one for one in survey if one] == [
        "coarse tile 1/2",
        "coarse tile 2/2",
        "fine 1/3",
        "fine 2/3",
        "fine 3/3",
    ]
    pair = {"width_um": 4, "height_um": 2, "fine_step_um": 1, "dwell_ms": 10}
    assert titles(acquire_pair(small_beamline(), **pair)) == [
        "pair_coarse 1/3",
        "pair_fine 2/3",
        "pair_coarse 3/3",
    ]
    assert titles(xrf_map(small_beamline(), **AREA)) == ["map"]


def test_a_broken_display_does_not_stop_the_scan():
    def broken(line: str) -> None:
        raise OSError("no terminal")

    progress = RowProgress(show=broken)
    run_engine = RunEngine({}, call_returns_result=True)
    run_engine.subscribe(progress)
    run_engine.waiting_hook = progress.waiting_hook
    result = run_engine(xrf_map(small_beamline(), **AREA, x_center_um=0, y_center_um=0))
    assert result.exit_status == "success"
    assert progress.line() == ""


def test_other_runs_are_left_alone():
    progress = RowProgress()
    progress("start", {"uid": "u", "time": 0.0, "plan_name": "count"})
    progress("stop", {"uid": "s", "time": 1.0, "run_start": "u", "exit_status": "success"})
    assert progress.rows_total == 0


def test_bluesky_s_own_progress_bars_show_rows(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    run_engine = RunEngine({}, call_returns_result=True)
    run_engine.waiting_hook = ProgressBarManager(
        lambda statuses: TerminalProgressBar(statuses, delay_draw=0)
    )
    beamline = make_beamline(clock=20.0)
    result = run_engine(xrf_map(beamline, **AREA, x_center_um=0, y_center_um=0))
    assert result.exit_status == "success"
    shown = screen.getvalue()
    for row in range(1, 5):
        assert f"xrf row {row}" in shown
    assert "3.0/4.0 [" in shown
    assert "rows" in shown


def test_a_row_tells_its_watchers_what_ophyd_s_moves_tell():
    seen: dict[str, list[dict]] = {}

    def hook(statuses: object) -> None:
        for status in statuses or ():
            if isinstance(status, RowStatus):
                told: list[dict] = seen.setdefault(str(id(status)), [])
                kept.append(status)
                status.watch(lambda told=told, **facts: told.append(facts))

    kept: list[RowStatus] = []
    run_engine = RunEngine({})
    run_engine.waiting_hook = hook
    run_engine(xrf_map(small_beamline(), **AREA, x_center_um=0, y_center_um=0))
    names = "name current initial target unit precision fraction time_elapsed time_remaining"
    told = [facts for facts in seen.values() if facts]
    assert set(told[0][0]) == set(names.split())
    assert {facts[0]["target"] for facts in told} == {4}
    assert max(facts[-1]["current"] for facts in told) == 4
    last = next(facts[-1] for facts in told if facts[-1]["current"] == 4)
    assert last["fraction"] == 0
    assert last["time_remaining"] == 0


def test_a_watcher_that_fails_does_not_stop_the_scan(caplog: pytest.LogCaptureFixture):
    def broken(**facts: object) -> None:
        raise OSError("no terminal")

    flyer, done = small_beamline().flyer, threading.Event()
    request = {"map_key": "m", "row": 0}
    status = flyer._status_of(request)
    told: list[dict] = []
    status.watch(broken)
    status.watch(lambda **facts: (told.append(facts), len(told) > 1 and done.set()))
    status.set_finished()
    assert done.wait(5)
    # Whoever asks for a row without the number of rows gets no bar, and no invented one.
    assert told == [{"name": "xrf row 1"}] * 2
    assert "no terminal" in caplog.text
