"""What the shipped profile keeps: everything, in a folder, a server, databroker or files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine

from support.stored_runs import Document, as_events, assert_same_run, databroker_or_skip
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.xrf_map import xrf_map
from xrf_sr_plans.replays.batch import replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.schema import AnalysisRequest, kind_of_run
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.run_store import RunStore, default_place, open_store
from xrf_sr_plans.store.sources import Place, runs, survey_of


def feed(sink: Any, docs: Any) -> None:
    for name, doc in docs:
        sink(name, doc)


def surveyed(where: str) -> dict[str, str]:
    """Fly a survey that is kept, and return the plan of each run that the analysis made."""
    live: dict[str, str] = {}

    def note(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            live[doc["uid"]] = doc["plan_name"]

    engine = RunEngine({})
    session = start_session(
        engine,
        make_beamline("grains", clock="instant"),
        settings=AnalysisSettings(),
        in_process=True,
        result_sinks=[note],
        store=where,
    )
    engine(
        session.plans["coarse_survey_with_sr"](
            width_um=36, height_um=16, step_um=2, dwell_ms=10, rescan="inline",
            budget_s=20, analysis_timeout_s=200,
        )
    )  # fmt: skip
    session.close(300)
    return live


def assert_replayed(where: str, live: dict[str, str], out: Path) -> None:
    """Fail where the results of a replay aren't those that were found live."""
    again = replay_all([where], out)
    assert not again.failures
    results = {run.result_uid for unit in again.reports for run in unit.runs if run.result_uid}
    maps = ("xrf_super_resolution", "xrf_composite")
    assert results == {uid for uid, plan in live.items() if plan in maps}
    for uid in live:
        assert (out / "documents" / f"{uid}.jsonl").is_file()


ALL_KINDS = {"map", "proposals", "outcomes", "result", "verification", "composite"}


