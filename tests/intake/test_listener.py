"""A listener before the analysis process, on a bus that keeps what is not taken."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.service import worker_process
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.intake import listener as listener_module
from xrf_sr_plans.intake import service
from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.listener import Listener
from xrf_sr_plans.intake.messages import Message, Place
from xrf_sr_plans.intake.serializers import to_msgpack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
QUICK_WORKER = [
    sys.executable,
    str(Path(__file__).parents[1] / "support" / "odd_worker.py"),
    *("nothing", "0", ""),
]
GRID = small_grid(20, 60)
RUNS = [f"run {number}" for number in range(16)]
MEMORY_MB = 0.4
"""What the analysis may hold: some of the runs."""


def messages_of(run: str) -> list[bytes]:
    return [to_msgpack([name, doc]) for name, doc in map_run(GRID, truth(GRID), run)]


class KeptBus:
    """Messages that are there before anybody listens."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages
        self._next = 0
        self.settled: list[int] = []

    def receive(self, timeout_s: float) -> Message | None:
        if self._next == len(self._messages):
            time.sleep(timeout_s)
            return None
        self._next += 1
        place = Place("documents", 0, self._next - 1)
        return Message(self._messages[place.offset], "documents", place=place)

    def hold(self, timeout_s: float) -> bool:
        time.sleep(timeout_s)
        return True

    def settle(self, places: Sequence[Place]) -> None:
        self.settled += [place.offset for place in places]

    def close(self) -> None:
        """Do nothing."""


class Store:
    """A sink that takes everything."""

    takes_arrays = True

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Do nothing."""

    def close(self, timeout_s: float) -> None:
        """Do nothing."""


def test_what_came_while_nobody_listened_is_read_no_faster_than_it_is_analysed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "_SETTLED_WITHIN_S", 1.0)
    monkeypatch.setattr(listener_module, "_SETTLE_S", 0.1)
    messages = [message for run in RUNS for message in messages_of(run)]
    assert sum(map(len, messages)) > 3 * MEMORY_MB * 2**20
    bus, told, results = KeptBus(messages), [], []

    def sink(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            results.append(doc["original_run_uid"])

    settings = AnalysisSettings(memory_limit_mb=MEMORY_MB)
    with AnalysisProcess(settings, [sink], command=QUICK_WORKER) as link:
        listening = Listener(bus, link, told.append, most_bytes=MEMORY_MB * 2**19)
        deadline = time.monotonic() + 60
        while len(messages) - 1 not in bus.settled and time.monotonic() < deadline:
            listening.step(0.02)
    assert not [words for words in told if "failed" in words]
    assert results == RUNS
    assert bus.settled == sorted(bus.settled)
    assert bus.settled[-1] == len(messages) - 1
    assert len(bus.settled) > 1, "what is done is settled before all is"


def test_a_result_that_comes_while_it_ends_is_not_made_again_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = messages_of("first") + messages_of("second") + messages_of("open")[:-1]
    bus, told, stop = KeptBus(messages), [], threading.Event()
    monkeypatch.setattr(service, "open_intake", lambda address, told: bus)
    monkeypatch.setattr(service, "open_store", lambda where: Store())
    monkeypatch.setattr(worker_process, "COMMAND", QUICK_WORKER)
    # It is on its own how often the places are settled.
    monkeypatch.setattr(listener_module, "_SETTLE_S", 1000.0)

    def tell(words: str) -> None:
        told.append(words)
        if words.startswith("run open has begun"):
            stop.set()

    wanted = service.Listening(
        BusAddress.parse("kafka://nowhere:1/documents"), store=str(tmp_path / "results")
    )
    assert service.listen(wanted, tell, stop) == 0
    assert any(words.startswith("run second: done") for words in told)
    assert bus.settled == [len(messages_of("first") + messages_of("second")) - 1]
