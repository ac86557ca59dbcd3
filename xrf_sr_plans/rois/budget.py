"""Spending beam time and dose on the rescans that are worth most, in a short tour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from xrf_sr_plans.errors import BudgetError
from xrf_sr_plans.maps.region import Region, Rescan

SAME_AREA = 0.5
"""Two regions of which one covers more than this share of the other are one find, seen twice."""
_MAX_TWO_OPT = 60


@dataclass(frozen=True)
class Spending:
    """What is flown, in this order, and what isn't, with the reason in words."""

    chosen: tuple[Rescan, ...]
    refused: tuple[tuple[Rescan, str], ...]

    @property
    def time_s(self) -> float:
        """Beam time of what was chosen."""
        return sum(rescan.time_s for rescan in self.chosen)


def spend_budget(
    candidates: Sequence[Rescan],
    *,
    budget_s: float | None,
    max_dose: float | None,
    start_um: tuple[float, float],
) -> Spending:
    """Choose the rescans to fly: best score per second first, as long as the time lasts.

    Duplicates (same key, or mostly the same area as a better one) are removed; no point of the
    sample gets more than `max_dose`, where chosen regions overlap their doses add. If one single
    rescan is worth more than all that the greedy choice found, it goes first. The chosen ones
    are ordered into a short tour that begins at `start_um` (x, y).

    Parameters
    ----------
    candidates
        With finite scores, times (s) and doses (any one unit).
    budget_s
        Beam time for all rescans together; None: no limit.
    max_dose
        Highest dose, in the unit of `Rescan.dose`; None: no limit.

    Raises
    ------
    BudgetError
        A budget that is NaN or negative.
    """
    for label, limit in (("budget_s", budget_s), ("max_dose", max_dose)):
        if limit is not None and not limit >= 0:
            raise BudgetError(f"{label} is {limit}; it must be 0 or more, or None for no limit")
    unsound = [(one, _unsound(one)) for one in candidates]
    sound = sorted((one for one, why in unsound if not why), key=_worth)
    fills = [_fill(sound, budget_s, max_dose)]
    if sound:
        best = max(sound, key=lambda one: one.region.score)
        fills.append(_fill([best, *(one for one in sound if one is not best)], budget_s, max_dose))
    chosen, refused = max(fills, key=lambda fill: sum(one.region.score for one in fill[0]))
    return Spending(
        tuple(_tour(chosen, start_um)), (*((one, why) for one, why in unsound if why), *refused)
    )


def _worth(one: Rescan) -> tuple[float, ...]:
    """Sort key, best first; ties are broken by content, so that the order of arrival can't."""
    region = one.region
    return (-region.score / one.time_s, one.time_s, one.dose, region.x_low_um, region.y_low_um)


def _unsound(one: Rescan) -> str:
    estimates = {"score": one.region.score, "time": one.time_s, "dose": one.dose}
    wrong = [f"{label} is {value}" for label, value in estimates.items() if not isfinite(value)]
    if one.time_s <= 0:
        wrong.append(f"time is {one.time_s}")
    return f"no sound estimate: {', '.join(wrong)}" if wrong else ""


def _overlap_um2(one: Region, other: Region) -> float:
    width = min(one.x_high_um, other.x_high_um) - max(one.x_low_um, other.x_low_um)
    height = min(one.y_high_um, other.y_high_um) - max(one.y_low_um, other.y_low_um)
    return max(width, 0.0) * max(height, 0.0)


def _same(one: Region, other: Region) -> bool:
    smaller = min(one.width_um * one.height_um, other.width_um * other.height_um)
    return one.key == other.key or _overlap_um2(one, other) > SAME_AREA * smaller


def _fill(
    ordered: Sequence[Rescan], budget_s: float | None, max_dose: float | None
) -> tuple[list[Rescan], list[tuple[Rescan, str]]]:
    chosen: list[Rescan] = []
    refused: list[tuple[Rescan, str]] = []
    left_s = math.inf if budget_s is None else budget_s
    for one in ordered:
        dose = one.dose + sum(
            other.dose for other in chosen if _overlap_um2(one.region, other.region) > 0
        )
        twin = next((other for other in chosen if _same(one.region, other.region)), None)
        if twin is not None:
            refused.append((one, f"same area as the better region {twin.region.key}"))
        elif max_dose is not None and dose > max_dose:
            refused.append((one, f"dose {dose:.4g} would exceed the limit {max_dose:.4g}"))
        elif one.time_s > left_s:
            refused.append(
                (one, f"needs {one.time_s:.4g} s; {left_s:.4g} s of the {budget_s:.4g} s are left")
            )
        else:
            chosen.append(one)
            left_s -= one.time_s
    return chosen, refused


def _tour(rescans: Sequence[Rescan], start_um: tuple[float, float]) -> list[Rescan]:
    """Nearest neighbour from `start_um`, then 2-opt on the open path."""
    left = list(rescans)
    path: list[Rescan] = []
    here = start_um
    while left:
        nearest = min(left, key=lambda one: (math.dist(here, _center(one)), one.region.key))
        left.remove(nearest)
        path.append(nearest)
        here = _center(nearest)
    improved = 2 < len(path) <= _MAX_TWO_OPT
    while improved:
        improved = False
        for first in range(len(path) - 1):
            for last in range(first + 1, len(path)):
                turned = [*path[:first], *reversed(path[first : last + 1]), *path[last + 1 :]]
                if _length(turned, start_um) < _length(path, start_um) - 1e-9:
                    path, improved = turned, True
    return path


def _center(rescan: Rescan) -> tuple[float, float]:
    return rescan.region.x_center_um, rescan.region.y_center_um


def _length(path: Sequence[Rescan], start_um: tuple[float, float]) -> float:
    return sum(math.dist(*leg) for leg in pairwise([start_um, *map(_center, path)]))
