"""What may be worth a rescan: possible targets, and the boxes in which they would be flown.

The errors of an enhanced map are mostly shared by the pixels of one object. If they were shared
completely, the matching pixels would be those above one level of the probability map, and that
level would be equally likely anywhere between 0 and 1. So each connected part of each level set is
a possible target, as likely as its level is wide. Summed over the targets inside a box this gives
how many distinct targets the box is expected to hold completely, however they hang together; and a
box gains by reaching to where the probability falls off.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

LEVEL_EDGES = (0.03, 0.07, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0)
"""Probabilities between the levels at which targets are looked for, in the middle of each two."""
BOX_LEVELS = (0.1, 0.2, 0.5, 0.8)
"""Probabilities of whose level sets the parts get boxes of their own. Of single pixels below that
far fewer match than they should."""
JOIN_BELOW = 1.6
"""Two boxes may be joined if the box around both takes less than this multiple of their time."""
MOST_BOXES = 400
"""Boxes of single targets that are looked at, those with the most value per second."""
_NEAREST = 8
"""Number of neighbors with which a box may be joined."""
_EIGHT_NEIGHBORS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class RescanCost:
    """How long a box takes to rescan.

    Parameters
    ----------
    pixel_s
        Seconds for each fine pixel.
    row_s
        Seconds that a row takes besides its pixels.
    box_s
        Seconds for the way to a box, and for starting there.
    """

    pixel_s: float
    row_s: float = 0.0
    box_s: float = 0.0

    def seconds(self, boxes: np.ndarray) -> np.ndarray:
        """Return the time of each box [box, (y0, y1, x0, x1)] in s [box]."""
        boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
        rows, columns = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
        return rows * (columns * self.pixel_s + self.row_s) + self.box_s


@dataclass(frozen=True, eq=False)
class Targets:
    """Possible targets of a map.

    Parameters
    ----------
    boxes
        The rows y0 to y1 and columns x0 to x1 of each target's pixels, without y1 and x1
        themselves [target, (y0, y1, x0, x1)].
    weight
        Probability that this is a target [target].
    signal
        Sum over the target's pixels of how much they stand out [target].
    cut
        Whether this is a part of one that is too large to be flown as a whole [target].
    level, label
        The target's pixels are those of its box that have this number where the probability is
        above this level (`labeled`) [target].
    """

    boxes: np.ndarray
    weight: np.ndarray
    signal: np.ndarray
    cut: np.ndarray
    level: np.ndarray
    label: np.ndarray

    @property
    def expected(self) -> float:
        """Expected number of distinct targets."""
        return float(self.weight.sum())


def possible_targets(
    probability: np.ndarray,
    signal: np.ndarray,
    *,
    fewest_px: float = 1.0,
    most_px: float = np.inf,
    largest_px: tuple[int, int] | None = None,
    cost: RescanCost | None = None,
    longest_s: float = np.inf,
) -> Targets:
    """Return the possible targets of a map.

    One that is too large to be flown as a whole is cut into parts, which count by their pixels.

    Parameters
    ----------
    probability
        Probability that a pixel matches (y, x).
    signal
        How much a pixel stands out (y, x), in any unit.
    fewest_px, most_px
        Range of a target's size in pixels.
    largest_px
        Largest number of rows and of columns that can be flown at a time; None: the whole map.
    cost, longest_s
        How long a box takes, and how long it may take.
    """
    boxes, weights, signals, cut, places = [], [], [], [], []
    largest = largest_px or probability.shape
    for low, high in pairwise(LEVEL_EDGES):
        level = (low + high) / 2
        labels, number = labeled(probability > level)
        if not number:
            continue
        every = np.arange(1, number + 1)
        sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
        sums = ndimage.sum_labels(signal, labels, every)
        for index, window in enumerate(ndimage.find_objects(labels)):
            if not fewest_px <= sizes[index] <= most_px:
                continue
            parts = _split(np.array([_box(window)]), largest)
            while cost is not None and len(parts) and cost.seconds(parts).max() > longest_s:
                halved = _halved(parts)
                if len(halved) == len(parts):
                    break
                parts = halved
            for box in parts:
                y0, y1, x0, x1 = box.tolist()
                inside = np.count_nonzero(labels[y0:y1, x0:x1] == index + 1)
                boxes.append(box)
                cut.append(len(parts) > 1)
                weights.append((high - low) * inside / sizes[index])
                signals.append(float(sums[index]) * inside / sizes[index])
                places.append((level, index + 1))
    levels, numbers = np.array(places).reshape(-1, 2).T
    return Targets(
        np.array(boxes, dtype=int).reshape(-1, 4),
        np.array(weights),
        np.array(signals),
        np.array(cut, dtype=bool),
        levels,
        numbers.astype(int),
    )


def candidate_boxes(
    probability: np.ndarray,
    targets: Targets,
    value: np.ndarray,
    cost: RescanCost,
    *,
    pad_px: tuple[int, int],
    largest_px: tuple[int, int],
    smallest_px: tuple[int, int] = (1, 1),
    longest_s: float = np.inf,
) -> np.ndarray:
    """Return boxes that may be worth a rescan [box, (y0, y1, x0, x1)], without doubles.

    They are the boxes of connected parts of several level sets, padded; joins of neighbors where
    the box around both takes hardly longer than they do; and the whole map. None is larger than
    the stages reach.

    Parameters
    ----------
    probability
        Probability that a pixel matches (y, x).
    targets
        The possible targets.
    value
        Value of each target [target].
    cost
        How long a box takes.
    pad_px
        Margin on every side, in rows and columns.
    largest_px
        Largest number of rows and of columns of a box.
    smallest_px
        Smallest number of rows and of columns of a box, unless the map or the reach is smaller.
    longest_s
        Time that a box may take in s.
    """
    found: list[np.ndarray] = []
    for level in BOX_LEVELS:
        labels, number = labeled(probability > level)
        if not number:
            continue
        parts = np.array([_box(window) for window in ndimage.find_objects(labels)], dtype=int)
        parts = _split(parts, largest_px)
        grown = grown_boxes(
            padded_boxes(parts, pad_px, probability.shape), smallest_px, probability.shape
        )
        grown = _shrunk(grown, parts, largest_px)
        # Rather without its margin than not at all.
        fits = cost.seconds(grown) <= longest_s
        parts = np.unique(np.where(fits[:, None], grown, parts), axis=0)
        # The best by value per second; the value of a part is that of the targets inside it.
        rate = (contains(parts, targets.boxes) @ value) / cost.seconds(parts)
        parts = parts[np.argsort(-rate, kind="stable")[:MOST_BOXES]]
        found += [parts, _joins(parts, cost)]
    # The parts of targets that were cut are boxes as they are: no margin goes between them.
    found.append(targets.boxes[targets.cut])
    whole = np.array([[0, probability.shape[0], 0, probability.shape[1]]])
    boxes = np.unique(np.vstack([*found, whole]), axis=0)
    sides = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], axis=1)
    return boxes[(sides <= largest_px).all(axis=1)]


def contains(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which boxes contain which others completely [box, other]."""
    outer, inner = boxes[:, None, :], others[None, :, :]
    return (
        (outer[..., 0] <= inner[..., 0])
        & (outer[..., 1] >= inner[..., 1])
        & (outer[..., 2] <= inner[..., 2])
        & (outer[..., 3] >= inner[..., 3])
    )


