"""Turn trained weights into a model: safetensors and a card side by side."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from xrf_sr_plans.sr.registry import WEIGHTS, Architecture, ModelCard, write_card
from xrf_sr_plans.training.training_config import TrainingConfig


def architecture_of(config: TrainingConfig) -> Architecture:
    """Return the network that a configuration trains."""
    from xrf_sr_plans.sr.folded_network import FoldedNetworkConfig
    from xrf_sr_plans.sr.network import SIGMA_DILATIONS

    dilations = {"set": SIGMA_DILATIONS, "folded": FoldedNetworkConfig.sigma_dilations}
    return Architecture(
        kind=config.architecture,
        filters=config.filters,
        blocks=config.blocks,
        mix_width=config.mix_width,
        sigma_dilations=dilations.get(config.architecture, ()),
        shared_filters=config.shared_filters if config.architecture == "folded" else 0,
        shared_blocks=config.shared_blocks,
        kriges=config.architecture == "folded",
        elements=config.elements or 1,
        scale=config.factor or 2,
        fast_pixels=(config.factor or 1) if config.sampling == "rows" else 1,
    )


def export_model(
    weights: Path, name: str, config: TrainingConfig, *, folder: Path = WEIGHTS, **card: Any
) -> Path:
    """Copy weights into `folder` under a name, with their card; return the path.

    `card` fills `ModelCard`: summary, data, training, figures, limits, license. A calibration
    has to follow (`training.calibration.calibrate_model`) before the model can be used.
    """
    path = folder / f"{name}.safetensors"
    if weights.resolve() != path.resolve():
        shutil.copyfile(weights, path)
    training = {
        "config": config.model_dump(mode="json", exclude={"out", "real_maps", "start", "progress"}),
        **card.pop("training", {}),
    }
    made = ModelCard(
        name=name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        architecture=architecture_of(config),
        training=training,
        **card,
    )
    write_card(path, made)
    return path
