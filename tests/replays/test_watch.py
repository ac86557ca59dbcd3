"""A folder that is watched: files count when somebody has finished them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.settling import Settling
from xrf_sr_plans.replays.task import UnitReport
from xrf_sr_plans.replays.watch import watch_folder
from xrf_sr_plans.store.jsonl import JsonlWriter

FILE = Path("map.h5")


def test_a_file_that_grows_is_left_alone_until_it_has_not_changed_for_a_while() -> None:
    settling = Settling(3.0)
    assert settling.update({FILE: (10, 1)}, 0.0) == []
    assert settling.update({FILE: (20, 2)}, 2.9) == []
    assert settling.update({FILE: (20, 2)}, 5.8) == []
    assert settling.update({FILE: (20, 3)}, 5.9) == [], "the same size, written again"
    assert settling.update({FILE: (20, 3)}, 8.9) == [FILE]
    settling.read(FILE)
    assert settling.update({FILE: (20, 3)}, 99.0) == []
    assert settling.update({FILE: (21, 4)}, 100.0) == []
    assert settling.update({FILE: (21, 4)}, 103.0) == [FILE], "it has changed after all"


def test_an_unreadable_file_is_tried_again_after_ever_longer_times() -> None:
    settling, state, tried = Settling(1.0, tries=3), {FILE: (10, 1)}, []
    for tenths in range(200):
        for path in settling.update(state, tenths / 10):
            tried.append(tenths / 10)
            settling.unreadable(path)
    assert tried == [1.0, 2.0, 4.0]
    assert settling.update({FILE: (0, 2)}, 50.0) == []
    assert settling.update({FILE: (0, 2)}, 60.0) == [], "an empty file says nothing yet"


@contextmanager
def watched(folder: Path, out: Path, **options: Any) -> Iterator[dict[str, UnitReport]]:
    """Watch a folder in a thread; give the reports by the name of the file."""
    stop, reports = threading.Event(), {}
    thread = threading.Thread(
        target=watch_folder,
        args=(folder, out, ReplayOptions(pictures=False)),
        kwargs={
            "settle_s": 0.3,
            "stop": stop,
            "told": lambda report: reports.update({Path(report.key).stem: report}),
            **options,
        },
    )
    thread.start()
    try:
        yield reports
    finally:
        stop.set()
        thread.join(200)
        assert not thread.is_alive()


def until(reports: dict[str, Any], name: str, timeout_s: float = 240) -> UnitReport:
    deadline = time.monotonic() + timeout_s
    while name not in reports and time.monotonic() < deadline:
        time.sleep(0.05)
    return reports[name]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("poll", [False, True])
def test_runs_are_enhanced_as_they_end(runs: Path, tmp_path: Path, poll: bool) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    shutil.copy(runs / "map-0000.jsonl", folder)
    grid = small_grid(8, 10)
    with watched(folder, folder / "out", poll=poll) as reports:
        until(reports, "map-0000")
        write = JsonlWriter(folder)
        docs = list(map_run(grid, truth(grid), "live"))
        for name, doc in docs[:-1]:
            write(name, doc)
        time.sleep(1.5)
        assert "live" not in reports, "its stop document is missing"
        write(*docs[-1])
        live = until(reports, "live")
    assert live.runs[0].digest == replay(folder / "live.jsonl").digest
    assert (folder / "out" / "live.h5").is_file()
    assert set(reports) == {"map-0000", "live"}, "not what it wrote itself"
    with watched(folder, folder / "out", poll=poll) as again:
        time.sleep(1.5)
    assert not again, "the journal knows them"


@pytest.mark.timeout(600)
def test_a_half_written_file_is_read_once_it_is_whole(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    whole = (runs / "map-0001.jsonl").read_bytes()
    torn = folder / "map-0001.jsonl"
    torn.write_bytes(whole[: len(whole) // 2])
    (folder / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with watched(folder, tmp_path / "out", tries=2) as reports:
        damaged = until(reports, "damaged")
        assert "map-0001" not in reports
        torn.write_bytes(whole)
        report = until(reports, "map-0001")
    assert not report.failures
    assert damaged.failures


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        watch_folder(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ConfigError, match="settle_s is 0"):
        watch_folder(tmp_path, tmp_path / "out", settle_s=0)
