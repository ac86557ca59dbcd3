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


JOB = """
import os, signal, sys
from pathlib import Path
from xrf_sr_plans.training import loop
from xrf_sr_plans.training.training_config import TrainingConfig

config = TrainingConfig.model_validate_json(sys.argv[1])
notes, dies_at = Path(sys.argv[2]), sys.argv[3]
make, step = loop._Batches.__getitem__, loop.TrainingModule.training_step
rank = os.environ["RANK"]

def noted(self, index):
    if self.seed == config.seed:
        with (notes / rank).open("a") as file:
            file.write(f"{self.numbers[index]} ")
    return make(self, index)

def dying(self, batch, index):
    if rank == "1" and str(self.global_step) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)

loop._Batches.__getitem__, loop.TrainingModule.training_step = noted, dying
loop.train(config)
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start(folder: Path, how: list[str], dies_at: str = "") -> subprocess.Popen[str]:
    """Train in processes that note which batches they make."""
    (folder / "job.py").write_text(JOB)
    arguments = [str(folder / "job.py"), tiny(folder / "out").model_dump_json(), str(folder)]
    return subprocess.Popen(
        [*TORCHRUN, *how, *arguments, dies_at],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def batches_of(folder: Path, rank: int) -> list[int]:
    return [int(number) for number in (folder / str(rank)).read_text().split()]


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes on one computer have made, without being told of each other."""
    folder = tmp_path_factory.mktemp("two")
    job = start(folder, ["--nproc-per-node=2", "--standalone"])
    _, told = job.communicate(timeout=280)
    assert job.returncode == 0, told[-2000:]
    return folder


@pytest.mark.timeout(300)
def test_two_processes_train_one_model_each_on_batches_of_its_own(trained_by_two: Path) -> None:
    first, second = (batches_of(trained_by_two, rank) for rank in range(2))
    assert (first, second) == ([0, 2, 4, 6], [1, 3, 5, 7])
    made = {path.name for path in (trained_by_two / "out").iterdir()}
    assert {"weights.safetensors", "last.ckpt", "config.json"} <= made
    assert len([name for name in made if name.endswith(".ckpt")]) == 2, "written by one of them"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_computer_ends_the_training_in_words_and_it_goes_on_to_the_same_weights(
    trained_by_two: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    where += [f"--master-port={port}"]
    both = [start(tmp_path, [*where, f"--node-rank={rank}"], dies_at="3") for rank in range(2)]
    told = [job.communicate(timeout=280)[1] for job in both]
    assert all(job.returncode for job in both)
    assert "another process of the training is gone" in told[0]
    assert (tmp_path / "out" / "last.ckpt").exists()

    both = [start(tmp_path, [*where, f"--node-rank={rank}"]) for rank in range(2)]
    told = [job.communicate(timeout=280)[1] for job in both]
    assert [job.returncode for job in both] == [0, 0], told[0][-2000:]
    assert batches_of(tmp_path, 0)[-2:] == [4, 6], "the epoch that was cut off is done again"
    made, whole = (
        weights(folder / "out" / "weights.safetensors") for folder in (tmp_path, trained_by_two)
    )
    assert same(made, whole)


def test_several_computers_need_torchrun_and_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from xrf_sr_plans.errors import ConfigError
    from xrf_sr_plans.training.team import team_size

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(ConfigError, match="torchrun --nnodes 2 --nproc-per-node 4"):
        team_size(tiny(Path("out"), num_nodes=2, devices=4))
    sizes = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}
    for name, value in sizes.items():
        monkeypatch.setenv(name, value)
    assert team_size(tiny(Path("out"))) == (4, 2)
    with pytest.raises(ConfigError, match="num_nodes is 3, but torchrun started 2"):
        team_size(tiny(Path("out"), num_nodes=3))


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
