"""Go on training a network with pairs: real pairs and phantoms in turn, stopped in time, resumable.

The weights that come out lie between those that were begun with and those that were learnt
(M. Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, arXiv 2109.01903): the way
towards the latter is gone as far as nothing is forgotten that phantoms tell of. What was learnt is
a running mean over steps, which the noise of single batches hardly moves.

Imports torch: import this module lazily.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.sr.tiled_inference import Network
from xrf_sr_plans.training.batches import batch_tensors
from xrf_sr_plans.training.fine_tuning import supervised_loss
from xrf_sr_plans.training.paired_areas import PairedArea, PairedBatches
from xrf_sr_plans.training.paired_judge import START, Judge, Judgement, predict
from xrf_sr_plans.training.paired_loss import paired_loss, paired_tensors
from xrf_sr_plans.training.paired_settings import PairedSettings
from xrf_sr_plans.training.paired_state import (
    TrainingState,
    copied,
    fingerprint,
    read_state,
    write_state,
)
from xrf_sr_plans.training.simulated_pairs import Samples, random_batch
from xrf_sr_plans.training.team import Team, on_device

log = logging.getLogger(__name__)
_STREAM = 43
SHARES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Shares of the way from the weights that were begun with that are tried."""
MEAN_OVER = 50
"""Steps that the running mean of the weights is over."""


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
    judge = Judge(network, held_out, settings, team)
    batches = PairedBatches(learn, settings.maps_per_batch, settings.coarse_px)
    samples = Samples.make(settings.n_phantoms, 0, size=settings.phantom_px)
    optimiser = torch.optim.Adam(network.parameters(), settings.learning_rate)
    key = fingerprint(network, learn, held_out, settings, team.size)
    begun = copied(network)
    state = read_state(state_file, key, network, optimiser)
    state = state or TrainingState(best=dict(begun), mean=dict(begun))
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
        state.mean = _towards(state.mean, copied(network), 1 / min(MEAN_OVER, state.step))
        if state.step % settings.check_every == 0 or state.step == settings.steps:
            _check(network, state, judge)
            if team.leads:
                write_state(state_file, key, network, optimiser, state)
    _go_back_as_needed(network, begun, state, judge)
    network.to("cpu").eval()
    return state


def _check(network: Network, state: TrainingState, judge: Judge) -> None:
    """Judge the running mean of the weights, and keep it where it is the best so far."""
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise AnalysisError(
            f"step {state.step}: NaN or infinite weights: give a smaller learning_rate"
        )
    latest, before = copied(network), state.best_judgement
    network.load_state_dict(state.mean)
    last = judge(state.step)
    network.load_state_dict(latest)
    state.judged.append(last)
    if state.best_judgement is not before:
        state.best = dict(state.mean)
    _tell(f"step {last.step}", last)


def _go_back_as_needed(
    network: Network, begun: dict[str, Tensor], state: TrainingState, judge: Judge
) -> None:
    """Leave in the network the weights between `begun` and the best that are worth most.

    Where none are worth anything, those are the ones that were begun with.
    """
    best = state.best_judgement
    tried: list[Judgement] = [START]
    if best.step:
        for share in SHARES:
            network.load_state_dict(_towards(begun, state.best, share))
            tried.append(replace(judge(best.step), share=share))
            _tell(f"{share:.0%} of the way", tried[-1])
    state.chosen = max(tried, key=lambda one: one.worth)
    network.load_state_dict(_towards(begun, state.best, state.chosen.share))
    _tell(f"chosen: {state.chosen.share:.0%} of the way", state.chosen)


def _tell(what: str, judged: Judgement) -> None:
    log.info(
        "%s: %+.3f dB on held-out pairs, %+.3f dB on phantoms",
        what,
        judged.pairs_db,
        judged.phantoms_db,
    )


def _towards(begin: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return weights on the way from some to others; at its ends exactly those."""
    if share in (0.0, 1.0):
        return dict(end if share else begin)
    return {name: value + share * (end[name] - value) for name, value in begin.items()}


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
    loss = supervised_loss(predict(network, phantoms), phantoms)
    return loss + settings.pair_weight * paired_loss(predict(network, pairs), pairs)
