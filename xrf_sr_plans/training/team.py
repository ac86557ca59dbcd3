"""`Team`: the processes of one training, as `torchrun` starts them; alone, a team of one.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from xrf_sr_plans.errors import ConfigError

if TYPE_CHECKING:
    from xrf_sr_plans.training.training_config import TrainingConfig

TIMEOUT = timedelta(minutes=10)
"""Longest wait for another process, in which the first one judges the model."""


@dataclass(frozen=True)
class Team:
    """One of the processes that train together, each on its own batches.

    ``torchrun --nnodes N --nproc-per-node M`` starts them on any number of computers. What they
    agree on is the mean of their gradients, as in distributed data parallel training.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def from_environment(cls, accelerator: str = "auto") -> Team:
        """Join the team that the environment names, if it names one.

        Parameters
        ----------
        accelerator
            "cpu", "cuda", or "auto": a GPU where there is one for each process of this computer.

        Raises
        ------
        ConfigError
            There is no GPU, or too few.
        """
        local = int(os.environ.get("LOCAL_RANK", "0"))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if accelerator == "cuda" and gpus < here:
            raise ConfigError(f"accelerator 'cuda': {gpus} GPUs for {here} processes")
        with_gpu = accelerator != "cpu" and gpus >= here
        device = torch.device("cuda", local) if with_gpu else torch.device("cpu")
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if with_gpu else "gloo", timeout=TIMEOUT)
        return cls(int(os.environ.get("RANK", "0")), size, device)

    @property
    def leads(self) -> bool:
        """Whether this is the process that judges, writes and tells."""
        return self.rank == 0

    def average_gradients(self, network: nn.Module) -> None:
        """Replace the gradients by the means of all processes, 0 where one has none."""
        if self.size == 1:
            return
        parameters = [p for p in network.parameters() if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        )
        distributed.all_reduce(flat)
        flat /= self.size
        for parameter, part in zip(
            parameters, flat.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = part.view_as(parameter).clone()

    def told(self, value: float) -> float:
        """Return the leading process's number."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, 0)
        return float(tensor.item())

    def leave(self) -> None:
        """Leave the team, once all have come so far."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def leads() -> bool:
    """Return whether this process is the first of its team, as `Team.leads` does in one."""
    return os.environ.get("RANK", "0") == "0"


def team_size(config: TrainingConfig) -> tuple[int, int]:
    """Return how many processes train on each computer, and on how many computers.

    Parameters
    ----------
    config
        The training run. What it leaves at 1 is what ``torchrun`` says.

    Raises
    ------
    ConfigError
        It asks for another number than ``torchrun`` started, or for several computers without it.
    """
    asked = {"devices": config.devices, "num_nodes": config.num_nodes}
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        # Lightning starts the processes of one computer itself, Slurm those of several.
        if config.num_nodes > 1 and "SLURM_NTASKS" not in os.environ:
            raise ConfigError(
                f"num_nodes is {config.num_nodes}: start the command on each of them by torchrun"
                f" --nnodes {config.num_nodes} --nproc-per-node {config.devices} --rdzv-backend"
                " c10d --rdzv-endpoint FIRST_HOST:29500 -m xrf_sr_plans.cli train ..."
            )
        return config.devices, config.num_nodes
    started = {
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
    }
    for name, number in asked.items():
        if number not in (1, started[name]):
            raise ConfigError(f"{name} is {number}, but torchrun started {started[name]}")
    return started["devices"], started["num_nodes"]


def on_device(batch: dict[str, object], device: torch.device) -> dict[str, object]:
    """Return a batch with its tensors on a device."""
    moved: Iterable[tuple[str, object]] = (
        (name, value.to(device) if isinstance(value, Tensor) else value)
        for name, value in batch.items()
    )
    return dict(moved)
