"""Anti-aliased shapes and random fields that phantoms are painted with.

All functions return float arrays (size, size). Edges are one pixel wide ramps (the share of the
pixel that the shape covers), so that a phantom is itself a properly sampled map.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree


def pixel_axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel centres (y, x) as broadcastable float arrays."""
    axis = np.arange(size, dtype=float)
    return axis[:, None], axis[None, :]


def covered(distance_px: np.ndarray) -> np.ndarray:
    """Turn a signed distance from an edge (negative inside) into the covered share of a pixel."""
    return np.clip(0.5 - distance_px, 0.0, 1.0)


def smooth_field(rng: np.random.Generator, size: int, scale_px: float) -> np.ndarray:
    """Return Gaussian random noise with zero mean, unit variance and correlation `scale_px`."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), scale_px, mode="wrap")
    return (field - field.mean()) / (field.std() + 1e-12)


def fractal_field(rng: np.random.Generator, size: int, slope: float) -> np.ndarray:
    """Return noise with the power spectrum ``frequency ** -slope``; zero mean, unit variance."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency ** (-slope / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return field / (field.std() + 1e-12)


def ellipse_distance(
    size: int, center: tuple[float, float], radii: tuple[float, float], angle: float
) -> np.ndarray:
    """Return the signed distance (px, near the edge) from an ellipse; negative inside."""
    y, x = pixel_axes(size)
    dy, dx = y - center[0], x - center[1]
    u = (np.cos(angle) * dy + np.sin(angle) * dx) / radii[0]
    v = (np.cos(angle) * dx - np.sin(angle) * dy) / radii[1]
    return (np.hypot(u, v) - 1.0) * min(radii)


def dome(distance_px: np.ndarray, radius_px: float) -> np.ndarray:
    """Return the thickness of a sphere seen along the beam, 1 at its centre."""
    inside = np.clip(1.0 + distance_px / radius_px, 0.0, None)
    return np.sqrt(np.clip(1.0 - inside**2, 0.0, None))


def line_distance(size: int, points: np.ndarray) -> np.ndarray:
    """Return the distance (px) from a polyline of points (n, 2) given as (y, x)."""
    y, x = pixel_axes(size)
    nearest = np.full((size, size), np.inf)
    for start, stop in itertools.pairwise(points):
        step = stop - start
        length2 = float(step @ step) + 1e-9
        along = np.clip(((y - start[0]) * step[0] + (x - start[1]) * step[1]) / length2, 0, 1)
        nearest = np.minimum(
            nearest,
            np.hypot(y - start[0] - along * step[0], x - start[1] - along * step[1]),
        )
    return nearest


def crooked_line(rng: np.random.Generator, size: int, n_points: int = 7) -> np.ndarray:
    """Return points (n, 2) of a line that crosses the field and wanders."""
    start, stop = rng.uniform(-0.1 * size, 1.1 * size, (2, 2))
    along = np.linspace(0, 1, n_points)[:, None]
    wander = np.cumsum(rng.normal(0, 0.04 * size, (n_points, 2)), axis=0)
    return start + along * (stop - start) + wander


def grains(
    rng: np.random.Generator, size: int, n_grains: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the field into grains (a Voronoi tessellation with rough borders).

    Returns
    -------
    label
        Index of the grain of each pixel.
    second
        Index of the nearest other grain.
    share
        Share of the pixel that belongs to `label` (0.5 on a border, 1 inside).
    """
    seeds = rng.uniform(-0.1 * size, 1.1 * size, (n_grains, 2))
    y, x = np.broadcast_arrays(*pixel_axes(size))
    roughness = rng.uniform(0, 3)
    points = np.stack(
        [
            (y + roughness * smooth_field(rng, size, 4.0)) * rng.uniform(0.6, 1.0),
            (x + roughness * smooth_field(rng, size, 4.0)),
        ],
        axis=-1,
    )
    distance, index = KDTree(seeds).query(points.reshape(-1, 2), k=2)
    distance = np.asarray(distance).reshape(size, size, 2)
    index = np.asarray(index).reshape(size, size, 2)
    gap = seeds[index[..., 1]] - seeds[index[..., 0]]
    # Distance from the bisecting border of the two nearest seeds.
    border = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * np.hypot(*gap.T).T + 1e-9)
    return index[..., 0], index[..., 1], np.clip(0.5 + border, 0.5, 1.0)
