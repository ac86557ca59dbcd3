"""What `xrf-sr evaluate` compares on: a measured map, the truth, and the coarse map made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.evaluation.table import Degradation
from xrf_sr_plans.maps.defects import Defects, find_defects
from xrf_sr_plans.maps.files import MapsFile
from xrf_sr_plans.maps.files.model import symbol
from xrf_sr_plans.maps.files.photons import unit_notes, units_of
from xrf_sr_plans.measurement import Measurement, Sampling, checked_factor
from xrf_sr_plans.metrics.image import winsorise
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS
from xrf_sr_plans.physics.forward import degrade
from xrf_sr_plans.physics.resample import block_mean, fill_unmeasured
from xrf_sr_plans.ranges import ABOVE_ZERO, SEED, Range, check, range_flaws

NOISE_CORRELATION = 0.1
"""Correlation of neighbouring pixels below which an element is nothing but noise."""
SMALLEST_COARSE_PX = 12
"""Smallest side of a coarse map that methods are compared on."""
_COUNTS = Range(0.0, 1e12, above=True)
LARGEST_PROBE_STEPS = 10.0
"""Probe width in coarse steps above which the units must be wrong."""


@dataclass(frozen=True, eq=False)
class DegradedMap:
    """A reference and the coarse map made of it, both in photons per measured pixel.

    Parameters
    ----------
    elements
        Names of the elements, in the order of the maps.
    reference
        (element, Y, X) the truth; NaN where the file has no value.
    counts
        (element, y, x) the coarse map; NaN where a fine pixel is missing.
    degradation
        How `counts` were made of `reference`.
    left_out
        Why an element tells nothing, by element.
    notes
        What the user should know about the file.
    """

    elements: tuple[str, ...]
    reference: np.ndarray
    counts: np.ndarray
    degradation: Degradation
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def measurement(self) -> Measurement:
        """How the coarse map was measured."""
        return self.degradation.measurement


def degraded(
    file: MapsFile,
    factor: int,
    counts: float | None = None,
    probe_um: float | None = None,
    sampling: Sampling = "fly",
    seed: int = 0,
) -> DegradedMap:
    """Return a map cut of spikes, blurred, sampled coarsely, scaled to photons and counted.

    The parameters are those of `own_map.evaluate_file`.

    Raises
    ------
    ConfigError
        An impossible factor, count or probe, or too small a map.
    """
    known = np.isfinite(file.pixel_size_um)
    pixel = file.pixel_size_um if known else 1.0
    measurement = _checked(file, factor, counts, probe_um, sampling, pixel, seed)
    height, width = (size // factor * factor for size in file.maps.shape[-2:])
    defects = _defects_of(file)
    measured = np.where(defects.mask, np.nan, file.maps)[:, :height, :width]
    truth = np.clip(fill_unmeasured(winsorise(measured)), 0, None)
    expected = degrade(truth, measurement)
    # Brightness of each element's squares, and from it photons per unit of the file, (element,).
    squares = degrade(truth, measurement.squares)
    level = np.percentile(squares, 99, axis=(1, 2))
    level = np.where(level > 0, level, squares.max(axis=(1, 2)))
    scale = np.where(level > 0, (counts or NOISE_FREE_COUNTS) / np.where(level > 0, level, 1), 0)
    scale = scale[:, None, None] / measurement.fast_pixels
    coarse = expected * scale
    if counts is not None:
        coarse = np.random.default_rng(seed).poisson(coarse).astype(float)
        for index, twin in _copies(truth).items():
            # A channel that is in the file twice was counted once: its noise is the same too.
            coarse[index] = coarse[twin]
    missing = ~np.isfinite(measured)
    notes = [*file.meta.get("notes", ()), *unit_notes(file), *defects.notes, *defects.doubts]
    notes += [
        f"{name}: {100 * share:.1f} % of the values are below 0 and count as 0"
        for name, share in zip(file.elements, (file.maps < 0).mean(axis=(1, 2)), strict=True)
        if share > 0
    ]
    if not known:
        notes.append("the file gives no pixel size: one pixel counts as 1 um")
    step_y = file.pixel_size_y_um
    if known and abs(step_y - pixel) > 0.01 * pixel:
        notes.append(f"pixels are {pixel:g} x {step_y:g} um: lengths are told along x")
    return DegradedMap(
        file.elements,
        np.where(missing, np.nan, truth * scale),
        np.where(block_mean(missing, measurement.refinement) > 0, np.nan, coarse),
        Degradation(measurement, counts, pixel, seed),
        _left_out(file.elements, truth, coarse),
        tuple(notes),
    )


def _defects_of(file: MapsFile) -> Defects:
    """Return the defects of a file's map, which are told by the numbers of its photons."""
    if any(unit.kind not in ("photons", "missing") for unit in units_of(file)):
        return Defects(np.zeros(file.maps.shape, dtype=bool))
    return find_defects(file.maps, file.elements)


def check_numbers(factor: int, counts: float | None, probe_um: float | None, seed: int) -> None:
    """Refuse what can be done with no map, whichever it is.

    The parameters are those of `own_map.evaluate_file`.

    Raises
    ------
    ConfigError
        A number that can't be.
    """
    values = {"counts": counts, "probe_um": probe_um, "seed": seed}
    flaws = range_flaws(values, {"counts": _COUNTS, "probe_um": ABOVE_ZERO, "seed": SEED})
    check("evaluation", *flaws)
    checked_factor(factor)


def _checked(
    file: MapsFile,
    factor: int,
    counts: float | None,
    probe_um: float | None,
    sampling: Sampling,
    pixel_um: float,
    seed: int,
) -> Measurement:
    """Return how the map is to be measured, or refuse."""
    check_numbers(factor, counts, probe_um, seed)
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
    return Measurement(factor, sampling, steps, noisy=counts is not None)


def _left_out(elements: Sequence[str], truth: np.ndarray, coarse: np.ndarray) -> dict[str, str]:
    """Return the elements that tell nothing, with the reason: empty, a copy, nothing but noise."""
    reasons: dict[str, str] = {}
    copies = _copies(truth)
    for index, name in enumerate(elements):
        plane = truth[index]
        element = symbol(name)
        same = next((k for k in range(index) if element and symbol(elements[k]) == element), None)
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
    """Return the index of the first equal map by that of each map that equals an earlier one."""
    twins = {}
    for index, plane in enumerate(maps):
        twin = next((k for k in range(index) if np.array_equal(maps[k], plane)), None)
        if twin is not None:
            twins[index] = twin
    return twins


def _neighbour_correlation(plane: np.ndarray) -> float:
    """Return how pixels of a map (y, x) correlate with their neighbours along both axes."""
    centred = plane - plane.mean()
    along = (centred[:, 1:] * centred[:, :-1]).mean() + (centred[1:] * centred[:-1]).mean()
    return float(along / 2 / max(centred.var(), 1e-30))