def labeled(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the number of the connected place of each pixel (y, x), 0 for none, and how many."""
    labels, number = ndimage.label(mask, structure=_EIGHT_NEIGHBORS)  # type: ignore[misc]
    return labels, int(number)


def _box(window: tuple[slice, slice]) -> tuple[int, int, int, int]:
    rows, columns = window
    return rows.start, rows.stop, columns.start, columns.stop


def padded_boxes(boxes: np.ndarray, pad_px: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Return boxes with a margin of rows and columns, inside a map of that shape."""
    (pad_y, pad_x), (height, width) = pad_px, shape
    grown = boxes + np.array([-pad_y, pad_y, -pad_x, pad_x])
    return np.clip(grown, 0, np.array([height, height, width, width]))


def grown_boxes(
    boxes: np.ndarray, smallest_px: tuple[int, int], shape: tuple[int, ...]
) -> np.ndarray:
    """Grow the sides of boxes that are too short, inside the map."""
    grown = boxes.copy()
    for side, (least, size) in enumerate(zip(smallest_px, shape, strict=True)):
        low, high = boxes[:, 2 * side], boxes[:, 2 * side + 1]
        missing = np.clip(min(least, size) - (high - low), 0, None)
        low, high = low - missing // 2, high + missing - missing // 2
        shift = np.clip(-low, 0, None) - np.clip(high - size, 0, None)
        grown[:, 2 * side], grown[:, 2 * side + 1] = low + shift, high + shift
    return grown


def _shrunk(boxes: np.ndarray, inner: np.ndarray, largest_px: tuple[int, int]) -> np.ndarray:
    """Take off the margins of boxes around `inner` ones that are larger than can be flown."""
    shrunk = boxes.copy()
    for side, largest in enumerate(largest_px):
        low, high = boxes[:, 2 * side], boxes[:, 2 * side + 1]
        excess = np.clip(high - low - largest, 0, None)
        below = np.minimum(excess - excess // 2, inner[:, 2 * side] - low)
        shrunk[:, 2 * side] = low + below
        shrunk[:, 2 * side + 1] = high - (excess - below)
    return shrunk


def _halved(boxes: np.ndarray) -> np.ndarray:
    """Cut boxes in two, across their longer side; single pixels stay as they are."""
    parts = []
    for y0, y1, x0, x1 in boxes.tolist():
        height, width = y1 - y0, x1 - x0
        if height * width == 1:
            parts.append((y0, y1, x0, x1))
        elif height >= width:
            parts += [(y0, y0 + height // 2, x0, x1), (y0 + height // 2, y1, x0, x1)]
        else:
            parts += [(y0, y1, x0, x0 + width // 2), (y0, y1, x0 + width // 2, x1)]
    return np.array(parts, dtype=int).reshape(-1, 4)


def _split(boxes: np.ndarray, largest_px: tuple[int, ...]) -> np.ndarray:
    """Cut boxes that are too large into equal parts that are not."""
    parts = []
    for y0, y1, x0, x1 in boxes.tolist():
        rows = np.linspace(y0, y1, -(-(y1 - y0) // largest_px[0]) + 1).round().astype(int)
        columns = np.linspace(x0, x1, -(-(x1 - x0) // largest_px[1]) + 1).round().astype(int)
        parts += [
            (low, high, left, right)
            for low, high in pairwise(rows)
            for left, right in pairwise(columns)
        ]
    return np.array(parts, dtype=int).reshape(-1, 4)


def _joins(boxes: np.ndarray, cost: RescanCost) -> np.ndarray:
    """Return the boxes that come of joining neighbors, cheapest first, one after the other."""
    if len(boxes) < 2:
        return np.empty((0, 4), dtype=int)
    alive = dict(enumerate(boxes.tolist()))
    neighbors = _nearest(boxes)
    heap: list[tuple[float, int, int]] = []

    def offer(first: int, second: int) -> None:
        waste = _joint_waste(alive[first], alive[second], cost)
        if waste < JOIN_BELOW:
            heapq.heappush(heap, (waste, first, second))

    for first, others in enumerate(neighbors):
        for second in others:
            if first < second or first not in neighbors[second]:
                offer(first, second)
    joined: list[list[int]] = []
    number = len(boxes)
    while heap:
        _, first, second = heapq.heappop(heap)
        if first not in alive or second not in alive:
            continue
        neighbors.append((neighbors[first] | neighbors[second]) & set(alive))
        alive[number] = _around(alive.pop(first), alive.pop(second))
        joined.append(alive[number])
        for other in neighbors[number] & set(alive):
            neighbors[other] = neighbors[other] | {number}
            offer(other, number)
        number += 1
    return np.array(joined, dtype=int).reshape(-1, 4)


def _nearest(boxes: np.ndarray) -> list[set[int]]:
    """Return for each box its nearest ones, by the gap between their edges."""
    low, high = boxes[:, ::2], boxes[:, 1::2]
    # (box, box, 2): rows and columns between two boxes; negative where they overlap.
    gap = np.maximum(low[:, None] - high, low - high[:, None])
    distance = np.hypot(*np.moveaxis(np.maximum(gap, 0), -1, 0)).astype(float)
    np.fill_diagonal(distance, np.inf)
    number = min(_NEAREST, len(boxes) - 1)
    order = np.argpartition(distance, number - 1, axis=1)[:, :number]
    return [set(row) for row in order.tolist()]


def _around(first: list[int], second: list[int]) -> list[int]:
    return [
        min(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        max(first[3], second[3]),
    ]


def _joint_waste(first: list[int], second: list[int], cost: RescanCost) -> float:
    """Return the time of the box around two boxes, in units of the time that both take."""
    around = _around(first, second)
    both, one, other = (
        (y1 - y0) * ((x1 - x0) * cost.pixel_s + cost.row_s) + cost.box_s
        for y0, y1, x0, x1 in (around, first, second)
    )
    return both / (one + other)
