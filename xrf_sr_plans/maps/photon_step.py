"""`photon_step`: how much one photon adds to the values of a map, where the values themselves tell.

Photons are whole. Rates of a constant dwell time are multiples of one photon in that time: 0, 100,
200, 300 counts/s at 10 ms. So the step of the values gives the dwell time, and it does so exactly.
A fit, or a correction for dead time, leaves no steps.

Rates that somebody rounded have steps too, but steps that are no photons. Then the noise is larger
than that of as many photons, or smaller. It is measured on mixed second differences, to which
ramps and straight edges along the axes contribute nothing.
"""

from __future__ import annotations

import numpy as np

LEAST_PIXELS = 100
"""Pixels above 0 below which steps may be there by chance: that all of so many photon numbers are
multiples of 2 has a probability of about 1e-30."""
TOLERANCE = 0.01
"""Distance from a multiple, in steps, that rounding to single precision may bring."""
MOST_PHOTONS = 2e4
"""Photons in a pixel above which single precision no longer tells multiples from other values."""
LEAST_NOISE, MOST_NOISE = 0.5, 1.3
"""Variance of the noise over that of as many photons, in smooth places, between which the steps are
photons."""
SMOOTH = 0.2
"""Share of the tiles of a map that counts as smooth: in the others fine structure adds to the
noise. Among smooth tiles the noise of photons comes out as 0.8."""
_TILE = 8
_LEAST_PHOTONS = 20


def photon_step(maps: np.ndarray) -> float | None:
    """Return the step between the values of maps, where it is that of a photon.

    Parameters
    ----------
    maps
        Values (element, y, x) in one unit, counted for one time; NaN where nothing was measured.

    Returns
    -------
    float or None
        The value of one photon, in the unit of the maps. None where the values have no common
        step, where there are too few of them, or where their noise is not that of photons.
    """
    values = maps[np.isfinite(maps)]
    if values.size == 0 or values.min() < 0 or np.count_nonzero(values) < LEAST_PIXELS:
        return None
    different = np.unique(values)
    gaps = np.diff(different, prepend=0.0)
    # Smaller gaps are rounding errors of one and the same value.
    gaps = gaps[gaps > 0.5 / MOST_PHOTONS * different[-1]]
    step = float(gaps.min()) if gaps.size else 0.0
    if not step > 0:
        return None
    photons = np.round(values / step)
    # The largest values fix the step best.
    step = float(np.sum(values * photons) / np.sum(photons**2))
    if np.abs(values / step - photons).max() > TOLERANCE:
        return None
    noise = relative_noise(np.asarray(maps, dtype=float) / step)
    return step if LEAST_NOISE < noise < MOST_NOISE else None


def relative_noise(photons: np.ndarray) -> float:
    """Return the variance of the noise over that of as many photons, in smooth places.

    `photons` is (element, y, x). NaN means that there are too few to tell.
    """
    corners = (photons[:, :-1, :-1], photons[:, 1:, 1:], photons[:, :-1, 1:], photons[:, 1:, :-1])
    difference = corners[0] + corners[1] - corners[2] - corners[3]
    total = sum(corners)
    known = np.isfinite(difference)
    squares, sums = (
        _tile_sums(np.where(known, plane, 0.0)) for plane in (np.square(difference), total)
    )
    enough = sums > _LEAST_PHOTONS
    return (
        float(np.quantile(squares[enough] / sums[enough], SMOOTH)) if enough.any() else float("nan")
    )


def _tile_sums(maps: np.ndarray) -> np.ndarray:
    """Return the sums of maps (element, y, x) over square tiles; what is left over is left out."""
    rows, columns = (max(1, size // _TILE) for size in maps.shape[1:])
    height, width = (
        size // number for size, number in zip(maps.shape[1:], (rows, columns), strict=True)
    )
    cut = maps[:, : rows * height, : columns * width]
    return cut.reshape(len(maps), rows, height, columns, width).sum(axis=(2, 4))
