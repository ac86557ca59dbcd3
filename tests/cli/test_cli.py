"""The command line: one clear line for what the user must change, exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import xrf_sr_plans
from xrf_sr_plans import cli
from xrf_sr_plans.cli import app, program
from xrf_sr_plans.errors import MissingExtraError

WIDE = {"COLUMNS": "240", "TERMINAL_WIDTH": "240"}


def run(*arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xrf_sr_plans.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def report_of(folder: Path, *arguments: str) -> dict[str, Any]:
    done = run("demo", "--out", str(folder), *arguments, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "oracle, same time" in done.stdout
    for picture in ("survey.png", "elements.png"):
        assert (folder / picture).stat().st_size > 50_000
    return json.loads((folder / "report.json").read_text())


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_demo_finds_nearly_all_in_a_fifth_of_the_time_and_says_what_was_possible(
    tmp_path: Path,
) -> None:
    report = report_of(tmp_path)
    found, times = report["targets"], report["beam_time_s"]
    assert report["factor"] == 4
    assert "made-up field" in report["sample"]
    assert found["true"] >= 20
    assert min(found["recall"].values()) >= 0.9
    assert times["ratio"] >= 5
    assert times["ratio"] == pytest.approx(
        times["full_fine"] / (times["coarse"] + times["fine"]), abs=1e-3
    )
    # Whoever knows the targets finds no fewer in that time, and takes no longer for as many.
    assert found["oracle_recall_in_the_same_time"]["number"] >= found["recall"]["number"]
    assert found["oracle_ratio_for_the_same_recall"] >= times["ratio"]
    assert 0 < found["forecast"]["share_found"] <= 1
    assert report["psnr_composite_db"]["K"] > report["psnr_enhanced_db"]["K"]
    assert report["psnr_enhanced_db"]["K"] > report["psnr_bicubic_db"]["K"]


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_demo_of_the_measured_map_leaves_a_picture_and_a_report_with_all_figures(
    tmp_path: Path,
) -> None:
    report = report_of(tmp_path, "--sample", "zagami")
    assert report["elements"] == ["Si", "Mg", "K", "Fe", "Ca"]
    assert report["factor"] == 2
    assert (
        set(report["psnr_enhanced_db"]) == set(report["psnr_bicubic_db"]) == {*report["elements"]}
    )
    assert {"coarse", "fine", "full_fine", "ratio"} <= set(report["beam_time_s"])
    assert len(report["model"]["sha256"]) == 64
    assert 0.5 < report["coverage_90"] <= 1
    rescanned = [row for row in report["regions"] if row["disposition"] == "rescanned"]
    assert rescanned
    assert {row["run_uid"] for row in rescanned} <= set(report["run_uids"]["xrf_fly_map"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("enhance", "nowhere.npz"), "nowhere.npz"),
        (("replay", "nowhere.jsonl"), "nowhere.jsonl"),
        (("train", "--out", "x", "--recipe", "best"), "'best'"),
        (("train", "--out", "x", "--set", "steps=none"), "steps"),
        (("train", "--out", "x", "--set", "stepps=1"), "stepps"),
        (("train", "--out", "x", "--method", "magic"), "'magic'"),
        (("train", "--out", "x", "--maps", "m.npz"), "--method self-supervised"),
        (("train", "--out", "x", "--reader", "srx"), "--method self-supervised"),
        (("train", "--out", "x", "--method", "unpaired"), "--maps FILE"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(arguments, says, tmp_path) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "option", "value", "says"),
    [
        ("demo", "--factor", "3", "factor is 3; it should be 1, 2 or 4"),
        ("demo", "--sample", "moon", "sample is 'moon'; it should be grains or zagami"),
        ("demo", "--seed", "-1", "seed is -1; it must be a whole number"),
        ("evaluate", "--counts", "nan", "counts is nan; it must be a finite number above 0"),
        ("evaluate", "--counts", "1e300", "counts is 1e+300"),
        ("evaluate", "--probe-um", "-1", "probe_um is -1"),
        ("evaluate", "--seed", "-1", "seed is -1"),
        ("evaluate", "--json", "nowhere/x.json", "--json: there is no folder"),
        ("enhance", "--probe-um", "inf", "probe FWHM is inf coarse steps"),
        ("enhance", "--probe-um", "1e300", "Are the units right?"),
        ("enhance", "--step-um", "nan", "step_um is nan"),
        ("enhance", "--dwell-ms", "nan", "dwell_ms is nan"),
        ("enhance", "--dwell-ms", "-1", "dwell_ms is -1"),
        ("enhance", "--out", "nowhere/x.h5", "--out: there is no folder"),
        ("train", "--set", "learning_rate=inf", "learning_rate"),
        ("train", "--set", "seed=-1", "seed"),
        ("train", "--set", "n_phantoms=1000000000000", "n_phantoms"),
        ("train", "--factor", "3", "2 or 4"),
    ],
)
def test_a_number_that_can_not_be_is_refused_in_one_line(
    command: str, option: str, value: str, says: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = np.random.default_rng(0).poisson(30.0, (1, 48, 48)).astype(float)
    np.savez("m.npz", maps=counts, elements=["Fe"], pixel_size_um=1.0)
    given = {"demo": ["--out", "o"], "train": ["--out", "o"]}.get(command, ["m.npz"])
    monkeypatch.setattr("sys.argv", ["xrf-sr", command, *given, option, value])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]


def test_the_extra_to_install_is_named_brackets_and_all(monkeypatch, capsys) -> None:
    def needs_torch() -> None:
        raise MissingExtraError("the network", "sr")

    monkeypatch.setattr(program, "app", needs_torch)
    with pytest.raises(SystemExit):
        cli.main()
    assert "pip install 'xrf-sr-plans[sr]'" in capsys.readouterr().err


def test_the_version_is_printed_on_one_line() -> None:
    done = run("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"xrf-sr {xrf_sr_plans.__version__}\n"


def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_help_lists_every_command_with_what_it_does() -> None:
    shown = CliRunner().invoke(app, ["--help"], env=WIDE)
    assert shown.exit_code == 0
    assert set(commands()) >= {"demo", "evaluate", "enhance", "replay", "train"}
    for name, command in commands().items():
        assert name in shown.output
        assert command.get_short_help_str(200) in " ".join(shown.output.split())


@pytest.mark.parametrize("name", sorted(commands()))
def test_each_commands_help_explains_every_parameter(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env=WIDE)
    assert shown.exit_code == 0
    for parameter in commands()[name].params:
        text = getattr(parameter, "help", None)
        assert text, f"{name}: {parameter.name} is not explained"
        assert text in " ".join(shown.output.split())


def test_a_file_without_pixel_size_is_enhanced_when_the_step_is_given(tmp_path: Path) -> None:
    file = tmp_path / "map.npz"
    np.savez(file, maps=np.random.default_rng(0).poisson(9.0, (1, 16, 16)), elements=["Fe"])
    refused = run("enhance", str(file))
    assert refused.returncode == 2
    assert "give --step-um" in refused.stderr
    done = run("enhance", str(file), "--step-um", "0.5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map_x2.h5").exists()


def test_an_enhanced_map_is_saved_for_another_program(tmp_path: Path) -> None:
    file = tmp_path / "map.npz"
    counts = np.random.default_rng(0).poisson(9.0, (1, 16, 16))
    np.savez(file, maps=counts, elements=["Fe"], pixel_size_um=0.5, units="counts")
    done = CliRunner().invoke(app, ["enhance", str(file), "--format", "maps", "--dwell-ms", "10"])
    assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "map_x2.maps.h5") as written:
        assert written["MAPS/XRF_fits"].shape == (1, 32, 32)
        np.testing.assert_allclose(np.diff(written["MAPS/x_axis"][:]) * 1e3, 0.25)
    refused = CliRunner().invoke(app, ["enhance", str(file), "--format", "png"])
    assert "format is 'png'" in str(refused.exception)


def test_rates_are_enhanced_with_a_dwell_and_refused_without(tmp_path: Path) -> None:
    file, rng = tmp_path / "map.npz", np.random.default_rng(0)
    photons = rng.poisson(rng.gamma(2.0, 20.0, (1, 24, 24))) + rng.uniform(0, 0.3, (1, 24, 24))
    facts = {"elements": ["Fe"], "pixel_size_um": 1.0}
    np.savez(file, maps=photons / 0.01, units="counts/s", **facts)
    refused = run("enhance", str(file))
    assert refused.returncode == 2
    assert "values in 'counts/s' (Fe) are rates, not photons" in " ".join(refused.stderr.split())
    assert "--dwell-ms" in refused.stderr
    done = run("enhance", str(file), "--dwell-ms", "10")
    assert done.returncode == 0, done.stderr
    assert "turned into photons by the dwell of 10 ms" in done.stderr
    np.savez(tmp_path / "counts.npz", maps=photons, units="counts", **facts)
    assert run("enhance", str(tmp_path / "counts.npz")).returncode == 0
    with (
        h5py.File(tmp_path / "map_x2.h5") as ours,
        h5py.File(tmp_path / "counts_x2.h5") as right,
    ):
        for name in ("estimate", "lower", "upper"):
            found, expected = (opened[f"enhanced/{name}"] for opened in (ours, right))
            # In the unit of the file that was read, so that the two can be laid side by side.
            assert (found.attrs["units"], expected.attrs["units"]) == ("counts/s", "counts")
            np.testing.assert_allclose(found[()] * 0.01, expected[()], rtol=1e-3)


def test_concentrations_are_refused_and_evaluated_only_by_their_proportions(tmp_path: Path) -> None:
    file, rng = tmp_path / "map.npz", np.random.default_rng(0)
    maps = rng.gamma(2.0, 0.1, (1, 48, 48))
    np.savez(file, maps=maps, elements=["Fe"], pixel_size_um=1.0, units="ug/cm2")
    refused = run("enhance", str(file), "--dwell-ms", "10")
    assert refused.returncode == 2
    assert "values in 'ug/cm2' (Fe) are neither photons nor a rate" in refused.stderr
    done = CliRunner().invoke(app, ["evaluate", str(file)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "values in 'ug/cm2' (Fe): only their proportions are used" in done.output


def nexus_file(path: Path, unit: str, step: float, size: int = 16) -> Path:
    """A NeXus file whose pixels are `step` wide in `unit`."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/maps")
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "data"
        group.attrs["axes"] = ["element", "y", "x"]
        group["data"] = rng.poisson(rng.gamma(2.0, 20.0, (1, size, size)))
        group["element"] = np.array([b"Fe"])
        for axis in "xy":
            group[axis] = step * np.arange(size)
            group[axis].attrs["units"] = unit
    return path


