"""How sharp an image is: the width of its edges, and Fourier ring correlation.

Either alone can be fooled, as an edge can be sharpened into an artifact and a network correlates
with itself. Give them together with PSNR, never quote an edge narrower than the reference's own,
and compute the ring correlation of a network from two *independent* acquisitions only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, optimize, special

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.metrics.image import data_range
from xrf_sr_plans.physics.forward import FWHM_PER_SIGMA
from xrf_sr_plans.physics.resample import fill_unmeasured

PROFILE_PX = 8.0
"""Largest length of an edge's profile to either side of the edge."""
_SPACING_PX = 6
"""Smallest distance between edges. It is below `PROFILE_PX`, so that slices stay in the map."""
_MIN_CONTRAST = 0.25
"""Smallest height of an edge that is fitted, as a part of the data range."""
_MIN_R2 = 0.9
"""Smallest share of a profile's variance that the fit of an edge must explain."""
_MIN_SCORE = 0.2
"""Smallest slope of an edge, relative to the steepest one."""
_TURN = 0.1
"""How far a profile may turn back before it is cut off, as a part of the data range."""
_SHORTEST_PX = 4.0
"""Smallest length of a profile to either side of the edge."""
_SIGMA_PX = (0.05, PROFILE_PX / 2)
"""Range of the fitted widths that are credible."""
_LARGEST_SHIFT_PX = 3.0
"""Largest distance of a fitted edge from where it was found."""


@dataclass(frozen=True)
class Edge:
    """A place where a map steps from low to high; all lengths are in pixels."""

    y: float
    x: float
    normal_y: float
    """The y component of the unit vector across the edge, which points uphill."""
    normal_x: float
    """The x component of the unit vector across the edge, which points uphill."""
    before_px: float = PROFILE_PX
    """How far the profile runs downhill without turning back; beyond that are other grains."""
    after_px: float = PROFILE_PX
    """How far the profile runs uphill without turning back."""


def find_edges(
    reference: np.ndarray,
    *,
    partner: np.ndarray | None = None,
    count: int = 12,
    margin_px: float = PROFILE_PX,
) -> list[Edge]:
    """Find the steepest steps of a map.

    Steps are at least 6 pixels apart, and their profiles monotonic for at least 4 pixels to both
    sides.

    Parameters
    ----------
    reference
        The map (y, x).
    partner
        Map of a second element. If it is given, only interfaces count where one element decreases
        as the other increases, such as Fe/Zn.
    count
        Largest number of edges.
    margin_px
        Smallest distance to the border, at which whole profiles fit in the map.

    Returns
    -------
    list of Edge
        The edges, steepest first.
    """
    span = data_range(reference)
    # Slope along y and x, and the score of an edge, in each pixel (y, x).
    gy, gx = _gradient(reference)
    score = np.hypot(gy, gx)
    if partner is not None:
        partner_gy, partner_gx = _gradient(partner)
        score = np.sqrt(np.clip(-(gy * partner_gy + gx * partner_gx), 0, None))
    border = max(int(np.ceil(margin_px)), _SPACING_PX)
    if span <= 0 or min(score.shape) <= 2 * border:
        return []
    inner = score[border:-border, border:-border]
    order = np.argsort(inner, axis=None)[::-1]
    length = np.hypot(gy, gx)
    smooth = ndimage.gaussian_filter(fill_unmeasured(reference), 1.0, mode="nearest")
    edges: list[Edge] = []
    taken = np.zeros(score.shape, dtype=bool)
    for y, x in zip(*(part + border for part in np.unravel_index(order, inner.shape)), strict=True):
        if len(edges) == count or score[y, x] < _MIN_SCORE * inner.max():
            break
        if not taken[y, x]:
            rows, columns = (slice(at - _SPACING_PX, at + _SPACING_PX + 1) for at in (y, x))
            taken[rows, columns] = True
            normal = gy[y, x] / length[y, x], gx[y, x] / length[y, x]
            edge = _bounded(smooth, Edge(float(y), float(x), *map(float, normal)), span)
            if min(edge.before_px, edge.after_px) >= _SHORTEST_PX:
                edges.append(edge)
    return edges


