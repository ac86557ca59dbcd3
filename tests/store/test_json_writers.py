"""What other writers of documents leave: bluesky's two, suitcase-jsonl, several runs in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bluesky.callbacks.json_writer import JSONLinesWriter, JSONWriter

from support.foreign_runs import Document, assembled, assert_is, hxn_run, tes_run
from xrf_sr_plans.maps.adapters import adapted
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.jsonl import read_jsonl


def as_json(docs: list[Document]) -> list[Document]:
    return [(name, json.loads(json.dumps(doc))) for name, doc in docs]


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("writer", [JSONWriter, JSONLinesWriter])
def test_files_of_blueskys_json_writers_are_read(
    tmp_path: Path, writer: type, stopped: bool
) -> None:
    docs = hxn_run() if stopped else hxn_run()[:-1]
    write = writer(str(tmp_path))
    for name, doc in docs:
        write(name, doc)
    (path,) = tmp_path.iterdir()
    assert list(read_jsonl(path)) == as_json(docs)
    assert_is(assembled(adapted(documents(path))))


def test_several_runs_in_one_file_of_lists_are_read(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    docs = [*hxn_run(), *hxn_run(y_is_fast=True), *tes_run()]
    path.write_text("".join(json.dumps(one) + "\n" for one in docs))
    refused: list[str] = []
    found = list(adapted(documents(path), on_refused=lambda uid, error: refused.append(str(error))))
    starts = [place for place, (name, _) in enumerate(found) if name == "start"]
    for begin, end in zip(starts, [*starts[1:], len(found)], strict=True):
        assert_is(assembled(found[begin:end]))
    assert len(starts) == 2
    assert len(refused) == 1
    assert "no data key is named after an element" in refused[0]


def test_nulls_of_json_are_unmeasured(tmp_path: Path) -> None:
    docs = hxn_run()
    for name, doc in docs:
        if name == "event":
            for number in (1, 2, 3, 4):
                doc["data"][f"Det{number}_Fe"][0] = None
    path = tmp_path / "one.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in docs))
    maps = assembled(adapted(documents(path)))
    assert np.isnan(maps.counts.values[1, 0, 0])
    assert np.isfinite(maps.counts.values).sum() == maps.counts.size - 1