@pytest.mark.timeout(600)
def test_a_session_keeps_its_survey_in_a_folder_from_which_it_is_replayed(tmp_path: Path) -> None:
    pytest.importorskip("tiled.server.app")
    folder = tmp_path / "my runs"
    live = surveyed(str(folder))
    assert list((folder / "backup").iterdir()) == []
    place = Place("folder", str(folder))
    stored = list(runs(place))
    assert {kind_of_run(run.start) for run in stored} >= ALL_KINDS
    (survey,) = {survey_of(run.start) for run in stored}
    assert len(list(runs(place, {"survey_uid": survey}))) == len(stored), "one key finds all"
    assert_replayed(str(folder), live, tmp_path / "out")


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_session_keeps_its_survey_on_a_server_that_shows_its_maps_and_replays_it(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = server
    monkeypatch.setenv("TILED_API_KEY", "secret")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    where = str(client.context.api_uri).removesuffix("/api/v1/")
    live = surveyed(where)
    stored = list(runs(Place("tiled", where)))
    assert {kind_of_run(run.start) for run in stored} >= ALL_KINDS
    for run in stored:
        if kind_of_run(run.start) == "map":
            dataset = client["xrf_maps"][run.key].read()
            assert dataset["counts"].dims == ("element", "row", "frame")
            assert dataset["element"].values.tolist() == run.start["xrf_sr"]["elements"]
            grid = ScanGrid.from_dict(run.start["xrf_sr"]["grid"])
            np.testing.assert_allclose(dataset["x_um"], grid.fast.centers_um)
            np.testing.assert_allclose(dataset["y_um"], grid.slow.centers_um)
    assert_replayed(where, live, tmp_path / "out")


def flown_map(*sinks: Any) -> list[Document]:
    """Fly a small map on the simulated beamline, and return its documents."""
    docs: list[Document] = []
    engine = RunEngine({})
    for sink in (lambda name, doc: docs.append((name, doc)), *sinks):
        engine.subscribe(sink)
    beamline = make_beamline("zagami", clock="instant")
    engine(xrf_map(beamline, width_um=12, height_um=8, step_um=1, dwell_ms=20))
    return docs


@pytest.mark.timeout(400)
def test_a_map_lies_beside_its_run_as_the_web_page_shows_it(tmp_path: Path) -> None:
    pytest.importorskip("tiled.server.app")
    from xrf_sr_plans.store.embedded import embedded

    store = RunStore(str(tmp_path))
    docs = flown_map(store)
    assert store.close(120)
    uid = docs[0][1]["uid"]
    builder = MapBuilder(docs[0][1])
    for name, doc in docs[1:-1]:
        getattr(builder, name)(doc)
    measured = builder.maps()
    with embedded(tmp_path) as catalog:
        dataset = catalog.maps[uid].read()
        assert dataset["counts"].dims == ("element", "row", "frame")
        assert tuple(dataset["element"].values) == tuple(measured.elements)
        np.testing.assert_array_equal(dataset["counts"], measured.counts.values)
        np.testing.assert_allclose(dataset["x_um"], measured.grid.fast.centers_um)
        np.testing.assert_allclose(dataset["y_um"], measured.grid.slow.centers_um)
        assert dataset.attrs["uid"] == uid
        # What the web page asks for when somebody moves its slider to the second element.
        counts = catalog.maps[uid]["counts"]
        link = f"{counts.item['links']['full']}?format=image/png&slice=1"
        shown = counts.context.http_client.get(link)
        assert shown.status_code == 200
        assert shown.content.startswith(b"\x89PNG")
        assert list(catalog.runs) == [uid], "maps are not among the runs"
        named = [name for name, _ in catalog.runs[uid].documents()]
        assert (named[0], named[-1]) == ("start", "stop")
    assert "catalog.db" in (tmp_path / "tiled.yml").read_text()


@pytest.mark.timeout(400)
def test_what_a_dead_session_left_behind_is_stored_by_the_next(
    tmp_path: Path, flown: list[Document]
) -> None:
    pytest.importorskip("tiled.server.app")
    left = JsonlWriter(tmp_path / "backup")
    feed(left, flown[:-1])
    left.close()
    store = RunStore(str(tmp_path))
    uid = flown[0][1]["uid"]
    assert_same_run(list(documents(store.catalog[uid]))[:-1], flown[:-1])
    assert store.close(60)
    assert list((tmp_path / "backup").iterdir()) == []


WRITER = """
import sys
from bluesky import RunEngine
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.xrf_map import xrf_map
from xrf_sr_plans.store.run_store import RunStore
store, engine = RunStore(sys.argv[1]), RunEngine({})
engine.subscribe(store)
beamline = make_beamline("zagami", clock="instant")
for _ in range(3):
    engine(xrf_map(beamline, width_um=12, height_um=8, step_um=1, dwell_ms=20))
sys.exit(0 if store.close(240) else 1)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_sessions_may_keep_their_runs_in_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("tiled.server.app")
    command = [sys.executable, "-c", WRITER, str(tmp_path / "runs")]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(500) for process in both] == [0, 0]
    again = RunStore(str(tmp_path / "runs"))
    assert len(again.catalog) == 6
    assert all(run.metadata["stop"] for run in again.catalog.values())
    assert again.close(60)
    assert list((tmp_path / "runs" / "backup").iterdir()) == []


def test_files_are_kept_where_no_catalog_is_wanted(tmp_path: Path, flown: list[Document]) -> None:
    store = RunStore(f"jsonl:{tmp_path / 'files'}")
    feed(store, flown)
    assert store.close(30)
    assert store.catalog is None
    assert_same_run(list(documents(tmp_path / "files" / f"{flown[0][1]['uid']}.jsonl")), flown)


@pytest.mark.parametrize("setting", ["off", "OFF", "", None])
def test_one_setting_keeps_nothing(setting: str | None) -> None:
    assert open_store(setting) is None


def test_a_place_that_is_none_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        open_store(str(tmp_path / "file" / "runs"))
    with pytest.raises(ConfigError, match="ftp://host"):
        open_store("ftp://host/runs")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_place() == str(tmp_path / "xrf_sr_plans" / "runs")


def test_databroker_is_written_and_read_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databroker = databroker_or_skip()
    monkeypatch.setattr(databroker, "catalog", {"sim": databroker.temp().v2})
    store = RunStore("databroker:sim", tmp_path / "backup")
    docs = as_events(flown_map(store))
    assert store.close(60)
    assert list((tmp_path / "backup").iterdir()) == []
    uid = docs[0][1]["uid"]
    assert_same_run(list(documents(store.catalog[uid])), docs)
    asked = ReplayOptions(factor=2)
    assert replay_all(["databroker:sim"], options=asked).digests == {
        uid: replay(docs, request=AnalysisRequest(factor=2)).digest
    }
    refused = replay_all(["databroker:other"])
    assert "knows no catalog 'other'; it knows sim" in refused.failures["databroker:other"]


@pytest.mark.e2e
def test_a_server_gets_runs_and_maps_and_is_replayed_from(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, client = server
    monkeypatch.setenv("TILED_API_KEY", "secret")
    where = str(client.context.api_uri).removesuffix("/api/v1/")
    store = RunStore(where, tmp_path / "backup")
    docs = as_events(flown_map(store))
    uid = docs[0][1]["uid"]
    assert store.flush(120)
    assert_same_run(list(documents(client[uid])), docs)
    assert client["xrf_maps"][uid].read()["counts"].dims == ("element", "row", "frame")
    report = replay_all([where], options=ReplayOptions(factor=2))
    expected = replay(docs, request=AnalysisRequest(factor=2)).digest
    assert report.digests == {uid: expected}, "and the container of maps is no run"
    process.terminate()
    process.wait(30)
    more = flown_map(store)
    assert not store.close(30)
    assert (tmp_path / "backup" / f"{more[0][1]['uid']}.jsonl").is_file()
