from __future__ import annotations

import threading
import time
from typing import Any

from xrf_sr_plans.store.background import BackgroundSink


def run(uid: str, rows: int = 3) -> list[tuple[str, dict[str, Any]]]:
    events = [("event", {"uid": f"{uid}-{n}", "descriptor": f"{uid}-d"}) for n in range(rows)]
    return [
        ("start", {"uid": uid}),
        ("descriptor", {"uid": f"{uid}-d", "run_start": uid}),
        *events,
        ("stop", {"uid": f"{uid}-s", "run_start": uid}),
    ]


class Sink:
    """Remembers; on demand it refuses or waits."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.refuse: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        self.gate.wait(30)
        if doc["uid"] in self.refuse:
            raise OSError(28, "No space left on device")
        self.got.append(doc["uid"])


def test_everything_arrives_in_order_and_the_end_is_told() -> None:
    sink, ends = Sink(), []
    background = BackgroundSink(sink, name="t", finished=lambda uid, ok: ends.append((uid, ok)))
    for name, doc in run("a"):
        background(name, doc)
    assert background.close(10)
    assert sink.got == ["a", "a-d", "a-0", "a-1", "a-2", "a-s"]
    assert ends == [("a", True)]


def test_a_refused_document_costs_its_run_and_no_other() -> None:
    sink, ends = Sink(), []
    sink.refuse = {"a-1"}
    background = BackgroundSink(sink, name="t", finished=lambda uid, ok: ends.append((uid, ok)))
    for one, two in zip(run("a"), run("b"), strict=True):
        background(*one)
        background(*two)
    assert background.close(10)
    assert background.gave_up
    assert ends == [("a", False), ("b", True)]
    assert "a-2" not in sink.got
    assert [uid for uid in sink.got if uid.startswith("b")] == [doc["uid"] for _, doc in run("b")]


def test_a_sink_that_stands_still_is_neither_waited_for_nor_allowed_to_grow() -> None:
    sink, ends = Sink(), []
    background = BackgroundSink(
        sink, name="t", limit=10, finished=lambda uid, ok: ends.append((uid, ok))
    )
    sink.gate.clear()
    before = time.perf_counter()
    for name, doc in run("a", rows=1000)[:-1]:
        background(name, doc)
    assert time.perf_counter() - before < 1
    assert background.waiting <= 10
    sink.gate.set()
    assert background.flush(10)
    for name, doc in [run("a", rows=1000)[-1], *run("b")]:
        background(name, doc)
    assert background.close(10)
    assert ends == [("a", False), ("b", True)]


def test_a_stop_document_that_was_dropped_is_noticed_when_closing() -> None:
    sink, ends = Sink(), []
    background = BackgroundSink(
        sink, name="t", limit=3, finished=lambda uid, ok: ends.append((uid, ok))
    )
    sink.gate.clear()
    for name, doc in run("a"):
        background(name, doc)
    sink.gate.set()
    assert background.close(10)
    assert background.gave_up
    assert background.given_up_runs == {"a"}
    assert ends == []


def test_what_is_left_behind_when_closing_stays_so() -> None:
    sink = Sink()
    background = BackgroundSink(sink, name="t")
    sink.gate.clear()
    for name, doc in run("a"):
        background(name, doc)
    assert not background.close(0.1)
    sink.gate.set()
    background._thread.join(10)
    assert sink.got == ["a"]


def test_closing_a_sink_that_hangs_takes_the_timeout_and_says_so() -> None:
    sink = Sink()
    background = BackgroundSink(sink, name="t", limit=3)
    sink.gate.clear()
    for name, doc in run("a"):
        background(name, doc)
    before = time.perf_counter()
    assert not background.close(0.2)
    assert 0.1 < time.perf_counter() - before < 2
    background("start", {"uid": "late"})
    sink.gate.set()
