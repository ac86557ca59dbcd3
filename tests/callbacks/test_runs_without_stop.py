"""Runs whose stop document never comes (RE.halt, a crash) cost the runs after them nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service import journal
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.maps.run_index import MAX_OPEN_RUNS

GRID = small_grid(6, 10)
WAIT_S = 60.0


def documents_of(run, grid=GRID):
    return list(map_run(grid, truth(grid), run))


@pytest.fixture(params=["thread", "process"])
def analysis(request, bicubic_model):
    settings = AnalysisSettings(memory_limit_mb=0.3)
    if request.param == "thread":
        link = LocalAnalysis(settings)
    else:
        script = Path(__file__).parents[1] / "support" / "odd_worker.py"
        link = AnalysisProcess(settings, command=[sys.executable, str(script), "nothing", "0", ""])
    with link:
        yield link


def test_halted_runs_fill_no_memory_and_what_is_let_go_is_said(analysis, caplog):
    tap = Tap(analysis)
    for number in range(3 * MAX_OPEN_RUNS):
        for name, doc in documents_of(f"halted {number}")[:-1]:
            tap(name, doc)
    for name, doc in documents_of("good"):
        tap(name, doc)
    assert analysis.request("good").result(WAIT_S).status == "done"
    assert analysis.flush(WAIT_S)
    assert len(analysis.journal.open_runs()) <= MAX_OPEN_RUNS
    assert "run halted 0 is let go by the analysis: its stop document has not come" in caplog.text
    lost = analysis.request("halted 0").result(WAIT_S)
    assert lost.status == "failed"
    assert "its stop document has not come" in lost.reason
    assert caplog.text.count("run halted 0 ") == 1


def test_a_run_that_is_still_being_written_stays_however_many_are_halted(analysis):
    tap = Tap(analysis)
    slow = documents_of("slow")
    for name, doc in slow[:2]:
        tap(name, doc)
    for number in range(2 * MAX_OPEN_RUNS):
        for halted in documents_of(f"halted {number}", small_grid(1, 4))[:-1]:
            tap(*halted)
        if number % 20 == 0 and slow[2:-1]:
            tap(*slow.pop(2))
    for name, doc in slow[2:]:
        tap(name, doc)
    result = analysis.request("slow").result(WAIT_S)
    assert result.digest == replay(documents_of("slow")).digest


def test_a_run_that_was_let_go_and_goes_on_after_all_is_told_so(analysis):
    tap = Tap(analysis)
    held = documents_of("held")
    for name, doc in held[:4]:
        tap(name, doc)
    for number in range(2 * MAX_OPEN_RUNS):
        for halted in documents_of(f"halted {number}", small_grid(1, 4))[:-1]:
            tap(*halted)
    for name, doc in held[4:]:
        tap(name, doc)
    result = analysis.request("held").result(WAIT_S)
    assert result.status == "failed"
    assert "its stop document has not come and" in result.reason
    assert analysis.flush(WAIT_S)


def test_a_run_without_documents_for_long_is_let_go_when_a_later_one_starts(monkeypatch, caplog):
    monkeypatch.setattr(journal, "SILENT_S", 0.05)
    with LocalAnalysis() as local:
        tap = Tap(local)
        for name, doc in documents_of("halted")[:-1]:
            tap(name, doc)
        time.sleep(0.1)
        assert local.journal.open_runs() == ["halted"]
        tap(*documents_of("later")[0])
        assert local.journal.open_runs() == ["later"]
    assert "run halted is let go" in caplog.text


def test_the_chain_itself_keeps_no_more_runs_and_says_which_it_lets_go(bicubic_model, caplog):
    summaries = []
    chain = AnalysisChain(finished=summaries.append)
    kept, *_ = slow = documents_of("slow")
    chain(*kept)
    for number in range(2 * MAX_OPEN_RUNS):
        for name, doc in documents_of(f"halted {number}", small_grid(1, 4))[:-1]:
            chain(name, doc)
        if number % 30 == 0 and slow[1:-1]:
            chain(*slow.pop(1))
    for name, doc in slow[1:]:
        chain(name, doc)
    assert [summary.digest for summary in summaries] == [replay(documents_of("slow")).digest]
    assert "run halted 0 is let go by the analysis" in caplog.text
    assert "run slow is let go" not in caplog.text
