"""Catalogs that a process keeps open, as the worker of a cluster does for weeks."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from xrf_sr_plans.bulk.on_workers import needs_of
from xrf_sr_plans.store import open_catalogs
from xrf_sr_plans.store.embedded import embedded_catalog
from xrf_sr_plans.store.sources import Place, StoredRun, runs
from xrf_sr_plans.store.tiled import tiled_writer

pytest.importorskip("tiled.server")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of nothing, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("empty")
    with embedded_catalog(folder):
        return folder


def catalog_of(uid: str, empty: Path, folder: Path) -> StoredRun:
    """Make a catalog of one run, and return that."""
    shutil.copytree(empty, folder)
    with embedded_catalog(folder) as catalog:
        writer = tiled_writer(catalog)
        writer("start", {"uid": uid, "time": 1.0})
        stop = {"uid": f"{uid}-stop", "run_start": uid, "time": 2.0, "exit_status": "success"}
        writer("stop", {**stop, "num_events": {}})
    return StoredRun(Place("folder", str(folder)), uid, {"uid": uid})


def test_what_takes_the_place_of_a_catalog_is_read_and_no_worker_makes_one(
    empty: Path, tmp_path: Path
) -> None:
    kept = catalog_of("first", empty, tmp_path / "kept")
    catalog_of("second", empty, tmp_path / "next")
    assert [run.key for run in runs(kept.place)] == ["first"]
    first, model = needs_of([kept], None)[1:]
    assert first() == model() == ""
    (tmp_path / "kept").rename(tmp_path / "old")
    assert "there is no catalog in it" in first()
    assert not (tmp_path / "kept").exists()
    (tmp_path / "next").rename(tmp_path / "kept")
    assert "there is no such run any more" in first()
    assert [run.key for run in runs(kept.place)] == ["second"]


def test_catalogs_that_are_not_kept_open_leave_nothing_behind(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_catalogs, "_MOST_OPEN", 1)
    both = [catalog_of(uid, empty, tmp_path / uid) for uid in ("first", "second")]
    counts = []
    for _ in range(2):
        assert [[run.key for run in runs(one.place)] for one in both] == [["first"], ["second"]]
        counts.append(threading.active_count())
    assert counts[1] <= counts[0]


def test_what_is_secret_in_an_address_is_told_to_nobody() -> None:
    for address in ("https://me:secret@tiled:8000/raw", "https://tiled:8000/raw?api_key=secret"):
        place = Place("tiled", address)
        assert place.label == "https://tiled:8000/raw"
        run = StoredRun(place, "first")
        assert "secret" not in f"{run!r} {run.label} {needs_of([run], None)!r}"
