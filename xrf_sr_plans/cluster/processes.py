"""`WorkerProcess`: which processes a machine contributes to a cluster, and on which GPU each is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from xrf_sr_plans.cluster.lanes import PRIORITIES, Lane
from xrf_sr_plans.errors import ConfigError, MissingExtraError

Device = Literal["auto", "cpu", "cuda"]
"""``auto`` is ``cuda`` on a machine with a GPU, and ``cpu`` on all others."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class WorkerProcess:
    """A process that enhances maps."""

    name: str
    """Unique in the cluster."""
    lane: Lane
    """Which tasks it takes."""
    gpu: str | None
    """Number or name of its GPU; None: it uses the CPU."""

    @property
    def environment(self) -> dict[str, str]:
        """What it has in its environment, so that its GPU is the only one it sees."""
        return {_VISIBLE: self.gpu or ""}


def worker_processes(pairs: int, gpus: Sequence[str], machine: str) -> list[WorkerProcess]:
    """Return the processes of a machine, a live and a bulk one for each pair.

    Parameters
    ----------
    pairs
        Number of pairs. Pair by pair they are dealt out to the GPUs.
    gpus
        The GPUs; none: all use the CPU.
    machine
        Name of the machine, for the names of the processes.
    """
    return [
        WorkerProcess(f"{machine}-{lane}-{pair}", lane, gpus[pair % len(gpus)] if gpus else None)
        for pair in range(pairs)
        for lane in PRIORITIES
    ]


def gpus_here(device: Device, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs of this machine that are to be used.

    Parameters
    ----------
    device
        What was asked for.
    environment
        Where CUDA_VISIBLE_DEVICES may say which GPUs count.

    Raises
    ------
    ConfigError
        A GPU was asked for, and torch finds none.
    MissingExtraError
        torch is not installed.
    """
    if device == "cpu":
        return []
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("a worker of a cluster", "sr") from error
    number = torch.cuda.device_count()
    if not number and device == "cuda":
        raise ConfigError("device is 'cuda', and torch finds no GPU on this machine")
    named = [one.strip() for one in environment.get(_VISIBLE, "").split(",") if one.strip()]
    return named[:number] if named else [str(index) for index in range(number)]
