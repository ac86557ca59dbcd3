"""`pick_regions`: choose the rectangles of an enhanced map that are worth a fine rescan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.rois.query import Query, parse_query
from xrf_sr_plans.schema import AnalysisRequest

GROW_AT = 3.0
"""A region extends to where an element is this many robust deviations above the map's median."""
SEED_AT = 5.0
"""A region must hold a pixel where an element is this many robust deviations above the median."""
MIN_SIGNIFICANCE = 2.0
"""Excess over the background, in predicted sigmas, from which an element counts as present."""
MERGE_WASTE = 1.3
"""Boxes that meet are joined if the box around them has at most this many times their area."""
MERGE_SHARED = 0.5
"""Boxes are joined at any cost if they share more than this part of the smaller one."""
TWO_CLASSES_FROM = 0.78
"""Share of the variance that two classes must explain (of normal noise they explain 0.64, of a
ramp 0.75)."""

_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""
_EIGHT_NEIGHBORS = np.ones((3, 3), dtype=bool)

Box = tuple[int, int, int, int]
"""The rows y0 to y1 and columns x0 to x1 of pixels, without y1 and x1 themselves."""


@dataclass(frozen=True)
class ElementEvidence:
    """What the map of one element says about each pixel; all arrays have the axes (y, x)."""

    value: np.ndarray
    """Photons per coarse pixel: the estimate where the model is trusted, elsewhere the bicubic
    map of the measured counts."""
    sigma: np.ndarray
    """One standard deviation of `value`, at least that of Poisson noise where not trusted."""
    present: np.ndarray
    """Whether the element is there (bool)."""
    excess: np.ndarray
    """Excess over the background in standard deviations of Poisson noise, 0 where not present."""
    background: float
    """Photons per coarse pixel where the element is not present."""
    threshold: float
    """Photons per coarse pixel from which the element is present."""


def pick_regions(
    enhanced: EnhancedMaps, request: AnalysisRequest, *, source_uid: str
) -> list[Region]:
    """Return the rectangles of a map that are worth a fine rescan, best first.

    An element is present where its variance-stabilized counts exceed the map's median by
    `GROW_AT` robust deviations (never less than as many Poisson sigmas) and the pixel is connected
    to one above `SEED_AT`. The excess must also be significant compared with the predicted
    uncertainty, or be proven by the counts of the coarse pixel alone. Where the model is not
    trusted, the measured counts decide.

    An element that the query names may fill so much of the map that it *is* the median. Where
    such a map clearly falls into two classes, the limit between the classes is used instead
    (N. Otsu, IEEE Trans. SMC 9 (1979) 62, DOI 10.1109/TSMC.1979.4310076).

    Connected pixels that satisfy the query become boxes along pixel edges. Boxes are padded, grown
    to the smallest size, kept inside the map, and joined where that costs little.

    Parameters
    ----------
    enhanced
        The enhanced map.
    request
        What to look for, the padding and smallest size of a region, and the number of regions.
    source_uid
        Uid of the run of the coarse map, which each region carries.

    Returns
    -------
    list of Region
        The regions, of which there may be none. The score of a region is a sum over its pixels
        that satisfy the query, in units of coarse pixels. Each adds its stabilized excess, times
        one plus the doubt, which is sigma / (sigma + value), or 1 where the model is not
        trusted. Thus a strong signal comes first, and of two equal ones the less certain.
        `predicted_sigma` is the mean over the same pixels, in photons per coarse pixel.

    Raises
    ------
    QueryError
        `request.find` can't be read, or it names an element that isn't measured.
    """
    query = parse_query(request.find) if request.find else None
    # Without a query, elements that make up most of the sample are of no interest: only what
    # stands out from the median counts.
    named = query.elements if query else ()
    evidence = {name: _evidence(enhanced, name, name in named) for name in enhanced.elements}
    matching = _matching_pixels(query, evidence, enhanced.grid.shape)
    boxes = _joined(_boxes(matching, request, enhanced))
    regions = [_region(box, matching, query, evidence, enhanced, source_uid) for box in boxes]
    regions.sort(key=lambda region: (-region.score, region.y_low_um, region.x_low_um))
    return regions[: request.max_regions]


