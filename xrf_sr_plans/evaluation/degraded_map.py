"""What `xrf-sr evaluate` compares on: a measured map, the truth, and the coarse map made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.evaluation.table import Conditions
from xrf_sr_plans.maps.files import MapsFile
from xrf_sr_plans.maps.files.model import symbol
from xrf_sr_plans.measurement import FACTORS, Sampling, factor_not_allowed
from xrf_sr_plans.metrics.image import winsorise
from xrf_sr_plans.physics.forward import coarsen, probe_blur
from xrf_sr_plans.physics.operators import NOISE_FREE_COUNTS, Coarse
from xrf_sr_plans.physics.resample import fill_unmeasured

NOISE_CORRELATION = 0.1
SMALLEST_COARSE_PX = 12
LARGEST_PROBE_STEPS = 10.0
"""Probe FWHM in coarse steps; more is a mistake of units."""


@dataclass(frozen=True, eq=False)
class Case:
    """A reference and the coarse map made of it; all in photons per coarse pixel."""

    elements: tuple[str, ...]
    reference: np.ndarray
    """(element, Y, X); NaN where the file has no value."""
    counts: np.ndarray
    """(element, y, x); NaN where a fine pixel is missing."""
    coarse: Coarse
    conditions: Conditions
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()
    """What the user should know about the file."""


def make_case(
    file: MapsFile,
    factor: int,
    counts: float | None = None,
    probe_um: float | None = None,
    sampling: Sampling = "fly",
    seed: int = 0,
) -> Case:
    """Degrade a map: cut spikes, blur, sample, scale to photons, count.

    Raises
    ------
    ConfigError
        An impossible factor, count or probe, or too small a map.
    """
    known = np.isfinite(file.pixel_size_um)
    pixel = file.pixel_size_um if known else 1.0
    _check(file, factor, counts, probe_um, pixel)
    height, width = (size // factor * factor for size in file.maps.shape[-2:])
    measured = file.maps[:, :height, :width]
    truth = np.clip(fill_unmeasured(winsorise(measured)), 0, None)
    seen = coarsen(probe_blur(truth, pixel, probe_um), factor, sampling)
    level = np.percentile(seen, 99, axis=(1, 2))
    level = np.where(level > 0, level, seen.max(axis=(1, 2)))
    scale = np.where(level > 0, (counts or NOISE_FREE_COUNTS) / np.where(level > 0, level, 1), 0)
    scale = scale[:, None, None]
    coarse = seen * scale
    if counts is not None:
        coarse = np.random.default_rng(seed).poisson(coarse).astype(float)
        for index, twin in _copies(truth).items():
            # A channel that is in the file twice was counted once: its noise is the same too.
            coarse[index] = coarse[twin]
    missing = ~np.isfinite(measured)
    blocks = missing.reshape(len(truth), height // factor, factor, width // factor, factor)
    notes = list(file.meta.get("notes", ()))
    if not known:
        notes.append("the file gives no pixel size: one pixel counts as 1 um")
    return Case(
        file.elements,
        np.where(missing, np.nan, truth * scale),
        np.where(blocks.any(axis=(2, 4)), np.nan, coarse),
        Coarse(factor, sampling, (probe_um or 0.0) / (pixel * factor), counts is not None),
        Conditions(factor, sampling, counts, probe_um, pixel, seed),
        _left_out(file.elements, truth, coarse),
        tuple(notes),
    )


def _check(
    file: MapsFile, factor: int, counts: float | None, probe_um: float | None, pixel_um: float
) -> None:
    if factor not in FACTORS:
        raise ConfigError(factor_not_allowed(factor))
    for name, value in (("counts", counts), ("probe_um", probe_um)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}; it must be above 0")
    path, steps = file.meta.get("path"), (probe_um or 0.0) / (pixel_um * factor)
    if steps > LARGEST_PROBE_STEPS:
        notes = "; ".join(file.meta.get("notes", ()))
        raise ConfigError(
            f"{path}: a probe of {probe_um:g} um is {steps:.3g} coarse steps of"
            f" {pixel_um * factor:g} um; allowed: {LARGEST_PROBE_STEPS:g}. Are the units right?"
            + (f" ({notes})" if notes else "")
        )
    if min(file.maps.shape[-2:]) // factor < SMALLEST_COARSE_PX:
        raise ConfigError(
            f"{path}: map of {file.maps.shape[-2:]} pixels;"
            f" at {factor}x each side needs {SMALLEST_COARSE_PX * factor}"
        )


def _left_out(elements: Sequence[str], truth: np.ndarray, coarse: np.ndarray) -> dict[str, str]:
    """Say which elements tell nothing: empty, copies of another, nothing but noise."""
    reasons: dict[str, str] = {}
    copies = _copies(truth)
    for index, name in enumerate(elements):
        plane = truth[index]
        mine = symbol(name)
        same = next((k for k in range(index) if mine and symbol(elements[k]) == mine), None)
        if coarse[index].max() <= 0 or np.ptp(plane) == 0:
            reasons[name] = "empty or constant"
        elif index in copies:
            reasons[name] = f"a copy of {elements[copies[index]]}"
        elif same is not None:
            reasons[name] = f"no independent evidence: the same element as {elements[same]}"
        elif _neighbour_correlation(plane) < NOISE_CORRELATION:
            reasons[name] = "nothing but noise: neighbouring pixels don't correlate"
    return reasons


def _copies(maps: np.ndarray) -> dict[int, int]:
    """Return the first equal map for each that equals an earlier one."""
    found = {}
    for index, plane in enumerate(maps):
        twin = next((k for k in range(index) if np.array_equal(maps[k], plane)), None)
        if twin is not None:
            found[index] = twin
    return found


def _neighbour_correlation(plane: np.ndarray) -> float:
    centred = plane - plane.mean()
    along = (centred[:, 1:] * centred[:, :-1]).mean() + (centred[1:] * centred[:-1]).mean()
    return float(along / 2 / max(centred.var(), 1e-30))
