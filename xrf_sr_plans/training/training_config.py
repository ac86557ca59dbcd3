"""What a training run is: everything that decides which weights come out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xrf_sr_plans.measurement import Factor, Sampling

Architecture = Literal["folded", "set", "notes", "srcnn"]
OURS: tuple[Architecture, ...] = ("folded", "set")
"""Those that state an uncertainty and learn several factors in turn; the others are peers."""


class TrainingConfig(BaseModel):
    """A training run. The defaults of `notes()` are the recipe of the notes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture = "folded"
    """`folded` is ours, `set` the one that shipped before, `notes` the 16 x 64 residual network
    with batch normalization, or `srcnn`."""
    factor: Factor | None = None
    """Peers are trained for one factor (`notes` also for 1, its deconvolving form), which they
    need; ours learns all in turn (None)."""
    sampling: Sampling | None = None
    """None: drawn for each map, among those that the network reads. Peers read squares, or rows
    with ``rows``."""
    elements: int | None = Field(default=None, ge=1, le=6)
    """Number of elements per map, which `notes` needs. None stands for 1, 2, 4 and 6 in turn."""
    steps: int = Field(default=34000, ge=1, le=10**8)
    """Optimiser steps (batches); the learning rate follows a cosine over them."""
    steps_per_epoch: int = Field(default=1000, ge=1, le=10**8)
    """A checkpoint is written, and validation done, after so many."""
    maps_per_batch: int = Field(default=12, ge=1, le=4096)
    """Single-element maps per batch: 12 maps of one element, or 3 of four."""
    coarse_px: int = Field(default=40, ge=8, le=1024)
    """Side of a training crop in coarse pixels."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1, allow_inf_nan=False)
    warmup_steps: int = Field(default=300, ge=0, le=10**8)
    loss: Literal["log_mse", "l1_sobel"] = "log_mse"
    learn: Literal["all", "sigma"] = "all"
    """`sigma`: the estimate stays what `start` makes of a map, only its uncertainty is learnt."""
    filters: int = Field(default=32, ge=4, le=256)
    blocks: int = Field(default=5, ge=1, le=64)
    mix_width: int = Field(default=16, ge=1, le=256)
    """Features that an element shows the others (`set` only)."""
    shared_filters: int = Field(default=32, ge=0, le=256)
    """Filters of the trunk that a map has once for all its elements (`folded` only); 0: none."""
    shared_blocks: int = Field(default=4, ge=1, le=64)
    n_phantoms: int = Field(default=960, ge=1, le=10**6)
    phantom_px: int = Field(default=192, ge=64, le=4096)
    n_validation: int = Field(default=16, ge=1, le=10**5)
    real_maps: Path | None = None
    """Folder with the real maps (`training.real_maps`). None stands for phantoms only."""
    real_share: float = Field(default=0.35, ge=0, le=1)
    smooth_share: float = Field(default=0.15, ge=0, le=1)
    """Share of the crops that are blurred. Most real maps are that smooth at low counts."""
    start: Path | None = None
    """Weights of the same architecture to begin with, or of one without the shared trunk. None
    stands for random ones."""
    started_rate: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Share of the learning rate for all but the shared trunk and kriging's share, which are new
    where `start` has none."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1, le=1024)
    """Processes on each computer, each with a GPU of its own where there are any. ``torchrun`` says
    it by itself."""
    num_nodes: int = Field(default=1, ge=1, le=1024)
    """Computers that train together; start the command on each of them by ``torchrun``, which says
    it by itself."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Processes that make batches beside the training process; a GPU needs some."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Number of CPU threads. None stands for as many as torch likes."""
    out: Path = Path("out/training")
    """Folder of checkpoints, the log and the last weights; an existing run there is resumed."""
    progress: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingConfig:
        if self.architecture not in OURS and self.factor is None:
            raise ValueError(f"architecture {self.architecture!r} needs a factor")
        if self.architecture == "notes" and self.elements is None:
            raise ValueError("architecture 'notes' needs a fixed number of elements")
        if self.architecture == "set" and (self.factor == 1 or self.sampling == "rows"):
            raise ValueError("architecture 'set' has no factor 1 and reads no rows")
        if self.learn == "sigma" and (self.architecture not in OURS or self.start is None):
            raise ValueError(f"learn 'sigma' needs weights of one of {OURS} to start from")
        return self

    @classmethod
    def notes(cls, **changes: object) -> TrainingConfig:
        """Return the notes' recipe: Adam 1e-4, cosine, batch 32, L1 + 0.1 Sobel, 64 px crops.

        It says how to train, not which network: `architecture="notes"` is theirs.
        """
        recipe: dict[str, object] = {
            "learning_rate": 1e-4,
            "warmup_steps": 0,
            "loss": "l1_sobel",
            "coarse_px": 64,
            "filters": 64,
            "blocks": 16,
            "maps_per_batch": 32,
            "steps": 300 * 200,
        }
        return cls.model_validate({**recipe, **changes})