def _profile(
    plane: np.ndarray, edge: Edge, along: np.ndarray, across: np.ndarray, order: int
) -> np.ndarray:
    """Return the profile (along,) of an edge, averaged over the lines (across,) beside its middle.

    `along` and `across` are distances from the edge in pixels, across it and along it.
    """
    rows = edge.y + along * edge.normal_y - across[:, None] * edge.normal_x
    columns = edge.x + along * edge.normal_x + across[:, None] * edge.normal_y
    sampled = ndimage.map_coordinates(
        plane, [rows, columns], order=order, mode="nearest", prefilter=False
    )
    return sampled.mean(axis=0)


def _bounded(smooth: np.ndarray, edge: Edge, span: float) -> Edge:
    """Return an edge with its profile cut off where it turns back by more than `_TURN` allows."""
    along = np.arange(0, PROFILE_PX + 1e-9, 0.5)
    reach = []
    for sign in (-1, 1):
        # Signs make both profiles rise away from the edge.
        profile = sign * _profile(smooth, edge, sign * along, np.zeros(1), order=1)
        turned = np.maximum.accumulate(profile) - profile > _TURN * span
        peak = int(np.argmax(profile[: np.argmax(turned)])) if turned.any() else along.size - 1
        reach.append(float(along[peak]))
    return replace(edge, before_px=reach[0], after_px=reach[1])


def boundary_fwhm_um(
    image: np.ndarray,
    pixel_um: float,
    edges: list[Edge] | None = None,
    *,
    tangent_px: float = 1.5,
) -> float:
    """Return the median width of a map's edges, as FWHM of the line spread function in um.

    The profile across each edge is fitted with ``a + b erf((t - t0) / (sqrt(2) sigma))``, for t
    within 8 pixels of the edge and not beyond the next grain, and FWHM = 2.355 sigma. A fit is
    dropped if it explains less than 90 % of the variance, is lower than a quarter of the data
    range, lies more than 3 pixels from the edge, or has a sigma of more than half a profile.

    Parameters
    ----------
    image
        The map (y, x).
    pixel_um
        Size of a pixel in um.
    edges
        Edges from `find_edges` in the *reference*, so that all methods are measured at the same
        places; with None, they are found in `image` itself.
    tangent_px
        Profiles are averaged over this many pixels along the edge, to both sides.

    Returns
    -------
    float
        NaN where no edge could be fitted.
    """
    filled = fill_unmeasured(image)
    edges = find_edges(filled) if edges is None else edges
    spline = ndimage.spline_filter(filled, order=3, mode="nearest")
    span = data_range(image)
    widths = [_edge_sigma(spline, edge, tangent_px, span) for edge in edges]
    good = [width for width in widths if np.isfinite(width)]
    return float(np.median(good) * FWHM_PER_SIGMA * pixel_um) if good else float("nan")


