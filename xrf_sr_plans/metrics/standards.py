"""Samples whose structure is known to the last feature, for measuring hallucination.

Maps are relative intensities on the fine grid. The background is `BACKGROUND`, and features are
higher by their contrast. Edges are one pixel wide, so that features may lie between pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.operators import forward_matrices

BACKGROUND = 0.2


@dataclass(frozen=True)
class Feature:
    """A dot or a line of one element; lengths are in fine pixels."""

    element: int
    """Index of the element."""
    y: float
    x: float
    radius_px: float
    """Radius of a dot, or half the width of a line."""
    contrast: float
    """Height above the background, as a relative intensity."""
    length_px: float = 0.0
    """Length of a line; 0 for a dot."""
    angle: float = 0.0
    """Direction of a line in radians: 0 is along x, and positive is towards y."""

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the distances of places from the center of the dot, or the axis of the line."""
        along = (y - self.y) * np.sin(self.angle) + (x - self.x) * np.cos(self.angle)
        across = (y - self.y) * np.cos(self.angle) - (x - self.x) * np.sin(self.angle)
        return np.hypot(np.clip(np.abs(along) - self.length_px / 2, 0, None), across)


@dataclass(frozen=True, eq=False)
class Standard:
    """A sample of known structure."""

    name: str
    maps: np.ndarray
    """Relative intensities (element, y, x)."""
    features: tuple[Feature, ...]
    """All features, of all elements."""


def empty_field(size: int, n_elements: int = 2) -> Standard:
    """Return a sample with nothing but background, so that any predicted feature is invented."""
    return Standard("empty field", np.full((n_elements, size, size), BACKGROUND), ())


