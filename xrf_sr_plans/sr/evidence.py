"""What the counts of an element say about how well it can be predicted, whatever its kind.

A network states a sigma that is right for what it was trained on. How much structure a map has,
and down to which size, can be seen in the map itself: each row is compared with what its
neighbours say of it, and so is each pixel along the fast axis. What is left is, up to the counting
noise, the error of an interpolation over a gap twice or four times as wide. Where rows are read
out in fine pixels, the gap between the rows itself can be tried out along the fast axis. From
these numbers follows, by the same few coefficients for all kinds, by how much a stated sigma is
to be stretched (`SigmaLaw`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from pydantic import BaseModel, ConfigDict

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel

NAMES = (
    "range",
    "range squared",
    "fill",
    "roughness",
    "rows over 2 steps",
    "rows over 4 steps",
    "columns over 2 steps",
    "columns over 4 steps",
    "columns over 1 step",
    "sharpened",
    "kept blur",
    "stated",
)
"""The evidence on one element, in this order; the energies and ranges as logarithms."""
LEAST_ENERGY = 0.15
"""Mean square structure that can't be told from the scatter of the counting noise."""
MOST_PIXELS = 2**15
"""About so many pixels of an element are looked at: more cost time and say the same."""
MIDDLE = (-1 / 16, 9 / 16, 9 / 16, -1 / 16)
"""Weights by which cubic convolution interpolates half-way between two of four samples."""
LEAST_CONTRAST = 0.0
"""Smallest power of a sigma's own contrast: below 0 it would be turned round."""
MOST_CONTRAST = 1.5


