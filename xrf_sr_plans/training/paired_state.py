"""The state of a training on pairs, in a safetensors file: what it takes to go on after a kill.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xrf_sr_plans.training.paired_areas import PairedArea
from xrf_sr_plans.training.paired_judge import START, Judgement
from xrf_sr_plans.training.paired_settings import PairedSettings

log = logging.getLogger(__name__)
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter."""


@dataclass
class TrainingState:
    """All that a training needs to go on."""

    step: int = 0
    judged: list[Judgement] = field(default_factory=list)
    mean: dict[str, Tensor] = field(default_factory=dict)
    """Running mean of the weights."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """That mean where it was best."""
    chosen: Judgement = START
    """That of the weights that came out in the end."""

    @property
    def best_judgement(self) -> Judgement:
        """The best so far; before a better one, that of the network that was begun with."""
        return max([START, *self.judged], key=lambda one: one.score)

    def waited(self) -> int:
        """Return how many judgements there were since the best one."""
        return sum(one.step > self.best_judgement.step for one in self.judged)


def copied(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network as they are now."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def fingerprint(
    network: nn.Module,
    learn: Sequence[PairedArea],
    held_out: Sequence[PairedArea],
    settings: PairedSettings,
    processes: int,
) -> str:
    """Return what a training is recognised by: what it begins with, learns from, and how."""
    digest = hashlib.sha256(settings.model_dump_json().encode() + str(processes).encode())
    for value in network.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    for areas in (learn, held_out):
        for area in areas:
            digest.update(repr((area.name, area.sample, area.measurement)).encode())
            for plane in (area.counts, area.target, area.variance, area.measured):
                digest.update(np.ascontiguousarray(plane).tobytes())
        digest.update(b"held out")
    return digest.hexdigest()


def write_state(
    file: Path,
    key: str,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: TrainingState,
) -> None:
    """Write the state of a training; the file appears as a whole or not at all.

    Raises
    ------
    OSError
        The disk is full, or writing is not permitted.
    """
    tensors = {f"weights/{name}": value for name, value in network.state_dict().items()}
    for kind, weights in (("mean", state.mean), ("best", state.best)):
        tensors |= {f"{kind}/{name}": value for name, value in weights.items()}
    for name, parameter in network.named_parameters():
        known = optimiser.state.get(parameter, {})
        tensors |= {f"{moment}/{name}": known[moment] for moment in _MOMENTS if moment in known}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    facts = {"step": state.step, "judged": [vars(one) for one in state.judged]}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        save_file(plain, temporary, metadata={"key": key, "facts": json.dumps(facts)})
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def read_state(
    file: Path, key: str, network: nn.Module, optimiser: torch.optim.Optimizer
) -> TrainingState | None:
    """Fill network and optimiser from a state, and return it; None where it is of another training.

    A damaged file is told in the log, and counts as none.
    """
    if not file.is_file():
        return None
    device = next(network.parameters()).device
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("key") != key:
                log.info("%s: is of another training, which begins anew", file)
                return None
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        facts = json.loads(metadata["facts"])
        state = TrainingState(facts["step"], [Judgement(**one) for one in facts["judged"]])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        log.warning("%s: can't be gone on with, the training begins anew: %s", file, error)
        return None

    def part(prefix: str) -> dict[str, Tensor]:
        begin = f"{prefix}/"
        return {n[len(begin) :]: v for n, v in tensors.items() if n.startswith(begin)}

    network.load_state_dict(part("weights"))
    state.mean, state.best = (
        {name: value.to(device) for name, value in part(kind).items()} for kind in ("mean", "best")
    )
    for moment in _MOMENTS:
        for name, value in part(moment).items():
            # Adam keeps the number of steps on the CPU.
            where = value if moment == "step" else value.to(device)
            optimiser.state[network.get_parameter(name)][moment] = where
    return state
