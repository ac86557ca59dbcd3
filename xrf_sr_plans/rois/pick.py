"""The region picker: from enhanced maps and their trust to rectangles worth a fine rescan."""

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
"""A region reaches as far as an element is this many robust deviations above the map's median."""
SEED_AT = 5.0
"""And has to hold a pixel at least so many deviations above it."""
MIN_SIGNIFICANCE = 2.0
"""A pixel counts as present only if its excess is that many of its own predicted sigmas."""
MERGE_WASTE = 1.3
"""Boxes that meet are joined if the box around them has at most so many times their area,"""
MERGE_SHARED = 0.5
"""or if they share more than this of the smaller one."""
TWO_CLASSES_FROM = 0.78
"""Share of the variance that two classes must explain (normal noise: 0.64, a ramp: 0.75)."""

_MAD_TO_SIGMA = 1.4826
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)

Box = tuple[int, int, int, int]
"""y0, y1, x0, x1 in pixels, half open."""


@dataclass(frozen=True)
class ElementEvidence:
    """What one element's map says, pixel by pixel; counts are photons per coarse pixel."""

    value: np.ndarray
    """The estimate where the model may be trusted, the measured counts (bicubic) elsewhere."""
    sigma: np.ndarray
    present: np.ndarray
    excess: np.ndarray
    """How far above the background, in standard deviations of Poisson noise; 0 where absent."""
    background: float
    threshold: float


def pick_regions(
    enhanced: EnhancedMaps, request: AnalysisRequest, *, source_uid: str
) -> list[Region]:
    """Return the rectangles of a map worth a fine rescan, best first; none is a normal outcome.

    An element is present where its variance-stabilised counts exceed the map's median by
    `GROW_AT` robust deviations (never less than as many Poisson sigmas), connected to a pixel
    above `SEED_AT`, and where the excess is significant against the predicted uncertainty or
    proven by the counts of the coarse pixel alone.
    Where an element that the query names fills so much of the map that it *is* the median, but
    the map plainly falls into two classes, the limit between the classes counts (N. Otsu, IEEE
    Trans. SMC 9 (1979) 62, DOI 10.1109/TSMC.1979.4310076).
    Where the model is not to be trusted the measured counts decide. Connected pixels that
    satisfy the query become boxes whose edges are pixel edges; boxes are padded, grown to the
    smallest size, kept inside the map, and joined where that costs little (`MERGE_WASTE`).

    The score sums, over the pixels found, the stabilised excess times one plus the doubt
    (relative sigma; 1 where untrusted), in coarse pixels: strong signal first, and of equal
    signals the one about which the prediction is less sure. `predicted_sigma` is the mean
    over the same pixels, in photons per coarse pixel.

    Raises
    ------
    QueryError
        `request.find` can't be read or names an element that isn't measured.
    """
    query = parse_query(request.find) if request.find else None
    # Without a query only what stands out is wanted, not the matrix of the sample.
    named = query.elements if query else ()
    evidence = {name: _evidence(enhanced, name, name in named) for name in enhanced.elements}
    found = _found(query, evidence, enhanced.grid.shape)
    boxes = _boxes(found, request, enhanced)
    regions = [_region(box, found, query, evidence, enhanced, source_uid) for box in _merged(boxes)]
    regions.sort(key=lambda region: (-region.score, region.y_low_um, region.x_low_um))
    return regions[: request.max_regions]


def _evidence(enhanced: EnhancedMaps, element: str, two_classes: bool) -> ElementEvidence:
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
    """Return where the measured coarse pixel alone proves that the element is there.

    A grain smaller than the coarse step is certain as such, although the model can't know where
    in the pixel it lies: its wide interval is a reason to look again, not to doubt the grain.
    """
    # The estimate's block means are the measured counts; so are the baseline's, nearly.
    counted = block_mean(np.nan_to_num(value), factor)
    proven = counted - background >= SEED_AT * np.sqrt(np.maximum(counted, 0.0) + 1.0)
    return np.kron(proven, np.ones((factor, factor))) > 0


class _Limits(NamedTuple):
    """Background, and from where on an element is present, in stabilised counts."""

    middle: float
    grow: float
    seed: float


def _limits(level: np.ndarray, two_classes: bool) -> _Limits:
    middle = float(np.median(level))
    deviation = _MAD_TO_SIGMA * float(np.median(np.abs(level - middle)))
    # A map that is mostly empty has no spread, but its counts still are Poisson distributed.
    scale = max(deviation, 1.0)
    outliers = _Limits(middle, middle + GROW_AT * scale, middle + SEED_AT * scale)
    if not two_classes or level.min() == level.max():
        return outliers
    between = float(threshold_otsu(level))
    upper = level > between
    low, high, share = float(level[~upper].mean()), float(level[upper].mean()), upper.mean()
    explained = share * (1 - share) * (high - low) ** 2 / level.var()
    # While the upper class is small, the median and its spread describe the background better.
    if share > 0.25 and explained > TWO_CLASSES_FROM and high - low > SEED_AT:
        return _Limits(low, between, (between + high) / 2)
    return outliers


def _found(
    query: Query | None, evidence: Mapping[str, ElementEvidence], shape: tuple[int, int]
) -> np.ndarray:
    if query is None:
        present = [one.present for one in evidence.values()]
        return np.any(present, axis=0) if present else np.zeros(shape, dtype=bool)
    return query.mask(
        {name: one.present for name, one in evidence.items()},
        {name: one.value for name, one in evidence.items()},
    )


