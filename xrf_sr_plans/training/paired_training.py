"""Go on training a network with pairs: real pairs and phantoms in turn, stopped in time, resumable.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.sr.network import Prediction
from xrf_sr_plans.sr.tiled_inference import Network
from xrf_sr_plans.training.batches import batch_tensors, conditions_in, predict_batch
from xrf_sr_plans.training.fine_tuning import supervised_loss
from xrf_sr_plans.training.paired_areas import PairedArea, PairedBatches, stacked
from xrf_sr_plans.training.paired_loss import excess_error, paired_loss, paired_tensors
from xrf_sr_plans.training.phantoms import VALIDATION_SEED
from xrf_sr_plans.training.simulated_pairs import Samples, random_batch
from xrf_sr_plans.training.team import Team, on_device

log = logging.getLogger(__name__)
_STREAM, _JUDGED_STREAM = 43, 78
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter."""
LARGEST_JUDGED = 64
"""Longest side, in coarse steps, of the part of a held-out area that is judged."""


class PairedSettings(BaseModel):
    """How a network goes on learning from pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=900, ge=0, le=10**8)
    """Most optimiser steps, each with a batch of pairs and one of phantoms; the learning rate
    follows a cosine over them."""
    learning_rate: float = Field(default=3e-4, gt=0, le=1, allow_inf_nan=False)
    pair_weight: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False)
    """Weight of the pairs' loss beside that of the phantoms."""
    maps_per_batch: int = Field(default=8, ge=1, le=4096)
    """Single-element maps in each of the two batches of a step."""
    coarse_px: int = Field(default=32, ge=8, le=1024)
    """Largest side of a crop in coarse steps."""
    check_every: int = Field(default=60, ge=1, le=10**8)
    """Steps after which the network is judged on what is held out, and the state is written."""
    patience: int = Field(default=5, ge=1, le=10**6)
    """The training ends after so many judgements without a better one."""
    n_phantoms: int = Field(default=60, ge=1, le=10**6)
    phantom_px: int = Field(default=192, ge=64, le=4096)
    n_judged: int = Field(default=10, ge=1, le=10**5)
    """Batches of phantoms that tell what is forgotten."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int | None = Field(default=1, ge=1, le=1024)
    """Number of CPU threads. None stands for as many as torch likes."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class Judgement:
    """How good a network is after so many steps, in dB against the one that was begun with."""

    step: int
    pairs_db: float
    """Mean gain on the held-out areas, over elements."""
    phantoms_db: float
    """Mean gain on phantoms that nothing was learnt from."""

    @property
    def score(self) -> float:
        """What was gained on pairs, less what was lost on phantoms."""
        return self.pairs_db + min(0.0, self.phantoms_db)


@dataclass
class TrainingState:
    """All that a training needs to go on."""

    step: int = 0
    judged: list[Judgement] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_judgement(self) -> Judgement:
        """The best so far; before any, that of the network that was begun with."""
        return max(self.judged, key=lambda one: one.score, default=Judgement(0, 0.0, 0.0))

    def waited(self) -> int:
        """Return how many judgements there were since the best one."""
        return sum(one.step > self.best_judgement.step for one in self.judged)


def learn_from_pairs(
    network: Network,
    learn: Sequence[PairedArea],
    held_out: Sequence[PairedArea],
    settings: PairedSettings,
    state_file: Path,
    team: Team | None = None,
) -> TrainingState:
    """Train a network in place, and leave in it the weights that did best on what is held out.

    With one number of threads and one team the same arguments give the same weights, whether the
    training was killed and went on or not.

    Parameters
    ----------
    network
        The network to go on with; it is in every process of the team.
    learn, held_out
        Areas to learn from, and those that say when to stop. Neither may be empty.
    settings
        How.
    state_file
        Where the state is written after each judgement. If it holds the state of the same training,
        that goes on.
    team
        The processes that train together; None: this one alone.

    Raises
    ------
    AnalysisError
        Weights became NaN or infinite.
    """
    team = team or Team.from_environment(settings.accelerator)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    network.to(team.device)
    judge = _Judge(network, held_out, settings, team)
    batches = PairedBatches(learn, settings.maps_per_batch, settings.coarse_px)
    samples = Samples.make(settings.n_phantoms, 0, size=settings.phantom_px)
    optimiser = torch.optim.Adam(network.parameters(), settings.learning_rate)
    key = fingerprint(network, learn, held_out, settings, team.size)
    state = read_state(state_file, key, network, optimiser) or TrainingState()
    state.best = state.best or _copied(network)
    if state.step:
        log.info("going on at step %d of %d", state.step, settings.steps)
    network.train()
    while state.step < settings.steps and state.waited() < settings.patience:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _rate(state.step, settings.steps)
        optimiser.zero_grad()
        _loss(network, batches, samples, state.step, settings, team).backward()
        team.average_gradients(network)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        state.step += 1
        if state.step % settings.check_every == 0 or state.step == settings.steps:
            _check(network, state, judge)
            if team.leads:
                write_state(state_file, key, network, optimiser, state)
    network.load_state_dict(state.best)
    network.to("cpu").eval()
    return state


