"""`xrf-sr evaluate`: the figures it gives, and what it refuses."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from scipy import ndimage

from xrf_sr_plans.errors import ConfigError, FileFormatError, ModelError
from xrf_sr_plans.evaluation import own_map as module
from xrf_sr_plans.evaluation.degraded_map import degraded
from xrf_sr_plans.evaluation.own_map import OURS, evaluate_file
from xrf_sr_plans.evaluation.table import render, to_json
from xrf_sr_plans.metrics.image import data_range
from xrf_sr_plans.sr.classical import METHODS

CLASSICAL = [name for name in METHODS if name != "NLM + bicubic"]


def scene(size=80, seed=0):
    """Two elements of one set of grains, an empty channel and pure noise."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2, size, size)), (0, 5, 5))
    grains = ndimage.gaussian_filter((field > 0) * 1.0, (0, 1.0, 1.0)) + 0.1
    noise = rng.poisson(3, (size, size))
    return np.stack([grains[0], grains[1], np.zeros((size, size)), noise])


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "maps.npz"
    np.savez(file, maps=scene(), elements=["Fe", "Zn", "Cu", "As"], pixel_size_um=0.5)
    return file


@pytest.mark.parametrize("factor", [2, 4])
def test_without_noise_bicubic_beats_nearest_and_totals_are_kept(path, factor):
    table = evaluate_file(path, factor=factor, methods=CLASSICAL)
    assert table.summary("bicubic").gain_db == 0
    assert table.summary("nearest").gain_db < -1
    assert table.summary("bicubic").worst_count_bias < 0.01
    assert table.summary("bicubic").worst_ratio_bias < 0.02
    assert table.row("Fe", "bicubic").chi2 is None
    assert table.degradation.pixel_um == 0.5


def test_channels_that_tell_nothing_are_shown_apart(path):
    table = evaluate_file(path, factor=2, counts=100, methods=["nearest"])
    assert set(table.left_out) == {"Cu", "As"}
    fine = [table.row(name, "nearest").psnr_db for name in ("Fe", "Zn")]
    assert table.summary("nearest").mean.psnr_db == pytest.approx(np.mean(fine))


def test_isotopes_lines_and_copies_count_once(tmp_path):
    grains = scene()[0]
    maps = np.stack([grains, grains, grains * 2 + 0.1])
    np.savez(tmp_path / "m.npz", maps=maps, elements=["Zn64", "P", "Zn66"])
    table = evaluate_file(tmp_path / "m.npz", factor=2, methods=["bicubic"])
    assert table.left_out["P"] == "a copy of Zn64"
    assert "same element as Zn64" in table.left_out["Zn66"]


def test_a_channel_that_is_in_the_file_twice_was_counted_once():
    from xrf_sr_plans.maps.files.model import MapsFile

    grains = scene()[0]
    case = degraded(MapsFile(np.stack([grains, grains]), ("Zn", "P"), 0.5), 2, counts=20)
    np.testing.assert_array_equal(case.counts[0], case.counts[1])


