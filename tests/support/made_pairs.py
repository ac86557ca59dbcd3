"""Stores of pairs of maps, made on the spot: a beamline of one's own, and poison of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.physics.forward import coarsen, probe_blur
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.training.phantoms import phantom

ELEMENTS = ("P", "Fe", "Zn")
Spoil = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Turns counts of the coarse and the fine map into others."""


def pair_counts(
    seed: int,
    *,
    factor: int = 2,
    side: int = 96,
    peak: float = 150.0,
    dwell_ratio: float = 4.0,
    sampling: Sampling = "fly",
    probe_px: float = 0.0,
    family: str = "cells",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts of the coarse and the fine map of a phantom, and what is expected of the fine.

    The fine map dwells `dwell_ratio` times as long at a pixel as the coarse one.
    """
    rng = np.random.default_rng([seed, 5])
    truth = phantom(family, 1_500_000 + seed, size=side, n_elements=len(ELEMENTS)) * peak
    truth = probe_blur(truth, 1.0, probe_px)
    pixels = factor if sampling == "rows" else 1
    coarse = rng.poisson(coarsen(truth, factor, sampling) / pixels)
    return coarse, rng.poisson(truth * dwell_ratio), truth


def made_maps(
    coarse: np.ndarray,
    fine: np.ndarray,
    factor: int = 2,
    *,
    dwell_ratio: float = 4.0,
    sampling: Sampling = "fly",
) -> tuple[ElementalMaps, ElementalMaps]:
    """Return counts of a coarse and a fine map as maps of one area."""
    height, width = fine.shape[1:]
    grid = ScanGrid.from_start_stop(
        0.5 * factor - 0.5,
        width - 0.5 - 0.5 * factor,
        width // factor,
        0.5 * factor - 0.5,
        height - 0.5 - 0.5 * factor,
        height // factor,
    )
    pixels = factor if sampling == "rows" else 1
    rows = grid.refined((1, factor)) if sampling == "rows" else grid
    known = {"complete": True, "probe_fwhm_um": None}
    first = ElementalMaps.from_arrays(
        coarse,
        rows,
        ELEMENTS,
        sampling=sampling,
        step_um=float(factor),
        dwell_ms=10.0 / pixels,
        source_uid="coarse",
        **known,
    )
    second = ElementalMaps.from_arrays(
        fine,
        grid.refined(factor),
        ELEMENTS,
        sampling="fly",
        step_um=1.0,
        dwell_ms=10.0 * dwell_ratio,
        source_uid="fine",
        **known,
    )
    return first, second


def made_store(
    folder: Path,
    seeds: range = range(3),
    *,
    spoil: Spoil | None = None,
    register: Callable[[ElementalMaps, ElementalMaps], PairRegistration] | None = None,
    **how: object,
) -> Path:
    """Store pairs of phantoms, one sample for each seed, and return the folder.

    `spoil` is done to each of them, and `register` says how the maps lie on each other; None: as
    they should.
    """
    store = PairStore(folder)
    factor = int(how.get("factor", 2))  # type: ignore[call-overload]
    for seed in seeds:
        coarse, fine, _ = pair_counts(seed, **how)  # type: ignore[arg-type]
        if spoil is not None:
            coarse, fine = spoil(coarse, fine)
        kept = {name: how[name] for name in ("dwell_ratio", "sampling") if name in how}
        maps = made_maps(coarse, fine, factor, **kept)  # type: ignore[arg-type]
        store.save_map(f"pair-{seed}", 0, factor, maps[0])
        store.save_map(f"pair-{seed}", 1, 1, maps[1])
        found = register(*maps) if register else PairRegistration(factor, 0.0, 0.0)
        store.finish(f"pair-{seed}", {0: found}, sample=f"sample {seed}")
    return folder
