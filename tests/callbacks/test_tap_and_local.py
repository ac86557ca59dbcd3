"""The tap takes microseconds and never raises; the in-process analysis answers in any case."""

from __future__ import annotations

import threading
import time

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings

GRID = small_grid(8, 10)
COUNTS = truth(GRID)


class Recorder:
    def __init__(self):
        self.taken = []

    def submit(self, run, name, doc):
        assert run == (doc["uid"] if name == "start" else self.taken[0][1]["uid"])
        self.taken.append((name, doc))


def feed(link, run):
    tap = Tap(link)
    for name, doc in run:
        tap(name, doc)
    return tap


def test_the_tap_passes_on_only_runs_that_ask_for_analysis():
    link = Recorder()
    feed(link, map_run(GRID, COUNTS, "left-alone", analysis=None))
    assert link.taken == []
    feed(link, map_run(GRID, COUNTS))
    assert [name for name, _ in link.taken] == ["start", "descriptor", *["event_page"] * 8, "stop"]


def test_the_tap_swallows_what_the_link_raises(caplog):
    class Broken:
        def submit(self, run, name, doc):
            raise OSError(28, "No space left on device")

    tap = feed(Broken(), map_run(GRID, COUNTS))
    assert tap.errors == 11
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


@pytest.mark.parametrize("doc", [{}, {"xrf_sr": None}, {"uid": "a", "xrf_sr": {"analysis": {}}}])
def test_the_tap_survives_documents_of_any_kind(doc):
    tap = Tap(Recorder())
    for name in ("start", "descriptor", "event", "event_page", "stop", "bulk_datum", "new kind"):
        tap(name, doc)


@pytest.mark.parametrize("data", [None, 7, "x", [[]], 10**400])
def test_data_that_are_no_data_keep_no_document_from_the_analysis(data):
    with LocalAnalysis(AnalysisSettings(model="none-of-that-name")) as analysis:
        documents = [(name, dict(doc)) for name, doc in map_run(GRID, COUNTS)]
        # An event page and the stop document, without which the plan would wait for its result.
        documents[3][1]["data"] = documents[-1][1]["data"] = data
        assert feed(analysis, documents).errors == 0
        assert analysis.request("source-run").result(timeout=30).status == "fallback"


def test_what_others_do_to_a_documents_data_later_is_not_seen():
    link = Recorder()
    run = list(map_run(GRID, COUNTS))
    feed(link, run)
    for name, doc in run:
        if name == "event_page":
            doc["data"].clear()
    assert all(doc["data"] for name, doc in link.taken if name == "event_page")