UNITS = [("nanometer", 2000.0), ("millimeter", 2e-3), ("micrometre", 2.0), ("MICRONS", 2.0)]


@pytest.mark.parametrize(("unit", "step"), UNITS)
def test_enhance_knows_the_unit_of_the_axes(tmp_path: Path, unit: str, step: float) -> None:
    file = nexus_file(tmp_path / "map.nxs", unit, step)
    done = CliRunner().invoke(app, ["enhance", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "map_x2.h5") as enhanced:
        x = enhanced["enhanced/x"][()]
    np.testing.assert_allclose(np.diff(x), 1.0)


@pytest.mark.parametrize(("unit", "step"), UNITS)
def test_evaluate_knows_the_unit_of_the_axes(tmp_path: Path, unit: str, step: float) -> None:
    file = nexus_file(tmp_path / "map.nxs", unit, step, size=48)
    figures = tmp_path / "figures.json"
    done = CliRunner().invoke(
        app, ["evaluate", str(file), "--json", str(figures)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    (table,) = json.loads(figures.read_text())
    assert table["conditions"]["pixel_um"] == pytest.approx(2.0)


@pytest.mark.parametrize("command", ["enhance", "evaluate"])
def test_axes_in_an_unknown_unit_are_refused(tmp_path: Path, command: str) -> None:
    file = nexus_file(tmp_path / "map.nxs", "px", 1.0)
    done = run(command, str(file))
    assert done.returncode == 2
    assert "unit is 'px'; one of pm, angstrom, nm, um" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_given_step_replaces_axes_in_an_unknown_unit(tmp_path: Path) -> None:
    file = nexus_file(tmp_path / "map.nxs", "px", 1.0)
    done = CliRunner().invoke(app, ["enhance", str(file), "--step-um", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_a_file_of_rows_is_enhanced_to_square_pixels(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    from xrf_sr_plans.maps.files import read_maps

    counts = np.random.default_rng(0).poisson(20.0, (1, 12, 32)).astype(float)
    source, target = tmp_path / "rows.npz", tmp_path / "made.h5"
    np.savez(source, maps=counts, elements=["Fe"], pixel_size_um=0.5, units="counts")
    arguments = ["enhance", str(source), "--sampling", "rows", "--factor", "2"]
    monkeypatch.setattr("sys.argv", ["xrf-sr", *arguments, "--out", str(target)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0, capsys.readouterr().err
    made = read_maps(target)
    assert made.maps.shape == (1, 24, 32)
    assert made.pixel_size_um == pytest.approx(0.5)
