"""Training: it learns, it goes on after a kill, and two processes do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("lightning")
torch = pytest.importorskip("torch")

from xrf_sr_plans.training.training_config import TrainingConfig  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def tiny(out: Path, **changes) -> TrainingConfig:
    known = {
        "steps": 4,
        "steps_per_epoch": 2,
        "n_phantoms": 6,
        "n_validation": 2,
        "phantom_px": 64,
        "coarse_px": 12,
        "maps_per_batch": 2,
        "filters": 8,
        "blocks": 5,
        "threads": 1,
        "accelerator": "cpu",
        "precision": "32-true",
        "progress": False,
        "out": out,
    }
    return TrainingConfig.model_validate(known | changes)


def weights(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    from xrf_sr_plans.training.loop import TrainingModule, train

    whole = weights(train(tiny(tmp_path / "whole")))
    step = TrainingModule.training_step

    def dies(self, batch, index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tiny(tmp_path / "cut"))
    monkeypatch.undo()
    assert (tmp_path / "cut" / "last.ckpt").exists()
    resumed = weights(train(tiny(tmp_path / "cut")))
    assert same(whole, resumed)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "notes", "factor": 2, "elements": 2, "blocks": 1, "loss": "l1_sobel"},
        {"architecture": "notes", "factor": 1, "elements": 2, "blocks": 1, "loss": "l1_sobel"},
        {"architecture": "srcnn", "factor": 4, "loss": "l1_sobel"},
        {"architecture": "srcnn", "factor": 2, "sampling": "rows", "loss": "l1_sobel"},
        {"architecture": "set"},
        {"loss": "l1_sobel"},
    ],
)
def test_peers_and_the_recipe_of_the_notes_train_too(tmp_path, changes):
    from xrf_sr_plans.training.loop import train

    made = weights(train(tiny(tmp_path, steps=2, **changes)))
    assert all(np.isfinite(value).all() for value in made.values())


def test_the_recipe_of_the_notes_is_a_configuration():
    recipe = TrainingConfig.notes(architecture="notes", factor=2, elements=5)
    assert (recipe.learning_rate, recipe.maps_per_batch, recipe.loss) == (1e-4, 32, "l1_sobel")
    assert (recipe.filters, recipe.blocks, recipe.coarse_px) == (64, 16, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "notes"},
        {"steps": 0},
        {"architecture": "gan"},
        {"architecture": "set", "factor": 1},
        {"architecture": "set", "sampling": "rows"},
        {"learn": "sigma"},
        {"learn": "sigma", "start": "w.safetensors", "architecture": "srcnn", "factor": 2},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(wrong)


@pytest.mark.slow
def test_a_minute_of_training_is_worth_the_best_gaussian(tmp_path, monkeypatch):
    from xrf_sr_plans.training.loop import TrainingModule, train

    seen: dict[str, float] = {}
    end = TrainingModule.on_train_epoch_end

    def watch(self):
        seen.update({name: float(v) for name, v in self.trainer.callback_metrics.items()})
        end(self)

    monkeypatch.setattr(TrainingModule, "on_train_epoch_end", watch)
    train(
        tiny(
            tmp_path,
            steps=240,
            steps_per_epoch=240,
            maps_per_batch=8,
            coarse_px=16,
            n_phantoms=24,
            # A third of the maps have high counts, where so short a training gains little:
            # with a few batches the mean is a matter of which maps they happen to hold.
            n_validation=48,
            shared_filters=8,
            shared_blocks=2,
            learning_rate=5e-4,
        )
    )
    # It begins as that, and what so short a training finds has cost nothing.
    names = ("gain_db_x1", "gain_db_x2", "gain_db_x4", "gain_db_x2_rows", "gain_db_x4_rows")
    assert min(seen[name] for name in names) > -0.2
    assert max(seen[name] for name in names) > 0.05


@pytest.mark.slow
def test_training_can_begin_with_weights_of_the_same_network_only(tmp_path):
    from xrf_sr_plans.errors import ConfigError
    from xrf_sr_plans.training.loop import train

    first = train(tiny(tmp_path / "first"))
    still = tiny(tmp_path / "still", start=first, steps=1, learning_rate=1e-12)
    for name, value in weights(train(still)).items():
        np.testing.assert_allclose(value, weights(first)[name], atol=1e-9)
    first.rename(tmp_path / "moved.safetensors")
    train(still)  # What is resumed doesn't need them any more.
    first = tmp_path / "moved.safetensors"
    with pytest.raises(ConfigError, match=r"no weights of such a network .*size mismatch"):
        train(tiny(tmp_path / "wider", start=first, filters=12))
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ConfigError, match=r"text\.safetensors"):
        train(tiny(tmp_path / "text", start=tmp_path / "text.safetensors"))


@pytest.mark.slow
def test_a_network_without_the_shared_trunk_can_be_gone_on_with(tmp_path):
    from xrf_sr_plans.training.loop import train

    first = train(tiny(tmp_path / "first", shared_filters=0))
    onwards = {"start": first, "shared_filters": 8, "shared_blocks": 1, "steps": 3}
    # What is new learns at the learning rate, what was there at a billionth of it.
    more = weights(train(tiny(tmp_path / "more", started_rate=1e-9, **onwards)))
    for name, value in weights(first).items():
        if not name.startswith("kriged."):
            np.testing.assert_allclose(value, more[name], atol=1e-9)
    new = {name: value for name, value in more.items() if name.startswith("shared.given.")}
    assert new
    assert any(np.abs(value).max() > 1e-5 for value in new.values())


def test_training_goes_on_from_weights_at_the_command_line(tmp_path):
    from typer.testing import CliRunner

    from xrf_sr_plans.cli import app

    first = train_tiny_by_command(tmp_path / "first", [])
    assert first.exit_code == 0, first.output
    begin = ["--from", str(tmp_path / "first" / "weights.safetensors")]
    second = train_tiny_by_command(tmp_path / "second", begin)
    assert second.exit_code == 0, second.output
    config = TrainingConfig.model_validate_json((tmp_path / "second" / "config.json").read_text())
    assert config.start == tmp_path / "first" / "weights.safetensors"
    pair = [weights(tmp_path / name / "weights.safetensors") for name in ("first", "second")]
    assert not same(*pair)
    lost = CliRunner().invoke(app, ["train", "--out", str(tmp_path), "--from", "no-such-model"])
    assert lost.exit_code != 0


def train_tiny_by_command(out: Path, arguments: list[str]):
    from typer.testing import CliRunner

    from xrf_sr_plans.cli import app

    settings = tiny(out).model_dump(mode="json", exclude_defaults=True, exclude={"out"})
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return CliRunner().invoke(app, ["train", "--out", str(out), *arguments, *given])


def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "job.py"
    settings = tiny(tmp_path / "out", devices=2).model_dump_json()
    script.write_text(
        "from xrf_sr_plans.training.training_config import TrainingConfig\n"
        "from xrf_sr_plans.training.loop import train\n"
        f"train(TrainingConfig.model_validate_json({settings!r}))\n"
    )
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*run, str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "weights.safetensors").exists()
    assert (tmp_path / "out" / "last.ckpt").exists()


def test_two_computers_train_one_model(tmp_path):
    script = tmp_path / "job.py"
    settings = tiny(tmp_path / "out", num_nodes=2).model_dump_json()
    script.write_text(
        "from xrf_sr_plans.training.training_config import TrainingConfig\n"
        "from xrf_sr_plans.training.loop import train\n"
        f"train(TrainingConfig.model_validate_json({settings!r}))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    run += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    both = [
        subprocess.Popen(
            [*run, f"--node-rank={rank}", str(script)], env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        for rank in range(2)
    ]
    assert [one.wait(timeout=110) for one in both] == [0, 0]
    assert (tmp_path / "out" / "weights.safetensors").exists()


def test_what_states_the_uncertainty_learns_alone_and_the_estimate_stays(tmp_path):
    from xrf_sr_plans.training.loop import train

    first = train(tiny(tmp_path / "first"))
    before = weights(first)
    after = weights(train(tiny(tmp_path / "second", start=first, learn="sigma")))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("sigma_heads.") for name in changed)


@pytest.mark.parametrize("when", [0, 3])
def test_weights_that_become_nan_stop_the_run_and_the_last_good_ones_stay(
    tmp_path, monkeypatch, when
):
    from xrf_sr_plans.errors import AnalysisError
    from xrf_sr_plans.training.loop import TrainingModule, train

    step = TrainingModule.training_step

    def breaks(self, batch, index):
        return step(self, batch, index) * (float("nan") if self.global_step == when else 1.0)

    monkeypatch.setattr(TrainingModule, "training_step", breaks)
    with pytest.raises(AnalysisError, match="smaller learning_rate") as caught:
        train(tiny(tmp_path))
    file = tmp_path / "weights.safetensors"
    # Two steps are an epoch: what broke in the first leaves nothing to go on from.
    assert file.exists() == (when > 0) == (str(file) in str(caught.value))
    if file.exists():
        assert all(np.isfinite(value).all() for value in weights(file).values())


def test_what_states_the_uncertainty_learns_in_bfloat16_too(tmp_path):
    from xrf_sr_plans.training.loop import train

    first = train(tiny(tmp_path / "first"))
    # The gradients that torch 2.13 gets wrong on a CPU are those of crops this large.
    sizes = {"coarse_px": 32, "phantom_px": 128, "steps": 2}
    half = {"start": first, "learn": "sigma", "precision": "bf16-mixed", **sizes}
    made = weights(train(tiny(tmp_path / "half", **half)))
    assert all(np.isfinite(value).all() for value in made.values())
