"""What the enhanced map of one element says about each pixel, and where the element is present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import ndtri, stdtr, stdtrit
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.physics.resample import block_mean

GROW_AT = 3.0
"""An element is present where it is this many robust deviations above the map's median."""
SEED_AT = 5.0
"""What is present must hold a pixel this many robust deviations above the median."""
MIN_SIGNIFICANCE = 2.0
"""Excess over the background, in predicted sigmas, from which an element counts as present."""
TWO_CLASSES_FROM = 0.78
"""Share of the variance that two classes must explain (of normal noise they explain 0.64, of a
ramp 0.75)."""

_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""
_INTERVAL_SIGMAS = float(ndtri(0.95))
"""Half the width of a 90 % interval of a normal distribution, in standard deviations."""
_LEAST_SIGMA = 1e-9
TAIL_FREEDOM = 5.0
"""Degrees of freedom of Student's distribution, whose tails are those of the errors.

A normal distribution with the same 90 % interval would have 3e-5 of them beyond four standard
deviations, where there are a few in a thousand (design samples of `benchmarks/beam_time.py`): a
pixel that may well match would be given up.
"""
_TAIL_SCALE = float(stdtrit(TAIL_FREEDOM, 0.95)) / _INTERVAL_SIGMAS


@dataclass(frozen=True, eq=False)
class ElementEvidence:
    """What the map of one element says about each pixel; all arrays have the axes (y, x).

    The photons per coarse pixel are distributed about `value` as two halves of Student's
    distributions (`TAIL_FREEDOM`), whose 90 % interval is the predicted one.

    Parameters
    ----------
    value
        Photons per coarse pixel: the estimate where the model is trusted, elsewhere the bicubic
        map of the measured counts. NaN where nothing was measured.
    below, above
        Standard deviations of normal distributions with the same interval below and above
        `value`. Where the model is not trusted, at least that of Poisson noise.
    present
        Whether the element is there (bool).
    near
        Where it is there, or within a coarse pixel of that (bool).
    background
        Photons per coarse pixel where the element is not present.
    threshold
        Photons per coarse pixel from which the element is present.
    """

    value: np.ndarray
    below: np.ndarray
    above: np.ndarray
    present: np.ndarray
    near: np.ndarray
    background: float
    threshold: float

    def probability_above(self, photons: float) -> np.ndarray:
        """Return the probability that a pixel has more photons (y, x); 0 where unmeasured."""
        away = self.value - photons
        sigmas = away / np.where(away > 0, self.below, self.above)
        return np.nan_to_num(stdtr(TAIL_FREEDOM, _TAIL_SCALE * sigmas))

    def presence(self) -> np.ndarray:
        """Return the probability that the element is present at each pixel (y, x)."""
        return np.where(self.near, self.probability_above(self.threshold), 0.0)

    def drawn(self, quantile: float) -> np.ndarray:
        """Return the photons (y, x) at one quantile of every pixel's distribution."""
        sigmas = float(stdtrit(TAIL_FREEDOM, quantile)) / _TAIL_SCALE
        return np.maximum(self.value + sigmas * (self.below if sigmas < 0 else self.above), 0.0)


