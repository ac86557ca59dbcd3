"""The training loop, on Lightning: one process or many (DDP), resumable, seeded.

Imports torch and lightning: import this module lazily.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import (
    AnalysisError,
    ConfigError,
    MissingExtraError,
    XrfSrError,
    in_words,
)

try:
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset
except ImportError as error:
    raise MissingExtraError("training", "train") from error

from xrf_sr_plans.measurement import Reading
from xrf_sr_plans.sr.folded_network import smooth
from xrf_sr_plans.sr.network import Prediction, stabilise_tensor
from xrf_sr_plans.sr.registry import build
from xrf_sr_plans.training.batches import batch_tensors, conditions_in, fast_pixels
from xrf_sr_plans.training.budgeted_training import VALIDATION_STREAM
from xrf_sr_plans.training.export_model import architecture_of
from xrf_sr_plans.training.losses import NLL_WEIGHT, gaussian_nll, l1_sobel, log_mse
from xrf_sr_plans.training.phantoms import VALIDATION_SEED
from xrf_sr_plans.training.real_maps import training_maps
from xrf_sr_plans.training.simulated_pairs import Samples, random_batch
from xrf_sr_plans.training.team import TIMEOUT, leads, team_size
from xrf_sr_plans.training.training_config import OURS, TrainingConfig

log = logging.getLogger(__name__)
ADDED = ("shared", "kriged")
"""Parts that begin without an effect, so that a network without them can be gone on with."""


class _Batches(Dataset[dict[str, Any]]):
    """The batches of an epoch that one process makes, as a function of batch number and seed."""

    def __init__(
        self,
        samples: Samples,
        config: TrainingConfig,
        seed: int,
        numbers: range,
        reads: tuple[Reading, ...],
    ) -> None:
        self.samples, self.config, self.seed, self.numbers = samples, config, seed, numbers
        self.reads = reads

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = random_batch(
            self.samples,
            self.seed,
            self.numbers[index],
            maps_per_batch=self.config.maps_per_batch,
            coarse_px=self.config.coarse_px,
            only_factor=self.config.factor,
            only_elements=self.config.elements,
            only_sampling=self.config.sampling,
            reads=self.reads,
        )
        return batch_tensors(batch)


class TrainingModule(lightning.LightningModule):
    """A network with its loss, optimiser and validation figure."""

    def __init__(self, config: TrainingConfig, samples: Samples, validation: Samples) -> None:
        super().__init__()
        self.config, self.samples, self.validation = config, samples, validation
        self.network = build(architecture_of(config))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.learn == "sigma":
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(name.startswith("sigma_heads."))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the current epoch that fall to this process."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        per_epoch = min(self.config.steps_per_epoch, self.config.steps) * world
        first = self.current_epoch * per_epoch
        numbers = range(first + rank, first + per_epoch, world)
        return self._loader(self.samples, self.config.seed, numbers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the same validation batches every time."""
        numbers = range(self.config.n_validation)
        return self._loader(self.validation, VALIDATION_STREAM, numbers)

    def _loader(self, samples: Samples, seed: int, numbers: range) -> DataLoader[Any]:
        batches = _Batches(samples, self.config, seed, numbers, self.network.reads)
        return DataLoader(batches, batch_size=None, shuffle=False, num_workers=self.config.workers)

    def predict_batch(self, batch: dict[str, Any]) -> Prediction:
        """Return what the network makes of a batch."""
        return self.network(batch["counts"], conditions_in(batch), int(batch["factor"]))

    def training_step(self, batch: dict[str, Any], _index: int) -> Tensor:
        """Return the loss of one batch."""
        made, truth = self.predict_batch(batch), batch["truth"]
        if self.config.loss == "log_mse":
            loss = log_mse(made.estimate, truth)
        else:
            loss = l1_sobel(made.estimate, truth, (batch["low"] + batch["span"]) ** 2 / 4)
        self.log("loss", loss, prog_bar=True)
        if self.config.architecture not in OURS:
            return loss
        residual = stabilise_tensor(truth) - made.stabilised
        return loss + NLL_WEIGHT * gaussian_nll(made.sigma, residual)

    def validation_step(self, batch: dict[str, Any], _index: int) -> None:
        """Log the gain over the best Gaussian treatment, in dB, by factor and sampling."""
        factor, pixels = int(batch["factor"]), fast_pixels(batch)
        estimate = self.predict_batch(batch).estimate
        classical = pixels * smooth(batch["counts"], batch["smoothing"], factor, pixels)
        errors = [
            (maps.float() - batch["truth"]).square().mean(dim=(-2, -1)) + 1e-3
            for maps in (classical, estimate.clamp(min=0))
        ]
        gain = 10 * torch.log10(errors[0] / errors[1]).mean()
        name = f"gain_db_x{factor}" + ("_rows" if pixels > 1 else "")
        self.log(name, gain, on_epoch=True, batch_size=1, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return Adam with warm-up and a cosine down to 1 % of the learning rate."""
        optimiser = torch.optim.Adam(self._parameter_groups(), self.config.learning_rate)
        warm, steps = self.config.warmup_steps, self.config.steps

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            done = min(1.0, (step - warm) / max(1, steps - warm))
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is learnt, with its learning rate: most of it, and the parts `ADDED`."""
        rate = self.config.learning_rate
        groups: dict[bool, list[Any]] = {True: [], False: []}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups[name.split(".")[0] in ADDED].append(parameter)
        rates = {True: rate, False: rate * self.config.started_rate}
        return [{"params": group, "lr": rates[new]} for new, group in groups.items() if group]

    def on_train_start(self) -> None:
        """Refuse to train where not all processes go on from the same step."""
        if self.trainer.world_size == 1:
            return
        steps = self.all_gather(torch.tensor(self.global_step, device=self.device))
        if int(steps.min()) != int(steps.max()):  # type: ignore[union-attr]
            raise ConfigError(
                f"the processes go on from steps {steps.tolist()}: {self.config.out} must be a"  # type: ignore[union-attr]
                " folder that all computers see"
            )

    def on_train_epoch_end(self) -> None:
        """Write the weights as they are, so that a killed run leaves something usable."""
        figures = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        log.info("step %d: %s", self.global_step, figures)
        kept = self.config.out / "weights.safetensors"
        broken = [name for name, p in self.network.named_parameters() if not p.isfinite().all()]
        if broken:
            raise AnalysisError(
                f"step {self.global_step}: {broken[0]} holds NaN or infinite weights: begin again,"
                + (f" from {kept}, the last good ones," if kept.exists() else "")
                + f" with a smaller learning_rate than {self.config.learning_rate}"
            )
        if self.trainer.is_global_zero:
            save_weights(self.network, kept)


def save_weights(network: torch.nn.Module, path: Path) -> None:
    """Write weights atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    save_file(state, temporary)
    os.replace(temporary, path)


def _begin_with(network: torch.nn.Module, path: Path) -> None:
    """Fill in weights; parts that a smaller network of the kind has not stay as they are."""
    try:
        missing, unknown = network.load_state_dict(load_file(path), strict=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"start={path}: no weights of such a network ({reason})") from error
    wrong = [*unknown, *(name for name in missing if name.split(".")[0] not in ADDED)]
    if wrong:
        raise ConfigError(f"start={path}: no weights of such a network ({wrong[0]})")


def _is_of_the_team(error: RuntimeError) -> bool:
    """Return whether an error says that another process is gone, and not that this one failed."""
    text = str(error)
    known = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")
    return isinstance(error, torch.distributed.DistError) or any(
        word in text.lower() for word in known
    )


def train(config: TrainingConfig) -> Path:
    """Train, or go on training what is in ``config.out``; return the path of the weights.

    A run that was killed goes on from its last epoch with the batches it would have seen. Started
    by ``torchrun``, all processes train together, each with batches of its own; ``config.out`` is
    then a folder that all computers see.

    Raises
    ------
    ConfigError
        ``config.start`` isn't a file of weights for the same network, the number of processes is
        not that of ``torchrun``, or computers go on from different checkpoints.
    AnalysisError
        Weights became NaN or infinite, or another process of the training is gone.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    devices, nodes = team_size(config)
    config.out.mkdir(parents=True, exist_ok=True)
    if leads():
        (config.out / "config.json").write_text(config.model_dump_json(indent=2))
    real = training_maps(config.real_maps) if config.real_maps else []
    samples = Samples.make(
        config.n_phantoms,
        0,
        real,
        size=config.phantom_px,
        real_share=config.real_share,
        smooth_share=config.smooth_share,
    )
    validation = Samples.make(config.n_validation, VALIDATION_SEED, size=config.phantom_px)
    module = TrainingModule(config, samples, validation)
    last = config.out / "last.ckpt"
    if config.start and not last.exists():
        _begin_with(module.network, config.start)
    checkpoint = ModelCheckpoint(
        config.out, "epoch", save_last=True, every_n_epochs=1, save_on_train_epoch_end=True
    )
    trainer = lightning.Trainer(
        max_steps=config.steps,
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=nodes,
        # A batch has one factor: the head of the other is unused.
        strategy=DDPStrategy(find_unused_parameters=True, timeout=TIMEOUT)
        if devices * nodes > 1
        else "auto",
        use_distributed_sampler=False,
        precision=config.precision,
        gradient_clip_val=1.0,
        default_root_dir=config.out,
        callbacks=[checkpoint],
        logger=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=None)
    except XrfSrError:
        raise
    except RuntimeError as error:
        if devices * nodes == 1 or not _is_of_the_team(error):
            raise
        raise AnalysisError(
            f"another process of the training is gone or hangs ({in_words(error)}): end those that"
            f" are left and start all again; they go on from the last epoch in {config.out}"
        ) from error
    path = config.out / "weights.safetensors"
    if trainer.is_global_zero:
        save_weights(module.network, path)
    return path
