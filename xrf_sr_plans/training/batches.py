"""Batches of simulated pairs as tensors, and what a network makes of them.

Imports torch: import this module lazily.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xrf_sr_plans.sr.network import Conditions, Prediction, conditions_of
from xrf_sr_plans.sr.tiled_inference import has_fast_bf16
from xrf_sr_plans.training.simulated_pairs import Batch

_CPU = torch.device("cpu")


def batch_tensors(batch: Batch) -> dict[str, Any]:
    """Return a batch as tensors by name: `counts`, `truth`, and the fields of `Conditions`.

    Under `factor` is the batch's factor, an int.
    """
    conditions = conditions_of(
        batch.low, batch.span, batch.measurements, batch.smoothing, batch.covariance
    )
    return {
        "counts": torch.from_numpy(batch.counts),
        "truth": torch.from_numpy(batch.truth),
        "factor": batch.factor,
        **conditions._asdict(),
    }


def conditions_in(batch: dict[str, Any]) -> Conditions:
    """Return what the network is told about a batch of `batch_tensors`."""
    return Conditions(*(batch[name] for name in Conditions._fields))


def fast_pixels(batch: dict[str, Any]) -> int:
    """Return the measured pixels per coarse step along the fast axis."""
    return int(batch["factor"]) * batch["counts"].shape[-1] // batch["truth"].shape[-1]


def predict_batch(network: nn.Module, batch: dict[str, Any]) -> Prediction:
    """Return what a network makes of a batch on a CPU, in bfloat16 where that is faster."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16(_CPU)):
        return network(batch["counts"], conditions_in(batch), int(batch["factor"]))
