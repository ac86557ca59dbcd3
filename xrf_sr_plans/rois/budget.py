"""`spend_budget`: choose the rescans worth their beam time and dose, in the order to fly them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from xrf_sr_plans.errors import BudgetError
from xrf_sr_plans.maps.region import Region, Rescan

LEAST_ROWS = 0.5
"""Share of its rows that must fit into the time left for a rescan to be cut to it."""
SAME_AREA = 0.5
"""Two regions are duplicates if more than this share of the smaller one lies in the other."""
ALL_OF_IT = 0.999
"""The same for regions that were chosen together."""
_MAX_TWO_OPT = 200
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
    may_cut: bool = False,
    chosen_together: bool = False,
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
    may_cut
        Whether a rescan that doesn't fit into the time left is cut to its middle rows, if at least
        `LEAST_ROWS` of them do. Its region, score and reason then say so.
    chosen_together
        Whether the regions were chosen as one set, in which each holds what no other does. Only
        those that lie in a better one are then duplicates.

    Raises
    ------
    BudgetError
        `budget_s` or `max_dose` is NaN or negative.
    """
    for label, limit in (("budget_s", budget_s), ("max_dose", max_dose)):
        if limit is not None and not limit >= 0:
            raise BudgetError(f"{label} is {limit}; it must be 0 or more, or None for no limit")
    same_area = ALL_OF_IT if chosen_together else SAME_AREA
    flaws = [(rescan, _flaw(rescan)) for rescan in candidates]
    sound = sorted((rescan for rescan, flaw in flaws if not flaw), key=_by_worth)
    choices = [_choose_in_turn(sound, budget_s, max_dose, may_cut, same_area)]
    if sound:
        best = max(sound, key=lambda rescan: rescan.region.score)
        others = [rescan for rescan in sound if rescan is not best]
        choices.append(_choose_in_turn([best, *others], budget_s, max_dose, may_cut, same_area))
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


def _choose_in_turn(
    ordered: Sequence[Rescan],
    budget_s: float | None,
    max_dose: float | None,
    may_cut: bool,
    same_area: float,
) -> tuple[list[Rescan], list[tuple[Rescan, str]]]:
    """Take each rescan that still fits; return the chosen ones, and the others with the reason."""
    chosen: list[Rescan] = []
    refused: list[tuple[Rescan, str]] = []
    left_s = math.inf if budget_s is None else budget_s
    # Edges (x low, x high, y low, y high), in um, and dose of the chosen ones [rescan, ...].
    edges, doses = np.empty((len(ordered), 4)), np.empty(len(ordered))
    # Those that are too long come again once all others had their turn.
    again: list[Rescan] = []
    waiting = deque(ordered)
    while waiting or again:
        if not waiting:
            uncut = again.pop(0)
            cut = _cut(uncut, left_s) if may_cut else None
            if cut is None:
                needs = f"needs {uncut.time_s:.4g} s"
                refused.append((uncut, f"{needs}; {left_s:.4g} s of the {budget_s:.4g} s are left"))
                continue
            waiting.append(cut)
        rescan = waiting.popleft()
        region, number = rescan.region, len(chosen)
        overlap_um2 = _overlaps_um2(region, edges[:number])
        # More than the true dose where three regions overlap only in pairs: on the safe side.
        dose = rescan.dose + float(doses[:number][overlap_um2 > 0].sum())
        twin = _twin(region, chosen, overlap_um2, edges[:number], same_area)
        if twin is not None:
            refused.append((rescan, f"same area as the better region {twin.region.key}"))
        elif max_dose is not None and dose > max_dose:
            refused.append((rescan, f"dose {dose:.4g} would exceed the limit {max_dose:.4g}"))
        elif rescan.time_s > left_s:
            again.append(rescan)
        else:
            edges[number], doses[number] = _edges(region), rescan.dose
            chosen.append(rescan)
            left_s -= rescan.time_s
    return chosen, refused


