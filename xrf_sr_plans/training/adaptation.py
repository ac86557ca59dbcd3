"""Adapt a model to a kind of sample of which there are no pairs (`xrf-sr train --method`).

Imports torch: import this module lazily.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from xrf_sr_plans.errors import MissingExtraError, ModelError

try:
    import torch
    from safetensors.torch import save_file
except ImportError as error:
    raise MissingExtraError("training", "train") from error

from xrf_sr_plans.maps.readers import ReadOptions, read_map
from xrf_sr_plans.measurement import Factor, Sampling, alternatives
from xrf_sr_plans.sr.registry import ModelCard, load_network, model_path, read_card, write_card
from xrf_sr_plans.sr.tiled_inference import Network
from xrf_sr_plans.training.batches import batch_tensors, predict_batch
from xrf_sr_plans.training.calibrate_model import calibrate_model
from xrf_sr_plans.training.fine_tuning import fine_tune
from xrf_sr_plans.training.real_maps import clean
from xrf_sr_plans.training.self_supervised import self_supervised_loss
from xrf_sr_plans.training.simulated_pairs import Pair, Samples, make_batch, random_batch
from xrf_sr_plans.training.thinned_maps import (
    CoarseMap,
    ThinnedBatches,
    held_out_pairs,
    hold_out,
    read_coarse_maps,
)
from xrf_sr_plans.training.training_config import OURS
from xrf_sr_plans.training.unpaired import unpaired_loss

log = logging.getLogger(__name__)
Method = Literal["self-supervised", "unpaired"]
LOSSES = {"self-supervised": self_supervised_loss, "unpaired": unpaired_loss}
HELD_OUT = 0.2
"""Share of the photons that nothing is learnt from."""
WARNINGS = {
    "self-supervised": "experimental: compare it with the model it comes from on a fine rescan",
    "unpaired": "experimental: unpaired training may invent what it can't see; check it with"
    " xrf-sr hallucinate and on a fine rescan",
}


class AdaptationConfig(BaseModel):
    """A run of `adapt`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "self-supervised"
    start: str | None = None
    """Name or file of the model to start from. None stands for the default model."""
    maps: tuple[Path, ...] = ()
    """Coarse maps of the new sample, in photons, or in counts per second with a dwell time."""
    dwell_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Time at each pixel of `maps`, for values that are counts per second."""
    units: str | None = None
    """Unit of the values of `maps`; it replaces what the files give."""
    reader: str | None = None
    """Reader of all maps (`xrf-sr readers`); None: the one that recognises each."""
    known: ReadOptions = Field(default_factory=ReadOptions)
    """What is known of `maps` and `fine` better than the files and runs say."""
    fine: tuple[Path, ...] = ()
    """Fine maps of other samples to learn from beside the phantoms."""
    out: Path
    """Folder for the adapted model."""
    sampling: Sampling | None = None
    """None: what runs say, and ``fly`` for files."""
    fast_pixels: Factor | None = None
    """Of rows: measured pixels per step along the fast axis. None: what runs say, and 1 for
    files."""
    probe_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    steps: int = Field(default=240, ge=1, le=10**8)
    learning_rate: float = Field(default=3e-4, gt=0, le=1, allow_inf_nan=False)
    maps_per_batch: int = Field(default=8, ge=1, le=4096)
    coarse_px: int = Field(default=32, ge=8, le=1024)
    n_phantoms: int = Field(default=60, ge=1, le=10**6)
    phantom_px: int = Field(default=192, ge=64, le=4096)
    calibrate_per_family: int = Field(default=4, ge=1, le=10**4)
    """Phantoms of each family that the intervals are calibrated on."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int | None = Field(default=None, ge=1, le=1024)


@dataclass(frozen=True)
class Adapted:
    """The adapted model, and its error on photons that it was not trained on.

    The mean square error of maps one scale up, in dB above the variance of counting, averaged
    over elements and factors. The noise of the held-out photons is in it, the same before and
    after: what is gained is more than the difference.
    """

    model: Path
    before_db: float
    after_db: float


