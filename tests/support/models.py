"""Models that are made on the spot: any architecture, with or without weights that do something."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from xrf_sr_plans.sr.intervals import N_GROUPS, Calibration, to_json
from xrf_sr_plans.sr.registry import Architecture, ModelCard, build, write_card

FOLDED = Architecture(kind="folded", filters=16, blocks=2, mix_width=4, sigma_dilations=(2,))


def made_model(
    folder: Path, architecture: Architecture = FOLDED, *, stir: float = 0.0, name: str = "made"
) -> Path:
    """Write a model with its card and a calibration of 1.645 sigma for all that it reads.

    With `stir` all weights are moved at random by so much; without, the network does nothing.
    """
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = build(architecture)
    if stir:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(stir * torch.randn_like(parameter))
    path = folder / f"{name}.safetensors"
    save_file({k: v.detach().contiguous() for k, v in network.state_dict().items()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    write_card(path, ModelCard(name=name, sha256=sha256, architecture=architecture))
    rough, dose, bright = N_GROUPS
    table = [[[1.645] * bright for _ in range(dose)] for _ in range(rough)]
    keys = [f"{factor} rows" if pixels > 1 else str(factor) for factor, pixels in network.reads]
    tables = dict.fromkeys(keys, table)
    calibration = Calibration(model_sha256=sha256, lower=tables, upper=tables, source="made up")
    path.with_suffix(".calibration.json").write_text(json.dumps(to_json(calibration)))
    return path
