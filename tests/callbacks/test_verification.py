"""Fine maps are compared with what was predicted there: live, again, and after a kill."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import event_model
import numpy as np
import pytest
from bluesky import RunEngine

from support.row_documents import map_run, small_grid
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.callbacks.verification import Verification
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.ledger import Ledger

COARSE = small_grid(16, 20)
FINE = COARSE.refined(2)
SHA = "ab" * 32
ASSEMBLE = AnalysisRequest(enhance=False)


def scene():
    y, x = np.mgrid[: FINE.shape[0], : FINE.shape[1]]
    waves = 60 + 40 * np.sin(x / 0.9) * np.cos(y / 1.4)
    return np.stack([waves, 2 * waves, 0.5 * waves])


@pytest.fixture
def oracle(monkeypatch):
    """A model that knows the truth of `scene` and is wrong by exactly the sigma it states.

    Its intervals are `width` times as wide as they should be.
    """
    from xrf_sr_plans.sr import predict

    state = {"width": 1.0, "truth": lambda grid, elements, dwell_ms: scene()}

    def enhance_maps(maps, factor, *, model=None, device=None):
        sampling = maps.attrs["sampling"]
        grid = maps.grid.refined(Measurement(factor, sampling).refinement)
        truth = state["truth"](grid, maps.elements, maps.attrs["dwell_ms"])
        truth = np.clip(truth, 0.05, None)
        sigma = 0.5 * np.sqrt(truth)
        rng = np.random.default_rng(0)
        estimate = np.clip(truth + sigma * rng.standard_normal(truth.shape), 0, None)
        half = 1.645 * sigma * state["width"]
        identity = {"name": "oracle", "sha256": SHA, "calibration": "c"}
        return EnhancedMaps.from_arrays(
            grid,
            maps.elements,
            estimate=estimate,
            sigma=sigma,
            lower=np.clip(estimate - half, 0, None),
            upper=estimate + half,
            baseline=np.full(truth.shape, truth.mean()),
            trusted=np.ones(truth.shape, dtype=bool),
            factor=factor,
            sampling=sampling,
            model=identity,
            source_uid=str(maps.attrs.get("source_uid", "")),
            fallback="",
        )

    monkeypatch.setattr(predict, "enhance_maps", enhance_maps)
    return state


def coarse_run(uid="coarse"):
    return list(map_run(COARSE, block_mean(scene(), 2), uid, purpose="coarse", survey_uid="s"))


def fine_run(uid="fine", grid=FINE, parent="coarse", seed=1, **metadata):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(scene()[:, : grid.shape[0], : grid.shape[1]]).astype(float)
    known = {"purpose": "fine", "parent_uid": parent, "survey_uid": "s", "analysis": ASSEMBLE}
    return list(map_run(grid, counts, uid, **{**known, **metadata}))


def through(*runs, settings=None):
    """Documents of verification runs that a chain makes of runs."""
    documents = []
    chain = AnalysisChain(settings, emit=lambda name, doc: documents.append((name, as_lists(doc))))
    for run in runs:
        for name, doc in run:
            chain(name, doc)
    return verifications(documents)


def verifications(documents):
    wanted = {d["uid"] for n, d in documents if d.get("plan_name") == "xrf_verification"}
    streams = {d["uid"] for n, d in documents if n == "descriptor" and d["run_start"] in wanted}
    return [
        (name, doc)
        for name, doc in documents
        if doc.get("uid") in wanted
        or doc.get("run_start") in wanted
        or doc.get("descriptor") in streams
    ]


def events(documents):
    return [doc["data"] for name, doc in documents if name == "event"]


def test_a_fine_map_of_a_predicted_area_becomes_a_valid_verification_run(oracle):
    documents = through(coarse_run(), fine_run())
    names = event_model.DocumentNames
    for name, doc in documents:
        event_model.schema_validators[getattr(names, name)].validate(doc)
    start = documents[0][1]
    assert start["original_run_uid"] == "fine"
    assert start["parent_uid"] == "coarse"
    assert start["survey_uid"] == "s"
    assert start["model"]["sha256"] == SHA
    assert start["overall"]["judgement"] == "calibrated"
    rows = events(documents)
    assert [row["element"] for row in rows] == ["Fe", "Zn", "Ca"]
    for row in rows:
        assert row["pixels"] == FINE.shape[0] * FINE.shape[1]
        assert row["coverage_90"] == pytest.approx(0.9, abs=0.03)
        assert row["gain_db"] > 3
        assert abs(row["bias"]) < 0.02
        assert row["detail_enhanced"] == pytest.approx(1, abs=0.1)
        assert abs(row["detail_baseline"]) < 0.05
        assert row["scale"] == 1
        assert (row["recommendation"], row["warning"]) == ("fine", "")
    assert documents[-1][1]["exit_status"] == "success"


def test_the_same_documents_come_out_again_and_with_a_ledger_that_has_moved_on(oracle, tmp_path):
    settings = AnalysisSettings(ledger_dir=str(tmp_path))
    first = through(coarse_run(), fine_run(), settings=settings)
    later = through(coarse_run(), fine_run("later", seed=2), settings=settings)
    assert digest(first) != digest(later)
    assert digest(through(coarse_run(), fine_run(), settings=settings)) == digest(first)
    ledger = Ledger(tmp_path)
    entries = ledger.entries("unknown", {"name": "oracle", "sha256": SHA})
    assert len(entries) == 6
    assert {entry.fine_uid for entry in entries} == {"fine", "later"}


def test_without_a_folder_a_replayed_survey_still_gives_the_same(oracle):
    runs = coarse_run(), fine_run(), fine_run("second", seed=2)
    assert digest(through(*runs)) == digest(through(*runs))


def test_a_prediction_read_back_from_stored_result_documents_gives_the_same(oracle):
    live = through(coarse_run(), fine_run())
    result = []
    chain = AnalysisChain(emit=lambda name, doc: result.append((name, as_lists(doc))))
    for name, doc in coarse_run():
        chain(name, doc)
    stored = enhanced_from_documents(result)
    stored.dataset.attrs["result_uid"] = result[0][1]["uid"]
    documents = []
    chain = AnalysisChain()
    chain.consumers.append(
        Verification(None, lambda name, doc: documents.append((name, doc)), lambda uid: stored)
    )
    for name, doc in fine_run():
        chain(name, doc)
    assert digest(documents) == digest(live)


def test_narrow_intervals_are_warned_about_with_advice(oracle, caplog):
    oracle["width"] = 0.2
    documents = through(coarse_run(), fine_run())
    for row in events(documents):
        assert row["coverage_90"] < 0.87
        assert row["judgement"] == "overconfident"
        assert row["recommendation"] == "collect pairs"
        assert "collect pairs" in row["warning"]
    assert "90 % intervals of oracle cover" in caplog.text
    fines = [fine_run(f"fine-{number}", seed=number) for number in range(5)]
    last = events(through(coarse_run(), *fines))[-1]
    assert last["recommendation"] == "recalibrate"


def test_a_tiny_fine_map_is_compared_without_a_verdict(oracle):
    oracle["width"] = 0.2
    rows = events(through(coarse_run(), fine_run(grid=tiny())))
    assert [row["pixels"] for row in rows] == [20, 20, 20]
    assert {row["warning"] for row in rows} == {""}


def tiny():
    from dataclasses import replace

    return replace(FINE, fast=replace(FINE.fast, num=5), slow=replace(FINE.slow, num=4))


def test_a_fine_map_that_nobody_predicted_is_left_alone(oracle):
    assert through(fine_run()) == []
    assert through(coarse_run(), fine_run(parent=None)) == []


def test_a_fine_map_of_another_place_fails_in_words(oracle):
    from dataclasses import replace

    away = replace(FINE, fast=replace(FINE.fast, start_um=900.0))
    documents = through(coarse_run(), fine_run(grid=away))
    stop = documents[-1][1]
    assert stop["exit_status"] == "fail"
    assert "share no measured pixel" in stop["reason"]


def test_longer_dwell_and_more_beam_are_scaled_away(oracle):
    run = coarse_run()
    start = run[0][1]
    start["xrf_sr"]["dwell_ms"] = 5.0
    rows = events(through(run, fine_run()))
    assert rows[0]["scale"] == pytest.approx(0.5)


def test_a_full_disk_costs_the_ledger_not_the_documents(oracle, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    documents = through(
        coarse_run(), fine_run(), settings=AnalysisSettings(ledger_dir=str(blocked))
    )
    assert len(events(documents)) == 3


def test_a_killed_analysis_process_still_knows_what_was_predicted(tmp_path):
    taken = []
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "odd_worker.py"),
        "nothing",
        "0",
        "",
    ]
    settings = AnalysisSettings(ledger_dir=str(tmp_path))
    with AnalysisProcess(settings, [lambda *d: taken.append(d)], command=command) as analysis:
        send(analysis, coarse_run())
        assert analysis.flush(60)
        assert analysis.pid
        os.kill(analysis.pid, signal.SIGKILL)
        send(analysis, fine_run())
        assert analysis.request("fine").result(60).status == "done"
        assert analysis.flush(60)
        assert analysis.starts == 2
    assert len(events(verifications(taken))) == 3
    model = {"name": "stand-in", "sha256": SHA}
    assert len(Ledger(tmp_path).entries("unknown", model)) == 3


def send(analysis, run):
    tap = Tap(analysis)
    for name, doc in run:
        tap(name, doc)
    assert tap.errors == 0
    time.sleep(0)


@pytest.fixture
def survey(oracle, tmp_path):
    """Fly a survey with inline rescans; return raw and result documents and the ledger's folder."""
    from xrf_sr_plans.demo import expected_counts

    def fly(width):
        oracle["width"] = width
        raw, results = [], []
        run_engine = RunEngine({})
        run_engine.subscribe(lambda name, doc: raw.append((name, doc)))
        beamline = make_beamline(seed=3)
        oracle["truth"] = lambda grid, elements, dwell_ms: expected_counts(beamline, grid, dwell_ms)
        settings = AnalysisSettings(ledger_dir=str(tmp_path / "ledger"))
        with start_session(
            run_engine,
            beamline,
            settings=settings,
            in_process=True,
            result_sinks=[lambda name, doc: results.append((name, doc))],
        ) as session:
            run_engine(
                session.plans["coarse_survey_with_sr"](
                    width_um=64,
                    height_um=32,
                    step_um=2,
                    dwell_ms=10,
                    x_center_um=0,
                    y_center_um=0,
                    fine_step_um=1,
                    find="K",
                    max_regions=3,
                    min_size_um=16,
                )
            )
            assert session.link.flush(60)
        return raw, results, settings

    return fly


def test_every_rescan_of_a_survey_is_verified_live_and_again(survey):
    raw, results, settings = survey(1.0)
    fine = [
        doc["uid"]
        for name, doc in raw
        if name == "start" and doc.get("xrf_sr", {}).get("purpose") == "fine"
    ]
    verified = verifications(results)
    assert fine
    assert [doc["original_run_uid"] for name, doc in verified if name == "start"] == fine
    coverage = np.average(
        [row["coverage_90"] for row in events(verified)],
        weights=[row["pixels"] for row in events(verified)],
    )
    assert coverage == pytest.approx(0.9, abs=0.03)
    # One warning in twenty is to be expected of intervals that hold.
    assert sum(bool(row["warning"]) for row in events(verified)) <= 1
    again = through(raw, settings=settings)
    assert digest(again) == digest(verified)


def test_an_overconfident_model_is_found_out_by_its_first_rescans(survey, caplog):
    _, results, _ = survey(0.1)
    rows = events(verifications(results))
    assert any(row["judgement"] == "overconfident" for row in rows)
    assert {row["recommendation"] for row in rows if row["warning"]} <= {
        "collect pairs",
        "recalibrate",
    }
    assert "90 % intervals of oracle cover" in caplog.text