def _boxes(found: np.ndarray, request: AnalysisRequest, enhanced: EnhancedMaps) -> Iterator[Box]:
    """Yield the box of each find of at least half a coarse pixel, padded and grown."""
    labels, _ = _labelled(found, _EIGHT_NEIGHBOURS)
    sizes = np.bincount(labels.ravel())
    grid = enhanced.grid
    for number, (rows, columns) in enumerate(_windows(labels), start=1):
        if 2 * sizes[number] < enhanced.factor**2:
            continue
        yield (
            *_grown(rows, grid.slow, request.pad_um, request.min_size_um),
            *_grown(columns, grid.fast, request.pad_um, request.min_size_um),
        )


def _labelled(mask: np.ndarray, neighbours: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    return cast(tuple[np.ndarray, int], ndimage.label(mask, structure=neighbours))


def _windows(labels: np.ndarray) -> list[tuple[slice, slice]]:
    return cast(list[tuple[slice, slice]], ndimage.find_objects(labels))


def _grown(pixels: slice, axis: AxisGrid, pad_um: float, min_size_um: float) -> tuple[int, int]:
    """Pad, grow to the smallest size, and move into the map; whole pixels, rounded up."""
    pad = _pixels(pad_um, axis)
    low, high = max(pixels.start - pad, 0), min(pixels.stop + pad, axis.num)
    missing = max(_pixels(min_size_um, axis) - (high - low), 0)
    low, high = low - missing // 2, high + missing - missing // 2
    shift = max(-low, 0) - max(high - axis.num, 0)
    return max(low + shift, 0), min(high + shift, axis.num)


def _pixels(length_um: float, axis: AxisGrid) -> int:
    # 2.0 um / 0.1 um is not quite 20 in floats.
    return int(np.ceil(length_um / axis.step_um - 1e-6))


def _merged(boxes: Iterator[Box]) -> list[Box]:
    """Join boxes that meet, where the box around both is hardly more to fly than they are.

    Two grains whose margins touch at a corner stay two boxes: the box around them would be mostly
    empty, and a chain of such grains would become the whole map. Boxes that mostly share their
    area are always joined, lest it be flown twice.
    """
    current = np.array(sorted(set(boxes)), dtype=int).reshape(-1, 4)
    while len(pairs := _pairs_to_join(current)):
        first, second = current[pairs[:, 0]], current[pairs[:, 1]]
        low, high = np.minimum(first, second), np.maximum(first, second)
        joined = np.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], axis=1)
        current = np.unique(np.vstack([np.delete(current, pairs.ravel(), axis=0), joined]), axis=0)
    return [(int(y0), int(y1), int(x0), int(x1)) for y0, y1, x0, x1 in current]


def _pairs_to_join(boxes: np.ndarray) -> np.ndarray:
    """Return index pairs (pair, 2) of boxes that want each other most; no box is in two."""
    if len(boxes) < 2:
        return np.empty((0, 2), dtype=int)
    low, high = boxes[:, ::2], boxes[:, 1::2]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    around = (np.maximum(high[:, None], high) - np.minimum(low[:, None], low)).prod(-1)
    overlap = np.clip(shared, 0, None).prod(-1)
    area = (high - low).prod(-1)
    waste = around / (area[:, None] + area - overlap)
    same = overlap > MERGE_SHARED * np.minimum(area[:, None], area)
    wanted = (shared >= 0).all(-1) & ((waste <= MERGE_WASTE) | same)
    np.fill_diagonal(wanted, False)
    cost = np.where(wanted, waste, np.inf)
    best = cost.argmin(axis=1)
    index = np.arange(len(boxes))
    mutual = (best[best] == index) & (index < best) & np.isfinite(cost[index, best])
    if not mutual.any() and wanted.any():
        # Ties can send every box after another one.
        return np.array([np.unravel_index(cost.argmin(), cost.shape)])
    return np.stack([index[mutual], best[mutual]], axis=1)


def _region(
    box: Box,
    found: np.ndarray,
    query: Query | None,
    evidence: Mapping[str, ElementEvidence],
    enhanced: EnhancedMaps,
    source_uid: str,
) -> Region:
    y0, y1, x0, x1 = box
    window = (slice(y0, y1), slice(x0, x1))
    inside = found[window]
    wanted = tuple(evidence) if query is None else query.wanted
    names = [name for name in wanted if (evidence[name].present[window] & inside).any()]
    # "not Zn" alone looks for nothing in particular: every pixel is worth the same.
    named = tuple(names) or (query.elements if query else tuple(evidence))
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
    one = evidence[name]
    trusted = enhanced.trusted.sel(element=name).values.astype(bool)
    relative = one.sigma / (one.sigma + np.maximum(np.nan_to_num(one.value), 0.0) + 1e-12)
    return one.sigma, np.where(trusted, relative, 1.0), one.excess, trusted


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
        one = evidence[name]
        peak = float(np.nanmax(one.value[window][inside]))
        parts.append(
            f"{name} up to {peak:.3g} photons/pixel (present above {one.threshold:.3g}, "
            f"background {one.background:.3g})"
        )
    parts.append(f"{trusted:.0%} of it trusted")
    if enhanced.fallback:
        parts.append(f"bicubic map: {enhanced.fallback}")
    return "; ".join(parts)
