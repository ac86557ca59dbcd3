"""Splitting: a chosen box around several objects is flown as one box each where that costs little.

A person approves or refuses one object at a time, and what is interrupted loses less. A target that
reaches over two boxes is measured as well where they hold it together.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from xrf_sr_plans.rois.candidates import RescanCost, Targets, contains, grown_boxes, labeled

HARDLY_LONGER = 0.02
"""Share of a box's time that each split of it may cost."""
LIKELY = 0.5
"""Probability of matching above which connected pixels are an object that isn't cut."""


def split_by_object(
    boxes: np.ndarray,
    targets: Targets,
    probability: np.ndarray,
    cost: RescanCost,
    *,
    pad_px: tuple[int, int],
    asked_pad_px: tuple[int, int] = (0, 0),
    smallest_px: tuple[int, int] = (1, 1),
    hardly_longer: float = HARDLY_LONGER,
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes that hold the same targets as `boxes`, split between objects.

    A box is split along a row or a column between two of its objects, again and again, where the
    two boxes around the padded pixels of its targets take hardly longer.

    Parameters
    ----------
    boxes
        The boxes to fly, the most important first [box, (y0, y1, x0, x1)].
    targets
        The possible targets, found in `probability`.
    probability
        Probability that a pixel matches (y, x).
    cost
        How long a box takes.
    pad_px
        Margin on every side of a target, in rows and columns; it ends where the box does.
    asked_pad_px
        Margin around every object that a person asked for, which isn't cut either.
    smallest_px
        Smallest number of rows and of columns of a box.
    hardly_longer
        Share of a box's time that each split of it may cost. With 0 the result takes no longer
        than `boxes` do.

    Returns
    -------
    boxes : numpy.ndarray
        [box, (y0, y1, x0, x1)].
    shares : numpy.ndarray
        Share of each target that is in each box, with a sum of 1 for the targets that `boxes`
        hold and 0 for the others [box, target].
    """
    held = contains(boxes, targets.boxes)
    first = held & (held.cumsum(axis=0) == 1)
    found: list[np.ndarray] = [np.empty((0, 4), dtype=int)]
    shares: list[np.ndarray] = [np.empty((0, len(targets.weight)))]
    masks = _wanted(boxes, first, targets, probability)
    for box, inside, mask in zip(boxes, first, masks, strict=True):
        if not inside.any():
            continue
        y0, y1, x0, x1 = box.tolist()
        padded = _padded(mask, pad_px)
        likely = mask & (probability[y0:y1, x0:x1] > LIKELY)
        objects, _ = labeled(_padded(likely, asked_pad_px))
        may_cost_s = hardly_longer * float(cost.seconds(box)[0])
        pieces = _split(padded, objects, cost, smallest_px, may_cost_s)
        pieces = box[None] if len(pieces) == 1 else pieces + np.array([y0, y0, x0, x0])
        pieces = grown_boxes(pieces, smallest_px, probability.shape)
        overlap = _overlaps(pieces, targets.boxes[inside])
        share = np.zeros((len(pieces), len(targets.weight)))
        # A part of a large target may have none of its pixels, and be in no piece.
        share[:, inside] = overlap / np.maximum(overlap.sum(axis=0), 1)
        found.append(pieces)
        shares.append(share)
    return np.vstack(found), np.vstack(shares)


def _padded(mask: np.ndarray, pad_px: tuple[int, int]) -> np.ndarray:
    """Return a mask (row, column) with a margin on every side of its pixels."""
    size = tuple(2 * pad + 1 for pad in pad_px)
    return ndimage.maximum_filter(mask, size=size, mode="constant")


def _wanted(
    boxes: np.ndarray, held: np.ndarray, targets: Targets, probability: np.ndarray
) -> list[np.ndarray]:
    """Return for each box the pixels (row, column) of the targets that it is flown for."""
    masks = [np.zeros((y1 - y0, x1 - x0), dtype=bool) for y0, y1, x0, x1 in boxes.tolist()]
    for level in np.unique(targets.level):
        labels, _ = labeled(probability > level)
        for box, target in np.argwhere(held & (targets.level == level)):
            y0, y1, x0, x1 = targets.boxes[target].tolist()
            top, left = boxes[box, 0], boxes[box, 2]
            inside = labels[y0:y1, x0:x1] == targets.label[target]
            masks[box][y0 - top : y1 - top, x0 - left : x1 - left] |= inside
    return masks


def _split(
    mask: np.ndarray,
    objects: np.ndarray,
    cost: RescanCost,
    smallest_px: tuple[int, int],
    may_cost_s: float,
) -> np.ndarray:
    """Return boxes that hold all pixels of a mask (row, column) [box, (y0, y1, x0, x1)].

    `objects` has the number of the object at each pixel, 0 for none.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    y0, y1, x0, x1 = around = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    mask, objects = mask[y0:y1, x0:x1], objects[y0:y1, x0:x1]
    best_s, best = (
        float(_seconds(mask.shape[0], mask.shape[1], cost, smallest_px)) + may_cost_s,
        None,
    )
    for axis in (0, 1):
        seconds = np.where(
            _between_objects(objects, axis),
            _seconds_in_two(mask, axis, cost, smallest_px),
            np.inf,
        )
        if seconds.size and seconds.min() < best_s:
            best_s, best = float(seconds.min()), (axis, int(seconds.argmin()) + 1)
    if best is None:
        return np.array([around])
    axis, place = best
    further = np.zeros(4, dtype=int)
    further[2 * axis : 2 * axis + 2] = place
    masks, numbers = (np.split(plane, [place], axis) for plane in (mask, objects))
    low, high = (
        _split(part, inside, cost, smallest_px, may_cost_s)
        for part, inside in zip(masks, numbers, strict=True)
    )
    return np.vstack([low, high + further]) + np.array([y0, y0, x0, x0])


def _between_objects(objects: np.ndarray, axis: int) -> np.ndarray:
    """Return whether a cut before the second, third, ... line has whole objects on either side."""
    spans = [
        (window[axis].start, window[axis].stop)
        for window in ndimage.find_objects(objects)
        if window is not None
    ]
    places = np.arange(1, objects.shape[axis])
    if not spans:
        return np.zeros(places.size, dtype=bool)
    starts, stops = np.array(spans).T
    cuts = (starts < places[:, None]) & (stops > places[:, None])
    return ~cuts.any(axis=1) & (places >= stops.min()) & (places <= starts.max())


def _seconds_in_two(
    mask: np.ndarray, axis: int, cost: RescanCost, smallest_px: tuple[int, int]
) -> np.ndarray:
    """Return the seconds of both boxes where a mask is cut before its second, third, ... line.

    The lines are rows for `axis` 0, else columns. The mask has pixels in the first and last of
    each.
    """
    lines = mask if axis == 0 else mask.T
    seconds = np.zeros(len(lines) - 1)
    for way in (1, -1):
        long, wide = _sizes(lines[::way])
        sides = (long, wide) if axis == 0 else (wide, long)
        seconds += _seconds(sides[0], sides[1], cost, smallest_px)[::way]
    return seconds


def _sizes(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return height and width of the box around the first 1, 2, ... lines, but not all of them."""
    number, length = lines.shape
    some = lines.any(axis=1)
    first = np.where(some, lines.argmax(axis=1), length)
    last = np.where(some, length - lines[:, ::-1].argmax(axis=1), 0)
    end = np.where(some, np.arange(1, number + 1), 0)
    wide = np.maximum.accumulate(last) - np.minimum.accumulate(first)
    return np.maximum.accumulate(end)[:-1], wide[:-1]


def _seconds(
    rows: np.ndarray | int,
    columns: np.ndarray | int,
    cost: RescanCost,
    smallest_px: tuple[int, int],
) -> np.ndarray:
    rows, columns = np.maximum(rows, smallest_px[0]), np.maximum(columns, smallest_px[1])
    return np.asarray(rows * (columns * cost.pixel_s + cost.row_s) + cost.box_s)


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many pixels of each other box are in each box [box, other]."""
    outer, inner = boxes[:, None, :], others[None, :, :]
    sides = [
        np.minimum(outer[..., high], inner[..., high])
        - np.maximum(outer[..., low], inner[..., low])
        for low, high in ((0, 1), (2, 3))
    ]
    return np.clip(sides[0], 0, None) * np.clip(sides[1], 0, None)
