"""Versions of a model: one is in use, whole, at whatever moment a process is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch")

from support.models import made_model
from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.sr.model_versions import ModelVersions
from xrf_sr_plans.sr.predict import model_identity
from xrf_sr_plans.sr.registry import load_model, model_path


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models").mkdir()
    return [
        made_model(tmp_path / "models", name=f"made-{number}", stir=0.01 * number)
        for number in range(3)
    ]


def test_a_promoted_version_is_what_the_folder_stands_for(models, tmp_path):
    versions = ModelVersions(tmp_path / "own")
    assert versions.begin(models[0]).version == "0001"
    assert versions.begin(models[1]).version == "0001"
    second = versions.add(models[1], {"gain": 0.7})
    assert versions.current().version == "0001"
    change = versions.promote(second, "better by 0.7 dB")
    assert (change.version, change.before, change.number) == ("0002", "0001", 2)
    chosen = f"registry:{tmp_path / 'own'}"
    card, _, _ = load_model(chosen)
    assert card.name == "made-1-0002"
    assert card.sha256 == load_model(models[1])[0].sha256
    assert model_identity(chosen, 2)["name"] == "made-1-0002"
    assert versions.report("0002") == {"gain": 0.7}
    assert versions.report("0001") == {}


def test_rolling_back_leads_to_the_version_before_and_again_to_the_one_before_that(
    models, tmp_path
):
    versions = ModelVersions(tmp_path / "own")
    versions.begin(models[0])
    for model in models[1:]:
        versions.promote(versions.add(model, {}))
    assert versions.rollback(reason="false grains").version == "0002"
    assert versions.rollback().version == "0001"
    with pytest.raises(ModelError, match="no version was in use before"):
        versions.rollback()
    assert versions.promote("0003").version == "0003"
    assert versions.rollback().version == "0001"
    actions = [change.action for change in versions.history()]
    assert actions == [
        *("begun", "promoted", "promoted", "rolled back", "rolled back", "promoted", "rolled back"),
    ]
    assert versions.versions() == ["0001", "0002", "0003"]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda folder: (folder / "current.json").write_text("{}"), "not a choice"),
        (lambda folder: (folder / "current.json").write_text("nonsense"), "not a choice"),
        (lambda folder: (folder / "current.json").unlink(), "has no models"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(models, tmp_path, spoil, word):
    folder = tmp_path / "own"
    ModelVersions(folder).begin(models[0])
    spoil(folder)
    with pytest.raises(ModelError, match=word):
        model_path(f"registry:{folder}")


def test_a_version_that_was_changed_is_not_put_into_use(models, tmp_path):
    versions = ModelVersions(tmp_path / "own")
    versions.begin(models[0])
    second = versions.add(models[1], {})
    weights = versions.path(second)
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(ModelError, match="sha256"):
        versions.promote(second)
    assert versions.current().version == "0001"
    with pytest.raises(ModelError, match="no version '0009'"):
        versions.promote("0009")
    with pytest.raises(ModelError, match="no version"):
        versions.promote("../../x")


def test_a_line_that_was_not_written_any_more_is_completed(models, tmp_path, caplog):
    versions = ModelVersions(tmp_path / "own")
    versions.begin(models[0])
    versions.promote(versions.add(models[1], {}))
    file = tmp_path / "own" / "history.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:20])
    assert [change.version for change in versions.history()] == ["0001", "0002"]
    versions.promote(versions.add(models[2], {}))
    assert [change.version for change in versions.history()] == ["0001", "0002", "0003"]
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()[-2:]] == [2, 3]


PROMOTES = """
import sys
from pathlib import Path
from xrf_sr_plans.sr.model_versions import ModelVersions
from xrf_sr_plans.sr.registry import load_model
versions = ModelVersions(sys.argv[1])
load_model(versions.path())
sys.stdout.write("ready")
sys.stdout.flush()
while True:
    for model in sys.argv[2:]:
        versions.promote(versions.add(Path(model), {"gain": 1.0}), "again")
"""


def test_killed_at_any_moment_a_whole_version_is_in_use(models, tmp_path):
    folder = tmp_path / "own"
    versions = ModelVersions(folder)
    versions.begin(models[0])
    dice = random.Random(0)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for _ in range(4):
        command = [sys.executable, "-c", PROMOTES, str(folder), *map(str, models[1:])]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.read(5)
            time.sleep(dice.uniform(0.0, 0.3))
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        card, _, _ = load_model(f"registry:{folder}")
        current = versions.current()
        assert card.sha256 == current.sha256
        reached = current.number
        numbers = [change.number for change in versions.history()]
        assert numbers == list(range(1, current.number + 1))
    assert reached > 5
    # Whoever comes next finds no lock, and goes on.
    last = versions.promote(versions.add(models[1], {}))
    assert load_model(f"registry:{folder}")[0].name.endswith(last.version)
    assert all(versions.path(name).exists() for name in versions.versions())
