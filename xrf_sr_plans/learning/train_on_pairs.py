"""`train_on_pairs`: from a model and a store of pairs to a candidate for the next model.

Imports torch when it trains, not before.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from xrf_sr_plans.errors import ConfigError, ModelError
from xrf_sr_plans.learning.calibrate_on_areas import calibrate_on_areas
from xrf_sr_plans.learning.stored_areas import Lessons, lessons_of
from xrf_sr_plans.measurement import alternatives
from xrf_sr_plans.sr.registry import (
    ModelCard,
    load_network,
    model_path,
    read_card,
    write_card,
)
from xrf_sr_plans.sr.trust_boundary import read_boundary, write_boundary
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.training.paired_settings import PairedSettings
from xrf_sr_plans.training.training_config import OURS

logger = logging.getLogger(__name__)
SUFFIX = "-paired"
"""What the name of a model that learnt from pairs ends with, before the number of its version."""
SHIPPED_LIMIT = "trained on simulated measurements only"
"""How that limit in a card begins which isn't true any more."""


class LearningSettings(PairedSettings):
    """A training on pairs, from the model that it begins with to the candidate."""

    pairs: Path
    """Folder of the pair store."""
    out: Path
    """Folder for the candidate and the state of the training, which is gone on with."""
    start: str | None = None
    """Name or file of the model to begin with. None stands for the default model."""
    calibrate_per_family: int = Field(default=3, ge=1, le=10**4)
    """Phantoms of each family that the intervals are calibrated on."""


def train_on_pairs(settings: LearningSettings, lessons: Lessons | None = None) -> Path:
    """Go on training a model with pairs, calibrate it, and return the path of its weights.

    Card, calibration and trust boundary lie beside them. Nothing is promised about whether it is
    better: `learning.compare_models` tells. Started by ``torchrun``, all processes train together,
    and the first one does the rest.

    Parameters
    ----------
    settings
        What from, where to and how.
    lessons
        The areas of the store, where they are known already.

    Raises
    ------
    ConfigError
        There is no pair to learn from. The message says why not.
    FileFormatError
        The log of the store is damaged; damaged pairs are left out.
    ModelError
        No such model, or one that can't be gone on with.
    """
    from xrf_sr_plans.training.paired_training import learn_from_pairs
    from xrf_sr_plans.training.team import Team

    path = model_path(settings.start)
    card = read_card(path)
    if card.architecture.kind not in OURS:
        raise ModelError(
            f"model {card.name!r} is of the kind {card.architecture.kind!r}; {alternatives(OURS)}"
        )
    lessons = lessons or lessons_of(PairStore(settings.pairs))
    _refuse_nothing(lessons, settings.pairs)
    network = load_network(path, card)
    team = Team.from_environment(settings.accelerator)
    state = learn_from_pairs(
        network,
        _readable(lessons.learn, network),
        _readable(lessons.held_out, network),
        PairedSettings.model_validate(
            settings.model_dump(include=set(PairedSettings.model_fields))
        ),
        settings.out / "training.safetensors",
        team,
    )
    target = settings.out / f"{_base_name(card)}{SUFFIX}.safetensors"
    if team.leads:
        _write_weights(network, target)
        _write_card(target, card, settings, lessons, state)
        _take_over_boundary(path, card, target)
        # Errors are smaller where something was learnt from than elsewhere.
        fresh = [area for area in lessons.held_out if not area.was_chosen]
        areas = fresh or lessons.learn
        calibrate_on_areas(target, areas, n_per_family=settings.calibrate_per_family)
    team.leave()
    return target


def _base_name(card: ModelCard) -> str:
    """Return the name of a model without what learning adds to it."""
    return re.sub(rf"({SUFFIX})?(-\d{{4,}})?$", "", card.name)


def _refuse_nothing(lessons: Lessons, folder: Path) -> None:
    if lessons.learn and lessons.held_out:
        return
    reasons = [f"{one.name}: {one.reason}" for one in lessons.left_out[:5]]
    more = len(lessons.left_out) - len(reasons)
    reasons += [f"and {more} more"] if more > 0 else []
    what = "no pair to learn from" if not lessons.learn else "no pair to judge by"
    raise ConfigError("; ".join([f"{folder}: {what}", *reasons]))


def _readable(areas: Sequence[Any], network: Any) -> list[Any]:
    """Return areas as the network reads them: rows as squares for one that reads no rows."""
    return [area if area.reading in network.reads else area.squares() for area in areas]


def _write_weights(network: Any, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({k: v.detach().contiguous() for k, v in network.state_dict().items()}, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_card(
    path: Path,
    start: ModelCard,
    settings: LearningSettings,
    lessons: Lessons,
    state: Any,
) -> None:
    best = state.chosen
    held_out = "parts of the areas that were learnt from" if lessons.by_area else "other samples"
    facts: dict[str, Any] = {
        "start": {"name": start.name, "sha256": start.sha256},
        "config": settings.model_dump(mode="json", exclude={"out", "pairs", "start"}),
        "pairs": {
            "version": lessons.version,
            "learnt from": _named(lessons.learn),
            "held out": _named(lessons.held_out),
            "held out are": held_out,
            "samples": list(lessons.samples),
            "left out": {one.name: one.reason for one in lessons.left_out},
        },
        "steps": state.step,
        "best step": best.step,
        "share of the way": best.share,
        "gain on held-out pairs, dB": round(best.pairs_db, 4),
        "gain on phantoms, dB": round(best.phantoms_db, 4),
    }
    limits = [one for one in start.limits if not one.startswith(SHIPPED_LIMIT)]
    told = f"learnt from pairs of {len(lessons.samples)} samples of one beamline; elsewhere it is"
    limits = [one for one in limits if not one.startswith("learnt from pairs of")]
    limits.append(f"{told} no better than {start.name}")
    card = ModelCard(
        name=path.stem,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        architecture=start.architecture,
        summary=f"{_base_name(start)}, gone on with pairs of a beamline's own",
        data=start.data,
        training=facts,
        limits=limits,
        license=start.license,
    )
    write_card(path, card)


def _named(areas: Iterable[Any]) -> list[str]:
    return sorted({area.name for area in areas})


def _take_over_boundary(start: Path, card: ModelCard, target: Path) -> None:
    """Give the candidate the trust boundary of the model that it was begun with.

    Whether it holds is told by the comparison, which counts false features inside it.
    """
    target.with_suffix(".trust.json").unlink(missing_ok=True)
    boundary = read_boundary(start, card.sha256)
    if boundary is not None:
        changed = {
            "model_sha256": read_card(target).sha256,
            "source": f"taken over from {card.name} {card.sha256[:12]}: {boundary.source}",
            "figures": {},
        }
        write_boundary(target, boundary.model_copy(update=changed))
