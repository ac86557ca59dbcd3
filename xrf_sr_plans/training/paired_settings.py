"""`PairedSettings`: how a network goes on learning from pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
    n_phantoms: int = Field(default=120, ge=1, le=10**6)
    phantom_px: int = Field(default=192, ge=64, le=4096)
    n_judged: int = Field(default=20, ge=1, le=10**5)
    """Batches of phantoms that tell what is forgotten."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int | None = Field(default=1, ge=1, le=1024)
    """Number of CPU threads. None stands for as many as torch likes."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
