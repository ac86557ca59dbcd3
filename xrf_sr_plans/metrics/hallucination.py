"""`feature_rates`: how many features a prediction invents, and how many true ones it loses.

The true features are those of samples of known structure (see `metrics.standards`). Features of
the estimate are detected by a matched filter and paired one to one with the true ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from scipy import optimize, signal

from xrf_sr_plans.metrics.standards import Feature
from xrf_sr_plans.physics.blobs import DiscFilter, is_peak

VISIBLE = 0.5
"""Part of a feature's height from which it counts as detected."""


@dataclass(frozen=True)
class Rate:
    """A proportion with its 95 % interval."""

    hits: int
    """How many of the total had some property."""
    total: int
    """How many there were."""

    @property
    def value(self) -> float:
        """The proportion, which is NaN where there was nothing."""
        return self.hits / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the proportion, which is (0, 1) where there was nothing.

        It is that of E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209,
        DOI 10.1080/01621459.1927.10502953.
        """
        if not self.total:
            return 0.0, 1.0
        # The import takes a second, and few of those who detect features need intervals.
        from scipy.stats import binomtest

        low, high = binomtest(self.hits, self.total).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.hits + other.hits, self.total + other.total)


NONE = Rate(0, 0)


@dataclass(frozen=True)
class FeatureRates:
    """What became of the features of one or more maps.

    A true feature is one that the sample has, and a false one is predicted but absent.

    Parameters
    ----------
    false
        False features, of all that were predicted.
    lost
        True features that were not predicted, of all true ones.
    leaked
        False features where *another* element has one and this element has none, of all such
        places.
    flagged
        False features on untrusted pixels, of all false ones.
    false_per_area
        False features, of all places of a feature's size where one could have been.
    believed
        False features on trusted pixels, of all that were predicted there.
    doubted
        True features that were predicted, but on untrusted pixels, of all true ones predicted.
    misplaced
        False features on trusted pixels that were not invented but put in the wrong place, of all
        false ones there. Within twice the tolerance of a match there is a true one that was lost.
    """

    false: Rate = NONE
    lost: Rate = NONE
    leaked: Rate = NONE
    flagged: Rate = NONE
    false_per_area: Rate = NONE
    believed: Rate = NONE
    doubted: Rate = NONE
    misplaced: Rate = NONE

    def __add__(self, other: FeatureRates) -> FeatureRates:
        return FeatureRates(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(FeatureRates))
        )


def detect(
    image: np.ndarray, radius_px: float, threshold: float, *, margin_px: int = 2
) -> np.ndarray:
    """Find bright dots of a given size in a map.

    A dot is a maximum of the map after a `DiscFilter`. Dots are at least one radius apart. Their
    places between the centers of pixels are those of a parabola through the neighboring pixels.

    Parameters
    ----------
    image
        The map (y, x).
    radius_px
        Radius of the dots in pixels.
    threshold
        Smallest height of a dot above its surroundings, in the unit of the map.
    margin_px
        Width of the border in which no dots are found, in pixels.

    Returns
    -------
    numpy.ndarray
        (dot, 3) with the columns y, x and height, highest first.
    """
    response = DiscFilter(radius_px, least_sigma_px=0.5)(np.nan_to_num(image))
    peak = is_peak(response, 2 * int(np.ceil(radius_px)) + 1, threshold)
    peak[:margin_px] = peak[-margin_px:] = False
    peak[:, :margin_px] = peak[:, -margin_px:] = False
    y, x = np.nonzero(peak)
    order = np.argsort(-response[y, x], kind="stable")
    y, x = y[order], x[order]
    # Padded, so that pixels at the border have neighbors, too.
    dy, dx = _between_pixels(np.pad(response, 1, mode="edge"), y + 1, x + 1)
    return np.column_stack([y + dy, x + dx, response[y, x]])


def _between_pixels(
    response: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far from the center of its pixel (y, x) each maximum lies, from -0.5 to 0.5.

    The maximum is that of a parabola through the pixel and its neighbors, along y and along x.
    """
    here = response[y, x]
    offsets = []
    for dy, dx in ((1, 0), (0, 1)):
        before, after = response[y - dy, x - dx], response[y + dy, x + dx]
        bend = np.minimum(before - here + (after - here), -1e-12)
        offsets.append(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return offsets[0], offsets[1]


def detect_lines(
    image: np.ndarray, radius_px: float, length_px: float, angle: float, threshold: float
) -> np.ndarray:
    """Find bright lines of a given width, length and direction in a map.

    The filter is constant along the line and a difference of Gaussians across it. It is scaled so
    that such a line answers with its own height above the background.

    Parameters
    ----------
    image
        The map (y, x).
    radius_px, length_px
        Half the width of a line, and its length.
    angle
        Direction of the lines in radians: 0 is along x, and positive is towards y.
    threshold
        Smallest height of a line, in the unit of the map.

    Returns
    -------
    numpy.ndarray
        (line, 3) with the columns y, x and height, highest first.
    """
    kernel, gain = _line_filter(radius_px, length_px, angle)
    reach = len(kernel) // 2
    padded = np.pad(np.nan_to_num(image), reach, mode="edge")
    response = signal.fftconvolve(padded, kernel, mode="valid") / gain
    peak = is_peak(response, 2 * int(np.ceil(length_px / 2)) + 1, threshold)
    y, x = np.nonzero(peak)
    order = np.argsort(-response[y, x], kind="stable")
    return np.column_stack([y, x, response[y, x]])[order].astype(float)


@lru_cache(maxsize=64)
def _line_filter(radius_px: float, length_px: float, angle: float) -> tuple[np.ndarray, float]:
    """Return the kernel (y, x) of the filter, and its response to a line of unit height."""
    # Not thinner, as half a pixel beside the axis the response must still be near its peak.
    inner = max(radius_px / np.sqrt(2), 0.9)
    reach = int(np.ceil(length_px / 2 + 8 * inner))
    line = Feature(0, 0.0, 0.0, radius_px, 1.0, length_px, angle)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    box = np.clip(length_px / 2 + 0.5 - np.abs(along), 0, 1)
    near, far = (np.exp(-0.5 * (across / wide) ** 2) / wide * box for wide in (inner, 2.0 * inner))
    # Both parts have the same weight, so that a flat map has no lines.
    kernel = near / near.sum() - far / far.sum()
    own = min(1.0, 2 * radius_px) * np.clip(
        max(radius_px, 0.5) + 0.5 - line.distance(rows, columns), 0, 1
    )
    return kernel[::-1, ::-1], float((kernel * own).sum())


def match(found: np.ndarray, true: np.ndarray, tolerance_px: float) -> list[tuple[int, int]]:
    """Pair found with true places, one to one, so that the sum of distances is smallest.

    Parameters
    ----------
    found, true
        Places (place, column), with y and x in the first two columns.
    tolerance_px
        Largest distance of a pair.

    Returns
    -------
    list of tuple
        Indices of the found and the true place of each pair.
    """
    if not len(found) or not len(true):
        return []
    distance = np.hypot(found[:, None, 0] - true[None, :, 0], found[:, None, 1] - true[None, :, 1])
    # A pair beyond the tolerance costs more than any other, so it is made only where the assignment
    # needs it to be complete. Such pairs are dropped at the end.
    price = np.where(distance <= tolerance_px, distance, 1e3 * (1 + tolerance_px))
    rows, columns = optimize.linear_sum_assignment(price)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if distance[row, column] <= tolerance_px]


