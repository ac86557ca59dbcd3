from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
import pytest

from support.stored_runs import Document
from xrf_sr_plans.errors import FileBusyError, FileFormatError
from xrf_sr_plans.store import run_file
from xrf_sr_plans.store.jsonl import MAX_OPEN_FILES, JsonlWriter, read_jsonl


def test_a_line_cut_off_by_a_kill_costs_that_document_only(
    tmp_path: Any, flown: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    writer = JsonlWriter(tmp_path)
    for name, doc in flown:
        writer(name, doc)
    path = writer.path(flown[0][1]["uid"])
    text = path.read_text()
    path.write_text(text[: text.rindex('{"name": "stop"') + 20])
    assert [name for name, _ in read_jsonl(path)] == [name for name, _ in flown][:-1]
    assert "cut off" in caplog.text


def test_any_other_broken_line_is_refused_with_its_number(tmp_path: Any) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"name": "start", "doc": {"uid": "a"}}\n\nhello\n')
    with pytest.raises(FileFormatError, match="line 3"):
        list(read_jsonl(path))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ((b'"descriptor":', b'"descripuor":'), "'descriptor' of this event is missing"),
        ((b'"data_keys": {', b'"data_keys": 5, "keys": {'), "'data_keys' of this descriptor is 5"),
        ((b'"data": {', b'"data": 3, "daua": {'), "'data' of this event is 3"),
        ((b'"uid": ', b'"uie": '), "'uid' of this start is missing"),
        ((b'"run_start": "', b'"run_start": 1, "x": "'), "'run_start' of this descriptor is 1"),
        ((b'{"name": "descriptor"', b'{"name": 7'), "its name is 7"),
        ((b'"time"', b'"\xff"'), "UnicodeDecodeError"),
        ((b'"time": ', b'"time": ' + 5000 * b"["), "(Recursion|JSONDecode)Error"),
    ],
)
def test_a_damaged_line_is_named_whatever_the_damage(
    tmp_path: Any, flown: list[Document], damage: tuple[bytes, bytes], what: str
) -> None:
    writer = JsonlWriter(tmp_path)
    for name, doc in flown:
        writer(name, doc)
    path = writer.path(flown[0][1]["uid"])
    raw = path.read_bytes()
    # Of the data of a descriptor's configuration nothing is asked.
    first = raw.index(b'{"name": "event"') if damage[0] == b'"data": {' else 0
    path.write_bytes(raw[:first] + raw[first:].replace(*damage))
    with pytest.raises(FileFormatError, match=rf"{path.name}: line \d+ is no document: .*{what}"):
        list(read_jsonl(path))


