"""A second look: what is left of the time is spent after the first rescans were measured.

`second_boxes` puts what was counted in place of what was estimated, widens or narrows the
intervals of the rest by how far off they were, and chooses again. `benchmarks/beam_time.py
--two-rounds` compares it with one round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.rois import pick
from xrf_sr_plans.rois.candidates import (
    Targets,
    candidate_boxes,
    contains,
    labeled,
    possible_targets,
)
from xrf_sr_plans.rois.choice import WORTH_OF_THE_WHOLE, RescanTerms
from xrf_sr_plans.rois.cover import cover
from xrf_sr_plans.rois.evidence import ElementEvidence, evidence
from xrf_sr_plans.rois.probability import match_probability
from xrf_sr_plans.rois.query_parser import parse_query
from xrf_sr_plans.rois.split import split_by_object
from xrf_sr_plans.schema import AnalysisRequest

NEIGHBORS = 16
"""Number of measured pixels that say something about one that was not measured."""
REACH_COARSE_PX = 2.0
"""Distance within which they do, in coarse pixels."""
SHAPE = 1.5
"""Errors at a distance of d coarse pixels are correlated by exp(-d**SHAPE), as measured on
the design phantoms (0.9, 0.7, 0.5 and 0.3 at 1/4, 1/2, 3/4 and 1)."""
PRIOR_COARSE_PX = 50.0
"""Measured coarse pixels that count as much as the intervals that came with the model."""
PRIOR_TARGETS = 3.0
"""Targets looked at that count as much as the probabilities that came with the map."""


@dataclass(frozen=True)
class SecondLook:
    """What the second round makes of the first one.

    Parameters
    ----------
    rescale
        Whether intervals and probabilities outside are recalibrated on the first rescans.
    continuity
        Whether what was counted says something about the pixels beside it, so that the rest of an
        object that reaches out of a box is likely.
    whole
        Whether what is left of a target counts as the whole target, wherever its pieces are.
    blind
        Whether nothing is learned but where was flown.
    """

    rescale: bool = True
    continuity: bool = True
    whole: bool = True
    blind: bool = False


def second_boxes(
    enhanced: EnhancedMaps,
    request: AnalysisRequest,
    first: np.ndarray,
    counts: np.ndarray,
    look: SecondLook,
) -> np.ndarray:
    """Return the boxes of the second round [box, (y0, y1, x0, x1)].

    Parameters
    ----------
    enhanced
        The enhanced map.
    request
        The query, about one element, and what rescans cost; its budget is what is left.
    first
        The boxes that were flown [box, (y0, y1, x0, x1)].
    counts
        Photons that were counted in them (y, x), NaN where nothing was flown.
    look
        What is made of them.
    """
    query = parse_query(request.find)
    (name,) = query.elements
    flown = np.isfinite(counts)
    prior = evidence(enhanced, name, two_classes=True)
    before = match_probability(query, {name: prior})
    if look.blind:
        maps, probability = {name: prior}, before
    else:
        stretch = interval_scale(prior, counts, enhanced.factor) if look.rescale else 1.0
        maps = {name: _updated(prior, counts, stretch, enhanced.factor, look.continuity)}
        probability = match_probability(query, maps)
        if look.rescale:
            real = _share_real(before, probability, first, flown)
            probability = np.where(flown, probability, np.minimum(real * probability, 1.0))
    open_probability = np.where(flown, 0.0, probability)
    seen = probability if look.whole else open_probability
    targets = pick._targets(query, maps, seen, request, enhanced)
    if look.whole:
        targets = _left_over(targets, seen, flown)
    if not targets.weight.sum() > 0:
        return np.empty((0, 4), dtype=int)
    value = pick._values(targets, request, maps)
    terms = pick._terms(request, enhanced)
    return _choose(seen, open_probability, targets, value, terms, flown)


def interval_scale(prior: ElementEvidence, counts: np.ndarray, factor: int) -> float:
    """Return by how much the intervals should be stretched, from how far off the estimates were.

    It is the factor with which 90 % of the errors would be inside interval and Poisson noise
    together, drawn to 1 as if `PRIOR_COARSE_PX` had been seen with intervals that are right.
    """
    flown = np.isfinite(counts)
    error = (counts - prior.value)[flown]
    if not error.size:
        return 1.0
    sigma = np.where(error > 0, prior.above[flown], prior.below[flown])
    noise = np.maximum(prior.value[flown], 0.0) + 1.0
    scales = np.geomspace(0.25, 4.0, 65)
    inside = [np.mean(error**2 <= NORMAL_90**2 * ((s * sigma) ** 2 + noise)) for s in scales]
    best = scales[min(int(np.searchsorted(np.maximum.accumulate(inside), 0.9)), len(scales) - 1)]
    seen = flown.sum() / factor**2
    return float(best ** (seen / (seen + PRIOR_COARSE_PX)))


def _updated(
    prior: ElementEvidence, counts: np.ndarray, stretch: float, factor: int, continuity: bool
) -> ElementEvidence:
    """Return the evidence after the counts: in the flown pixels, and beside them."""
    flown = np.isfinite(counts)
    below, above = stretch * prior.below, stretch * prior.above
    sigma = np.where(np.nan_to_num(counts) > prior.value, above, below)
    # Errors and noise in units of the interval's standard deviation.
    noise = (np.maximum(np.nan_to_num(counts), 0.0) + 1.0) / sigma**2
    shift = np.where(flown, (np.nan_to_num(counts) - prior.value) / sigma, 0.0)
    mean, left = np.zeros(counts.shape), np.ones(counts.shape)
    if not continuity:
        weight = np.where(flown, 1 / (1 + noise), 0.0)
        mean, left = weight * shift, np.sqrt(1 - weight)
    elif flown.any():
        near = ndimage.distance_transform_edt(~flown) <= REACH_COARSE_PX * factor
        mean[near], left[near] = _kriged(np.argwhere(near), flown, shift, noise, factor)
    value = prior.value + mean * np.where(mean > 0, above, below)
    return replace(prior, value=value, below=left * below, above=left * above)


def _kriged(
    places: np.ndarray, flown: np.ndarray, shift: np.ndarray, noise: np.ndarray, factor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the error at places [place, (y, x)], by kriging."""
    known = np.argwhere(flown)
    number = min(NEIGHBORS, len(known))
    _, index = KDTree(known).query(places, k=[*range(1, number + 1)])
    at = known[index]

    def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.exp(-((np.linalg.norm(first - second, axis=-1) / factor) ** SHAPE))

    among = correlation(at[:, :, None], at[:, None, :])
    rows, columns = at[..., 0], at[..., 1]
    among += np.eye(number) * (noise[rows, columns] + 1e-3)[:, None, :]
    to = correlation(at, places[:, None, :])
    weights = np.linalg.solve(among, to[..., None])[..., 0]
    mean = (weights * shift[rows, columns]).sum(axis=1)
    return mean, np.sqrt(np.clip(1 - (weights * to).sum(axis=1), 1e-6, 1.0))