def _gradient(plane: np.ndarray, sigma_px: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes along y and along x in each pixel (y, x) of the smoothed plane."""
    smooth = ndimage.gaussian_filter(fill_unmeasured(plane), sigma_px, mode="nearest")
    return np.gradient(smooth, axis=0), np.gradient(smooth, axis=1)


def _edge_sigma(spline: np.ndarray, edge: Edge, tangent_px: float, span: float) -> float:
    """Return the sigma of an edge in pixels, NaN where its profile is not a clean step."""
    along = np.arange(-edge.before_px, edge.after_px + 1e-9, 0.25)
    profile = _profile(spline, edge, along, np.linspace(-tangent_px, tangent_px, 5), order=3)

    def deviation(parameters: np.ndarray) -> np.ndarray:
        low, high, center, sigma = parameters
        width = np.sqrt(2) * max(abs(sigma), 1e-3)
        return low + (high - low) * (1 + special.erf((along - center) / width)) / 2 - profile

    guess = [float(profile[:4].mean()), float(profile[-4:].mean()), 0.0, 1.0]
    fit = optimize.least_squares(deviation, guess, method="lm", max_nfev=400)
    low, high, center, sigma = fit.x
    sigma = abs(float(sigma))
    explained = 1 - np.var(fit.fun) / max(float(np.var(profile)), 1e-30)
    clean = explained >= _MIN_R2 and high - low >= _MIN_CONTRAST * span
    credible = _SIGMA_PX[0] < sigma < _SIGMA_PX[1] and abs(center) <= _LARGEST_SHIFT_PX
    return sigma if clean and credible else float("nan")


@dataclass(frozen=True, eq=False)
class RingCorrelation:
    """Fourier ring correlation, with one value for each ring of spatial frequencies."""

    frequency_per_um: np.ndarray
    """Mean frequency of each ring in 1/um, (ring,)."""
    correlation: np.ndarray
    """Correlation in each ring, from -1 to 1, (ring,)."""
    samples: np.ndarray
    """Number of Fourier coefficients in each ring, (ring,)."""

    def resolution_um(self, threshold: float = 1 / 7) -> float:
        """Return the period in um at which the correlation first falls below `threshold`.

        It is two pixels where the correlation never does, and NaN where that of the first ring
        already is below.
        """
        below = np.nonzero(self.correlation < threshold)[0]
        if not below.size:
            return float(1 / self.frequency_per_um[-1])
        last = int(below[0])
        if last == 0:
            return float("nan")
        high, low = self.correlation[last - 1], self.correlation[last]
        share = (high - threshold) / (high - low)
        start, stop = self.frequency_per_um[last - 1], self.frequency_per_um[last]
        return float(1 / (start + share * (stop - start)))


def fourier_ring_correlation(
    first: np.ndarray, second: np.ndarray, pixel_um: float
) -> RingCorrelation:
    """Correlate two *independent* acquisitions of one map, ring by ring.

    The method is that of W. O. Saxton and W. Baumeister, J. Microsc. 127 (1982) 127,
    DOI 10.1111/j.1365-2818.1982.tb00405.x. A Tukey window suppresses the borders.

    Parameters
    ----------
    first, second
        The two maps (y, x).
    pixel_um
        Size of a pixel in um.

    Raises
    ------
    GridError
        The shapes differ, or a side is below 8 pixels.
    """
    if np.shape(first) != np.shape(second) or min(np.shape(first)) < 8:
        raise GridError(
            f"shapes {np.shape(first)} and {np.shape(second)}: equal ones of at least 8 x 8 needed"
        )
    from scipy.signal.windows import tukey

    height, width = np.shape(first)
    window = np.outer(tukey(height, 0.25), tukey(width, 0.25))
    planes = [fill_unmeasured(plane) for plane in (first, second)]
    # Fourier coefficients (ky, kx) of both maps. `radius` is their frequency in 1 / pixel, and
    # `ring` the number of the ring that each of them, in flat order, belongs to.
    first_waves, second_waves = (np.fft.fft2((plane - plane.mean()) * window) for plane in planes)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    bins = min(height, width) // 2
    ring = np.rint(radius * 2 * bins).astype(int).ravel()

    def total(values: np.ndarray) -> np.ndarray:
        # Without ring 0, the mean, and without the corners beyond the last ring.
        return np.bincount(ring, values.ravel(), minlength=bins + 1)[1 : bins + 1]

    cross = total((first_waves * second_waves.conj()).real)
    power = np.sqrt(total(np.abs(first_waves) ** 2) * total(np.abs(second_waves) ** 2))
    frequency = np.arange(1, bins + 1) / (2 * bins) / pixel_um
    correlation = np.where(power > 0, cross / np.where(power > 0, power, 1.0), 0.0)
    return RingCorrelation(frequency, correlation, total(np.ones(radius.shape)).astype(int))