def evidence(
    counts: np.ndarray,
    measurement: Measurement,
    scale: Scale,
    measured: np.ndarray | None = None,
) -> np.ndarray:
    """Return what is known from the counts alone: (element, `NAMES` but for "stated").

    Parameters
    ----------
    counts
        Photons per measured pixel (element, y, x), without gaps.
    measurement
        How they were measured.
    scale
        `Scale` of these counts per coarse pixel.
    measured
        Where the counts were measured, bool (element, y, x); what gaps were filled with says
        nothing of the structure. None: everywhere.
    """
    pixels = measurement.fast_pixels
    # Scaled so that a value is that of a coarse pixel; the noise variance is `pixels`.
    known = None if measured is None or measured.all() else measured.astype(np.float32)
    every, scaled = _stride(counts), np.float32(np.sqrt(pixels))
    rows = scaled * stabilise(counts[..., ::every].astype(np.float32))
    rows_known = None if known is None else known[..., ::every]
    coarse = per_coarse_pixel(counts, measurement)
    some = _stride(coarse)
    coarse = stabilise(coarse[:, ::some].astype(np.float32))
    coarse_known = None
    if known is not None:
        coarse_known = (per_coarse_pixel(known, measurement) == pixels)[:, ::some]
    energies = [_half_way(rows, -2, gap, pixels, rows_known) for gap in (1, 2)]
    energies += [_half_way(coarse, -1, gap, 1, coarse_known) for gap in (1, 2)]
    if pixels > 1:
        fine = scaled * stabilise(counts[:, ::every].astype(np.float32))
        fine_known = None if known is None else known[:, ::every]
        # Half-way between pixels that are as far apart as rows.
        energies.append(_half_way(fine, -1, pixels // 2, pixels, fine_known))
    else:
        energies.append(energies[2])
    sharpening = measurement.sharpening_steps
    columns = [
        np.log(scale.span),
        np.log(scale.span) ** 2,
        scale.fill,
        np.log(np.minimum(scale.roughness, 1.0) + 0.005),
        *(0.5 * np.log(np.clip(energy, 0, None) + LEAST_ENERGY) for energy in energies),
        np.full(scale.span.shape, max(sharpening, 0.0)),
        np.full(scale.span.shape, max(-sharpening, 0.0)),
    ]
    return np.stack(columns, axis=-1)


def _half_way(
    stabilised: np.ndarray, axis: int, gap: int, noise: float, known: np.ndarray | None
) -> np.ndarray:
    """Return the mean square error of a pixel half-way between those `gap` away, without noise.

    Where `known` is given, only pixels count that were measured, and those beside them, too.
    """
    length = stabilised.shape[axis]
    if length <= 2 * gap:
        return np.zeros(len(stabilised))
    around = [(0, 0)] * stabilised.ndim
    around[axis] = (3 * gap, 3 * gap)
    # Beyond the border the last value continues.
    padded = np.pad(stabilised, around, mode="edge")
    padded_known = None if known is None else np.pad(known > 0, around, mode="edge")
    left = np.array(stabilised, dtype=np.float32)
    counted = None if known is None else known > 0
    for weight, shift in zip(MIDDLE, (-3, -1, 1, 3), strict=True):
        beside = _part(axis, (3 + shift) * gap, length)
        left -= np.float32(weight) * padded[beside]
        if padded_known is not None and counted is not None:
            counted = counted & padded_known[beside]
    noise *= 1 + sum(weight**2 for weight in MIDDLE)
    square = np.square(left, out=left)
    if counted is None:
        return square.mean(axis=(-2, -1), dtype=float) - noise
    number = counted.sum(axis=(-2, -1))
    total = np.where(counted, square, 0).sum(axis=(-2, -1), dtype=float)
    return np.where(number > 0, total / np.maximum(number, 1) - noise, 0.0)


def _part(axis: int, first: int, length: int) -> tuple[slice | EllipsisType, ...]:
    """Return the index of `length` lines from the `first` on, along y (-2) or x (-1)."""
    part = slice(first, first + length)
    return (..., part, slice(None)) if axis == -2 else (..., part)


def _stride(counts: np.ndarray) -> int:
    """Return every how many-th line of a map (element, y, x) is enough for a mean."""
    return max(1, counts[0].size // MOST_PIXELS)


def stated_level(sigma: np.ndarray) -> np.ndarray:
    """Return the logarithm of the root mean square of sigmas (element, Y, X), (element,)."""
    return 0.5 * np.log(np.maximum(np.square(sigma).mean(axis=(-2, -1), dtype=float), 1e-12))


class SigmaLaw(BaseModel):
    """By how much the sigmas of an element are stretched, as its evidence says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = NAMES
    centre: tuple[float, ...]
    """Mean of each number of the evidence over the maps of the calibration."""
    spread: tuple[float, ...]
    """Its standard deviation."""
    constant: float
    """Logarithm of the stretch of an element in the centre of the evidence."""
    slopes: tuple[float, ...]
    """Change of this logarithm by one standard deviation of each number."""
    contrast: float
    """Power of a pixel's sigma relative to its element's; 1 leaves it as it is."""
    inverse: tuple[tuple[float, ...], ...]
    """Inverse correlation matrix of the evidence."""
    farthest: float
    """`distance` that one in a thousand maps of the calibration exceeds."""

    def stretch(self, found: np.ndarray) -> np.ndarray:
        """Return the stretch (element,) that the evidence (element, `NAMES`) asks for.

        Beyond `farthest` it grows with the distance: the law was never tried there.
        """
        far = np.maximum(1.0, self.distance(found) / self.farthest)
        return np.exp(self.constant + self._relative(found) @ np.array(self.slopes)) * far

    def distance(self, found: np.ndarray) -> np.ndarray:
        """Return how far the evidence (element, `NAMES`) is from all that was calibrated on.

        1 is typical of the calibration's own maps.
        """
        relative = (found - np.array(self.centre)) / np.array(self.spread)
        square = np.einsum("...i,ij,...j->...", relative, np.array(self.inverse), relative)
        return np.sqrt(np.maximum(square, 0.0) / len(self.names))

    def _relative(self, found: np.ndarray) -> np.ndarray:
        relative = (found - np.array(self.centre)) / np.array(self.spread)
        # Straight lines are not to be believed further out than this.
        return np.clip(relative, -3.0, 3.0)


@dataclass(frozen=True)
class Judged:
    """Errors of some pixels of one element map, with what was known of it."""

    found: np.ndarray
    """The evidence, (`NAMES`,)."""
    score: np.ndarray
    """Errors in units of the stated sigma, (pixel,)."""
    relative: np.ndarray
    """Logarithm of each pixel's sigma relative to its element's root mean square."""
    weight: float
    """Of the map beside others."""


def fit_law(maps: list[Judged], level: float) -> SigmaLaw:
    """Fit the law under which `level` of all errors are below 1 stretched sigma.

    Quantile regression (R. Koenker, G. Bassett, Econometrica 46 (1978) 33, DOI 10.2307/1913643) of
    the logarithm of the scores, by iteratively reweighted least squares.
    """
    found = np.stack([one.found for one in maps])
    weights = np.array([one.weight for one in maps])
    centre = np.average(found, axis=0, weights=weights)
    spread = np.sqrt(np.average(np.square(found - centre), axis=0, weights=weights)) + 1e-3
    relative = np.clip((found - centre) / spread, -3, 3)
    sizes = [one.score.size for one in maps]
    design = np.concatenate(
        [
            np.ones((sum(sizes), 1)),
            np.concatenate([one.relative for one in maps])[:, None],
            np.repeat(relative, sizes, axis=0),
        ],
        axis=1,
    )
    target = np.log(np.abs(np.concatenate([one.score for one in maps])) + 0.01)
    weight = np.repeat(weights / np.array(sizes), sizes)
    solved = _quantile_regression(design, target, weight / weight.sum(), level)
    whitened = (found - centre) / spread
    correlation = (whitened * (weights / weights.sum())[:, None]).T @ whitened
    inverse = np.linalg.inv(correlation + 0.02 * np.eye(len(centre)))
    law = SigmaLaw(
        centre=_rounded(centre),
        spread=_rounded(spread),
        constant=round(float(solved[0]), 4),
        slopes=_rounded(solved[2:]),
        contrast=round(float(np.clip(1 + solved[1], LEAST_CONTRAST, MOST_CONTRAST)), 4),
        inverse=tuple(_rounded(row) for row in inverse),
        farthest=1.0,
    )
    farthest = float(np.quantile(law.distance(found), 0.999))
    return law.model_copy(update={"farthest": round(farthest, 4)})


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _quantile_regression(
    design: np.ndarray, target: np.ndarray, weight: np.ndarray, level: float
) -> np.ndarray:
    """Return the coefficients of a weighted quantile regression, with a slight ridge."""
    # The constant is free; the rest is held back where the data hardly say anything.
    ridge = 1e-4 * np.diag([0.0] + [1.0] * (design.shape[1] - 1))
    found = np.zeros(design.shape[1])
    found[0] = _weighted_quantile(target, weight, level)
    for _ in range(15):
        left = target - design @ found
        pull = weight * np.where(left > 0, level, 1 - level) / np.maximum(np.abs(left), 0.05)
        normal = design.T @ (design * pull[:, None])
        found = np.linalg.solve(normal + ridge * np.trace(normal), design.T @ (pull * target))
    found[0] += _weighted_quantile(target - design @ found, weight, level)
    return found


def _weighted_quantile(values: np.ndarray, weight: np.ndarray, level: float) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weight[order]), level)])
