"""The process that stores runs may die, hang or come too late: no run is lost, and all is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.stored_runs import Document, assert_same_run
from xrf_sr_plans.store.catalog_process import CatalogProcess, FolderWriter
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.run_store import RunStore

KEEPER = """
import json, pathlib, sys
folder, backup = map(pathlib.Path, sys.argv[1:])
folder.mkdir(exist_ok=True)
lives = folder / "lives"
lives.write_text(lives.read_text() + "+" if lives.exists() else "+")
if lives.read_text() in {dead!r}:
    sys.exit("disk is gone")
print(json.dumps({{"open": True, "stored": 0, "stay": {{}}}}), flush=True)
for line in sys.stdin:
    uid = json.loads(line)
    problem = {problem!r}
    if not problem:
        (backup / (uid + ".jsonl")).rename(folder / uid)
    print(json.dumps({{"run": uid, "error": problem}}), flush=True)
"""


def keeper(dead: tuple[str, ...] = (), problem: str = "") -> tuple[str, ...]:
    return (sys.executable, "-c", KEEPER.format(dead=dead, problem=problem))


def writer(tmp_path: Path, *command: str) -> tuple[FolderWriter, CatalogProcess]:
    process = CatalogProcess(tmp_path / "catalog", tmp_path / "backup", command)
    return FolderWriter(tmp_path / "backup", process), process


def feed(sink: Any, docs: list[Document]) -> str:
    for name, doc in docs:
        sink(name, doc)
    return docs[0][1]["uid"]


def another(docs: list[Document], uid: str) -> list[Document]:
    return json.loads(json.dumps(docs).replace(docs[0][1]["uid"], uid))


def test_a_run_is_in_a_file_until_the_catalog_has_it(tmp_path: Path, flown: list[Document]) -> None:
    sink, process = writer(tmp_path, *keeper())
    first = another(flown, "first")
    feed(sink, first[:-1])
    assert process.pid is None, "nothing is started before there is something to store"
    sink(*first[-1])
    feed(sink, another(flown, "second"))
    assert sink.close(60)
    stored = {path.name for path in (tmp_path / "catalog").iterdir()} - {"lives"}
    assert stored == {"first", "second"}
    assert list((tmp_path / "backup").iterdir()) == []


def test_a_process_that_dies_is_started_again_and_asked_again(
    tmp_path: Path, flown: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    sink, _ = writer(tmp_path, *keeper(dead=("+",)))
    uid = feed(sink, flown)
    assert sink.flush(60)
    assert "its process ended (exit code 1: disk is gone)" in caplog.text
    assert (tmp_path / "catalog" / uid).is_file()
    assert sink.close(60)


def test_a_process_that_always_dies_is_told_and_the_runs_stay_in_files(
    tmp_path: Path, flown: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    sink, process = writer(tmp_path, *keeper(dead=("+", "++", "+++")))
    uid = feed(sink, flown)
    assert sink.flush(60), "an answer is there: it isn't stored"
    more = feed(sink, another(flown, "more"))
    assert not sink.close(60)
    assert process.stay == {uid, more}
    for run in (uid, more):
        assert f"run {run} is not in {tmp_path / 'catalog'}; it is in" in caplog.text
        assert (tmp_path / "backup" / f"{run}.jsonl").is_file()
    assert (tmp_path / "catalog" / "lives").read_text() == "+++", "not for ever"


def test_a_run_that_the_catalog_refuses_keeps_no_other(
    tmp_path: Path, flown: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    sink, process = writer(tmp_path, *keeper(problem="no such stream"))
    uid = feed(sink, flown)
    assert not sink.close(60)
    assert process.stay == {uid}
    assert "no such stream" in caplog.text
    sink, _ = writer(tmp_path, "/no/such/python")
    other = another(flown, "other")
    feed(sink, other)
    assert not sink.close(60)
    assert "no process can be started" in caplog.text
    assert_same_run(list(documents(tmp_path / "backup" / "other.jsonl")), other)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_process_costs_no_run(tmp_path: Path, flown: list[Document]) -> None:
    pytest.importorskip("tiled.server.app")
    sink = RunStore(str(tmp_path))
    uids = [feed(sink, flown)]
    deadline = time.monotonic() + 60
    while sink._process.pid is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(sink._process.pid, signal.SIGKILL)
    assert sink.flush(300)
    assert_same_run(list(documents(sink.catalog[uids[0]])), flown)
    assert sink.close(60)
    assert list((tmp_path / "backup").iterdir()) == []


SHORT_SESSION = """
import json, sys
from xrf_sr_plans.store.run_store import RunStore
store = RunStore(sys.argv[1])
for line in sys.stdin:
    store(*json.loads(line))
sys.exit(store.close(1))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_session_that_ends_at_once_leaves_the_rest_to_the_process(
    tmp_path: Path, flown: list[Document]
) -> None:
    pytest.importorskip("tiled.server.app")
    lines = "".join(json.dumps(pair) + "\n" for pair in flown)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SHORT_SESSION, str(tmp_path)]
    done = subprocess.run(
        command, input=lines, text=True, env=environment, timeout=200, capture_output=True
    )
    assert done.returncode == 0, "one second is not enough to open the catalog"
    assert "not everything is in" in done.stderr
    deadline = time.monotonic() + 300
    while list((tmp_path / "backup").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.5)
    again = RunStore(str(tmp_path))
    assert_same_run(list(documents(again.catalog[flown[0][1]["uid"]])), flown)
    assert again.close(60)
