"""How good a network is that learns from pairs: on what is held out, and on phantoms.

Imports torch: import this module lazily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xrf_sr_plans.sr.network import Prediction
from xrf_sr_plans.sr.tiled_inference import Network
from xrf_sr_plans.training.batches import batch_tensors, conditions_in, predict_batch
from xrf_sr_plans.training.paired_areas import PairedArea, stacked
from xrf_sr_plans.training.paired_loss import excess_error, paired_tensors
from xrf_sr_plans.training.paired_settings import PairedSettings
from xrf_sr_plans.training.phantoms import VALIDATION_SEED
from xrf_sr_plans.training.simulated_pairs import Samples, random_batch
from xrf_sr_plans.training.team import Team, on_device

_JUDGED_STREAM = 78
ALLOWED_DB = 0.04
"""What may be lost on phantoms: less than matters where models are compared."""
COST = 30.0
"""How many dB on pairs one on phantoms is worth beyond that."""
LARGEST_JUDGED = 64
"""Longest side, in coarse steps, of the part of a held-out area that is judged."""


@dataclass(frozen=True)
class Judgement:
    """How good a network is after so many steps, in dB against the one that was begun with."""

    step: int
    pairs_db: float
    """Mean gain on the held-out areas, over elements."""
    phantoms_db: float
    """Mean gain on phantoms that nothing was learnt from."""
    share: float = 1.0
    """How far its weights lie from those that were begun with, on the way to those learnt."""

    @property
    def score(self) -> float:
        """What was gained on pairs, less what was lost on phantoms: how training goes."""
        return self.pairs_db + min(0.0, self.phantoms_db)

    @property
    def worth(self) -> float:
        """What was gained on pairs, as long as next to nothing was lost on phantoms."""
        return self.pairs_db - COST * max(0.0, -self.phantoms_db - ALLOWED_DB)


START = Judgement(0, 0.0, 0.0, 0.0)
"""That of the network which was begun with."""


class Judge:
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
        """Return how good the network is now, after so many steps."""
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
        return predict(self._network, on_device(batch, self._team.device)).estimate.clamp(min=0)


def _middle(area: PairedArea) -> PairedArea:
    """Return the middle of an area, as much of it as is judged."""
    cuts = []
    for steps in area.steps:
        size = min(steps, LARGEST_JUDGED)
        low = (steps - size) // 2
        cuts.append(slice(low, low + size))
    return area.part(*cuts)


def predict(network: nn.Module, batch: dict[str, Any]) -> Prediction:
    """Return what a network makes of a batch, wherever that is."""
    if batch["counts"].device.type == "cpu":
        return predict_batch(network, batch)
    return network(batch["counts"], conditions_in(batch), int(batch["factor"]))