def test_a_document_costs_the_run_engine_microseconds(bicubic_model):
    grid = small_grid(60, 128)
    run = list(map_run(grid, truth(grid)))
    with LocalAnalysis() as analysis:
        tap = Tap(analysis)
        times = []
        for name, doc in run[:-1]:
            began = time.perf_counter()
            tap(name, doc)
            times.append(time.perf_counter() - began)
            time.sleep(0.001)
    assert sorted(times)[len(times) // 2] < 200e-6


def test_results_come_from_a_thread_and_go_to_sinks(bicubic_model):
    taken = []
    with LocalAnalysis(sinks=[lambda name, doc: taken.append((name, doc))]) as analysis:
        feed(analysis, map_run(GRID, COUNTS))
        summary = analysis.request("source-run").result(10)
        assert summary.status == "done"
        assert analysis.flush(10)
    assert taken[0][0] == "start"
    assert taken[0][1]["uid"] == summary.result_uid
    event = next(doc for name, doc in taken if name == "event")
    assert isinstance(event["data"]["estimate"][0][0], float)


def test_a_failing_sink_hurts_no_other(bicubic_model):
    taken = []

    def full_disk(name, doc):
        raise OSError(28, "No space left on device")

    with LocalAnalysis(sinks=[full_disk, lambda name, doc: taken.append(name)]) as analysis:
        feed(analysis, map_run(GRID, COUNTS))
        assert analysis.flush(10)
        assert analysis.request("source-run").result(1).status == "done"
    assert taken[-1] == "stop"


def test_however_slow_a_sink_is_many_small_results_wait_for_it(bicubic_model):
    taken, gate = [], threading.Event()

    def slow(name, doc):
        gate.wait(30)
        taken.append(name)

    grid = small_grid(2, 4)
    with LocalAnalysis(sinks=[slow]) as analysis:
        for number in range(100):
            feed(analysis, map_run(grid, truth(grid), f"run {number}"))
        assert analysis.request("run 99").result(30).status == "done"
        gate.set()
        assert analysis.flush(30)
        assert analysis.sink_thread.failures == 0
    assert taken.count("stop") == 100


def test_results_that_no_memory_should_hold_are_lost_as_a_whole_and_named(
    bicubic_model, monkeypatch, caplog
):
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.sink_thread.MAX_WAITING_BYTES", 1e5)
    taken, gate = [], threading.Event()

    def slow(name, doc):
        gate.wait(30)
        taken.append(name)

    with LocalAnalysis(sinks=[slow]) as analysis:
        for number in range(9):
            feed(analysis, map_run(GRID, COUNTS, f"run {number}"))
        assert analysis.request("run 8").result(30).status == "done"
        while analysis.journal.waiting_runs():
            time.sleep(0.01)
        gate.set()
        assert analysis.flush(30)
    lost = caplog.text.count("sinks are too slow: result run ")
    assert 0 < lost < 9
    assert taken.count("start") == taken.count("stop") == 9 - lost


def test_a_hung_model_falls_back_and_its_late_result_is_ignored(bicubic_model, monkeypatch):
    from xrf_sr_plans.sr import predict

    release = threading.Event()

    def hung(maps, factor, **kwargs):
        release.wait(20)
        return bicubic_model(maps, factor)

    monkeypatch.setattr(predict, "enhance_maps", hung)
    taken = []
    analysis = LocalAnalysis(sinks=[lambda name, doc: taken.append((name, doc))])
    feed(analysis, map_run(GRID, COUNTS))
    summary = analysis.fall_back("source-run", "no result within 1 s").result(10)
    assert summary.status == "fallback"
    assert summary.reason == "no result within 1 s"
    release.set()
    assert analysis.flush(10)
    analysis.close()
    assert analysis.request("source-run").result(1) == summary
    assert [doc["fallback"] for name, doc in taken if name == "start"] == ["no result within 1 s"]


def test_a_run_nobody_saw_fails_by_name_when_falling_back():
    with LocalAnalysis() as analysis:
        summary = analysis.fall_back("nobody", "late").result(5)
    assert summary.status == "failed"
    assert "nobody" in summary.reason


def test_a_run_too_large_for_memory_is_given_up_and_others_are_not(bicubic_model):
    grid = small_grid(40, 200)
    settings = AnalysisSettings(memory_limit_mb=0.5)
    with LocalAnalysis(settings) as analysis:
        feed(analysis, map_run(grid, truth(grid), "large"))
        assert analysis.request("large").result(5).status == "failed"
        assert "memory_limit_mb" in analysis.request("large").result(5).reason
        feed(analysis, map_run(GRID, COUNTS, "small"))
        assert analysis.request("small").result(5).status == "done"
        assert analysis.flush(5)
        assert analysis.journal.size == 0


def test_a_run_without_result_is_in_the_log_once_unless_whoever_asks_for_it_says_so(
    bicubic_model, monkeypatch, caplog
):
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.result_board.ASKED_WITHIN_S", 0.1)
    grid = small_grid(40, 200)
    with LocalAnalysis(AnalysisSettings(memory_limit_mb=0.5)) as analysis:
        feed(analysis, map_run(grid, truth(grid), "asked for"))
        analysis.request("asked for").result(5)
        feed(analysis, map_run(grid, truth(grid), "not asked for"))
        deadline = time.monotonic() + 10
        while "not asked for" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.text.count("memory_limit_mb") == 1
    assert "run not asked for has no result: its documents exceed" in caplog.text