def adapt(config: AdaptationConfig) -> Adapted:
    """Adapt a model and write it, with card and calibration, into ``config.out``.

    With one number of threads the same settings give the same weights.

    Raises
    ------
    ConfigError
        No maps, maps that are too small or hold no photons.
    FileFormatError
        A file without maps.
    ModelError
        No such model, or one that can't be adapted.
    """
    path = model_path(config.start)
    card = read_card(path)
    if card.architecture.kind not in OURS:
        kinds = alternatives(OURS)
        raise ModelError(f"model {card.name!r} is of the kind {card.architecture.kind!r}; {kinds}")
    maps = read_coarse_maps(
        config.maps,
        config.sampling,
        config.probe_um,
        config.dwell_ms,
        config.units,
        config.fast_pixels,
        reader=config.reader,
        options=config.known,
    )
    fine = [
        clean(read_map(file, reader=config.reader, options=config.known).maps)
        for file in config.fine
    ]
    if config.threads:
        torch.set_num_threads(config.threads)
    network = load_network(path, card)
    reads = network.reads
    if not any(pixels > 1 for _, pixels in reads):
        maps = [_as_fly(own) if own.sampling == "rows" else own for own in maps]
    learn, judge = hold_out(maps, HELD_OUT, config.seed)
    factors = sorted({factor for factor, _ in reads})
    pairs = held_out_pairs(learn, judge, HELD_OUT, factors)
    before = held_out_error_db(network, pairs)
    _train(network, learn, fine, config)
    after = held_out_error_db(network, pairs)
    log.info("%s: error on held-out photons %.2f -> %.2f dB", config.method, before, after)
    return Adapted(_write(network, card, config, (before, after)), before, after)


def verdict(done: Adapted, config: AdaptationConfig) -> list[str]:
    """Return what a user is to know about the result, in lines."""
    lines = [f"error on held-out photons: {done.before_db:.2f} -> {done.after_db:.2f} dB"]
    if done.after_db >= done.before_db:
        lines.append("no better on these maps: stay with the model you started from")
    lines.append(WARNINGS[config.method])
    lines.append(f"select it with the setting model = {str(done.model)!r}")
    return lines


def _as_fly(own: CoarseMap) -> CoarseMap:
    """Return rows as the squares that a network without rows reads."""
    return replace(own.squares(), sampling="fly")


def _train(
    network: Network,
    learn: Sequence[CoarseMap],
    fine: Sequence[np.ndarray],
    config: AdaptationConfig,
) -> None:
    samples = Samples.make(config.n_phantoms, 0, fine, size=config.phantom_px, real_share=0.5)
    thinned = ThinnedBatches(learn, config.maps_per_batch, config.coarse_px)

    def known(step: int) -> dict[str, Any]:
        batch = random_batch(
            samples,
            config.seed,
            step,
            maps_per_batch=config.maps_per_batch,
            coarse_px=min(config.coarse_px, config.phantom_px // 4),
            reads=network.reads,
        )
        return batch_tensors(batch)

    loss = LOSSES[config.method](network, thinned, known, config.seed)
    fine_tune(network, loss, steps=config.steps, learning_rate=config.learning_rate)


def held_out_error_db(network: torch.nn.Module, pairs: Sequence[Pair]) -> float:
    """Return the error against held-out photons, as in `Adapted`."""
    errors = []
    for pair in pairs:
        batch = batch_tensors(make_batch([pair]))
        with torch.inference_mode():
            made = predict_batch(network, batch).estimate[0].clamp(min=0).numpy()
        level = pair.truth.mean(axis=(1, 2)) + 1
        error = np.square(made - pair.truth).mean(axis=(1, 2)) + 1e-9
        errors += (10 * np.log10(error / level)).tolist()
    return float(np.mean(errors))


def _write(
    network: torch.nn.Module,
    start: ModelCard,
    config: AdaptationConfig,
    errors: tuple[float, float],
) -> Path:
    config.out.mkdir(parents=True, exist_ok=True)
    name = f"{start.name}-{config.method}"
    path = config.out / f"{name}.safetensors"
    save_file({k: v.detach().contiguous() for k, v in network.state_dict().items()}, path)
    card = ModelCard(
        name=name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        architecture=start.architecture,
        summary=f"{start.name}, adapted without pairs ({config.method})",
        data=start.data,
        training={
            "start": {"name": start.name, "sha256": start.sha256},
            "config": config.model_dump(mode="json", exclude={"out"}),
            "error on held-out photons, dB": {"before": errors[0], "after": errors[1]},
        },
        limits=[*start.limits, "adapted without pairs: check it against a fine rescan"],
        license=start.license,
    )
    write_card(path, card)
    calibrate_model(path, real_maps=None, n_per_family=config.calibrate_per_family)
    return path
