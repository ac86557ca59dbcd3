"""`choose`: the boxes to fly for the possible targets of a map, and what they should hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from xrf_sr_plans.rois.candidates import (
    RescanCost,
    Targets,
    candidate_boxes,
    contains,
    padded_boxes,
)
from xrf_sr_plans.rois.cover import cover
from xrf_sr_plans.rois.forecast import Forecast
from xrf_sr_plans.rois.split import split_by_object

WORTH_OF_THE_WHOLE = 0.2
"""A region has to bring this share, for each second, of what the whole map would bring."""
EDGE_COARSE_PX = 0.25
"""How far off its place the edge of a target usually is, in coarse pixels: for the forecast, one
counts as held where such a margin is, too. Measured on phantoms (docs/explanation/regions.md)."""
MORE_TIME = 1.1
"""Multiple of the time for rescans for which it is told what more time would bring."""


@dataclass(frozen=True)
class RescanTerms:
    """What rescans of a map cost and may cost, in its pixels.

    Parameters
    ----------
    cost
        How long a box takes.
    budget_s
        Time for all boxes together in s; infinite: no limit.
    factor
        How many pixels a coarse pixel is wide.
    pad_px
        Margin on every side of a target, in rows and columns.
    wide_pad_px
        The same where time is left.
    asked_pad_px
        The part of it that a person asked for.
    smallest_px, largest_px
        Smallest and largest number of rows and of columns of a box.
    """

    cost: RescanCost
    budget_s: float
    factor: int
    pad_px: tuple[int, int]
    wide_pad_px: tuple[int, int]
    asked_pad_px: tuple[int, int]
    smallest_px: tuple[int, int]
    largest_px: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Choice:
    """The boxes to fly, those with the most additional value per second first.

    Parameters
    ----------
    boxes
        Rows y0 to y1 and columns x0 to x1 [box, (y0, y1, x0, x1)].
    value
        What each adds to those before it [box].
    targets
        How many targets more it is expected to hold [box].
    seconds
        Time of each in s [box].
    forecast
        What they are expected to hold together.
    """

    boxes: np.ndarray
    value: np.ndarray
    targets: np.ndarray
    seconds: np.ndarray
    forecast: Forecast


def choose(
    probability: np.ndarray, targets: Targets, value: np.ndarray, terms: RescanTerms
) -> Choice:
    """Return the boxes to fly.

    Parameters
    ----------
    probability
        Probability that a pixel matches (y, x).
    targets
        The possible targets, of which there is at least one.
    value
        Value of each target [target].
    terms
        What rescans cost and may cost.
    """
    cost, budget_s = terms.cost, terms.budget_s
    whole_s = float(cost.seconds(np.array([[0, probability.shape[0], 0, probability.shape[1]]]))[0])
    worth_per_s = WORTH_OF_THE_WHOLE * float(value.sum()) / whole_s

    flown = _chooser(probability, targets, value, terms, worth_per_s, terms.pad_px)
    boxes, shares = flown(budget_s)
    if MORE_TIME * float(cost.seconds(boxes).sum()) <= budget_s:
        # No box may lose its margin to the limit: all of them fit with it, or none has it.
        unlimited = replace(terms, budget_s=np.inf)
        wider = _chooser(probability, targets, value, unlimited, worth_per_s, terms.wide_pad_px)
        wide_boxes, wide_shares = wider(np.inf)
        if float(cost.seconds(wide_boxes).sum()) <= budget_s:
            flown, boxes, shares = wider, wide_boxes, wide_shares
    margin_px = EDGE_COARSE_PX * terms.factor
    found = [_share_inside(boxes, targets, margin_px, probability.shape)]
    if np.isfinite(budget_s):
        more, _ = flown(MORE_TIME * budget_s)
        found.append(_share_inside(more, targets, margin_px, probability.shape))
    seconds = cost.seconds(boxes)
    order = np.argsort(-(shares @ value) / seconds, kind="stable")
    forecast = Forecast(targets.expected, found[0], max(found), float(seconds.sum()), whole_s)
    return Choice(
        boxes[order],
        (shares @ value)[order],
        (shares @ targets.weight)[order],
        seconds[order],
        forecast,
    )


def _chooser(
    probability: np.ndarray,
    targets: Targets,
    value: np.ndarray,
    terms: RescanTerms,
    worth_per_s: float,
    pad_px: tuple[int, int],
) -> Callable[[float], tuple[np.ndarray, np.ndarray]]:
    """Return what chooses, for a time in s, the boxes and the share of each target in each."""
    cost = terms.cost
    candidates = candidate_boxes(
        probability,
        targets,
        value,
        cost,
        pad_px=pad_px,
        largest_px=terms.largest_px,
        smallest_px=terms.smallest_px,
        longest_s=terms.budget_s,
    )
    held, times = contains(candidates, targets.boxes), cost.seconds(candidates)

    def flown(budget_s: float) -> tuple[np.ndarray, np.ndarray]:
        chosen = cover(held, value, times, budget_s=budget_s, worth_per_s=worth_per_s)
        chosen = candidates[_by_rate(chosen, held, value, times)]
        split = partial(
            split_by_object,
            chosen,
            targets,
            probability,
            cost,
            # The usual margin, as a split has to save time.
            pad_px=terms.pad_px,
            asked_pad_px=terms.asked_pad_px,
            smallest_px=terms.smallest_px,
        )
        boxes, shares = split()
        fits = float(cost.seconds(boxes).sum()) <= budget_s
        return (boxes, shares) if fits else split(hardly_longer=0.0)

    return flown


def _share_inside(
    boxes: np.ndarray, targets: Targets, margin_px: float, shape: tuple[int, ...]
) -> float:
    """Return the expected share of the targets that lie in boxes, together with a margin.

    For a margin that is no whole number, the shares for those above and below are weighted.
    """
    flown = np.zeros(shape, dtype=bool)
    for y0, y1, x0, x1 in boxes.tolist():
        flown[y0:y1, x0:x1] = True
    # [y, x]: number of pixels above and left of a corner that are not flown.
    left_out = np.pad((~flown).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    shares = []
    for margin in (math.floor(margin_px), math.ceil(margin_px)):
        y0, y1, x0, x1 = padded_boxes(targets.boxes, (margin, margin), shape).T
        missing = left_out[y1, x1] - left_out[y0, x1] - left_out[y1, x0] + left_out[y0, x0]
        shares.append(float(targets.weight[missing == 0].sum() / targets.expected))
    return shares[0] + (margin_px - math.floor(margin_px)) * (shares[1] - shares[0])


def _by_rate(
    chosen: list[int], held: np.ndarray, value: np.ndarray, seconds: np.ndarray
) -> list[int]:
    """Return boxes in the order of the value per second that each adds to those before it."""
    left, order, open_value = list(chosen), [], value.copy()
    while left:
        best = left.pop(int((held[left] @ open_value / seconds[left]).argmax()))
        order.append(best)
        open_value[held[best]] = 0.0
    return order