def _evidence(enhanced: EnhancedMaps, element: str, two_classes: bool) -> ElementEvidence:
    # All arrays here are planes (y, x) on the fine grid.
    plane = enhanced.dataset.sel(element=element)
    trusted = plane["trusted"].values.astype(bool)
    value = np.where(trusted, plane["estimate"].values, plane["baseline"].values).astype(float)
    measured = np.isfinite(value)
    value = np.where(measured, value, np.nan)
    poisson = np.sqrt(np.maximum(np.nan_to_num(value), 0.0) + 1.0)
    sigma = plane["sigma"].values.astype(float)
    sigma = np.where(np.isfinite(sigma), sigma, poisson)
    sigma = np.where(trusted, sigma, np.maximum(sigma, poisson))
    nothing = np.zeros(value.shape)
    if not measured.any():
        return ElementEvidence(value, sigma, nothing.astype(bool), nothing, 0.0, 0.0)
    # The variance of stabilized counts is about 1 everywhere, so differences are in Poisson sigmas.
    level = stabilise(np.nan_to_num(value))
    limits = _limits(level[measured], two_classes)
    background = float(unstabilise(np.asarray(limits.middle)))
    significant = np.nan_to_num(value) - background >= MIN_SIGNIFICANCE * sigma
    significant |= _counted(value, background, enhanced.factor)
    usable = np.where(measured & significant, level, -np.inf)
    present = apply_hysteresis_threshold(usable, limits.grow, limits.seed)
    return ElementEvidence(
        value=value,
        sigma=sigma,
        present=present,
        excess=np.where(present, level - limits.middle, 0.0),
        background=background,
        threshold=float(unstabilise(np.asarray(limits.grow))),
    )


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
    """Level above which a pixel belongs to a region that has a seed."""
    seed: float
    """Level above which a pixel is the seed of a region."""


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


def _matching_pixels(
    query: Query | None, evidence: Mapping[str, ElementEvidence], shape: tuple[int, int]
) -> np.ndarray:
    """Return the pixels (y, x) that satisfy the query, or where any element is present."""
    presence = {name: element.present for name, element in evidence.items()}
    if query is not None:
        values = {name: element.value for name, element in evidence.items()}
        return query.mask(presence, values)
    return np.any([*presence.values()], axis=0) if presence else np.zeros(shape, dtype=bool)


def _boxes(matching: np.ndarray, request: AnalysisRequest, enhanced: EnhancedMaps) -> Iterator[Box]:
    """Yield a padded box for each connected group of matching pixels (y, x)."""
    labels, _ = _labeled(matching, _EIGHT_NEIGHBORS)
    sizes = np.bincount(labels.ravel())
    grid = enhanced.grid
    for number, (rows, columns) in enumerate(_windows(labels), start=1):
        # Less than half a coarse pixel is more likely noise than a grain.
        if 2 * sizes[number] < enhanced.factor**2:
            continue
        yield (
            *_grown(rows, grid.slow, request.pad_um, request.min_size_um),
            *_grown(columns, grid.fast, request.pad_um, request.min_size_um),
        )


def _labeled(mask: np.ndarray, neighbors: np.ndarray) -> tuple[np.ndarray, int]:
    return cast(tuple[np.ndarray, int], ndimage.label(mask, structure=neighbors))


def _windows(labels: np.ndarray) -> list[tuple[slice, slice]]:
    return cast(list[tuple[slice, slice]], ndimage.find_objects(labels))


def _grown(pixels: slice, axis: AxisGrid, pad_um: float, min_size_um: float) -> tuple[int, int]:
    """Return the first and last+1 pixel of a side after padding and growing it inside the map."""
    pad = _pixels(pad_um, axis)
    low, high = max(pixels.start - pad, 0), min(pixels.stop + pad, axis.num)
    missing = max(_pixels(min_size_um, axis) - (high - low), 0)
    low, high = low - missing // 2, high + missing - missing // 2
    shift = max(-low, 0) - max(high - axis.num, 0)
    return max(low + shift, 0), min(high + shift, axis.num)


def _pixels(length_um: float, axis: AxisGrid) -> int:
    # Rounded up, except for rounding errors: 0.3 / 0.1 is a little more or less than 3 in floats.
    return int(np.ceil(length_um / axis.step_um - 1e-6))


def _joined(boxes: Iterator[Box]) -> list[Box]:
    """Join boxes that meet, where the box around both takes hardly longer to fly than they do.

    Two grains whose margins touch at a corner stay two boxes. The box around them would be mostly
    empty, and a chain of such grains would become the whole map. Boxes that mostly share their
    area are always joined, so that it isn't flown twice.
    """
    # (box, 4), with the columns y0, y1, x0, x1.
    current = np.array(sorted(set(boxes)), dtype=int).reshape(-1, 4)
    while len(pairs := _pairs_to_join(current)):
        first, second = current[pairs[:, 0]], current[pairs[:, 1]]
        low, high = np.minimum(first, second), np.maximum(first, second)
        joined = np.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], axis=1)
        current = np.unique(np.vstack([np.delete(current, pairs.ravel(), axis=0), joined]), axis=0)
    return [(int(y0), int(y1), int(x0), int(x1)) for y0, y1, x0, x1 in current]


