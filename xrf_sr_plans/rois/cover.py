"""`cover`: the set of boxes with the highest value within a time."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, identity, vstack

MOST_NODES = 50
"""Nodes that the exact search may open. The best answer so far, or the greedy one, then counts. A
limit in seconds would give other answers on a busy machine, and so another result on replay."""
EXACT_UP_TO = 15_000
"""Pairs of a box and a target in it up to which the exact search is made. With more it takes
seconds, and the greedy choice was within 2 % of the best possible one."""
LONGEST_S = 20.0
"""Seconds after which the exact search is given up in any case."""
GAP = 0.005
"""Share of the value by which an answer may fall short of the best possible one."""


def cover(
    held: np.ndarray, value: np.ndarray, seconds: np.ndarray, *, budget_s: float, worth_per_s: float
) -> list[int]:
    """Return the indices of the boxes to fly.

    Each target counts once, however many boxes hold it. The sum of the values less `worth_per_s`
    times the time is as large as possible, and the time within the budget: an integer program
    (HiGHS by `scipy.optimize.milp`), bounded in time. A greedy choice by value per second, which
    is never far off, counts where it is better.

    Parameters
    ----------
    held
        Which box holds which target [box, target] (bool).
    value
        Value of each target [target].
    seconds
        Time of each box in s [box].
    budget_s
        Time for all boxes together in s; infinite: no limit.
    worth_per_s
        Value per second that beam time is worth elsewhere. A box that adds less is not flown.
    """
    fits = np.flatnonzero((seconds <= budget_s) & held.any(axis=1))
    if not fits.size:
        return []
    held, time = held[fits], seconds[fits]
    choices = [_greedy(held, value, time, budget_s, worth_per_s)]
    if np.count_nonzero(held) <= EXACT_UP_TO:
        # Targets that the same boxes hold are one, with the sum of their values.
        patterns, which = np.unique(held.T, axis=0, return_inverse=True)
        sums = np.bincount(which.ravel(), value, len(patterns))
        some = patterns.any(axis=1)
        choices.append(_exact(patterns[some].T, sums[some], time, budget_s, worth_per_s))

    def gain(chosen: list[int]) -> float:
        reached = held[chosen].any(axis=0) if chosen else np.zeros(value.size, dtype=bool)
        return float(value[reached].sum() - worth_per_s * time[chosen].sum())

    return fits[max(choices, key=gain)].tolist()


def _greedy(
    held: np.ndarray, value: np.ndarray, time: np.ndarray, budget_s: float, worth_per_s: float
) -> list[int]:
    """Take the box with the highest additional value per second, again and again.

    What a box adds can only fall, so that a box is looked at again only when it is the best by what
    it added before (M. Minoux, in Optimization Techniques, 1978, DOI 10.1007/BFb0006528).
    """
    inside = [np.flatnonzero(row) for row in held]
    open_value = value.astype(float).copy()
    heap = [(-open_value[targets].sum() / time[box], box) for box, targets in enumerate(inside)]
    heapq.heapify(heap)
    chosen: list[int] = []
    left_s, least = budget_s, max(worth_per_s, 0.0)
    while heap and -heap[0][0] > least:
        _, box = heapq.heappop(heap)
        if time[box] > left_s:
            continue
        rate = open_value[inside[box]].sum() / time[box]
        if heap and rate < -heap[0][0]:
            heapq.heappush(heap, (-rate, box))
        elif rate > least:
            chosen.append(box)
            left_s -= time[box]
            open_value[inside[box]] = 0.0
    return chosen


def _exact(
    held: np.ndarray, value: np.ndarray, time: np.ndarray, budget_s: float, worth_per_s: float
) -> list[int]:
    """Solve the integer program: one variable for each box, and one for each target."""
    boxes, targets = held.shape
    # A hair of cost for the time, so that nothing is flown that brings nothing.
    cost = np.concatenate([max(worth_per_s, 1e-9) * time, -value])
    # A target counts only where a box that holds it is flown.
    reached = hstack([-csr_array(held.T.astype(float)), identity(targets)])
    limits = [np.zeros(targets)]
    rows = [reached]
    if np.isfinite(budget_s):
        rows.append(csr_array(np.concatenate([time, np.zeros(targets)])[None]))
        limits.append(np.array([budget_s]))
    found = milp(
        cost,
        constraints=LinearConstraint(vstack(rows), -np.inf, np.concatenate(limits)),
        integrality=np.concatenate([np.ones(boxes), np.zeros(targets)]),
        bounds=Bounds(0, 1),
        options={"node_limit": MOST_NODES, "time_limit": LONGEST_S, "mip_rel_gap": GAP},
    )
    if found.x is None:
        return []
    return np.flatnonzero(found.x[:boxes] > 0.5).tolist()