def test_counts_are_what_was_asked_for_and_a_seed_gives_the_same_figures(path):
    from xrf_sr_plans.maps.files import read_maps

    case = degraded(read_maps(path), 2, counts=200)
    assert np.percentile(case.counts[0], 99) == pytest.approx(200, rel=0.15)
    one, two, other = (
        evaluate_file(path, factor=2, counts=50, methods=[], seed=seed).row("Fe", "bicubic")
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_the_reference_is_scaled_with_the_coarse_map():
    file_maps = scene()
    from xrf_sr_plans.maps.files.model import MapsFile

    case = degraded(MapsFile(file_maps, ("Fe", "Zn", "Cu", "As"), 0.5), 4, counts=300)
    assert data_range(case.reference[0]) == pytest.approx(300, rel=0.3)
    assert case.reference[0].mean() == pytest.approx(case.counts[0].mean(), rel=0.03)


def test_the_chi2_of_the_truth_itself_is_one(path, monkeypatch):
    from xrf_sr_plans.maps.files import read_maps

    case = degraded(read_maps(path), 2, counts=100, sampling="area", probe_um=0.8)
    truth = {"truth": case.reference}
    monkeypatch.setattr(module, "_wanted", lambda methods, measurement: ["bicubic", "truth"])
    plain = module._run

    def run(method, *rest):
        return (truth[method], None) if method in truth else plain(method, *rest)

    monkeypatch.setattr(module, "_run", run)
    figures = module.evaluate(case).row("Fe", "truth")
    assert figures.chi2 == pytest.approx(1, abs=0.1)
    assert figures.psnr_db == np.inf
    assert abs(figures.truth_bias) < 1e-9


def test_a_probe_in_the_wrong_unit_is_refused_with_what_the_file_says(path):
    with pytest.raises(ConfigError, match=r"50 coarse steps of 1 um.*Are the units right"):
        evaluate_file(path, factor=2, probe_um=50)


def test_what_the_file_does_not_say_is_told(tmp_path):
    np.savez(tmp_path / "m.npz", maps=scene(), elements=["Fe", "Zn", "Cu", "As"])
    table = evaluate_file(tmp_path / "m.npz", factor=2, methods=[])
    assert any("no pixel size" in note for note in table.notes)


def test_edges_are_never_sharper_than_the_reference(path):
    table = evaluate_file(path, factor=2, methods=["nearest", "Richardson-Lucy + bicubic"])
    for row in table.rows:
        own = table.reference_fwhm_um[row.element]
        assert np.isnan(own) or not row.figures.edge_fwhm_um < own


def test_nan_pixels_and_spikes_of_real_files_do_no_harm(tmp_path):
    maps = scene()
    maps[0, 10:14, 20:30] = np.nan
    maps[1, 40, 40] = 1.8e308
    maps[1, 50, 50] = 1e4
    np.savez(tmp_path / "m.npz", maps=maps, elements=["Fe", "Zn", "Cu", "As"])
    table = evaluate_file(tmp_path / "m.npz", factor=2, counts=100, methods=["bicubic"])
    for name in ("Fe", "Zn"):
        assert table.row(name, "bicubic").psnr_db > 15


def test_the_table_is_readable_and_the_json_is_strict(path):
    table = evaluate_file(path, factor=2, counts=20, methods=["bicubic", "Wiener + bicubic"])
    out = StringIO()
    Console(file=out, width=200).print(render(table))
    assert "N99 = 20 counts" in out.getvalue()
    assert "mean of 2" in out.getvalue()
    assert "Cu" not in out.getvalue().split("gain: PSNR")[0]
    assert "coarse step 1 um" in out.getvalue()
    plain = json.loads(to_json(table), parse_constant=pytest.fail)
    assert plain["conditions"]["factor"] == 2
    assert {row["method"] for row in plain["rows"]} == {"bicubic", "Wiener + bicubic"}


def test_networks_without_weights_are_named_and_skipped(path):
    table = evaluate_file(path, factor=2, methods=["SRCNN", "notes' network"])
    skipped = [note for note in table.notes if "no weights shipped" in note]
    shipped = [s.method for s in table.summaries if s.method != "bicubic"]
    assert len(skipped) + len(shipped) == 2


def test_a_model_that_does_not_exist_is_named_and_the_rest_is_shown(path):
    pytest.importorskip("torch")
    table = evaluate_file(path, factor=2, methods=[OURS], model="no-such-model")
    assert [s.method for s in table.summaries] == ["bicubic"]
    assert any("no-such-model" in note for note in table.notes)


def test_the_shipped_model_is_evaluated_with_its_interval(path):
    pytest.importorskip("torch")
    from xrf_sr_plans.sr.registry import model_path

    try:
        model_path(None)
    except ModelError:
        pytest.skip("no weights in this tree")
    table = evaluate_file(path, factor=2, counts=50, methods=[OURS])
    figures = table.row("Fe", OURS)
    assert figures.coverage_90 is not None
    assert 0.3 < figures.coverage_90 <= 1
    assert table.summary(OURS).gain_db > 0
    assert table.summary(OURS).worst_count_bias < 0.005
    assert table.summary(OURS).worst_ratio_bias < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 3}, "factor is 3; it should be 1, 2 or 4"),
        ({"factor": 2, "counts": -1}, "counts is -1"),
        ({"factor": 2, "probe_um": np.nan}, "probe_um is nan"),
        ({"factor": 2, "methods": ["magic"]}, r"\['magic'\] are unknown"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_value(path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_file(path, **arguments)


def test_a_map_too_small_to_judge_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", maps=np.ones((1, 20, 60)), elements=["Fe"])
    with pytest.raises(ConfigError, match="needs 48"):
        evaluate_file(tmp_path / "m.npz", factor=4)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        evaluate_file(tmp_path / "none.h5", factor=2)


@pytest.mark.parametrize("factor", [2, 4])
def test_rows_are_worth_more_than_the_squares_of_the_same_photons(path, factor):
    table = evaluate_file(path, factor=factor, sampling="rows", counts=200, methods=["kriging"])
    assert [summary.method for summary in table.summaries] == ["bicubic of squares", "kriging"]
    assert table.summary("bicubic of squares").gain_db == 0
    assert table.summary("kriging").gain_db > 0.5
    assert abs(table.row("Fe", "kriging").count_bias) < 0.02
    out = StringIO()
    Console(file=out, width=200).print(render(table))
    assert "PSNR over bicubic of squares of the same photons" in out.getvalue()


def test_rows_are_compared_at_the_dose_of_the_squares(path):
    from xrf_sr_plans.maps.files import read_maps

    rows, squares = (
        degraded(read_maps(path), 2, counts=200, sampling=sampling) for sampling in ("rows", "fly")
    )
    assert rows.counts[0].sum() == pytest.approx(squares.counts[0].sum(), rel=0.02)
    assert rows.reference[0].mean() == pytest.approx(squares.reference[0].mean() / 2)


def test_on_the_same_grid_methods_remove_noise(path):
    names = ["bicubic + Gaussian", "NLM + bicubic", "wavelets + bicubic"]
    table = evaluate_file(path, factor=1, counts=30, methods=names)
    assert table.summary("bicubic").gain_db == 0
    for name in names:
        assert table.summary(name).gain_db > 1