def test_a_line_longer_than_allowed_is_not_taken_into_memory(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xrf_sr_plans.maps.readers.json_lines.MAX_LINE_BYTES", 1000)
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"name": "start", "doc": {"uid": "a"}}\n' + 5000 * b" " + b"x")
    with pytest.raises(FileFormatError, match="line 2 is longer than 1000 bytes"):
        list(read_jsonl(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Any) -> None:
    with pytest.raises(FileFormatError, match=r"none\.jsonl: can't be read"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_interleaved_runs_go_to_their_own_files(tmp_path: Any, flown: list[Document]) -> None:
    other = json.loads(json.dumps(flown).replace(flown[0][1]["uid"], "other"))
    other = json.loads(json.dumps(other).replace(flown[1][1]["uid"], "other-descriptor"))
    writer = JsonlWriter(tmp_path)
    for one, two in zip(flown, other, strict=True):
        writer(*one)
        writer(*two)
    assert len(list(read_jsonl(tmp_path / "other.jsonl"))) == len(flown)
    assert len(list(read_jsonl(writer.path(flown[0][1]["uid"])))) == len(flown)


def test_values_that_json_does_not_know_are_not_the_end_of_a_run(tmp_path: Any) -> None:
    writer = JsonlWriter(tmp_path)
    writer("start", {"uid": "a", "time": 0, "an_object": object(), "an_array": np.arange(2)})
    writer("stop", {"uid": "b", "run_start": "a", "number": np.float64(math.nan)})
    (_, start), (_, stop) = read_jsonl(tmp_path / "a.jsonl")
    assert start["an_array"] == [0, 1]
    assert start["an_object"].startswith("<object")
    assert math.isnan(stop["number"])


def test_runs_that_never_stop_leave_few_files_open_and_may_go_on(tmp_path: Any) -> None:
    writer = JsonlWriter(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3 * MAX_OPEN_FILES):
        writer("start", {"uid": f"run {number}", "time": 0})
    assert len(os.listdir("/proc/self/fd")) - before <= MAX_OPEN_FILES
    writer("stop", {"uid": "s", "run_start": "run 0"})
    assert [name for name, _ in read_jsonl(tmp_path / "run 0.jsonl")] == ["start", "stop"]
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_same_run_again_replaces_the_file_only_once_it_is_complete(tmp_path: Any) -> None:
    whole = [("start", {"uid": "a", "time": 0}), ("stop", {"uid": "s", "run_start": "a"})]
    for changed in ({}, {"again": True}):
        writer = JsonlWriter(tmp_path)
        for name, doc in whole:
            assert len(list(read_jsonl(tmp_path / "a.jsonl"))) == 2 if changed else True
            writer(name, {**doc, **changed})
    assert [doc["again"] for _, doc in read_jsonl(tmp_path / "a.jsonl")] == [True, True]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_two_writers_of_one_run_are_refused(tmp_path: Any) -> None:
    first, second = JsonlWriter(tmp_path), JsonlWriter(tmp_path)
    first("start", {"uid": "a", "time": 0})
    with pytest.raises(FileBusyError, match="being written"):
        second("start", {"uid": "a", "time": 0})
    first.release("a")
    second("start", {"uid": "a", "time": 0})
    with pytest.raises(FileBusyError, match="being written"):
        JsonlWriter(tmp_path)("start", {"uid": "a", "time": 0})
    second.close()


@pytest.mark.parametrize("there", [False, True])
def test_what_another_writer_finishes_as_one_begins_stays_whole(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    whole = [("start", {"uid": "a", "time": 0}), ("stop", {"uid": "b", "run_start": "a"})]
    lock = run_file._lock

    def write_all() -> None:
        writer = JsonlWriter(tmp_path)
        for name, doc in whole:
            writer(name, doc)

    def late(descriptor: int, path: Any) -> bool:
        monkeypatch.setattr(run_file, "_lock", lock)
        write_all()
        return lock(descriptor, path)

    if there:
        write_all()
    monkeypatch.setattr(run_file, "_lock", late)
    second = JsonlWriter(tmp_path)
    for name, doc in whole:
        second(name, doc)
        assert len(list(read_jsonl(tmp_path / "a.jsonl"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_full_disk_leaves_no_torn_line_and_closing_does_not_raise(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JsonlWriter(tmp_path)
    writer("start", {"uid": "a", "time": 0})
    real, calls = os.write, iter([7])

    def full(descriptor: int, data: Any) -> int:
        if (count := next(calls, None)) is None:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:count])

    monkeypatch.setattr("xrf_sr_plans.store.run_file.os.write", full)
    with pytest.raises(OSError, match="No space"):
        writer("descriptor", {"uid": "d", "run_start": "a"})
    writer.close()
    monkeypatch.undo()
    assert [name for name, _ in read_jsonl(tmp_path / "a.jsonl")] == ["start"]
    assert (tmp_path / "a.jsonl").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("uid", ["../evil", "/etc/evil", ".hidden", ""])
def test_a_uid_can_not_lead_out_of_the_folder(tmp_path: Any, uid: str) -> None:
    with pytest.raises(FileFormatError, match="file name"):
        JsonlWriter(tmp_path / "in")("start", {"uid": uid, "time": 0})
    assert not list(tmp_path.rglob("evil*"))
