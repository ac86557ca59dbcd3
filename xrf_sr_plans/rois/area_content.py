"""`content_of`: what an area holds in a few numbers, whatever its elements are.

The numbers are about counts on coarse pixels, which is what the network reads. They are made to
tell areas apart of which a model learns different things: bright or dim, rough or smooth, filled or
mostly empty, elements together or apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.usable import usable_counts_of

CONTENT_NAMES = (
    "mean level",
    "highest level",
    "mean roughness",
    "highest roughness",
    "mean spread",
    "highest spread",
    "fill",
    "togetherness",
)
"""What the numbers of a content are, see `AreaContent`."""
STRUCTURE_SIGMAS = 4.0
"""So many standard errors must differences exceed counting noise for an element to have structure.
"""
_FAR = 4
"""Distance in pixels of differences that tell whether there is structure larger than a pixel."""


@dataclass(frozen=True, eq=False)
class AreaContent:
    """What one area holds.

    Parameters
    ----------
    numbers
        In the order of `CONTENT_NAMES` [number]: log10 of the top counts (the 99th percentile),
        as mean over elements and as the highest; the share of the variance of differences between
        neighbors that is beyond counting noise, likewise; the same of pixels `_FAR` apart,
        likewise; where the mean lies between the 1st and 99th percentile; and the mean correlation
        of elements without its sign.
    structured
        Whether each element has structure beyond counting noise [element] (bool).
    """

    numbers: np.ndarray
    structured: np.ndarray

    def __str__(self) -> str:
        level, rough = self.numbers[1], self.numbers[3]
        return f"up to {10**level - 1:.3g} photons, {rough:.0%} of its roughness beyond noise"


def coarse_counts(maps: ElementalMaps) -> np.ndarray:
    """Return the usable counts of a map in photons per coarse pixel (element, y, x).

    The pixels of rows are summed to squares; a square of which a part is missing is NaN.
    """
    counts = usable_counts_of(maps).counts
    # Steps of square pixels may differ a little along both axes.
    pixels = round(maps.grid.slow.step_um / maps.grid.fast.step_um)
    if maps.attrs.get("sampling") != "rows" or pixels < 2:
        return counts
    columns = counts.shape[-1] // pixels
    whole = counts[..., : columns * pixels]
    return whole.reshape(*counts.shape[:-1], columns, pixels).sum(axis=-1)


def content_of(counts: np.ndarray) -> AreaContent:
    """Return what an area holds.

    Parameters
    ----------
    counts
        Photons per coarse pixel (element, y, x); NaN where nothing was measured.
    """
    flat = counts.reshape(len(counts), -1)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    if flat.shape[1] < 2:
        return AreaContent(np.zeros(len(CONTENT_NAMES)), np.zeros(len(counts), dtype=bool))
    low, top = np.percentile(flat, [1, 99], axis=1)
    level = np.log10(1 + np.maximum(top, 0))
    width = top - low
    fill = np.clip((flat.mean(axis=1) - low) / np.where(width > 0, width, np.inf), 0, 1)
    near, sure_near = _beyond_noise(counts, 1)
    far, sure_far = _beyond_noise(counts, _FAR)
    structured = np.maximum(sure_near, sure_far) > STRUCTURE_SIGMAS
    numbers = [level.mean(), level.max(), near.mean(), near.max(), far.mean(), far.max()]
    return AreaContent(
        np.array([*numbers, fill.mean(), _togetherness(flat[structured])]), structured
    )


def _beyond_noise(counts: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of the differences between pixels is beyond counting noise.

    The difference of two counts with the same mean has, on average, the square that their sum is.

    Parameters
    ----------
    counts
        Photons (element, y, x).
    distance
        How far apart the pixels are, along y or x.

    Returns
    -------
    share
        Share of the squared differences that is more than noise [element].
    sigmas
        How sure that is, in standard errors [element].
    """
    one, other = [], []
    for axis in (1, 2):
        size = counts.shape[axis]
        if size > distance:
            keep = [np.take(counts, range(*ends), axis=axis).reshape(len(counts), -1)
                    for ends in ((distance, size), (0, size - distance))]  # fmt: skip
            one.append(keep[0])
            other.append(keep[1])
    if not one:
        return np.zeros(len(counts)), np.zeros(len(counts))
    first, second = np.concatenate(one, axis=1), np.concatenate(other, axis=1)
    known = np.isfinite(first + second).all(axis=0)
    squares = (first - second)[:, known] ** 2
    excess = squares - (first + second)[:, known]
    number = max(excess.shape[1], 1)
    mean = excess.sum(axis=1) / number
    error = excess.std(axis=1) / np.sqrt(number) if excess.shape[1] else np.full(len(counts), 1.0)
    total = squares.sum(axis=1) / number
    share = np.clip(mean / np.where(total > 0, total, np.inf), 0, 1)
    return share, np.where(error > 0, mean / np.where(error > 0, error, 1), 0.0)


def _togetherness(flat: np.ndarray) -> float:
    """Return the mean correlation, without its sign, of pairs of elements [element, pixel]."""
    if len(flat) < 2:
        return 0.0
    matrix = np.nan_to_num(np.corrcoef(flat))
    return float(np.abs(matrix[np.triu_indices(len(flat), 1)]).mean())
