"""A survey ends with one composite map: once, the same again, and after a kill."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import Interrupting
from support.row_documents import ELEMENTS, map_run, small_grid
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.composite.from_documents import composite_from_documents
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.demo import expected_counts
from xrf_sr_plans.devices.sim import SimFineStage, make_beamline
from xrf_sr_plans.errors import AnalysisError, AssemblyError
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.schema import AnalysisRequest, Documents
from xrf_sr_plans.session import start_session

COARSE = small_grid(16, 20)
FINE = COARSE.refined(2)
ASSEMBLE = AnalysisRequest(enhance=False)


def scene() -> np.ndarray:
    y, x = np.mgrid[: FINE.shape[0], : FINE.shape[1]]
    waves = 85 + 40 * np.sin(x / 2.1) * np.cos(y / 2.9) + 30 * np.sin(x / 5 + y / 7)
    return np.stack([waves, 2 * waves, 0.5 * waves])


def coarse_run(uid: str = "coarse", **metadata: Any) -> Documents:
    counts = block_mean(scene(), 2).round()
    return list(
        map_run(COARSE, counts, uid, **{"purpose": "coarse", "survey_uid": "s", **metadata})
    )


def fine_run(uid: str, rows: slice, at_s: float = 500.0, seed: int = 1, **changed: Any):
    low, after, _ = rows.indices(FINE.slow.num)
    start_um = float(FINE.slow.centers_um[low])
    grid = replace(FINE, slow=replace(FINE.slow, start_um=start_um, num=after - low))
    counts = np.random.default_rng(seed).poisson(scene()[:, rows]).astype(float)
    known = {"purpose": "fine", "parent_uid": "coarse", "survey_uid": "s", "analysis": ASSEMBLE}
    run = list(map_run(grid, counts, uid, **{**known, **changed}))
    run[-1][1]["time"] = 1.0e9 + at_s
    return run, counts


def outcomes_run(at_s: float = 1000.0, uid: str = "outcomes", **changed: Any) -> Documents:
    metadata = {"schema": 1, "purpose": "outcomes", "survey_uid": "s", "tiles": ["coarse"]}
    start = {"uid": uid, "time": 1.0e9 + 600, "plan_name": "xrf_survey_outcomes"}
    stop = {"uid": "o-stop", "run_start": uid, "time": 1.0e9 + at_s, "exit_status": "success"}
    return [("start", {**start, "xrf_sr": {**metadata, **changed}}), ("stop", stop)]


def through(*runs: Documents, settings: AnalysisSettings | None = None) -> Documents:
    """Return the documents that a chain makes of runs, as they are stored."""
    documents: Documents = []
    chain = AnalysisChain(settings, emit=lambda name, doc: documents.append((name, as_lists(doc))))
    for run in runs:
        for name, doc in run:
            chain(name, doc)
    return documents


def composites(documents: Documents) -> list[Documents]:
    """Return the composite runs among documents."""
    found: dict[str, Documents] = {}
    run_of: dict[str, str] = {}
    for name, doc in documents:
        if doc.get("plan_name") == "xrf_composite":
            run_of[doc["uid"]] = doc["uid"]
        run = run_of.get(doc.get("run_start") or doc.get("descriptor") or doc["uid"])
        if run is not None:
            run_of[doc["uid"]] = run
            found.setdefault(run, []).append((name, doc))
    return list(found.values())


def only(documents: Documents) -> tuple[Documents, CompositeMap]:
    (run,) = composites(documents)
    return run, composite_from_documents(run)


def test_a_survey_that_is_over_becomes_a_valid_composite_run(bicubic_model) -> None:
    one, counts = fine_run("fine", slice(4, 20))
    documents = through(coarse_run(), one, outcomes_run())
    run, composite = only(documents)
    names = event_model.DocumentNames
    for name, doc in run:
        event_model.schema_validators[getattr(names, name)].validate(doc)
    start = run[0][1]
    assert start["original_run_uid"] == start["outcomes_uid"] == "outcomes"
    assert start["survey_uid"] == "s"
    assert (start["tile_uids"], start["rescan_uids"]) == (["coarse"], ["fine"])
    assert start["models"][0]["sha256"] == start["model"]["sha256"] == "ab" * 32
    assert start["measured_share"] == pytest.approx(0.5)
    assert start["placements"][0]["fine_uid"] == "fine"
    assert run[-1][1]["exit_status"] == "success"
    assert composite.elements == list(ELEMENTS)
    assert composite.grid == FINE
    moved = composite.placements[0]
    assert (moved.corrected_x_um, moved.corrected_y_um) == (0.0, 0.0)
    np.testing.assert_array_equal(composite.value.values[:, 4:20], counts.astype(np.float32))
    assert composite.source.values[:, 4:20].min() == 1
    assert not composite.measured.values[:, 20:].any()


def test_what_is_unknown_of_a_tiny_fine_map_stays_unknown(bicubic_model) -> None:
    one, counts = fine_run("tiny", slice(4, 8))
    run, composite = only(through(coarse_run(), one, outcomes_run()))
    assert "dx_um" not in run[0][1]["placements"][0]
    (placement,) = composite.placements
    assert np.isnan([placement.dx_um, placement.error_um, placement.correlation]).all()
    assert placement.pixels == counts[0].size
    assert "fewer than 6 pixels" in composite.notes[0]


def test_rows_of_a_rescan_that_were_not_flown_stay_estimates(bicubic_model) -> None:
    one, counts = fine_run("fine", slice(4, 20))
    # Start, descriptor and ten of the sixteen rows.
    one[-1][1]["exit_status"] = "abort"
    cut_off = [*one[:12], one[-1]]
    documents = through(coarse_run(), cut_off, outcomes_run(ended_by="aborted by the user: enough"))
    _, composite = only(documents)
    assert composite.measured.values[:, 4:14].all()
    assert not composite.measured.values[:, 14:].any()
    np.testing.assert_array_equal(
        composite.value.values[:, 4:14], counts[:, :10].astype(np.float32)
    )
    assert composite.notes[0] == "the survey ended early: aborted by the user: enough"


def test_each_fine_map_flown_after_the_survey_gives_a_new_composite(bicubic_model) -> None:
    first, _ = fine_run("first", slice(0, 10))
    second, _ = fine_run("second", slice(8, 20), at_s=2000.0, seed=2)
    third, _ = fine_run("third", slice(20, 32), at_s=3000.0, seed=3)
    runs = composites(through(coarse_run(), first, outcomes_run(), second, third))
    assert [run[0][1]["original_run_uid"] for run in runs] == ["outcomes", "second", "third"]
    assert [run[0][1]["rescan_uids"] for run in runs] == [
        ["first"],
        ["first", "second"],
        ["first", "second", "third"],
    ]
    assert composite_from_documents(runs[-1]).measured.values.all()
    assert [run[0][1]["time"] for run in runs] == [1.0e9 + 1000, 1.0e9 + 2000, 1.0e9 + 3000]


def test_a_replay_gives_the_same_even_where_more_is_known_by_now(bicubic_model, tmp_path) -> None:
    settings = AnalysisSettings(ledger_dir=str(tmp_path))
    first, _ = fine_run("first", slice(0, 10))
    second, _ = fine_run("second", slice(8, 20), at_s=2000.0, seed=2)
    runs = coarse_run(), first, outcomes_run(), second
    live = composites(through(*runs, settings=settings))
    again = composites(through(*runs, settings=settings))
    elsewhere = composites(through(*runs))
    assert len(live) == 2
    assert [digest(run) for run in live] == [digest(run) for run in again]
    assert [digest(run) for run in live] == [digest(run) for run in elsewhere]
    # The later fine map alone, by another process, as from the queue server.
    (late,) = composites(through(second, settings=settings))
    assert digest(late) == digest(live[1])


def test_tiles_are_one_map_and_one_that_is_missing_is_named(bicubic_model) -> None:
    half = replace(COARSE, fast=replace(COARSE.fast, num=10))
    other = replace(half, fast=replace(half.fast, start_um=float(COARSE.fast.centers_um[10])))
    counts = block_mean(scene(), 2).round()
    left = list(map_run(half, counts[..., :10], "left", purpose="coarse", survey_uid="s"))
    right = list(map_run(other, counts[..., 10:], "right", purpose="coarse", survey_uid="s"))
    across, fine_counts = fine_run("fine", slice(4, 20), parent_uid="left")
    _, composite = only(through(left, right, across, outcomes_run(tiles=["left", "right"])))
    assert composite.grid.shape == FINE.shape
    np.testing.assert_array_equal(composite.value.values[:, 4:20], fine_counts.astype(np.float32))
    run, composite = only(through(left, across, outcomes_run(tiles=["left", "right"])))
    assert composite.grid.shape == (32, 20)
    assert composite.measured.values[:, 4:20].all()
    assert "tile 2 of 2 is missing" in run[0][1]["notes"][0]


def test_tiles_that_do_not_belong_together_fail_in_words(bicubic_model) -> None:
    away = replace(COARSE, fast=replace(COARSE.fast, start_um=COARSE.fast.start_um + 0.3))
    counts = block_mean(scene(), 2).round()
    odd = list(map_run(away, counts, "odd", purpose="coarse", survey_uid="s"))
    (run,) = composites(through(coarse_run(), odd, outcomes_run(tiles=["coarse", "odd"])))
    assert run[-1][1]["exit_status"] == "fail"
    assert "a whole number is needed" in run[-1][1]["reason"]
    with pytest.raises(AssemblyError, match="a whole number is needed"):
        composite_from_documents(run)


def test_without_any_enhanced_tile_there_is_no_composite(bicubic_model) -> None:
    one, _ = fine_run("fine", slice(4, 20))
    assert composites(through(one, outcomes_run())) == []
    assert composites(through(coarse_run(), one)) == []


def test_a_bug_in_here_costs_nothing_else(bicubic_model, monkeypatch, caplog) -> None:
    from xrf_sr_plans.composite import compose

    def broken(*_args: Any, **_options: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(compose, "compose", broken)
    one, _ = fine_run("fine", slice(4, 20))
    late, _ = fine_run("late", slice(4, 20), at_s=2000.0)
    told: list[Any] = []
    documents: Documents = []
    chain = AnalysisChain(None, lambda *doc: documents.append(doc), told.append)
    for run in (coarse_run(), one, outcomes_run(), late):
        for name, doc in run:
            chain(name, doc)
    assert [one.status for one in told] == ["done", "done", "failed", "done"]
    assert "a bug" in told[2].reason
    plans = [doc["plan_name"] for name, doc in documents if name == "start"]
    assert plans == ["xrf_super_resolution", "xrf_verification", "xrf_verification"]
    assert "are not put together" in caplog.text


def test_large_composites_go_to_a_file_like_results(bicubic_model, monkeypatch, tmp_path) -> None:
    import h5py

    from xrf_sr_plans.callbacks import hdf5_assets

    monkeypatch.setattr(hdf5_assets, "MAX_IN_DOCUMENT", 100)
    one, counts = fine_run("fine", slice(4, 20))
    settings = AnalysisSettings(result_dir=str(tmp_path))
    (run,) = composites(through(coarse_run(), one, outcomes_run(), settings=settings))
    names = event_model.DocumentNames
    for name, doc in run:
        event_model.schema_validators[getattr(names, name)].validate(doc)
    assert sum(name == "stream_datum" for name, _ in run) == 15
    with h5py.File(tmp_path / f"{run[0][1]['uid']}.h5") as file:
        assert set(file) == {"value", "sigma", "measured", "trusted", "source", "element"}
        np.testing.assert_array_equal(file["value"][:, 4:20], counts.astype(np.float32))


def test_a_replay_of_a_whole_survey_still_tells_of_its_last_map(bicubic_model) -> None:
    one, _ = fine_run("fine", slice(4, 20))
    replayed = replay([*coarse_run(), *one, *outcomes_run()])
    assert replayed.summary.source_uid == "fine"
    assert len(composites(replayed.documents)) == 1
    with pytest.raises(AnalysisError, match="no run that asks for analysis"):
        replay(outcomes_run())


@pytest.mark.parametrize("folder", ["ledger", None])
def test_a_killed_analysis_process_still_puts_the_survey_together(tmp_path, folder) -> None:
    taken: Documents = []
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "odd_worker.py"),
        *("nothing", "0", ""),
    ]
    settings = AnalysisSettings(ledger_dir=str(tmp_path / folder) if folder else None)
    one, counts = fine_run("fine", slice(4, 20))
    late, _ = fine_run("late", slice(20, 32), at_s=2000.0)
    with AnalysisProcess(
        settings, [lambda name, doc: taken.append((name, doc))], command=command
    ) as analysis:
        for runs in ([coarse_run(), one], [outcomes_run()], [late]):
            for run in runs:
                send(analysis, run)
            assert analysis.flush(60)
            if late not in runs:
                kill(analysis)
        assert analysis.request("outcomes").result(60).status == "done"
        assert analysis.starts == 3
    runs = composites(taken)
    assert [run[0][1]["rescan_uids"] for run in runs] == [["fine"], ["fine", "late"]]
    composite = composite_from_documents(runs[1])
    np.testing.assert_array_equal(composite.value.values[:, 4:20], counts.astype(np.float32))


def kill(analysis: AnalysisProcess) -> None:
    deadline = time.monotonic() + 30
    while analysis.pid is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert analysis.pid
    os.kill(analysis.pid, signal.SIGKILL)


def send(analysis: AnalysisProcess, run: Documents) -> None:
    tap = Tap(analysis)
    for name, doc in run:
        tap(name, doc)
    assert tap.errors == 0


SURVEY = {
    "width_um": 48,
    "height_um": 24,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 0,
    "y_center_um": 0,
    "tile_um": 24,
    "find": "K",
    "max_regions": 2,
    "min_size_um": 10,
}


class Survey:
    """Fly surveys with the shipped model and keep all documents."""

    def __init__(self, beamline: Any = None, settings: AnalysisSettings | None = None) -> None:
        self.raw: Documents = []
        self.results: Documents = []
        self.beamline = beamline or make_beamline(seed=3)
        self.run_engine = RunEngine({})
        self.run_engine.subscribe(lambda name, doc: self.raw.append((name, doc)))
        self._settings = settings or AnalysisSettings(threads=1)

    def fly(self, act: Any = None, at: Any = None, **changed: Any) -> None:
        with start_session(
            self.run_engine,
            self.beamline,
            settings=self._settings,
            in_process=True,
            result_sinks=[lambda name, doc: self.results.append((name, doc))],
        ) as session:
            plan = session.plans["coarse_survey_with_sr"](**{**SURVEY, **changed})
            if act is not None:
                plan = iter(Interrupting(plan, at, act))
            try:
                self.run_engine(plan)
            except RunEngineInterrupted:
                self.run_engine.abort("enough")
            assert session.link.flush(120)

    def counts_of(self, uid: str) -> tuple[Any, np.ndarray]:
        from xrf_sr_plans.review.record import read_survey

        maps = read_survey(self.raw).fine[uid]
        return maps.grid, maps.counts.values


@pytest.mark.timeout(240)
def test_a_survey_of_two_tiles_with_rescans_ends_in_one_honest_map() -> None:
    survey = Survey()
    survey.fly()
    run, composite = only(survey.results)
    assert len(run[0][1]["tile_uids"]) == 2
    assert composite.grid.shape == (24, 48)
    fine = composite.rescan_uids
    assert fine
    # Rows of 10 ms per step: two pixels of 5 ms.
    assert composite.dataset.attrs["dwell_ms"] == 5.0
    truth = expected_counts(survey.beamline, composite.grid, 5.0)
    pulls = (composite.value.values - truth) / composite.sigma.values
    measured = composite.measured.values
    assert measured.any()
    assert not measured.all()
    assert np.mean(pulls[measured] ** 2) == pytest.approx(1, abs=0.2)
    for placement in composite.placements:
        assert abs(placement.dx_um) < 4 * placement.error_um or placement.note
    replayed = through(survey.raw, settings=AnalysisSettings(threads=1))
    assert digest(only(replayed)[0]) == digest(run)


@pytest.mark.timeout(240)
def test_a_survey_that_is_aborted_in_a_rescan_has_its_map_too() -> None:
    survey = Survey()
    rows: list[str] = []

    def in_a_rescan() -> bool:
        starts = [doc for name, doc in survey.raw if name == "start"]
        if starts and starts[-1].get("xrf_sr", {}).get("purpose") == "fine":
            rows.append("")
        return len(rows) > 60

    from support.plan_support import pause

    survey.fly(act=pause, at=in_a_rescan)
    run, composite = only(survey.results)
    assert any("the survey ended early: " in note for note in composite.notes)
    assert len(composite.rescan_uids) == 1
    assert composite.measured.values.any()
    assert run[-1][1]["exit_status"] == "success"


@pytest.mark.timeout(240)
def test_a_fine_stage_that_is_off_is_measured_and_corrected() -> None:
    # 0.7 fine pixels along x, and the other way along y; no encoder shows it.
    off_um = 0.7, -0.7
    beamline = make_beamline(seed=3, fine_stage=SimFineStage(offset_error_um=off_um))
    survey = Survey(beamline)
    survey.fly(max_regions=3, min_size_um=16)
    _, composite = only(survey.results)
    moved = [one for one in composite.placements if one.corrected_x_um or one.corrected_y_um]
    assert moved
    for placement in moved:
        assert placement.dx_um == pytest.approx(off_um[0], abs=0.2)
        assert placement.dy_um == pytest.approx(off_um[1], abs=0.2)
    truth = expected_counts(beamline, composite.grid, composite.dataset.attrs["dwell_ms"])
    numbers = [composite.placements.index(one) + 1 for one in moved]
    here = composite.measured.values & np.isin(composite.source.values, numbers)
    chi2 = np.mean(((composite.value.values - truth) / composite.sigma.values)[here] ** 2)
    # What the same maps say as they are, at the positions that the encoders read.
    as_told = [survey.counts_of(one.fine_uid) for one in moved]
    naive = np.concatenate(
        [
            ((counts - expected_counts(beamline, grid, 10.0)) ** 2 / (counts + 1)).ravel()
            for grid, counts in as_told
        ]
    ).mean()
    assert chi2 < 2
    assert naive > 2 * chi2
