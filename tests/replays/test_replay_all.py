"""Stored runs by the folder: what comes out, what is remembered, what may go wrong."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from typer.testing import CliRunner

from support.many_runs import write_runs
from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.bulk.fitness import marked
from xrf_sr_plans.bulk.on_workers import model_flaw, needs_of
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.cli import app
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import AnalysisError, ConfigError
from xrf_sr_plans.replays import batch
from xrf_sr_plans.replays.batch import BatchReport, Progress, replay_all
from xrf_sr_plans.replays.on_workers import unit_there
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.task import UnitReport, replay_unit
from xrf_sr_plans.replays.units import Unit, selected
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl
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


def test_a_map_that_two_workers_replay_at_once_harms_neither(runs: Path, tmp_path: Path) -> None:
    # As where two places hold it, or where a cluster does a unit again that isn't lost after all.
    out, elsewhere, name = tmp_path / "out", tmp_path / "elsewhere", "map-0001.jsonl"
    elsewhere.mkdir()
    out.mkdir()
    (elsewhere / name).write_bytes((runs / name).read_bytes())
    units = selected([runs / name, elsewhere / name], ReplayOptions()).units
    expected = replay(runs / name)
    together = threading.Barrier(2)
    reports: list[UnitReport] = []

    def work(unit: Unit) -> None:
        for _ in range(2):
            together.wait(60)
            reports.append(replay_unit(unit, ReplayOptions(), str(out)))

    threads = [threading.Thread(target=work, args=(unit,)) for unit in units]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [one.failures for one in reports] == [()] * 4
    assert {run.digest for one in reports for run in one.runs} == {expected.digest}
    (document,) = (out / "documents").iterdir()
    names = {"documents", "map-0001.h5", "map-0001.png"}
    assert {path.name for path in out.iterdir()} == names, "nothing is left of what was written"
    assert len(list(read_jsonl(document))) == len(expected.documents)


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


def test_a_file_that_is_written_while_it_is_replayed_is_replayed_again(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = runs / "map-0001.jsonl"

    def replay_meanwhile(unit: Unit, options: ReplayOptions, out: str | None) -> UnitReport:
        report = replay_unit(unit, options, out)
        if unit.runs[0].place.where == str(changing):
            changing.write_text(changing.read_text() + "\n")
        return report

    monkeypatch.setattr(batch, "replay_unit", replay_meanwhile)
    assert not replay_all([runs], tmp_path / "out", QUICK).failures
    monkeypatch.undo()
    (again,) = replay_all([runs], tmp_path / "out", QUICK).reports
    assert again.key == str(changing)


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


def test_two_copies_of_a_run_that_differ_are_told(runs: Path, tmp_path: Path) -> None:
    whole = min(runs.iterdir())
    (runs / "copy.jsonl").write_bytes(whole.read_bytes())
    assert not replay_all([runs], tmp_path / "equal", QUICK).failures
    lines = whole.read_bytes().splitlines(keepends=True)
    (runs / "copy.jsonl").write_bytes(b"".join(lines[:4]))
    for _ in range(2):  # also where an earlier replay has done both
        (told,) = replay_all([runs], tmp_path / "out", QUICK).failures.values()
        assert f"run {whole.stem} is in {runs}" in told
        assert "has overwritten the other" in told


def test_a_journal_that_can_not_be_written_ends_the_replay_in_words(
    runs: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "out" / "replay.jsonl"

    def disturb(progress: Progress) -> None:
        if progress.report is not None:
            journal.unlink()
            journal.mkdir()

    report = replay_all([runs], journal.parent, QUICK, progress=disturb)
    assert report.ended.startswith(f"AnalysisError: the journal {journal} can't be written")
    assert "2 are left to do: start it again" in report.ended
    journal.rmdir()
    assert not replay_all([runs], journal.parent, QUICK).ended


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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_gives_the_same_as_this_process_and_what_is_damaged_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    runs = write_runs(tmp_path / "runs", 20)
    for number in (3, 7, 11):
        text = (runs / f"map-{number:04d}.jsonl").read_text().splitlines()
        (runs / f"map-{number:04d}.jsonl").write_text("\n".join([*text[:3], "{}"]))
    (runs / "empty.jsonl").touch()
    # A beamline's own settings name the cluster, which no unit on a worker may ask again.
    options = ReplayOptions(AnalysisSettings(dask="tcp://localhost:1"), pictures=False)
    # Names are from the folder of who asks, and workers have another one.
    monkeypatch.chdir(tmp_path / "runs")
    there = tmp_path / "there"
    there.mkdir()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0",
        preload_nanny=[f"import os; os.chdir({str(there)!r})"],
    ) as cluster:  # fmt: skip
        where = ClusterAddress(cluster.scheduler_address)
        monkeypatch.chdir(tmp_path)
        on_cluster = replay_all(["runs"], "out", options, dask=where)
        again = replay_all(["runs"], "out", options, dask=where)
    assert sorted(Path(key).name for key in on_cluster.failures) == [
        "empty.jsonl", "map-0003.jsonl", "map-0007.jsonl", "map-0011.jsonl",
    ]  # fmt: skip
    here = replay_all(["runs"], options=options)
    assert (len(here.digests), here.digests) == (17, on_cluster.digests)
    assert (len(again.earlier), len(again.reports), again.digests) == (17, 3, here.digests)
    assert len(list((tmp_path / "out").glob("*.h5"))) == 17
    assert not list((tmp_path / "out").glob(".*")), "the file by which workers know the folder"


@pytest.mark.timeout(300)
def test_a_cluster_that_is_lost_is_told_and_the_rest_is_done_later(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def executed(units: list[Unit], *_: Any, **__: Any) -> Iterator[UnitReport]:
        yield replay_unit(units[0], QUICK, str(tmp_path / "out"))
        raise AnalysisError("the cluster is gone")

    with monkeypatch.context() as patched:
        patched.setattr("xrf_sr_plans.replays.batch.executed", executed)
        report = replay_all([runs], tmp_path / "out", QUICK)
    assert "the cluster is gone; 2 are left to do" in report.ended
    rest = replay_all([runs], tmp_path / "out", QUICK)
    assert (len(rest.earlier), len(rest.reports), rest.ended) == (1, 2, "")


def test_a_scheduler_that_is_not_there_is_refused(runs: Path) -> None:
    pytest.importorskip("distributed")
    done = CliRunner().invoke(app, ["replay", str(runs), "--dask", "tcp://127.0.0.1:x"])
    assert "is needed" in str(done.exception)
    done = CliRunner().invoke(app, ["replay", str(runs), "--dask-keys", "keys"])
    assert "give --dask, too" in str(done.exception)
    for command in ("replay", "evaluate"):
        both = [command, str(runs), "--dask", "tcp://localhost:1", "--workers", "4"]
        assert "either processes of this machine" in str(CliRunner().invoke(app, both).exception)


def test_a_worker_that_sees_other_files_says_which(runs: Path, tmp_path: Path) -> None:
    units = [unit_there(unit) for unit in selected([runs], QUICK).units]
    out = tmp_path / "out"
    out.mkdir()
    with marked(out) as mark:
        needs = (*needs_of((run for unit in units for run in unit.runs), None), *mark)
        assert [need() for need in needs] == [""] * len(needs)
        (runs / "map-0001.jsonl").rename(runs / "moved.jsonl")
        assert "sees no file" in needs[0]()
        (runs / "map-0001.jsonl").touch()
        assert "of 0 instead of" in needs[0]()
    assert "sees not the same folder" in mark[0]()
    assert "is another one" in model_flaw(None, "0" * 64)
    assert "is not there" in model_flaw("no-such-model", "0" * 64)


def test_reports_survive_the_journal() -> None:
    assert BatchReport().digests == {}
    unit = Unit("nothing", ())
    report = replay_unit(unit, QUICK, None)
    assert report.failures == ("there is no map in it that could be analyzed",)
    assert UnitReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
