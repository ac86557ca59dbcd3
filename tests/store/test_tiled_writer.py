from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.stored_runs import Document, assert_same_run, fly
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl
from xrf_sr_plans.store.tiled import (
    SafeWriter,
    embedded_catalog,
    reingest,
    safe_writer,
    tiled_writer,
)


def feed(sink: Any, docs: list[Document]) -> None:
    for name, doc in docs:
        sink(name, doc)


def test_a_stored_run_leaves_no_file(catalog: Any, tmp_path: Path, reflown: list[Document]) -> None:
    writer = safe_writer(catalog, tmp_path)
    feed(writer, reflown)
    assert writer.flush(30)
    assert_same_run(list(documents(catalog[reflown[0][1]["uid"]])), reflown)
    assert writer.close(10)
    assert list(tmp_path.iterdir()) == []


def test_the_files_can_be_kept(catalog: Any, tmp_path: Path, flown: list[Document]) -> None:
    writer = safe_writer(catalog, tmp_path, keep_files=True)
    feed(writer, flown)
    assert writer.close(30)
    assert_same_run(list(documents(next(tmp_path.iterdir()))), flown)


def test_what_tiled_refused_stays_in_the_file_and_can_be_stored_later(
    catalog: Any, tmp_path: Path, reflown: list[Document]
) -> None:
    def refuse(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            raise ConnectionError("the server is gone")

    writer = SafeWriter(refuse, tmp_path)
    feed(writer, reflown)
    assert writer.close(10)
    uid = reflown[0][1]["uid"]
    assert_same_run(list(read_jsonl(tmp_path / f"{uid}.jsonl")), reflown)
    done = reingest(catalog, tmp_path)
    assert (done.stored, dict(done.failed)) == ((uid,), {})
    assert_same_run(list(documents(catalog[uid])), reflown)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_file_and_not_the_run_in_tiled(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    writer = safe_writer(catalog, tmp_path / "folder")
    (tmp_path / "folder").write_text("a file where the folder should be")
    feed(writer, flown)
    assert writer.close(30)
    assert_same_run(list(documents(catalog[flown[0][1]["uid"]])), flown)


def test_a_part_of_a_run_in_tiled_is_replaced(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    writer = safe_writer(catalog, tmp_path, keep_files=True)
    feed(writer, flown[:4])
    assert writer.close(10)
    (path,) = tmp_path.iterdir()
    waits = reingest(catalog, tmp_path)
    assert waits.stored == ()
    assert "no stop document" in waits.failed[path.name]
    assert reingest(catalog, tmp_path, unfinished=True).stored == (flown[0][1]["uid"],)
    read = list(documents(catalog[flown[0][1]["uid"]]))
    assert_same_run(read[:-1], flown[:4])
    assert read[-1][1]["exit_status"] == "abort"
    assert "session ended" in read[-1][1]["reason"]


def test_storing_later_leaves_a_run_alone_that_is_being_written(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    uid = flown[0][1]["uid"]
    writer = safe_writer(catalog, tmp_path)
    feed(writer, flown[:4])
    assert writer.flush(30)
    done = reingest(catalog, tmp_path, unfinished=True)
    assert done.stored == ()
    assert "is being written at the moment" in done.failed[f"{uid}.jsonl"]
    feed(writer, flown[4:])
    assert writer.close(30)
    assert_same_run(list(documents(catalog[uid])), flown)
    assert list(tmp_path.iterdir()) == []


def test_storing_later_leaves_a_run_alone_that_tiled_is_still_taking(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    writer, gate = hanging(tmp_path)
    feed(writer, flown)
    assert writer._to_file.flush(30)
    assert list(read_jsonl(writer.folder / f"{flown[0][1]['uid']}.jsonl"))[-1][0] == "stop"
    assert reingest(catalog, tmp_path).stored == ()
    gate.set()
    assert writer.close(30)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, time
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl
write = JsonlWriter(sys.argv[2])
for name, doc in list(read_jsonl(sys.argv[1]))[:4]:
    write(name, doc)
print("written", flush=True)
time.sleep(60)
"""


def test_a_run_is_stored_once_the_process_that_wrote_it_has_died(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    whole = JsonlWriter(tmp_path / "whole")
    feed(whole, flown)
    uid = flown[0][1]["uid"]
    backup = tmp_path / "backup"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(whole.path(uid)), str(backup)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert reingest(catalog, backup, unfinished=True).stored == ()
    finally:
        process.kill()
        process.communicate(timeout=10)
    assert reingest(catalog, backup, unfinished=True).stored == (uid,)
    assert_same_run(list(documents(catalog[uid]))[:-1], flown[:4])


def test_more_in_tiled_is_never_replaced_by_less_in_a_file(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    uid = flown[0][1]["uid"]
    feed(tiled_writer(catalog), flown)
    short = JsonlWriter(tmp_path)
    feed(short, flown[:4])
    short.close()
    assert reingest(catalog, tmp_path, unfinished=True).stored == (uid,), "Tiled has all of it"
    assert_same_run(list(documents(catalog[uid])), flown)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_only_tiled_has_keep_the_file_from_replacing_them(
    catalog: Any, tmp_path: Path, flown: list[Document]
) -> None:
    uid = flown[0][1]["uid"]
    longer = [*flown[:-2], flown[-1]]
    write = tiled_writer(catalog)
    feed(write, longer)
    catalog[uid].update_metadata({"stop": None})
    shorter = JsonlWriter(tmp_path)
    feed(shorter, [*flown[:3], flown[-1]])
    done = reingest(catalog, tmp_path)
    assert done.stored == ()
    assert "so it isn't replaced" in done.failed[f"{uid}.jsonl"]
    assert len(list(documents(catalog[uid]))) == len(longer) - 1
    assert shorter.path(uid).exists()


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_whatever_part_tiled_has_is_completed(
    catalog: Any, tmp_path: Path, flown: list[Document], rows: int
) -> None:
    uid = flown[0][1]["uid"]
    feed(tiled_writer(catalog), flown[:rows])
    whole = JsonlWriter(tmp_path)
    feed(whole, flown)
    assert reingest(catalog, tmp_path).stored == (uid,)
    assert_same_run(list(documents(catalog[uid])), flown)


def refuse(name: str, doc: dict[str, Any]) -> None:
    raise ConnectionError("the server is gone")


@pytest.mark.parametrize("documents_written", [None, -1])
def test_a_run_that_is_nowhere_is_not_said_to_be_in_a_file(
    tmp_path: Path,
    flown: list[Document],
    caplog: pytest.LogCaptureFixture,
    documents_written: int | None,
) -> None:
    writer = SafeWriter(refuse, tmp_path / "folder")
    (tmp_path / "folder").write_text("a file where the folder should be")
    feed(writer, flown[:documents_written])
    assert not writer.close(10)
    assert f"run {flown[0][1]['uid']} is neither in Tiled nor, as a whole, in" in caplog.text
    assert "it is in" not in caplog.text


def test_a_run_whose_file_was_deleted_is_not_said_to_be_in_it(
    tmp_path: Path, flown: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    writer = SafeWriter(refuse, tmp_path)
    feed(writer, flown[:-1])
    assert writer.flush(10)
    (path,) = tmp_path.iterdir()
    path.unlink()
    feed(writer, flown[-1:])
    assert not writer.close(10)
    assert "is neither in Tiled" in caplog.text


def test_closing_never_raises(tmp_path: Path, flown: list[Document]) -> None:
    def is_down() -> bool:
        raise RuntimeError("no such context")

    writer, gate = hanging(tmp_path, is_down=is_down)
    feed(writer, flown)
    assert not writer.close(0.7)
    assert not writer.close(0.1), "closing twice"
    gate.set()


def test_a_catalog_in_a_folder_can_be_opened_again(tmp_path: Path, flown: list[Document]) -> None:
    pytest.importorskip("tiled.server.app")
    with embedded_catalog(tmp_path / "my catalog") as client:
        writer = safe_writer(client, tmp_path / "backup")
        feed(writer, flown)
        assert writer.close(30)
    with embedded_catalog(tmp_path / "my catalog") as client:
        assert_same_run(list(documents(client[flown[0][1]["uid"]])), flown)
        assert client[-1].metadata["start"]["uid"] == flown[0][1]["uid"]


def test_the_embedded_catalog_serves_documents_to_others_too(
    catalog: Any, flown: list[Document]
) -> None:
    feed(tiled_writer(catalog), flown)
    names = [name for name, _ in catalog[flown[0][1]["uid"]].documents()]
    assert names == [name for name, _ in flown]


def hanging(tmp_path: Path, **options: Any) -> tuple[SafeWriter, threading.Event]:
    """Return a writer whose server never answers, and what makes it answer."""
    gate = threading.Event()
    return SafeWriter(lambda name, doc: gate.wait(30), tmp_path, **options), gate


def closing_s(writer: SafeWriter, timeout_s: float) -> float:
    before = time.perf_counter()
    assert not writer.close(timeout_s)
    return time.perf_counter() - before


def test_closing_does_not_wait_for_a_server_that_is_gone(
    tmp_path: Path, flown: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    writer, gate = hanging(tmp_path, is_down=lambda: True)
    feed(writer, flown)
    assert closing_s(writer, 20.0) < 3
    assert_same_run(list(documents(next(tmp_path.iterdir()))), flown)
    assert str(tmp_path) in caplog.text
    gate.set()


def test_closing_waits_for_a_server_that_is_slow_or_has_the_only_copy(
    tmp_path: Path, flown: list[Document]
) -> None:
    writer, gate = hanging(tmp_path, is_down=lambda: False)
    feed(writer, flown)
    assert closing_s(writer, 1.2) >= 1.2
    gate.set()
    writer, gate = hanging(tmp_path / "file", is_down=lambda: True)
    (tmp_path / "file").write_text("where the folder should be")
    feed(writer, flown)
    assert closing_s(writer, 1.2) >= 1.2
    gate.set()


@pytest.mark.e2e
def test_a_tiled_server_killed_in_mid_run_does_not_touch_the_scan(
    server: tuple[subprocess.Popen[bytes], Any], catalog: Any, tmp_path: Path
) -> None:
    process, client = server
    writer = safe_writer(client, tmp_path / "backup")
    warm = fly(writer)
    assert writer.flush(60)
    assert_same_run(list(documents(client[warm[0][1]["uid"]])), warm)

    arrivals: list[float] = []

    def watch(name: str, doc: dict[str, Any]) -> None:
        writer(name, doc)
        if name == "event_page":
            arrivals.append(time.perf_counter())
            if len(arrivals) == 10:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    live = fly(watch, rows=list(range(60)))
    killed = arrivals.pop(9)
    intervals = [b - a for a, b in itertools.pairwise(arrivals) if a > killed]
    assert live[-1][1]["exit_status"] == "success"
    assert len(live) == 63
    assert max(intervals) < 0.5, "the scan waited for the dead server"

    before = time.perf_counter()
    assert not writer.close(20.0)
    assert time.perf_counter() - before < 5, "waited for a server that refuses connections"
    backup = tmp_path / "backup" / f"{live[0][1]['uid']}.jsonl"
    assert_same_run(list(documents(backup)), live)
    assert reingest(catalog, tmp_path / "backup").stored == (live[0][1]["uid"],)
    assert_same_run(list(documents(catalog[live[0][1]["uid"]])), live)
