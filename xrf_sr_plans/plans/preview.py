"""`preview`: what a plan would do. Nothing moves, nothing is asked of the RunEngine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.arguments import checked_arguments
from xrf_sr_plans.plans.design import Area, Design, SurveyWishes, design_map, design_survey
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.plans.paired import Pair, acquire_pair, collect_pairs, pair_of, pairs_of
from xrf_sr_plans.plans.rescan import FineMaps, read_regions, rescan_regions
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.xrf_map import grid_start_stop, xrf_map, xrf_map_start_stop


@dataclass(frozen=True)
class MapPreview:
    """One map that would be flown."""

    what: str
    grid: ScanGrid
    time_s: float
    dose: float


@dataclass(frozen=True)
class Preview:
    """What a plan would fly, what it costs, and what forbids it; ``str()`` gives a table."""

    plan: str
    maps: tuple[MapPreview, ...]
    time_s: float
    dose: float
    dose_unit: str
    limits_um: Mapping[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the plan would start."""
        return not self.problems

    def __str__(self) -> str:
        """Return a table for a person."""
        lines = [f"{self.plan}: {'would start' if self.allowed else 'would be REFUSED'}"]
        for one in self.maps:
            fast, slow = one.grid.fast, one.grid.slow
            lines.append(
                f"  {one.what:<10} {fast.num:>5} x {slow.num:<5} pixels of {fast.step_um:g} um"
                f"  {fast.name} {fast.low_um:g}..{fast.high_um:g}"
                f"  {slow.name} {slow.low_um:g}..{slow.high_um:g} um  {one.time_s:8.1f} s"
            )
        lines.append(f"  time {self.time_s:.1f} s, dose {self.dose:.3g} {self.dose_unit}")
        lines += [f"  {axis}: {text}" for axis, text in self.limits_um.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  refused: {problem}" for problem in self.problems]
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at an IPython prompt."""
        printer.text("Preview(...)" if cycle else str(self))


def preview(plan: Callable[..., Any], *args: Any, **kwargs: Any) -> Preview:
    """Return what ``plan(*args, **kwargs)`` would do.

    Parameters
    ----------
    plan
        A plan of this package, or one of those that `session.bind_plans` made.

    Raises
    ------
    RefusedError
        There isn't even a grid to speak of (NaN, no points, a malformed region).
    ConfigError
        A plan that isn't known.
    TypeError
        Arguments that the plan doesn't take.
    """
    bound_to: Beamline | None = getattr(plan, "beamline", None)
    if inspect.isgenerator(plan):
        raise ConfigError(
            f"preview({plan.__name__}(...)): give the plan and its arguments apart, as in"
            f" preview({plan.__name__}, ...)"
        )
    original = inspect.unwrap(plan) if callable(plan) else None
    name = getattr(original, "__name__", "")
    if original is None or name not in _DESIGNERS:
        known = ", ".join(sorted(_DESIGNERS))
        raise ConfigError(f"no preview of {name or plan!r}; there is one of {known}")
    if bound_to is not None:
        args, kwargs = (), checked_arguments(name, inspect.signature(plan), args, kwargs)
    arguments = inspect.signature(original).bind(*([bound_to] if bound_to else []), *args, **kwargs)
    arguments.apply_defaults()
    given = dict(arguments.arguments)
    beamline: Beamline = given.pop("beamline")
    return _DESIGNERS[name](beamline, given)


def _survey(beamline: Beamline, given: dict[str, Any]) -> Preview:
    area = Area(**_take(given, Area))
    wishes = SurveyWishes(area, **_take(given, SurveyWishes))
    design = design_survey(beamline, wishes)
    what = "whatever stands out" if wishes.find is None else f"what matches {wishes.find!r}"
    notes = [f"rescans ({wishes.rescan}) at {design.fine_step_um:g} um of {what}"]
    if wishes.budget_s is not None:
        notes.append(f"{max(wishes.budget_s - design.time_s, 0.0):.1f} s left for rescans")
    if beamline.analysis is None:
        notes.append("no analysis device: nothing will be enhanced, no region proposed")
    return _from_design("coarse_survey_with_sr", beamline, design, notes)


def _centred(beamline: Beamline, given: dict[str, Any]) -> Preview:
    grid = Area(**_take(given, Area)).grid(beamline, given["dwell_ms"])
    return _single("xrf_map", beamline, grid, given)


def _start_stop(beamline: Beamline, given: dict[str, Any]) -> Preview:
    names = ("x_start_um", "x_stop_um", "x_num", "y_start_um", "y_stop_um", "y_num")
    spans = {name: given[name] for name in names}
    grid = grid_start_stop(beamline, spans, given["dwell_ms"])
    return _single("xrf_map_start_stop", beamline, grid, given)


def _grid(beamline: Beamline, given: dict[str, Any]) -> Preview:
    return _single("fly_map", beamline, given["grid"], given)


def _single(name: str, beamline: Beamline, grid: ScanGrid, given: Mapping[str, Any]) -> Preview:
    costs = {key: given[key] for key in ("dwell_ms", "budget_s", "max_dose")}
    return _from_design(name, beamline, design_map(beamline, grid, **costs))


def _rescans(beamline: Beamline, given: dict[str, Any]) -> Preview:
    maps = FineMaps(beamline, given["fine_step_um"], given["dwell_ms"])
    possible, refused = maps.candidates(read_regions(given["regions"], given["parent_uid"]))
    previews = tuple(
        MapPreview(one.region.key[:8], one.grid, one.time_s, one.dose) for one in possible
    )
    return Preview(
        "rescan_regions",
        previews,
        sum(one.time_s for one in previews),
        max((one.dose for one in previews), default=0.0),
        preflight.dose_unit(beamline),
        _limits(beamline),
        tuple(f"region {one.region.key[:8]}: {one.reason}" for one in refused),
    )


def _pair(beamline: Beamline, given: dict[str, Any]) -> Preview:
    return _of_pairs("acquire_pair", beamline, [pair_of(beamline, **_pair_wishes(given))], given)


def _pairs(beamline: Beamline, given: dict[str, Any]) -> Preview:
    pairs = [pair for _, pair in pairs_of(beamline, given["regions"], **_pair_wishes(given))]
    return _of_pairs("collect_pairs", beamline, pairs, given)


def _pair_wishes(given: Mapping[str, Any]) -> dict[str, Any]:
    others = ("regions", "budget_s", "max_dose")
    return {name: value for name, value in given.items() if name not in others}


def _of_pairs(
    name: str, beamline: Beamline, pairs: Sequence[Pair], given: Mapping[str, Any]
) -> Preview:
    maps, problems = [], []
    left_s = given["budget_s"]
    for pair in pairs:
        problems += pair.problems(left_s, given["max_dose"])
        for factor, grid, dwell_ms in pair.flights():
            cost = preflight.map_cost(beamline, grid, dwell_ms)
            what = "fine" if factor == 1 else f"coarse {factor}x"
            maps.append(MapPreview(what, grid, cost.time_s, cost.dose))
        if left_s is not None:
            left_s = max(left_s - pair.time_s(), 0.0)
    return Preview(
        name,
        tuple(maps),
        sum(one.time_s for one in maps),
        max((pair.dose() for pair in pairs), default=0.0),
        preflight.dose_unit(beamline),
        _limits(beamline),
        tuple(dict.fromkeys(problem.text for problem in problems)),
    )


_DESIGNERS: dict[str, Callable[[Beamline, dict[str, Any]], Preview]] = {
    coarse_survey_with_sr.__name__: _survey,
    xrf_map.__name__: _centred,
    xrf_map_start_stop.__name__: _start_stop,
    fly_map.__name__: _grid,
    rescan_regions.__name__: _rescans,
    acquire_pair.__name__: _pair,
    collect_pairs.__name__: _pairs,
}


def _take(given: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in kind.__dataclass_fields__}


def _from_design(
    name: str, beamline: Beamline, design: Design, notes: list[str] | None = None
) -> Preview:
    count = len(design.tiles)
    maps = []
    for index, tile in enumerate(design.tiles):
        cost = preflight.map_cost(beamline, tile.grid, design.dwell_ms)
        what = design.title if count == 1 else f"tile {index + 1}/{count}"
        maps.append(MapPreview(what, tile.grid, cost.time_s, cost.dose))
    return Preview(
        name,
        tuple(maps),
        design.time_s,
        design.cost.dose,
        design.cost.dose_unit,
        _limits(beamline),
        tuple(problem.text for problem in design.problems),
        tuple(notes or ()),
    )


def _limits(beamline: Beamline) -> dict[str, str]:
    limits = {}
    for axis, is_fast in ((beamline.fast, True), (beamline.slow, False)):
        facts = axis_facts(axis)
        box = preflight.allowed_box(beamline, facts, is_fast=is_fast)
        limits[facts.name] = (
            box.text
            if isinstance(box, preflight.Problem)
            else f"{box.low_um:g}..{box.high_um:g} um ({box.source})"
        )
    return limits
