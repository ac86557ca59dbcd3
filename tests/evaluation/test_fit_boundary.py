"""The trust boundary: invented features fall outside, true ones inside, and the flag says so."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("torch")

from xrf_sr_plans.errors import ConfigError, ModelError
from xrf_sr_plans.evaluation.calibrate_from_pairs import calibrate_from_pairs, solve, stretched
from xrf_sr_plans.evaluation.feature_sweep import Cell, cells, peers, pooled, significance, sweep
from xrf_sr_plans.evaluation.fit_boundary import (
    Hallucination,
    fit_boundary,
    smallest_believable,
    usual_cells,
    within,
)
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.sr.registry import model_path, read_calibration, read_card
from xrf_sr_plans.sr.trust_boundary import (
    NEVER,
    TrustBoundary,
    blob_limits,
    blur_key,
    doubtful,
    read_boundary,
    visible_blobs,
)
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.training.phantoms import phantom

ROOT = Path(__file__).parents[2]
FEW = {
    "counts": (20, 200),
    "diameters": (1.0, 2.0, 3.0),
    "contrasts": (0.1, 0.8),
    "readings": ((2, 1),),
}


def smoothed(counts, measurement):
    """A stand-in for the model: bicubic and a Gaussian, trusted everywhere."""
    factor = measurement.factor
    made = np.clip(upsample(counts, factor), 0, None)
    estimate = ndimage.gaussian_filter(made, (0, factor / 2, factor / 2))
    return {"estimate": estimate, "baseline": made, "trusted": np.ones(made.shape, dtype=bool)}


@pytest.fixture(scope="module")
def fitted():
    rows = sweep(smoothed, cells(**FEW), repeats=1)
    return rows, fit_boundary(rows, "ab" * 32, "a stand-in")


def test_the_boundary_catches_what_is_invented_and_keeps_what_is_true(fitted):
    _, boundary = fitted
    rows = sweep(within(smoothed, boundary), cells(**FEW), repeats=1, seed=1)
    rates = pooled(rows, "model", factor=2)
    assert rates.false.hits > 500
    assert rates.flagged.value > 0.8
    bright = pooled(rows, "model", contrast=0.8, counts=200)
    assert bright.believed.total > 100
    assert bright.believed.value < 0.01
    assert bright.doubted.value < 0.02


def test_smaller_or_fainter_features_are_believed_only_with_more_photons(fitted):
    _, boundary = fitted
    rows = sweep(within(smoothed, boundary), cells(**FEW), repeats=1, seed=1)
    table = {(line["counts"], line["contrast"]): line for line in smallest_believable(rows)}
    assert table[20, 0.1]["believed_steps"] == NEVER
    assert table[200, 0.8]["believed_steps"] <= table[20, 0.8]["believed_steps"] <= 2
    for line in table.values():
        assert line["seen_steps"] >= line["believed_steps"]


def test_limits_follow_the_blur_that_is_removed(fitted):
    blurred = {
        "counts": (200,),
        "diameters": (1.0, 2.0),
        "contrasts": (0.8,),
        "readings": ((2, 1),),
    }
    wanted = [*cells(**blurred), *cells(**blurred, probes=(0.6, 1.0))]
    rows = sweep(smoothed, wanted, repeats=1)
    boundary = fit_boundary(rows, "ab" * 32, "")
    assert set(boundary.significance) == {"2", "2 blur 1", "2 blur 2"}
    limits = {"2": (1.0,), "2 blur 2": (2.0,)}
    freed = [Measurement(2, "fly", probe) for probe in (0.0, 0.29, 0.5, 1.0)]
    assert [blur_key(how) for how in freed] == ["2", "2", "2 blur 1", "2 blur 2"]
    assert blur_key(Measurement(2, "fly", 1.0, deblur=False)) == "2"
    assert blob_limits(limits, freed[3]) == (2.0,)
    assert blob_limits(limits, freed[2]) == (1.0,)
    assert blob_limits(limits, Measurement(4)) is None
    assert blob_limits(None, Measurement(2)) is None
    found = Hallucination(boundary, rows).summary()
    lost = {
        line["probe"]: line["lost"]["rate"]
        for line in found
        if line["standard"] == "all" and line["method"] == "model"
    }
    assert lost[1.0] > lost[0.0]


def test_lines_are_swept_and_have_a_boundary_of_their_own(fitted):
    rows, _ = fitted
    thin = smallest_believable(rows, ("lines",), 5)
    table = {(line["counts"], line["contrast"]): line for line in thin}
    dots_too = {(line["counts"], line["contrast"]): line for line in smallest_believable(rows)}
    assert table[200, 0.8]["believed_steps"] <= dots_too[200, 0.8]["believed_steps"]
    rates = pooled(rows, "model", standard="lines", contrast=0.8, counts=200, diameter_steps=2.0)
    assert rates.lost.total > 10
    assert rates.lost.hits == 0
    assert pooled(rows, "model", standard="lines", contrast=0.1, counts=20).lost.value > 0.02


def test_all_methods_are_compared_where_all_were_tried():
    few = {"counts": (20, 200), "diameters": (1.0, 1.5), "contrasts": (0.8,), "readings": ((2, 1),)}
    rows = sweep(smoothed, cells(**few), repeats=1, others=peers())
    found = Hallucination(fit_boundary(rows, "ab" * 32, ""), rows).compared()
    assert [line["method"] for line in found] == [
        "model",
        "bicubic",
        "bicubic + Gaussian",
        "SRCNN",
    ]
    assert len({line["lost"]["of"] for line in found}) == 1
    assert all(line["believed"]["low"] <= line["believed"]["high"] for line in found)


def test_an_empty_field_is_measured_once_for_all_sizes():
    measured = []

    def counted(counts, measurement):
        measured.append(measurement)
        return smoothed(counts, measurement)

    few = {
        "counts": (20,),
        "contrasts": (0.8,),
        "readings": ((2, 1),),
        "standards": ("empty field",),
    }
    rows = sweep(counted, cells(**few), repeats=2)
    assert len(rows) == 2 * 6
    assert len(measured) == 2
    assert len(usual_cells()) > 1000


def test_a_sweep_is_reproducible(fitted):
    rows, _ = fitted
    again = sweep(smoothed, cells(**FEW), repeats=1)
    assert [row.rates for row in rows] == [row.rates for row in again]


def test_significance_is_excess_over_noise():
    assert significance(10.0, 25.0, 2 / np.sqrt(np.pi)) == pytest.approx(2.0)
    assert np.isfinite(significance(1.0, 0.0, 1.0))
    assert Cell(Measurement(2), 100, 1.0, 0.4, "isolated dots").radius_px == 1.0


@pytest.mark.parametrize("factor", [2, 4])
def test_larger_blobs_stand_out_at_larger_sizes(factor):
    rows, columns = np.mgrid[: 48 * factor, : 48 * factor]
    centre = 24 * factor - 0.5
    sizes = []
    for diameter in (0.5, 1.0, 4.0):
        distance = np.hypot(rows - centre, columns - centre)
        plane = 20.0 + 100 * np.clip(diameter * factor / 2 + 0.5 - distance, 0, 1)
        level, size, seen = visible_blobs(plane[None], factor)
        y, x = np.unravel_index(level[0].argmax(), level[0].shape)
        assert (y, x) == pytest.approx((47.5, 47.5), abs=1)
        assert seen[0, y, x]
        sizes.append(int(size[0, y, x]))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_a_wide_bright_area_is_not_doubted_at_its_rim():
    plane = np.full((1, 96, 96), 20.0)
    plane[:, 20:70, 30:80] = 200.0
    assert not doubtful(ndimage.gaussian_filter(plane, (0, 1, 1)), 2, (5.0, 5.0, 5.0)).any()
    assert not doubtful(np.full((1, 32, 32), 7.0), 2, (5.0, 5.0, 5.0)).any()


def boundary(sha256="ab" * 32, level=1.0):
    return TrustBoundary(
        model_sha256=sha256,
        significance={"2": (level, level, level), "4": (level, level, level)},
        false_rate_limit={"2": 0.01, "4": 0.03},
    )


def test_a_boundary_file_is_checked_before_it_is_used(tmp_path, caplog):
    weights = tmp_path / "m.safetensors"
    assert read_boundary(weights, "ab" * 32) is None
    file = tmp_path / "m.trust.json"
    file.write_text(boundary().model_dump_json())
    assert read_boundary(weights, "ab" * 32) == boundary()
    assert read_boundary(weights, "cd" * 32) is None
    assert "made for weights" in caplog.text
    file.write_text("{}")
    with pytest.raises(ModelError, match="not a trust boundary"):
        read_boundary(weights, "ab" * 32)


def test_the_shipped_boundary_was_measured_with_the_shipped_weights():
    weights = model_path(None)
    shipped = read_boundary(weights, read_card(weights).sha256)
    assert shipped is not None, "run benchmarks/hallucination.py --write"
    assert set(shipped.significance) >= {"2", "4"}
    assert shipped.smallest_steps


@pytest.fixture
def own_model(tmp_path):
    """Copy the shipped model to a place where it may be changed."""

    def make(level=None, stretch=None):
        source = model_path(None)
        target = tmp_path / "own.safetensors"
        for suffix in (".safetensors", ".json", ".calibration.json"):
            target.with_suffix(suffix).write_bytes(source.with_suffix(suffix).read_bytes())
        card = read_card(target)
        if level is not None:
            text = boundary(card.sha256, level).model_dump_json()
            target.with_suffix(".trust.json").write_text(text)
        if stretch is not None:
            narrow = stretched(read_calibration(target, card), {"2": stretch}, "on purpose")
            plain = narrow.model_dump(mode="json")
            target.with_suffix(".calibration.json").write_text(json.dumps(plain))
        return target

    return make


def test_the_boundary_beside_the_weights_decides_what_is_trusted(own_model):
    counts = np.random.default_rng(0).poisson(phantom("particles", 3, size=64) * 20.0)
    names = [f"E{index}" for index in range(len(counts))]
    shares, calibrations = [], set()
    for level in (None, 1e-6, 4.0, 1e5):
        path = own_model(level)
        made = enhance(counts, elements=names, factor=2, step_um=1.0, model=str(path))
        shares.append(float(made.trusted.mean()))
        calibrations.add(made.model["calibration"])
        said = any("too faint" in note for note in made.dataset.attrs["notes"])
        assert said is (level is not None and level > 1)
    assert shares[0] >= shares[1] > shares[2] > shares[3]
    assert len(calibrations) == 4


COARSE = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=96, height_um=96, step_um=2)


def own_pairs(folder, number=3, counts=150.0, shift=(0.0, 0.0), **told):
    store = PairStore(folder)
    for seed in range(number):
        rng = np.random.default_rng(seed)
        truth = phantom("cells", 900 + seed, size=96, n_elements=3) * counts
        coarse = truth.reshape(3, 48, 2, 48, 2).mean(axis=(2, 4))
        names = ["P", "Fe", "Zn"]
        known = {"sampling": "area", "step_um": 2.0, "dwell_ms": 10.0}
        maps = ElementalMaps.from_arrays(rng.poisson(coarse), COARSE, names, **known)
        fine = ElementalMaps.from_arrays(
            rng.poisson(truth * 40), COARSE.refined(2), names, dwell_ms=400.0
        )
        store.save_map(f"pair-{seed}", 0, 2, maps)
        store.save_map(f"pair-{seed}", 1, 1, fine)
        store.finish(f"pair-{seed}", {0: PairRegistration(2, *shift)}, **told)
    return folder


@pytest.mark.parametrize(
    ("told", "word"),
    [({"problem": "another sample"}, "another sample"), ({"source": "rescan"}, "a rescan")],
)
def test_intervals_follow_neither_pairs_with_a_problem_nor_chosen_places(
    own_model, tmp_path, told, word
):
    pairs = own_pairs(tmp_path / "pairs", 2, **told)
    with pytest.raises(ConfigError, match=word):
        calibrate_from_pairs(pairs, str(own_model(stretch=0.3)), tmp_path / "out")


def test_own_pairs_widen_intervals_that_are_too_narrow(own_model, tmp_path):
    narrow = own_model(stretch=0.3)
    report = calibrate_from_pairs(own_pairs(tmp_path / "pairs", 2), str(narrow), tmp_path / "out")
    (found,) = report.factors
    assert (found.factor, found.pairs, found.maps) == ("2", 2, 6)
    assert found.coverage_before < 0.75
    assert found.coverage_after == pytest.approx(0.9, abs=0.005)
    assert found.coverage_left_out == pytest.approx(0.9, abs=0.05)
    assert found.stretch > 1.5
    assert report.calibration != report.replaces
    assert report.calibration in report.model.name
    again = calibrate_from_pairs([tmp_path / "pairs"], str(report.model), tmp_path / "out")
    assert again.factors[0].stretch == pytest.approx(1.0, abs=0.05)
    counts = np.ones((1, 8, 8)) * 50
    made = enhance(counts, elements=["Fe"], factor=2, step_um=1.0, model=str(report.model))
    assert made.model["calibration"] == report.calibration


def test_calibrating_from_the_command_line_says_how_to_select_the_result(own_model, tmp_path):
    from typer.testing import CliRunner

    from xrf_sr_plans.cli import app

    pairs = own_pairs(tmp_path / "pairs", number=1)
    command = ["calibrate", str(pairs), "--out", str(tmp_path / "out"), "--model"]
    command += [str(own_model(stretch=0.5)), "--json", str(tmp_path / "report.json")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["calibration"] in result.output
    assert report["factors"][0]["stretch"] > 1
    assert Path(report["model"]).exists()


def test_without_pairs_there_is_no_calibration(tmp_path):
    with pytest.raises(ConfigError, match="no whole pair"):
        calibrate_from_pairs(tmp_path / "none", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_noise_hides_the_width_the_calibration_stays():
    rising = np.linspace(0.2, 1.0, 21)
    stretch, reason = solve(rising, np.full(21, 0.9))
    assert stretch == 1.0
    assert "hardly depends" in reason
    assert solve(rising, rising)[0] > 1
    assert solve(np.linspace(0.2, 0.8, 21), rising)[0] == 10.0


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    out, picture = tmp_path / "h.json", tmp_path / "h.png"
    script = ROOT / "benchmarks" / "hallucination.py"
    arguments = ["hallucination.py", "--quick", "--json", str(out), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(script), run_name="__main__")
    report = json.loads(out.read_text())
    figures = report["boundary"]["figures"]
    assert set(figures) >= {"summary", "compared", "hidden", "gratings", "star"}
    assert report["rows"]
    assert picture.stat().st_size < 300_000
    printed = capsys.readouterr().out
    assert "smallest diameter of dots believed" in printed
    assert "bicubic + Gaussian" in printed
    for line in figures["gratings"]:
        assert line["period_steps"] > 2 or line["trusted"] < 0.05
    for line in figures["hidden"]:
        assert line["largest_difference_sigma"] < 2
