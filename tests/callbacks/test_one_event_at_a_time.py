"""Writers that know no event pages, as apstools' are, get every row and finish every file."""

from __future__ import annotations

import threading
import time
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine

from support.plan_support import Recorder, small_beamline, small_survey
from xrf_sr_plans.callbacks.one_event_at_a_time import OneEventAtATime, ScanRows


class FileWriter:
    """Collects a run, and writes it in a thread after its end, as `NXWriter` does.

    What it collected is cleared at the next start document, whether it is written or not.
    """

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.unexpected: list[str] = []
        self.files: dict[str, list[dict[str, Any]]] = {}

    def receiver(self, name: str, doc: dict[str, Any]) -> None:
        if name == "stop":
            assert doc["run_start"] == self.uid
        if name == "start":
            self.uid, self.events, self.keys = doc["uid"], [], {}
        elif name == "descriptor":
            self.keys[doc["uid"]] = set(doc["data_keys"])
        elif name == "event":
            assert set(doc["data"]) == set(doc["timestamps"]) == self.keys[doc["descriptor"]]
            self.events.append(doc)
        elif name == "stop":
            threading.Thread(target=self._write).start()
        else:
            self.unexpected.append(name)

    def _write(self) -> None:
        time.sleep(self.takes_s)
        self.files[self.uid] = self.events


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def test_every_row_comes_as_an_event_and_every_run_has_its_file(run_engine, recorder):
    writer = FileWriter(takes_s=0.1)
    run_engine.subscribe(OneEventAtATime(writer.receiver))
    run_engine(small_survey(small_beamline()))
    time.sleep(0.3)
    assert writer.unexpected == []
    assert list(writer.files) == [start["uid"] for start in recorder.starts]
    written = [event for events in writer.files.values() for event in events]
    assert written == recorder.events()


def test_without_it_rows_and_files_are_lost(run_engine, recorder):
    writer = FileWriter(takes_s=0.1)
    run_engine.subscribe(writer.receiver)
    run_engine(small_survey(small_beamline()))
    time.sleep(0.3)
    assert "event_page" in writer.unexpected
    assert len(writer.files) < len(recorder.starts)


def test_a_file_that_is_never_written_does_not_hold_up_the_scan_for_ever(
    run_engine, recorder, caplog
):
    writer = FileWriter(takes_s=1.5)
    run_engine.subscribe(OneEventAtATime(writer.receiver, patience_s=0.05))
    run_engine(small_survey(small_beamline()))
    assert {stop["exit_status"] for stop in recorder.of("stop")} == {"success"}
    assert "still runs after 0.05 s" in caplog.text
    time.sleep(1.6)


def test_a_table_has_the_numbers_of_each_row_and_no_runs_without_rows(run_engine, recorder):
    writer = FileWriter()
    run_engine.subscribe(ScanRows(writer.receiver))
    run_engine(small_survey(small_beamline()))
    time.sleep(0.1)
    assert writer.unexpected == []
    maps = {start["uid"]: start["xrf_sr"]["grid"] for start in recorder.map_starts()}
    assert list(writer.files) == list(maps)
    for uid, grid in maps.items():
        rows = [event["data"]["xrf_row"] for event in writer.files[uid]]
        assert rows == list(range(grid["slow"]["num"]))
        for event in writer.files[uid]:
            assert not [key for key, value in event["data"].items() if isinstance(value, list)]


def test_a_table_follows_the_innermost_of_nested_runs(run_engine, recorder):
    def outer():
        yield from bpp.set_run_key_wrapper(bps.open_run({"xrf_sr": {"purpose": "outer"}}), "outer")
        yield from small_survey(small_beamline())
        yield from bpp.set_run_key_wrapper(bps.close_run(), "outer")

    writer = FileWriter()
    run_engine.subscribe(ScanRows(writer.receiver))
    run_engine(outer())
    time.sleep(0.1)
    assert list(writer.files) == [start["uid"] for start in recorder.map_starts()]
