"""Stored runs by the folder: what comes out, what is remembered, what may go wrong."""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from typer.testing import CliRunner

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.cli import app
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.replays.batch import BatchReport, replay_all
from xrf_sr_plans.replays.execute import executed
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.task import UnitReport, replay_unit
from xrf_sr_plans.replays.units import Unit, selected
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.sources import parsed_where

QUICK = ReplayOptions(pictures=False)


def test_each_run_of_a_folder_gives_what_it_gives_alone(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = replay_all([runs], out)
    assert not report.failures
    alone = {path.stem: replay(path).digest for path in runs.iterdir()}
    assert report.digests == alone
    for uid in alone:
        assert (out / f"{uid}.h5").stat().st_size > 1000
        assert (out / f"{uid}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "documents").iterdir())) == 3


def test_a_whole_survey_is_replayed_to_the_byte(tmp_path: Path) -> None:
    live = tmp_path / "live"
    engine = RunEngine({})
    engine.subscribe(JsonlWriter(tmp_path / "runs"))
    session = start_session(
        engine,
        make_beamline("grains", clock="instant"),
        settings=AnalysisSettings(),
        in_process=True,
        result_sinks=[JsonlWriter(live)],
    )
    engine(
        session.plans["coarse_survey_with_sr"](
            width_um=36, height_um=16, step_um=2, dwell_ms=10, tile_um=20,
            rescan="inline", budget_s=20, analysis_timeout_s=200,
        )
    )  # fmt: skip
    session.close(100)
    report = replay_all([tmp_path / "runs"], tmp_path / "out", QUICK)
    assert not report.failures
    (unit,) = report.reports
    assert len(unit.runs) >= 3, "two tiles and the choice among them, or more"
    again = {path.name: path.read_bytes() for path in (tmp_path / "out" / "documents").iterdir()}
    assert again == {path.name: path.read_bytes() for path in live.iterdir()}
    plans = {json.loads(text.split(b"\n")[0])["doc"]["plan_name"] for text in again.values()}
    assert {"xrf_super_resolution", "xrf_survey_choice", "xrf_composite"} <= plans


def test_what_is_done_is_not_done_again_unless_something_changed(
    runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = replay_all([runs], out, QUICK)
    second = replay_all([runs], out, QUICK)
    assert (len(first.reports), len(second.reports), len(second.earlier)) == (3, 0, 3)
    assert second.digests == first.digests

    (out / "map-0001.h5").unlink()
    os.utime(runs / "map-0002.jsonl", (1, 1))
    third = replay_all([runs], out, QUICK)
    assert sorted(run.source_uid for unit in third.reports for run in unit.runs) == [
        "map-0001",
        "map-0002",
    ]
    other = replay_all([runs], out, ReplayOptions(pictures=False, factor=4))
    assert len(other.reports) == 3
    assert set(other.digests.values()).isdisjoint(first.digests.values())
    assert len(replay_all([runs], out, QUICK, again=True).reports) == 3


def test_a_replay_that_was_killed_goes_on_where_it_was(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop_after_two(progress: Any) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay_all([runs], out, QUICK, progress=stop_after_two)
    with (out / "replay.jsonl").open("a") as journal:
        journal.write('{"options": "cut o')
    rest = replay_all([runs], out, QUICK)
    assert (len(rest.earlier), len(rest.reports)) == (2, 1)
    assert len(replay_all([runs], out, QUICK).earlier) == 3


def test_a_damaged_file_costs_no_other_and_is_named(runs: Path, tmp_path: Path) -> None:
    (runs / "empty.jsonl").write_text("")
    text = (runs / "map-0001.jsonl").read_text().splitlines()
    text[3] = '{"name": "event", "doc": 7}'
    (runs / "map-0001.jsonl").write_text("\n".join(text))
    report = replay_all([runs], tmp_path / "out", QUICK)
    assert set(report.digests) == {"map-0000", "map-0002"}
    named = {Path(key).name: why for key, why in report.failures.items()}
    assert set(named) == {"empty.jsonl", "map-0001.jsonl"}
    assert "line 4" in named["map-0001.jsonl"]
    done = CliRunner().invoke(app, ["replay", str(runs)])
    assert done.exit_code == 1
    assert "2 failed" in done.output
    assert "line 4" in done.output


def test_only_runs_that_are_searched_for_are_replayed(runs: Path) -> None:
    where = parsed_where(["uid=map-0001"])
    assert set(replay_all([runs], where=where).digests) == {"map-0001"}
    assert not replay_all([runs], where=parsed_where(["xrf_sr.purpose=fine"])).digests
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parsed_where(["scan_id"])


def test_results_and_runs_that_ask_for_nothing_are_left_alone(tmp_path: Path) -> None:
    grid = small_grid(8, 10)
    write = JsonlWriter(tmp_path / "runs")
    for name, doc in map_run(grid, truth(grid), "asks-nothing", analysis=None):
        write(name, doc)
    for name, doc in replay(list(map_run(grid, truth(grid)))).documents:
        write(name, doc)
    report = replay_all([tmp_path / "runs"])
    assert not report.digests
    assert not report.failures
    assert sum(report.left_alone.values()) == 2
    assert any("--factor" in reason for reason in report.left_alone)
    asked = replay_all([tmp_path / "runs"], options=ReplayOptions(factor=2))
    assert set(asked.digests) == {"asks-nothing"}


def test_a_source_that_is_nothing_is_refused_before_anything_is_done(runs: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        replay_all([runs, runs / "nowhere"])
    with pytest.raises(ConfigError, match="workers is 0"):
        replay_all([runs], workers=0)


def test_the_ledger_of_live_runs_is_left_alone(runs: Path, tmp_path: Path) -> None:
    settings = AnalysisSettings(ledger_dir=str(tmp_path / "ledger"), pair_dir=str(tmp_path / "p"))
    report = replay_all([runs], options=ReplayOptions(settings, pictures=False))
    assert len(report.digests) == 3
    assert not (tmp_path / "ledger").exists()
    assert not (tmp_path / "p").exists()


@pytest.mark.timeout(900)
def test_two_processes_give_the_same_as_one(runs: Path, tmp_path: Path) -> None:
    one = replay_all([runs], tmp_path / "one", QUICK)
    two = replay_all([runs], tmp_path / "two", QUICK, workers=2)
    assert two.digests == one.digests
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        path.name for path in (tmp_path / "two").iterdir()
    }


def work(unit: Unit, bad: str, how: str) -> UnitReport:
    if bad in unit.key:
        time.sleep(0.3)
        os._exit(1) if how == "dies" else None
        raise AssertionError("work should never raise")
    return UnitReport(unit.key)


@pytest.mark.timeout(900)
def test_a_unit_that_kills_its_process_is_named_and_costs_no_other(runs: Path) -> None:
    units = selected([runs], QUICK).units
    assert len(units) == 3
    dies = functools.partial(work, bad="map-0001", how="dies")
    reports = {Path(one.key).stem: one for one in executed(units, dies, workers=2)}
    assert set(reports) == {"map-0000", "map-0001", "map-0002"}
    assert [name for name, one in reports.items() if one.failures] == ["map-0001"]
    assert "died" in reports["map-0001"].error


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dask_cluster_gives_the_same_as_this_process(runs: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    one = replay_all([runs], options=QUICK)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        there = replay_all([runs], tmp_path / "out", QUICK, dask=address)
        assert there.digests == one.digests
        assert len(list((tmp_path / "out").glob("*.h5"))) == 3
        units = selected([runs], QUICK).units
        raises = functools.partial(work, bad="map-0001", how="raises")
        reports = list(executed(units, raises, dask=address))
    failed = {Path(report.key).stem for report in reports if report.failures}
    assert (len(reports), failed) == (3, {"map-0001"})


def test_a_scheduler_that_is_not_there_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("xrf_sr_plans.replays.execute.SCHEDULER_TIMEOUT_S", 1)
    with pytest.raises(ConfigError, match="no Dask scheduler at 'tcp://127"):
        replay_all([runs], dask="tcp://127.0.0.1:1")


def test_reports_survive_the_journal() -> None:
    assert BatchReport().digests == {}
    unit = Unit("nothing", ())
    report = replay_unit(unit, QUICK, None)
    assert report.failures == ("there is no map in it that could be analyzed",)
    assert UnitReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
