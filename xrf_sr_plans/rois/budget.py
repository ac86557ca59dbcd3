"""`spend_budget`: choose the rescans worth their beam time and dose, in the order to fly them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from xrf_sr_plans.errors import BudgetError
from xrf_sr_plans.maps.region import Region, Rescan

SAME_AREA = 0.5
"""Two regions are duplicates if more than this share of the smaller one lies in the other."""
_MAX_TWO_OPT = 60
"""A longer tour isn't improved, as the time for that grows with the cube of the number of stops."""


@dataclass(frozen=True)
class Spending:
    """Which rescans are flown, and which are not."""

    chosen: tuple[Rescan, ...]
    """The rescans to fly, in this order."""
    refused: tuple[tuple[Rescan, str], ...]
    """The other rescans, each with the reason in words."""

    @property
    def time_s(self) -> float:
        """Beam time of the chosen rescans together, in seconds."""
        return sum(rescan.time_s for rescan in self.chosen)


def spend_budget(
    candidates: Sequence[Rescan],
    *,
    budget_s: float | None,
    max_dose: float | None,
    start_um: tuple[float, float],
) -> Spending:
    """Choose the rescans to fly, those with the best score per second first, and order them.

    Duplicates, which have the same key or mostly the same area as a better rescan, are refused.
    Where chosen regions overlap their doses add, and no point of the sample gets more than
    `max_dose`. If the total score is higher where the single rescan with the best score is taken
    first, that choice is made instead. The chosen rescans form a short tour.

    Parameters
    ----------
    candidates
        Rescans with their estimated times and doses. One whose score, time or dose is not a finite
        number is refused.
    budget_s
        Beam time for all rescans together, in seconds; None means no limit.
    max_dose
        Highest dose at any point, in the unit of `Rescan.dose`; None means no limit.
    start_um
        Position (x, y) in um at which the tour begins.

    Raises
    ------
    BudgetError
        `budget_s` or `max_dose` is NaN or negative.
    """
    for label, limit in (("budget_s", budget_s), ("max_dose", max_dose)):
        if limit is not None and not limit >= 0:
            raise BudgetError(f"{label} is {limit}; it must be 0 or more, or None for no limit")
    flaws = [(rescan, _flaw(rescan)) for rescan in candidates]
    sound = sorted((rescan for rescan, flaw in flaws if not flaw), key=_by_worth)
    choices = [_choose_in_turn(sound, budget_s, max_dose)]
    if sound:
        best = max(sound, key=lambda rescan: rescan.region.score)
        others = [rescan for rescan in sound if rescan is not best]
        choices.append(_choose_in_turn([best, *others], budget_s, max_dose))
    chosen, refused = max(choices, key=lambda choice: sum(r.region.score for r in choice[0]))
    unsound = [(rescan, flaw) for rescan, flaw in flaws if flaw]
    return Spending(tuple(_tour(chosen, start_um)), (*unsound, *refused))


def _by_worth(rescan: Rescan) -> tuple[float, ...]:
    """Return the sort key that puts the best score per second first.

    Ties are broken by content, so that the order in which rescans were proposed doesn't matter.
    """
    region = rescan.region
    score_per_s = region.score / rescan.time_s
    return (-score_per_s, rescan.time_s, rescan.dose, region.x_low_um, region.y_low_um)


def _flaw(rescan: Rescan) -> str:
    """Return what is wrong with the estimates for a rescan, or "" where they are sound."""
    estimates = {"score": rescan.region.score, "time": rescan.time_s, "dose": rescan.dose}
    wrong = [f"{label} is {value}" for label, value in estimates.items() if not isfinite(value)]
    if rescan.time_s <= 0:
        wrong.append(f"time is {rescan.time_s}")
    return f"no sound estimate: {', '.join(wrong)}" if wrong else ""


def _overlap_um2(first: Region, second: Region) -> float:
    width = min(first.x_high_um, second.x_high_um) - max(first.x_low_um, second.x_low_um)
    height = min(first.y_high_um, second.y_high_um) - max(first.y_low_um, second.y_low_um)
    return max(width, 0.0) * max(height, 0.0)


def _are_duplicates(first: Region, second: Region) -> bool:
    smaller_um2 = min(first.width_um * first.height_um, second.width_um * second.height_um)
    return first.key == second.key or _overlap_um2(first, second) > SAME_AREA * smaller_um2


def _choose_in_turn(
    ordered: Sequence[Rescan], budget_s: float | None, max_dose: float | None
) -> tuple[list[Rescan], list[tuple[Rescan, str]]]:
    """Take each rescan that still fits; return the chosen ones, and the others with the reason."""
    chosen: list[Rescan] = []
    refused: list[tuple[Rescan, str]] = []
    left_s = math.inf if budget_s is None else budget_s
    for rescan in ordered:
        region = rescan.region
        # More than the true dose where three regions overlap only in pairs: on the safe side.
        dose = rescan.dose + sum(
            other.dose for other in chosen if _overlap_um2(region, other.region) > 0
        )
        twin = next((other for other in chosen if _are_duplicates(region, other.region)), None)
        if twin is not None:
            refused.append((rescan, f"same area as the better region {twin.region.key}"))
        elif max_dose is not None and dose > max_dose:
            refused.append((rescan, f"dose {dose:.4g} would exceed the limit {max_dose:.4g}"))
        elif rescan.time_s > left_s:
            needs = f"needs {rescan.time_s:.4g} s"
            refused.append((rescan, f"{needs}; {left_s:.4g} s of the {budget_s:.4g} s are left"))
        else:
            chosen.append(rescan)
            left_s -= rescan.time_s
    return chosen, refused


def _tour(rescans: Sequence[Rescan], start_um: tuple[float, float]) -> list[Rescan]:
    """Go to the nearest rescan each time, then improve the open path by 2-opt."""
    left = list(rescans)
    path: list[Rescan] = []
    here = start_um
    while left:
        nearest = min(
            left, key=lambda rescan: (math.dist(here, _center(rescan)), rescan.region.key)
        )
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