def feature_rates(
    estimate: np.ndarray,
    features: Sequence[Feature],
    *,
    radius_px: float,
    contrast: float,
    trusted: np.ndarray | None = None,
    tolerance_px: float | None = None,
    line: tuple[float, float] | None = None,
) -> FeatureRates:
    """Count the invented, lost and leaked features of an estimate.

    Parameters
    ----------
    estimate
        The estimate (element, y, x).
    features
        All true features, of all elements.
    radius_px, contrast
        Size of the features, and their height in the unit of the estimate. What is detected counts
        if it has at least the part `VISIBLE` of this height.
    trusted
        Pixels (element, y, x) that are trusted (bool); with None, all are.
    tolerance_px
        Largest distance of a match. With None it is half the length of a line, and one radius of a
        dot but at least 2 pixels.
    line
        Length in pixels and angle in radians of the features if they are lines; None for dots.
    """
    usual = max(radius_px, 2.0) if line is None else line[0] / 2
    tolerance = usual if tolerance_px is None else tolerance_px
    # Area of a feature in pixels, but at least that of a dot of one pixel's radius.
    area = np.pi * max(radius_px, 1.0) ** 2
    area += 0.0 if line is None else 2 * max(radius_px, 1.0) * line[0]
    total = FeatureRates()
    for element, plane in enumerate(estimate):
        if line is None:
            found = detect(plane, radius_px, VISIBLE * contrast)
        else:
            found = detect_lines(plane, radius_px, *line, VISIBLE * contrast)
        # `found` is (feature, 3), with the columns y, x and height. `true` and `others` are
        # (feature, 2). `false` and `believed` are rows of `found`.
        true = _places(feature for feature in features if feature.element == element)
        others = _places(feature for feature in features if feature.element != element)
        pairs = match(found, true, tolerance)
        hit = {row for row, _ in pairs}
        false = [row for row in range(len(found)) if row not in hit]
        y, x = np.rint(found[:, :2]).astype(int).T
        is_trusted = np.ones(len(found), dtype=bool) if trusted is None else trusted[element][y, x]
        flagged = int((~is_trusted[false]).sum())
        believed = [row for row in false if is_trusted[row]]
        lost = np.delete(true, [column for _, column in pairs], axis=0)
        # Where a false feature can only have leaked: another element has one, and this one is far.
        foreign = _apart(others, true, 2 * tolerance)
        leaks = match(found[false], foreign, tolerance)
        spots = int(plane.size / area)
        total = total + FeatureRates(
            false=Rate(len(false), len(found)),
            lost=Rate(len(true) - len(pairs), len(true)),
            leaked=Rate(len(leaks), len(foreign)),
            flagged=Rate(flagged, len(false)),
            false_per_area=Rate(min(len(false), spots), spots),
            believed=Rate(len(believed), int(is_trusted.sum())),
            doubted=Rate(int((~is_trusted).sum()) - flagged, len(pairs)),
            misplaced=Rate(len(match(found[believed], lost, 2 * tolerance)), len(believed)),
        )
    return total


def _places(features: Iterable[Feature]) -> np.ndarray:
    """Return the centers (feature, 2) of features, with the columns y and x."""
    return np.array([(feature.y, feature.x) for feature in features], dtype=float).reshape(-1, 2)


def _apart(places: np.ndarray, from_: np.ndarray, distance_px: float) -> np.ndarray:
    """Return those places (place, 2), without repeats, that are far from all of `from_`."""
    distinct = np.unique(places, axis=0)
    if not len(from_) or not len(distinct):
        return distinct
    gaps = np.hypot(*(distinct[:, None, axis] - from_[None, :, axis] for axis in (0, 1)))
    return distinct[gaps.min(axis=1) > distance_px]
