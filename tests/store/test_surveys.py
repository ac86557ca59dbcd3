"""What is remembered of surveys: by other processes too, within bounds, and never by halves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.row_documents import ELEMENTS, small_grid
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.store import surveys
from xrf_sr_plans.store.surveys import KeptFineMap, SurveyEnd, Surveys

END = SurveyEnd("s", "outcomes", 5.0, ("a", "b"), "aborted", "sim")


def kept(uid: str, time: float = 1.0, rows: int = 4, **attributes: Any) -> KeptFineMap:
    grid = small_grid()
    counts = np.arange(3.0 * 20).reshape(3, 4, 5)
    counts[:, rows:] = np.nan
    return KeptFineMap(
        uid, time, ElementalMaps.from_arrays(counts, grid, list(ELEMENTS), **attributes)
    )


@pytest.fixture(params=["on disk", "in memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "on disk" else None


def test_fine_maps_come_back_in_the_order_in_which_they_ended(folder: Path | None) -> None:
    store = Surveys(folder)
    for uid, time in (("late", 3.0), ("first", 1.0), ("then", 2.0)):
        store.keep_fine("s", kept(uid, time, dwell_ms=7.5))
    store.keep_fine("other", kept("x"))
    store.keep_end(END)
    for again in [store] if folder is None else [store, Surveys(folder)]:
        found = again.fine_maps("s")
        assert [fine.uid for fine in found] == ["first", "then", "late"]
        np.testing.assert_array_equal(found[0].maps.counts, kept("first").maps.counts)
        assert found[0].maps.grid == small_grid()
        assert found[0].maps.attrs["dwell_ms"] == 7.5
        assert again.end_of("s") == END
        assert again.end_of("other") is None


def test_a_cut_off_copy_of_a_run_does_not_replace_the_whole_one(folder: Path | None) -> None:
    store = Surveys(folder)
    store.keep_fine("s", kept("f"))
    store.keep_fine("s", kept("f", rows=2))
    assert np.isfinite(store.fine_maps("s")[0].maps.counts.values).all()


def test_memory_and_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys, "IN_MEMORY_BYTES", 3 * kept("f").size)
    memory = Surveys(None)
    for number in range(8):
        memory.keep_fine("s", kept(f"f{number}", float(number)))
    assert [fine.uid for fine in memory.fine_maps("s")] == ["f5", "f6", "f7"]
    disk = Surveys(tmp_path, on_disk_bytes=6000)
    for number in range(8):
        disk.keep_fine(f"survey{number}", kept("f"))
    homes = sorted(path.name for path in (tmp_path / "surveys").iterdir())
    assert homes[-1] == "survey7"
    assert 1 <= len(homes) < 8


def test_damaged_files_are_left_out_with_a_warning(tmp_path: Path, caplog) -> None:
    store = Surveys(tmp_path)
    store.keep_fine("s", kept("good", 1.0))
    store.keep_fine("s", kept("bad", 2.0))
    store.keep_end(END)
    home = tmp_path / "surveys" / "s"
    (home / "fine-bad.npz").write_bytes(b"PK no archive")
    (home / "end.json").write_text('{"survey_uid": 3')
    again = Surveys(tmp_path)
    assert [fine.uid for fine in again.fine_maps("s")] == ["good"]
    assert again.end_of("s") is None
    assert "fine-bad.npz" in caplog.text
    assert "end.json" in caplog.text


def test_uids_of_others_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    store = Surveys(tmp_path / "inside")
    store.keep_fine("../../away", kept("../../../out"))
    store.keep_end(SurveyEnd("../../away", "o", 1.0, ()))
    assert {path.name for path in tmp_path.iterdir()} == {"inside"}
    assert [fine.uid for fine in Surveys(tmp_path / "inside").fine_maps("../../away")] == [
        "../../../out"
    ]