def _pairs_to_join(boxes: np.ndarray) -> np.ndarray:
    """Return the indices (pair, 2) of boxes to join; no box is in two of the pairs.

    Two boxes are paired where each is the other's cheapest partner.
    """
    if len(boxes) < 2:
        return np.empty((0, 2), dtype=int)
    # `low` and `high` are (box, 2) with the columns y and x. What follows compares each box with
    # each other one: (box, box, 2) before the product over y and x, (box, box) after it.
    low, high = boxes[:, ::2], boxes[:, 1::2]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    around = (np.maximum(high[:, None], high) - np.minimum(low[:, None], low)).prod(-1)
    overlap = np.clip(shared, 0, None).prod(-1)
    area = (high - low).prod(-1)
    waste = around / (area[:, None] + area - overlap)
    same = overlap > MERGE_SHARED * np.minimum(area[:, None], area)
    joinable = (shared >= 0).all(-1) & ((waste <= MERGE_WASTE) | same)
    np.fill_diagonal(joinable, False)
    cost = np.where(joinable, waste, np.inf)
    best = cost.argmin(axis=1)
    index = np.arange(len(boxes))
    mutual = (best[best] == index) & (index < best) & np.isfinite(cost[index, best])
    if not mutual.any() and joinable.any():
        # With ties, the cheapest partners can form a ring in which no two choose each other.
        return np.array([np.unravel_index(cost.argmin(), cost.shape)])
    return np.stack([index[mutual], best[mutual]], axis=1)


def _region(
    box: Box,
    matching: np.ndarray,
    query: Query | None,
    evidence: Mapping[str, ElementEvidence],
    enhanced: EnhancedMaps,
    source_uid: str,
) -> Region:
    y0, y1, x0, x1 = box
    window = (slice(y0, y1), slice(x0, x1))
    inside = matching[window]
    wanted = tuple(evidence) if query is None else query.wanted
    names = [name for name in wanted if (evidence[name].present[window] & inside).any()]
    # "not Zn" alone looks for nothing in particular, so every pixel is worth the same.
    named = tuple(names) or (query.elements if query else tuple(evidence))
    # Mean over the named elements at each matching pixel, (pixel,).
    sigma, doubt, excess, trusted = (
        np.mean([plane[window][inside] for plane in planes], axis=0)
        for planes in zip(*(_trust_planes(evidence, enhanced, name) for name in named), strict=True)
    )
    if not names:
        excess = np.ones_like(excess)
    slow, fast = enhanced.grid.slow.edges_um, enhanced.grid.fast.edges_um
    return Region(
        x_low_um=float(fast[x0]),
        x_high_um=float(fast[x1]),
        y_low_um=float(slow[y0]),
        y_high_um=float(slow[y1]),
        elements=named,
        score=float(np.sum(excess * (1 + doubt)) / enhanced.factor**2),
        reason=_reason(query, names, evidence, window, inside, float(trusted.mean()), enhanced),
        source_uid=source_uid,
        predicted_sigma=float(sigma.mean()),
        trusted_fraction=float(trusted.mean()),
        model_sha256=str(enhanced.model.get("sha256", "")),
        fallback=enhanced.fallback,
    )


def _trust_planes(
    evidence: Mapping[str, ElementEvidence], enhanced: EnhancedMaps, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return sigma, doubt (0 to 1), excess and trust of an element as planes (y, x)."""
    element = evidence[name]
    trusted = enhanced.trusted.sel(element=name).values.astype(bool)
    value = np.maximum(np.nan_to_num(element.value), 0.0)
    relative = element.sigma / (element.sigma + value + 1e-12)
    return element.sigma, np.where(trusted, relative, 1.0), element.excess, trusted


def _reason(
    query: Query | None,
    names: list[str],
    evidence: Mapping[str, ElementEvidence],
    window: tuple[slice, slice],
    inside: np.ndarray,
    trusted: float,
    enhanced: EnhancedMaps,
) -> str:
    parts = [f"matches {query.text!r}"] if query else []
    for name in names:
        element = evidence[name]
        peak = float(np.nanmax(element.value[window][inside]))
        parts.append(
            f"{name} up to {peak:.3g} photons/pixel (present above {element.threshold:.3g}, "
            f"background {element.background:.3g})"
        )
    if enhanced.fallback:
        # Why there is no model is told once, with the map, and not by each of its regions.
        parts.append("from the bicubic map, whose intervals were never calibrated")
    else:
        parts.append(f"{trusted:.0%} of it trusted")
    return "; ".join(parts)
