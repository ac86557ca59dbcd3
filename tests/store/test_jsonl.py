from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from support.stored_runs import Document
from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl


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
    path.write_text('{"name": "start", "doc": {}}\n\nhello\n')
    with pytest.raises(FileFormatError, match="line 3"):
        list(read_jsonl(path))


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


@pytest.mark.parametrize("uid", ["../evil", "/etc/evil", ".hidden", ""])
def test_a_uid_can_not_lead_out_of_the_folder(tmp_path: Any, uid: str) -> None:
    with pytest.raises(FileFormatError, match="file name"):
        JsonlWriter(tmp_path / "in")("start", {"uid": uid, "time": 0})
    assert not list(tmp_path.rglob("evil*"))
