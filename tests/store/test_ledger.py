"""The ledger says neither too early nor too late that a model's intervals are wrong."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.store import predictions
from xrf_sr_plans.store.ledger import Entry, Ledger
from xrf_sr_plans.store.predictions import Predictions, rounded
from xrf_sr_plans.store.verdict import judge

MODEL = {"name": "set/small", "sha256": "ab" * 32, "calibration": "c1"}


def entry(number=0, element="Fe", **changes):
    facts = {
        "time": 1e9 + number,
        "fine_uid": f"fine-{number}",
        "parent_uid": "coarse",
        "element": element,
        "factor": 2,
        "model": "set-small",
        "model_sha256": "ab" * 32,
        "calibration": "c1",
        "pixels": 900,
        "effective_pixels": 300.0,
        "coverage_90": 0.9,
        "psnr_enhanced_db": 30.0,
        "psnr_baseline_db": 28.0,
        "bias": 0.01,
    }
    return Entry(**{**facts, **changes})


def test_entries_are_there_once_however_often_they_are_written(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.append("13-ID-E", MODEL, [entry(1), entry(1, "Zn")]) == 2
    assert Ledger(tmp_path).append("13-ID-E", MODEL, [entry(1), entry(2)]) == 1
    found = ledger.entries("13-ID-E", MODEL)
    assert [(one.fine_uid, one.element) for one in found] == [
        ("fine-1", "Fe"),
        ("fine-1", "Zn"),
        ("fine-2", "Fe"),
    ]
    assert ledger.path("13-ID-E", MODEL).is_relative_to(tmp_path)


def test_beamlines_models_and_calibrations_are_kept_apart(tmp_path):
    ledger = Ledger(tmp_path)
    other = {**MODEL, "sha256": "cd" * 32}
    ledger.append("2-ID", MODEL, [entry(1)])
    assert ledger.entries("SRX", MODEL) == ledger.entries("2-ID", other) == []
    recalibrated = {**MODEL, "calibration": "c2"}
    assert ledger.before("2-ID", recalibrated, 2, 2e9, "z") == []
    assert ledger.before("2-ID", MODEL, 4, 2e9, "z") == []
    assert ledger.before("2-ID", MODEL, 2, 2e9, "z") == [entry(1)]


def test_names_given_by_others_do_not_lead_out_of_the_folder(tmp_path):
    path = Ledger(tmp_path).path("../../etc", {**MODEL, "name": "/root/x.safetensors"})
    assert path.resolve().is_relative_to(tmp_path.resolve())


def test_a_line_torn_by_a_kill_costs_that_line_only(tmp_path, caplog):
    ledger = Ledger(tmp_path)
    ledger.append("2-ID", MODEL, [entry(1), entry(2)])
    path = ledger.path("2-ID", MODEL)
    os.truncate(path, path.stat().st_size - 40)
    ledger.append("2-ID", MODEL, [entry(2), entry(3)])
    assert [one.fine_uid for one in ledger.entries("2-ID", MODEL)] == ["fine-1", "fine-2", "fine-3"]
    assert "line 2 is damaged" in caplog.text


def test_many_writers_lose_and_double_nothing(tmp_path):
    def write(first):
        for number in range(first, first + 20):
            Ledger(tmp_path).append("2-ID", MODEL, [entry(number)])

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = [one.fine_uid for one in Ledger(tmp_path).entries("2-ID", MODEL)]
    assert found == [f"fine-{number}" for number in range(40)]


def test_what_was_known_before_a_map_does_not_change_afterwards(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("2-ID", MODEL, [entry(1), entry(2)])
    known = ledger.before("2-ID", MODEL, 2, 1e9 + 3, "fine-3")
    ledger.append("2-ID", MODEL, [entry(3), entry(9)])
    assert ledger.before("2-ID", MODEL, 2, 1e9 + 3, "fine-3") == known


def test_figures_that_do_not_exist_survive_the_file(tmp_path):
    ledger = Ledger(tmp_path)
    odd = entry(1, psnr_enhanced_db=float("inf"), bias=float("nan"))
    ledger.append("2-ID", MODEL, [odd])
    (found,) = ledger.entries("2-ID", MODEL)
    assert np.isnan(found.bias)
    assert np.isinf(found.psnr_enhanced_db)
    assert judge([found]).recommendation == "fine"


def test_good_coverage_is_fine():
    verdict = judge([entry(number, coverage_90=0.89) for number in range(8)])
    assert verdict.judgement == "calibrated"
    assert (verdict.recommendation, verdict.warning) == ("fine", "")
    assert verdict.low < 0.89 < verdict.high


@pytest.mark.parametrize("coverage", [0.0, 0.5, 1.0])
def test_a_tiny_region_raises_no_warning_whatever_it_covers(coverage):
    tiny = entry(0, pixels=36, effective_pixels=12.0, coverage_90=coverage)
    assert judge([tiny]).judgement == "unknown"
    assert judge([tiny]).warning == ""


def test_many_pixels_that_are_few_independent_ones_raise_no_warning():
    blurred = entry(0, pixels=4000, effective_pixels=40.0, coverage_90=0.7)
    assert judge([blurred]).warning == ""


def test_one_odd_region_among_many_does_not_condemn_the_model():
    maps = [entry(number, coverage_90=0.91) for number in range(9)]
    odd = [*maps, entry(9, pixels=3000, effective_pixels=3000, coverage_90=0.70)]
    verdict = judge(odd)
    assert verdict.coverage_90 < 0.87
    assert verdict.warning == ""


def test_overconfident_intervals_are_warned_about_and_the_advice_follows_the_evidence():
    few = judge([entry(number, coverage_90=0.6) for number in range(2)])
    assert few.judgement == "overconfident"
    assert few.recommendation == "collect pairs"
    many = judge([entry(number, coverage_90=0.6) for number in range(6)])
    assert many.recommendation == "recalibrate"
    assert "cover 0.600" in many.warning
    wide = judge([entry(number, coverage_90=0.995) for number in range(6)])
    assert wide.judgement == "underconfident"
    assert wide.recommendation == "recalibrate"


def test_a_model_that_is_worse_than_bicubic_or_off_in_counts_wants_training():
    worse = [entry(number, psnr_enhanced_db=27.0) for number in range(6)]
    assert judge(worse).recommendation == "retrain"
    off = [entry(number, bias=0.2, coverage_90=0.6) for number in range(6)]
    assert judge(off).recommendation == "retrain"


def test_counts_that_are_off_within_the_intervals_are_fine():
    assert judge([entry(number, bias=0.1) for number in range(6)]).recommendation == "fine"


def test_a_fallback_is_pooled_but_not_judged():
    bicubic = [
        entry(number, model="bicubic", model_sha256="", coverage_90=0.5) for number in range(6)
    ]
    assert judge(bicubic).judgement == "unknown"
    assert judge(bicubic).coverage_90 == pytest.approx(0.5)


def test_old_mistakes_are_forgotten_after_enough_pixels():
    old = [entry(number, coverage_90=0.5) for number in range(5)]
    new = [
        entry(number, pixels=10_000, effective_pixels=4000, coverage_90=0.9)
        for number in range(5, 12)
    ]
    assert judge([*old, *new]).coverage_90 == pytest.approx(0.9)


def predicted(uid="coarse", sha256="ab" * 32, value=1.0):
    grid = ScanGrid.from_start_stop(0, 7, 8, 0, 5, 6)
    arrays = {name: np.full((1, 6, 8), value / 3) for name in ("estimate", "sigma", "lower")}
    return EnhancedMaps.from_arrays(
        grid,
        ["Fe"],
        **arrays,
        upper=np.ones((1, 6, 8)),
        baseline=np.ones((1, 6, 8)),
        trusted=np.ones((1, 6, 8), dtype=bool),
        factor=2,
        model={"name": "m", "sha256": sha256, "calibration": "c"},
        source_uid=uid,
        fallback="",
        dwell_ms=10.0,
        i0_median=1e5,
    )


def test_a_prediction_comes_back_from_disk_to_the_bit(tmp_path):
    Predictions(tmp_path).keep(predicted())
    found = Predictions(tmp_path).recall("coarse")
    assert found is not None
    assert found.dataset.identical(rounded(predicted()).dataset)
    assert found.grid == predicted().grid
    assert Predictions(tmp_path).recall("other") is None
    assert Predictions(None).recall("coarse") is None


def test_of_several_models_the_one_that_chose_the_region_is_preferred(tmp_path):
    for sha256 in ("ab" * 32, "cd" * 32):
        Predictions(tmp_path).keep(predicted(sha256=sha256))
    for sha256 in ("ab" * 32, "cd" * 32):
        found = Predictions(tmp_path).recall("coarse", sha256)
        assert found is not None
        assert found.model["sha256"] == sha256


def test_predictions_take_bounded_space(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "IN_MEMORY", 2)
    kept = Predictions(tmp_path, on_disk_bytes=12_000)
    for number in range(8):
        kept.keep(predicted(f"map-{number}"))
        newest = kept.folder / f"map-{number}.{'ab' * 6}.npz"
        os.utime(newest, ns=(number + 1, number + 1))
    assert len(kept._memory) == 2
    left = sorted(path.name for path in kept.folder.iterdir())
    assert 1 <= len(left) < 6
    assert left[-1].startswith("map-7")


def test_in_memory_alone_many_small_predictions_are_kept_and_large_ones_are_dropped(monkeypatch):
    monkeypatch.setattr(predictions, "IN_MEMORY", 2)
    kept = Predictions(None)
    for number in range(30):
        kept.keep(predicted(f"map-{number}"))
    assert kept.recall("map-0") is not None
    size = predicted().dataset.nbytes
    monkeypatch.setattr(predictions, "IN_MEMORY_BYTES", 5 * size)
    kept.keep(predicted("last"))
    assert 2 < len(kept._memory) <= 10
    assert kept.recall("map-0") is None
    monkeypatch.setattr(predictions, "IN_MEMORY_BYTES", 0)
    kept.keep(predicted("one more"))
    assert list(kept._memory) == ["last", "one more"]


def test_a_damaged_prediction_is_named(tmp_path):
    Predictions(tmp_path).keep(predicted())
    (path,) = (tmp_path / "predictions").iterdir()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileFormatError, match=path.name):
        Predictions(tmp_path).recall("coarse")
