"""`learn`: unattended, alone, once for each state of the store, and never half done."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from support.made_pairs import made_store
from support.models import made_model
from xrf_sr_plans.cli import app
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.learning import compare_models, learn
from xrf_sr_plans.learning.compare_models import Effort
from xrf_sr_plans.learning.guards import Guard
from xrf_sr_plans.sr.model_versions import ModelVersions
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.training import paired_training

QUICK = {
    "steps": 4,
    "check_every": 2,
    "maps_per_batch": 2,
    "coarse_px": 16,
    "n_phantoms": 3,
    "phantom_px": 64,
    "n_judged": 2,
    "calibrate_per_family": 1,
}
EFFORT = Effort(phantom_px=48, counts=(50.0,), feature_repeats=0)


@pytest.fixture
def beamline(tmp_path, quick_calibration):
    """Pairs of five samples, and a model to begin with."""
    pairs = made_store(tmp_path / "pairs", range(5), side=64)
    return pairs, made_model(tmp_path), tmp_path / "own"


def run(beamline, **how):
    pairs, start, own = beamline
    given = {"start": str(start), "changes": QUICK, "effort": EFFORT}
    return learn.learn(pairs, own, **(given | how))


def decided(monkeypatch, gain):
    """Let the comparison end with a gain in dB."""
    real = compare_models.compare_models

    def compared(*args, **how):
        found = real(*args, **how)
        words = found.gain.name, found.gain.where
        certain = Guard(*words, 20 + gain, 20.0, gain, gain - 0.01, gain + 0.01, 9, 3, 0.0)
        return compare_models.Comparison(found.candidate, found.in_use, certain, ())

    monkeypatch.setattr(compare_models, "compare_models", compared)


def test_a_better_model_is_promoted_with_its_report_and_named_by_its_version(beamline, monkeypatch):
    decided(monkeypatch, 0.5)
    said = []
    done = run(beamline, progress=said.append)
    versions = ModelVersions(beamline[2])
    assert (done.outcome, done.exit_code, done.version) == ("promoted", 0, "0002")
    assert load_model(f"registry:{beamline[2]}")[0].name == "made-paired-0002"
    report = versions.report("0002")
    assert report["promotes"] is True
    assert report["pairs"] == PairStore(beamline[0]).version
    assert report["training"]["pairs"]["held out are"] == "other samples"
    assert any("training" in line for line in said)
    assert any("sample" in line for line in done.words)
    again = run(beamline)
    assert (again.outcome, again.version) == ("nothing new", "0002")
    # A model of one's own is gone on with, and keeps its base name.
    third = run(beamline, again=True)
    assert load_model(f"registry:{beamline[2]}")[0].name == "made-paired-0003"
    assert third.report["training"]["start"]["name"] == "made-paired-0002"


def test_a_model_that_is_not_better_is_not_used_and_the_words_say_why(beamline, monkeypatch):
    decided(monkeypatch, -0.5)
    done = run(beamline)
    assert (done.outcome, done.exit_code, done.version) == ("not better", 10, "0001")
    assert any("not surely better" in line for line in done.words)
    assert ModelVersions(beamline[2]).versions() == ["0001"]
    assert run(beamline).outcome == "nothing new"
    made_store(beamline[0], range(5, 6), side=64)
    assert run(beamline).outcome == "not better"


def test_only_one_learns_at_a_time(beamline):
    own = beamline[2]
    (own / "learning").mkdir(parents=True)
    with (own / "learning" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(beamline).outcome == "busy"
    assert not ModelVersions(own).begun


def test_without_usable_pairs_there_is_nothing_to_learn_from(tmp_path, quick_calibration):
    pairs = made_store(tmp_path / "pairs", range(2), side=64, peak=0.5)
    done = learn.learn(pairs, tmp_path / "own", start=str(made_model(tmp_path)))
    assert (done.outcome, done.exit_code) == ("too few pairs", 11)
    assert any("photons" in line for line in done.words)
    with pytest.raises(ConfigError, match="no folder"):
        learn.learn(tmp_path / "nowhere", tmp_path / "own")


def test_a_killed_learning_goes_on_where_it_was(beamline, monkeypatch):
    decided(monkeypatch, 0.5)
    loss, steps = paired_training._loss, []

    def dies(*args):
        steps.append(args[3])
        if len(steps) == 4:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(paired_training, "_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        run(beamline)
    assert ModelVersions(beamline[2]).current().version == "0001"
    assert run(beamline).outcome == "promoted"
    assert steps == [0, 1, 2, 3, 2, 3]


def test_from_the_command_line(beamline, tmp_path, monkeypatch):
    monkeypatch.setattr(learn, "step_back", lambda: None)
    decided(monkeypatch, 0.5)
    monkeypatch.setattr(compare_models, "Effort", lambda: EFFORT)
    pairs, start, own = beamline
    command = ["learn", str(pairs), "--registry", str(own), "--from", str(start)]
    for name, value in QUICK.items():
        command += ["--set", f"{name}={value}"]
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, [*command, "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "promoted" in result.output
    assert json.loads(report.read_text())["version"] == "0002"
    shown = CliRunner().invoke(app, ["models", "list", str(own)]).output
    assert "made-paired-0002" in shown
    back = CliRunner().invoke(app, ["models", "rollback", str(own), "--reason", "false grains"])
    assert "version 0001" in back.output
    assert f"registry:{own}" in back.output.replace("\n", "")
    assert ModelVersions(own).history()[-1].reason == "false grains"
    assert "0002" in CliRunner().invoke(app, ["models", "promote", str(own), "0002"]).output
    wrong = CliRunner().invoke(app, [*command, "--again", "--set", "stepps=3"])
    assert isinstance(wrong.exception, ConfigError)


def test_train_with_pairs_writes_a_model_and_says_how_to_choose_it(beamline, tmp_path):
    pairs, start, _ = beamline
    command = ["train", "--pairs", str(pairs), "--out", str(tmp_path / "out"), "--from", str(start)]
    for name, value in QUICK.items():
        command += ["--set", f"{name}={value}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "dB on held-out pairs" in result.output
    assert Path(tmp_path / "out" / "made-paired.safetensors").exists()
    wrong = CliRunner().invoke(app, [*command, "--method", "unpaired"])
    assert isinstance(wrong.exception, ConfigError)