def _share_real(
    before: np.ndarray, after: np.ndarray, first: np.ndarray, flown: np.ndarray
) -> float:
    """Return how many targets the flown boxes held, per one that was expected there."""
    expected = possible_targets(before, before)
    held = contains(first, expected.boxes).any(axis=0) if len(first) else np.zeros(0, dtype=bool)
    predicted = float(expected.weight[held].sum()) if len(first) else 0.0
    labels, number = labeled(after > 0.5)
    out = np.unique(labels[~flown])
    real = sum(1 for label in range(1, number + 1) if label not in out)
    return float(np.clip((real + PRIOR_TARGETS) / (predicted + PRIOR_TARGETS), 0.5, 2.0))


def _left_over(targets: Targets, probability: np.ndarray, flown: np.ndarray) -> Targets:
    """Return the targets with the boxes of their pixels that were not flown; none: no weight."""
    boxes, weight = targets.boxes.copy(), targets.weight.copy()
    for level in np.unique(targets.level):
        labels, _ = labeled(probability > level)
        labels[flown] = 0
        for index in np.flatnonzero(targets.level == level):
            y0, y1, x0, x1 = boxes[index]
            inside = labels[y0:y1, x0:x1] == targets.label[index]
            if not inside.any():
                weight[index] = 0.0
                continue
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            boxes[index] = y0 + rows[0], y0 + rows[-1] + 1, x0 + columns[0], x0 + columns[-1] + 1
    kept = weight > 0
    return Targets(
        boxes[kept],
        weight[kept],
        targets.signal[kept],
        targets.cut[kept],
        targets.level[kept],
        targets.label[kept],
    )


def _trimmed(boxes: np.ndarray, flown: np.ndarray) -> np.ndarray:
    """Return boxes without the outer rows and columns that were flown; those flown are left out."""
    found = []
    for y0, y1, x0, x1 in boxes.tolist():
        inside = ~flown[y0:y1, x0:x1]
        if inside.any():
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            found.append((y0 + rows[0], y0 + rows[-1] + 1, x0 + columns[0], x0 + columns[-1] + 1))
    return np.unique(np.array(found, dtype=int).reshape(-1, 4), axis=0)


def _choose(
    seen: np.ndarray,
    open_probability: np.ndarray,
    targets: Targets,
    value: np.ndarray,
    terms: RescanTerms,
    flown: np.ndarray,
) -> np.ndarray:
    """Return the boxes as `rois.choice.choose` does, without rows and columns that were flown."""
    cost = terms.cost
    candidates = candidate_boxes(
        open_probability,
        targets,
        value,
        cost,
        pad_px=terms.pad_px,
        largest_px=terms.largest_px,
        smallest_px=terms.smallest_px,
        longest_s=terms.budget_s,
    )
    candidates = _trimmed(candidates, flown)
    height, width = seen.shape
    whole_s = float(cost.seconds(np.array([[0, height, 0, width]]))[0])
    least = WORTH_OF_THE_WHOLE * float(value.sum()) / whole_s
    held, seconds = contains(candidates, targets.boxes), cost.seconds(candidates)
    chosen = candidates[cover(held, value, seconds, budget_s=terms.budget_s, worth_per_s=least)]
    boxes, _ = split_by_object(
        chosen,
        targets,
        seen,
        cost,
        pad_px=terms.pad_px,
        asked_pad_px=terms.asked_pad_px,
        smallest_px=terms.smallest_px,
    )
    boxes = _trimmed(boxes, flown)
    return boxes if cost.seconds(boxes).sum() <= terms.budget_s else chosen