def _cut(rescan: Rescan, left_s: float) -> Rescan | None:
    """Return a rescan with as many of its middle rows as fit, or None where too few do."""
    slow = rescan.grid.slow
    rows = math.floor(left_s * slow.num / rescan.time_s + 1e-9)
    if not LEAST_ROWS * slow.num <= rows < slow.num:
        return None
    first = (slow.num - rows) // 2
    kept = replace(slow, start_um=slow.start_um + first * slow.step_um, num=rows)
    share, region = rows / slow.num, rescan.region
    return replace(
        rescan,
        region=replace(
            region,
            y_low_um=max(kept.low_um, region.y_low_um),
            y_high_um=min(kept.high_um, region.y_high_um),
            score=region.score * share,
            reason=f"{region.reason}; cut to {rows} of {slow.num} rows by the time left",
        ),
        grid=replace(rescan.grid, slow=kept),
        time_s=rescan.time_s * share,
    )


def _edges(region: Region) -> tuple[float, float, float, float]:
    return region.x_low_um, region.x_high_um, region.y_low_um, region.y_high_um


def _overlaps_um2(region: Region, edges: np.ndarray) -> np.ndarray:
    """Return the area that a region shares with each of others [region], given their edges."""
    x_low, x_high, y_low, y_high = edges.T
    width = np.minimum(region.x_high_um, x_high) - np.maximum(region.x_low_um, x_low)
    height = np.minimum(region.y_high_um, y_high) - np.maximum(region.y_low_um, y_low)
    return np.clip(width, 0.0, None) * np.clip(height, 0.0, None)


def _twin(
    region: Region,
    chosen: Sequence[Rescan],
    overlap_um2: np.ndarray,
    edges: np.ndarray,
    same_area: float,
) -> Rescan | None:
    """Return the first chosen rescan of mostly the same area, if there is one."""
    x_low, x_high, y_low, y_high = edges.T
    smaller_um2 = np.minimum(
        region.width_um * region.height_um, (x_high - x_low) * (y_high - y_low)
    )
    same = overlap_um2 > same_area * smaller_um2
    return chosen[int(same.argmax())] if same.any() else None


def _tour(rescans: Sequence[Rescan], start_um: tuple[float, float]) -> list[Rescan]:
    """Go to the nearest rescan each time, then improve the open path by 2-opt."""
    if not rescans:
        return []
    ordered = sorted(rescans, key=lambda rescan: rescan.region.key)
    places = np.array([_center(rescan) for rescan in ordered])
    left, path, here = np.ones(len(ordered), dtype=bool), [], np.asarray(start_um)
    for _ in ordered:
        away = np.hypot(*(places - here).T)
        nearest = int(np.where(left, away, np.inf).argmin())
        left[nearest] = False
        path.append(nearest)
        here = places[nearest]
    if 2 < len(path) <= _MAX_TWO_OPT:
        path = _two_opt(path, places, np.asarray(start_um))
    return [ordered[index] for index in path]


def _two_opt(path: list[int], places: np.ndarray, start_um: np.ndarray) -> list[int]:
    """Turn around the stretch of an open path that shortens it most, as long as one does."""
    # Stop 0 is the start.
    stops = np.vstack([start_um, places])
    away = np.hypot(*np.moveaxis(stops[:, None] - stops, -1, 0))
    order = np.array([0, *(index + 1 for index in path)])
    while True:
        before, after = order[:-1], order[1:]
        steps = away[before, after]
        # [first, last]: what turning the stops from first to last around changes. The last stop
        # of an open path has no way on.
        change = away[before[:, None], after] - steps[:, None]
        change[:, :-1] += away[after[:, None], after[1:]] - steps[1:]
        change[np.tril_indices(len(after))] = np.inf
        first, last = np.unravel_index(change.argmin(), change.shape)
        if change[first, last] >= -1e-9:
            return (order[1:] - 1).tolist()
        order[first + 1 : last + 2] = order[first + 1 : last + 2][::-1].copy()


def _center(rescan: Rescan) -> tuple[float, float]:
    return rescan.region.x_center_um, rescan.region.y_center_um