def _check(network: Network, state: TrainingState, judge: _Judge) -> None:
    """Judge the network, and keep its weights where they are the best so far."""
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise AnalysisError(
            f"step {state.step}: NaN or infinite weights: give a smaller learning_rate"
        )
    before = state.best_judgement
    state.judged.append(judge(state.step))
    if state.best_judgement is not before:
        state.best = _copied(network)
    last = state.judged[-1]
    log.info(
        "step %d: %+.3f dB on held-out pairs, %+.3f dB on phantoms",
        last.step,
        last.pairs_db,
        last.phantoms_db,
    )


def _rate(step: int, steps: int) -> float:
    """Return the share of the learning rate: warm-up over a tenth, then a cosine to a hundredth."""
    done = step / steps
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    return min(1.0, 10 * done + 0.02) * cosine


def _loss(
    network: Network,
    batches: PairedBatches,
    samples: Samples,
    step: int,
    settings: PairedSettings,
    team: Team,
) -> Tensor:
    """Return the loss of a step; each process of the team has batches of its own."""
    number = step * team.size + team.rank
    readings = [one for one in batches.readings() if one in network.reads]
    rng = np.random.default_rng([settings.seed, _STREAM, number])
    # All processes of the team have the same reading: the heads of others have no gradient.
    drawn = batches.draw(rng, readings[step % len(readings)])
    pairs = on_device(paired_tensors(drawn), team.device)
    known = random_batch(
        samples,
        settings.seed,
        number,
        maps_per_batch=settings.maps_per_batch,
        coarse_px=min(settings.coarse_px, settings.phantom_px // 4),
        reads=network.reads,
    )
    phantoms = on_device(batch_tensors(known), team.device)
    loss = supervised_loss(_predict(network, phantoms), phantoms)
    return loss + settings.pair_weight * paired_loss(_predict(network, pairs), pairs)


def _predict(network: nn.Module, batch: dict[str, Any]) -> Prediction:
    if batch["counts"].device.type == "cpu":
        return predict_batch(network, batch)
    return network(batch["counts"], conditions_in(batch), int(batch["factor"]))


class _Judge:
    """Compares a network with what it was when the judge was made, in the leading process."""

    def __init__(
        self,
        network: Network,
        held_out: Sequence[PairedArea],
        settings: PairedSettings,
        team: Team,
    ) -> None:
        self._network, self._team = network, team
        self._areas, self._known = [], []
        if team.leads:
            self._areas = [paired_tensors(stacked([_middle(area)])) for area in held_out]
            fresh = Samples.make(settings.n_judged, VALIDATION_SEED, size=settings.phantom_px)
            self._known = [
                batch_tensors(
                    random_batch(
                        fresh,
                        _JUDGED_STREAM,
                        number,
                        maps_per_batch=settings.maps_per_batch,
                        coarse_px=min(settings.coarse_px, settings.phantom_px // 4),
                        reads=network.reads,
                    )
                )
                for number in range(settings.n_judged)
            ]
        self._before = self._errors()

    def __call__(self, step: int) -> Judgement:
        gains = [
            float(np.mean([10 * np.log10(old / new).mean() for old, new in zip(b, a, strict=True)]))
            if b
            else 0.0
            for b, a in zip(self._before, self._errors(), strict=True)
        ]
        return Judgement(step, self._team.told(gains[0]), self._team.told(gains[1]))

    def _errors(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the errors (element,) of each held-out area, and those of each batch."""
        was_training = self._network.training
        self._network.eval()
        with torch.inference_mode():
            pairs = [
                excess_error(self._estimate(batch), on_device(batch, self._team.device))
                for batch in self._areas
            ]
            known = [
                (self._estimate(batch) - batch["truth"].to(self._team.device))
                .square()
                .mean((-2, -1))
                + 1e-3
                for batch in self._known
            ]
        self._network.train(was_training)
        return tuple([one.cpu().double().numpy() for one in each] for each in (pairs, known))  # type: ignore[return-value]

    def _estimate(self, batch: dict[str, Any]) -> Tensor:
        return _predict(self._network, on_device(batch, self._team.device)).estimate.clamp(min=0)


def _middle(area: PairedArea) -> PairedArea:
    """Return the middle of an area, as much of it as is judged."""
    cuts = []
    for steps in area.steps:
        size = min(steps, LARGEST_JUDGED)
        low = (steps - size) // 2
        cuts.append(slice(low, low + size))
    return area.part(*cuts)


def _copied(network: nn.Module) -> dict[str, Tensor]:
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
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    for name, parameter in network.named_parameters():
        known = optimiser.state.get(parameter, {})
        tensors |= {f"{moment}/{name}": known[moment] for moment in _MOMENTS if moment in known}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
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
    state.best = {name: value.to(device) for name, value in part("best").items()}
    for moment in _MOMENTS:
        for name, value in part(moment).items():
            # Adam keeps the number of steps on the CPU.
            where = value if moment == "step" else value.to(device)
            optimiser.state[network.get_parameter(name)][moment] = where
    return state