def evidence(enhanced: EnhancedMaps, element: str, *, two_classes: bool) -> ElementEvidence:
    """Return what the map of an element says.

    An element is present where its variance-stabilized counts exceed the map's median by
    `GROW_AT` robust deviations (never less than as many Poisson sigmas) and the pixel is connected
    to one above `SEED_AT`. The excess must also be significant compared with the predicted
    uncertainty, or be proven by the counts of the coarse pixel alone. Where the model is not
    trusted, the measured counts decide.

    Parameters
    ----------
    enhanced
        The enhanced map.
    element
        The element.
    two_classes
        An element that a query names may fill so much of the map that it *is* the median. Where
        such a map clearly falls into two classes, the limit between the classes is used instead
        (N. Otsu, IEEE Trans. SMC 9 (1979) 62, DOI 10.1109/TSMC.1979.4310076).
    """
    # All arrays here are planes (y, x) on the fine grid.
    plane = enhanced.dataset.sel(element=element)
    # How far off an estimate may be is in its interval, so that alone is no reason to leave it.
    trusted = plane["trusted"].values.astype(bool) | plane["doubtful"].values.astype(bool)
    value = np.where(trusted, plane["estimate"].values, plane["baseline"].values).astype(float)
    measured = np.isfinite(value)
    value = np.where(measured, value, np.nan)
    below, above = _halves(plane, value, trusted)
    if not measured.any():
        nowhere = np.zeros(value.shape, dtype=bool)
        return ElementEvidence(value, below, above, nowhere, nowhere, 0.0, 0.0)
    # The variance of stabilized counts is about 1 everywhere, so differences are in Poisson sigmas.
    level = stabilise(np.nan_to_num(value))
    limits = _limits(level[measured], two_classes)
    background = float(unstabilise(np.asarray(limits.middle)))
    significant = np.nan_to_num(value) - background >= MIN_SIGNIFICANCE * below
    significant |= _counted(value, background, enhanced.factor)
    usable = np.where(measured & significant, level, -np.inf)
    present = apply_hysteresis_threshold(usable, limits.grow, limits.seed)
    threshold = float(unstabilise(np.asarray(limits.grow)))
    near = ndimage.binary_dilation(present, structure=np.ones((3, 3)), iterations=enhanced.factor)
    return ElementEvidence(value, below, above, present, near, background, threshold)


def _halves(plane, value: np.ndarray, trusted: np.ndarray) -> Sequence[np.ndarray]:
    """Return the standard deviations below and above the value, from the predicted interval."""
    poisson = np.sqrt(np.maximum(np.nan_to_num(value), 0.0) + 1.0)
    estimate, sigma = (plane[key].values.astype(float) for key in ("estimate", "sigma"))
    halves = []
    for key, way in (("lower", -1), ("upper", 1)):
        half = way * (plane[key].values.astype(float) - estimate) / _INTERVAL_SIGMAS
        half = np.where(np.isfinite(half) & (half > 0), half, sigma)
        half = np.where(np.isfinite(half), half, poisson)
        # An interval that ends at 0 photons says less than sigma about how far it is to there.
        half = np.where(plane[key].values <= 0, np.fmax(half, sigma), half) if way < 0 else half
        halves.append(np.maximum(np.where(trusted, half, np.maximum(half, poisson)), _LEAST_SIGMA))
    return halves


def _counted(value: np.ndarray, background: float, factor: int) -> np.ndarray:
    """Return the pixels (y, x) whose coarse pixel alone proves that the element is there.

    A grain smaller than the coarse step may be beyond doubt although the model can't know where
    in the coarse pixel it is. Its wide interval is a reason to look again, not to doubt the grain.
    """
    # The mean of the estimate over a coarse pixel is what was counted there. For the bicubic map
    # that is nearly so.
    counted = block_mean(np.nan_to_num(value), factor)
    proven = counted - background >= SEED_AT * np.sqrt(np.maximum(counted, 0.0) + 1.0)
    return np.kron(proven, np.ones((factor, factor))) > 0


class _Limits(NamedTuple):
    """Levels of an element in stabilized counts, whose unit is a sigma of Poisson noise."""

    middle: float
    """The background."""
    grow: float
    """Level above which a pixel belongs to what is present, if that has a seed."""
    seed: float
    """Level above which a pixel is a seed."""


def _limits(level: np.ndarray, two_classes: bool) -> _Limits:
    """Return the limits for the stabilized counts (pixel,) of one element.

    With `two_classes`, the limit between two classes of pixels is used where there plainly are two.
    """
    middle = float(np.median(level))
    deviation = _MAD_TO_SIGMA * float(np.median(np.abs(level - middle)))
    # A map that is mostly empty has no spread, but its counts still have Poisson noise.
    scale = max(deviation, 1.0)
    outliers = _Limits(middle, middle + GROW_AT * scale, middle + SEED_AT * scale)
    if not two_classes or level.min() == level.max():
        return outliers
    between = float(threshold_otsu(level))
    upper = level > between
    low, high, share = float(level[~upper].mean()), float(level[upper].mean()), upper.mean()
    explained = share * (1 - share) * (high - low) ** 2 / level.var()
    # As long as the upper class is small, the median and its spread describe the background better.
    if share > 0.25 and explained > TWO_CLASSES_FROM and high - low > SEED_AT:
        return _Limits(low, between, (between + high) / 2)
    return outliers
