"""Which places of a known sample a survey was to find, which it found, and what was possible.

A *target* is a connected place of the truth that satisfies the query. It is found when every one
of its pixels was rescanned. The *oracle* knows the targets, and flies them in the boxes and by the
choice that surveys have, so that it says how much there was to gain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from xrf_sr_plans.rois.candidates import (
    RescanCost,
    candidate_boxes,
    contains,
    labeled,
    possible_targets,
)
from xrf_sr_plans.rois.cover import cover

_HALVINGS = 14
"""Halvings of the interval in which the oracle's least time is looked for."""


@dataclass(frozen=True)
class Recall:
    """The share of the targets that was found, where each counts as 1, by its area or its signal.

    Parameters
    ----------
    number
        By number.
    area
        By area.
    signal
        By photons.
    """

    number: float
    area: float
    signal: float

    def to_dict(self) -> dict[str, float]:
        """Return the shares as JSON types."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class TrueTargets:
    """The targets of a sample that is known.

    Parameters
    ----------
    label
        The number of the target of each pixel, from 1 on, 0 for none (y, x).
    signal
        Photons of each pixel without noise (y, x).
    """

    label: np.ndarray
    signal: np.ndarray

    @classmethod
    def above(cls, signal: np.ndarray, threshold: float, fewest_px: float) -> TrueTargets:
        """Return the connected places with more than so many photons, from a size on.

        Parameters
        ----------
        signal
            Photons of each pixel without noise (y, x).
        threshold
            Photons that each pixel of a target has more than.
        fewest_px
            Pixels of the smallest target.
        """
        label, number = labeled(signal > threshold)
        sizes = np.bincount(label.ravel(), minlength=number + 1)
        kept = sizes >= fewest_px
        kept[0] = False
        renumbered = np.where(kept, np.cumsum(kept), 0)
        return cls(renumbered[label], signal)

    def __len__(self) -> int:
        return int(self.label.max(initial=0))

    def pixels(self, number: int) -> np.ndarray:
        """Return the rows and columns of a target's pixels [pixel, (y, x)]; numbers begin at 1."""
        return np.argwhere(self.label == number)

    def found(self, rescanned: np.ndarray) -> np.ndarray:
        """Return which targets were found [target].

        Parameters
        ----------
        rescanned
            The pixels that were rescanned (y, x).
        """
        missing = np.bincount(self.label[~rescanned], minlength=len(self) + 1)
        return missing[1:] == 0

    def recall(self, rescanned: np.ndarray) -> Recall:
        """Return the share of the targets that was found; NaN where there is no target.

        Parameters
        ----------
        rescanned
            The pixels that were rescanned (y, x).
        """
        if not len(self):
            return Recall(*[float("nan")] * 3)
        found = self.found(rescanned)
        area = np.bincount(self.label.ravel(), minlength=len(self) + 1)[1:]
        photons = np.bincount(self.label.ravel(), self.signal.ravel(), len(self) + 1)[1:]
        weights = (np.ones(len(self)), area, photons)
        return Recall(*[float(weight[found].sum() / weight.sum()) for weight in weights])

    def oracle(self, cost: RescanCost, budget_s: float) -> np.ndarray:
        """Return the boxes that one who knows the targets would fly [box, (y0, y1, x0, x1)].

        Parameters
        ----------
        cost
            How long a box takes.
        budget_s
            Time for all boxes together in s.
        """
        known = (self.label > 0).astype(float)
        if not len(self):
            return np.empty((0, 4), dtype=int)
        targets = possible_targets(known, self.signal)
        boxes = candidate_boxes(
            known, targets, targets.weight, cost, pad_px=(0, 0), largest_px=known.shape
        )
        held, seconds = contains(boxes, targets.boxes), cost.seconds(boxes)
        return boxes[cover(held, targets.weight, seconds, budget_s=budget_s, worth_per_s=0.0)]

    def oracle_least_s(self, cost: RescanCost, recall: float) -> float:
        """Return the least time in s in which the oracle finds a share of the targets by number.

        Parameters
        ----------
        cost
            How long a box takes.
        recall
            The share, from 0 to 1.
        """
        everything = self.oracle(cost, np.inf)
        low, high = 0.0, float(cost.seconds(everything).sum())
        best = high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            boxes = self.oracle(cost, middle)
            if self.recall(inside(boxes, self.label.shape)).number >= recall:
                high = middle
                best = min(best, float(cost.seconds(boxes).sum()))
            else:
                low = middle
        return best


def inside(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels (y, x) of a map of that shape that lie in boxes of pixels."""
    mask = np.zeros(shape, dtype=bool)
    for y0, y1, x0, x1 in np.asarray(boxes, dtype=int).reshape(-1, 4).tolist():
        mask[y0:y1, x0:x1] = True
    return mask