def dots(
    size: int,
    radius_px: float,
    contrast: float,
    rng: np.random.Generator,
    *,
    n_elements: int = 2,
    gap_px: float | None = None,
    only_element: int | None = None,
) -> Standard:
    """Return a sample of dots at random places, each in none, one or several elements by chance.

    Parameters
    ----------
    size
        Side of the square maps in fine pixels.
    radius_px, contrast
        Radius of the dots in fine pixels, and their height above the background.
    rng
        Source of the random places and elements.
    n_elements
        Number of elements.
    gap_px
        Distance between the rims of two dots that form a pair; with None, dots are single.
    only_element
        Index of the element that has all dots, so that what appears in another one has leaked;
        with None, each element has some.

    Raises
    ------
    ConfigError
        The field is too small for one dot.
    """
    maps = np.full((n_elements, size, size), BACKGROUND)
    partner = 0.0 if gap_px is None else 2 * radius_px + gap_px
    pitch = 6 * radius_px + partner + 8
    cells = int(size // pitch)
    if cells < 1:
        raise ConfigError(f"field of {size} px: a dot of radius {radius_px} px needs {pitch:.0f}")
    features: list[Feature] = []
    for cell in np.ndindex(cells, cells):
        center = (np.array(cell) + 0.5) * (size / cells) + rng.uniform(-1, 1, 2)
        angle = rng.uniform(0, 2 * np.pi)
        shift = partner / 2 * np.array([np.sin(angle), np.cos(angle)])
        places = [center] if gap_px is None else [center - shift, center + shift]
        holders = rng.random(n_elements) < 0.6
        if only_element is not None:
            holders = np.arange(n_elements) == only_element
        features += [
            Feature(int(element), float(y), float(x), radius_px, contrast)
            for element in np.nonzero(holders)[0]
            for y, x in places
        ]
    for feature in features:
        _add_dot(maps[feature.element], feature)
    name = "isolated dots" if gap_px is None else "paired dots"
    name = name if only_element is None else f"{name} in one element"
    return Standard(name, maps, tuple(features))


def _add_dot(plane: np.ndarray, feature: Feature) -> None:
    reach = feature.radius_px + 2
    inside = tuple(
        slice(max(0, int(center - reach)), min(len(plane), int(center + reach) + 2))
        for center in (feature.y, feature.x)
    )
    rows, columns = np.mgrid[inside]
    disc = np.clip(feature.radius_px + 0.5 - feature.distance(rows, columns), 0, 1)
    if feature.radius_px < 1 and disc.sum() > 0:
        # A dot smaller than a pixel would lose some of its photons to the soft edge.
        disc *= np.pi * feature.radius_px**2 / disc.sum()
    plane[inside] += feature.contrast * disc


def lines(
    size: int,
    radius_px: float,
    length_px: float,
    contrast: float,
    rng: np.random.Generator,
    *,
    n_elements: int = 2,
) -> Standard:
    """Return a sample of separate lines, all at the same random angle.

    Each line is in none, one or several elements by chance.

    Parameters
    ----------
    size
        Side of the square maps in fine pixels.
    radius_px, length_px
        Half the width of the lines, and their length, in fine pixels.
    contrast
        Height of the lines above the background.
    rng
        Source of the random angle, places and elements.
    n_elements
        Number of elements.

    Raises
    ------
    ConfigError
        The field is too small for one line.
    """
    maps = np.full((n_elements, size, size), BACKGROUND)
    pitch = length_px + 6 * radius_px + 4
    cells = int(size // pitch)
    if cells < 1:
        raise ConfigError(f"field of {size} px: a line of {length_px} px needs {pitch:.0f}")
    angle = float(rng.uniform(0, np.pi))
    rows, columns = np.mgrid[:size, :size]
    features: list[Feature] = []
    for cell in np.ndindex(cells, cells):
        y, x = (np.array(cell) + 0.5) * (size / cells) + rng.uniform(-1, 1, 2)
        holders = np.nonzero(rng.random(n_elements) < 0.6)[0]
        line = Feature(0, float(y), float(x), radius_px, contrast, length_px, angle)
        distance = line.distance(rows, columns)
        # A line thinner than a pixel has as many photons per length, spread over a pixel's width.
        height = contrast * min(1.0, 2 * radius_px)
        for element in holders:
            maps[element] += height * np.clip(max(radius_px, 0.5) + 0.5 - distance, 0, 1)
            features.append(replace(line, element=int(element)))
    return Standard("lines", maps, tuple(features))


def grating(size: int, period_px: float, contrast: float, angle: float = 0.0) -> np.ndarray:
    """Return a pattern of bars (y, x); `angle` is that of their normal, from x towards y."""
    rows, columns = np.mgrid[:size, :size]
    phase = (rows * np.sin(angle) + columns * np.cos(angle)) / period_px
    return BACKGROUND + contrast * (0.5 + 0.5 * np.clip(6 * np.sin(2 * np.pi * phase), -1, 1))


def siemens_star(size: int, contrast: float, spokes: int = 18) -> np.ndarray:
    """Return a star (y, x) whose spokes become narrower towards the center."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    soft = np.clip(radius * np.sin(spokes * angle) / spokes * 2 + 0.5, 0, 1)
    return BACKGROUND + contrast * np.where(radius < 0.48 * size, soft, 0.0)


def indistinguishable_pair(
    base: np.ndarray, measurement: Measurement, contrast: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return two samples whose measurements are the same.

    They are `base` plus and minus a random pattern from which everything that can be measured was
    taken off. Any method predicts the same for both, and an interval that holds neither is too
    narrow.

    Parameters
    ----------
    base
        Sample (y, x) in the middle between both.
    measurement
        How the coarse map is measured.
    contrast
        Standard deviation of the pattern.
    rng
        Source of the random pattern.

    Returns
    -------
    tuple of numpy.ndarray
        Both samples (y, x).
    """
    rows, columns = forward_matrices(base.shape, measurement)
    pattern = rng.standard_normal(base.shape)
    # Projection onto what the forward model sees.
    seen = np.linalg.pinv(rows) @ (rows @ pattern @ columns.T) @ np.linalg.pinv(columns).T
    hidden = pattern - seen
    hidden *= contrast / max(float(hidden.std()), 1e-12)
    return base + hidden, base - hidden
