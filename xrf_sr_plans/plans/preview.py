"""`preview`: what a plan would do. Nothing moves, nothing is asked of the RunEngine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.approved import design_approved, rescan_approved
from xrf_sr_plans.plans.arguments import checked_arguments
from xrf_sr_plans.plans.collect import collect_pairs
from xrf_sr_plans.plans.collect_requests import ResumeRequest, SurveyAndCollectRequest
from xrf_sr_plans.plans.design import Design, PlannedMap, SurveyDesign, design_map
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.plans.pair import acquire_pair, design_pair
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.region_pairs import design_pairs
from xrf_sr_plans.plans.request import (
    AnyRequest,
    ApprovedRequest,
    CollectRequest,
    GridRequest,
    MapRequest,
    PairRequest,
    RescanRequest,
    StartStopRequest,
    SurveyWish,
)
from xrf_sr_plans.plans.rescan import design_rescans, rescan_regions
from xrf_sr_plans.plans.resume_collection import design_resumed, resume_collection
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.survey_and_collect import (
    design_survey_and_pairs,
    survey_and_collect_pairs,
)
from xrf_sr_plans.plans.survey_choice import settled_survey
from xrf_sr_plans.plans.xrf_map import xrf_map, xrf_map_start_stop


class Previewed(NamedTuple):
    """What `preview` needs to know of a plan: the kind of its request, and who designs it."""

    request: type[AnyRequest]
    design: Callable[[Beamline, Any], Design]


def _design_of_survey(beamline: Beamline, wish: SurveyWish) -> SurveyDesign:
    """Return the design of a survey, of which something may be left open."""
    return settled_survey(beamline, wish).design


PREVIEWED: dict[str, Previewed] = {
    coarse_survey_with_sr.__name__: Previewed(SurveyWish, _design_of_survey),
    xrf_map.__name__: Previewed(MapRequest, design_map),
    xrf_map_start_stop.__name__: Previewed(StartStopRequest, design_map),
    fly_map.__name__: Previewed(GridRequest, design_map),
    rescan_regions.__name__: Previewed(RescanRequest, design_rescans),
    rescan_approved.__name__: Previewed(ApprovedRequest, design_approved),
    acquire_pair.__name__: Previewed(PairRequest, design_pair),
    collect_pairs.__name__: Previewed(CollectRequest, design_pairs),
    survey_and_collect_pairs.__name__: Previewed(SurveyAndCollectRequest, design_survey_and_pairs),
    resume_collection.__name__: Previewed(ResumeRequest, design_resumed),
}
"""The plans that can be previewed, by name."""


@dataclass(frozen=True)
class Preview:
    """What a plan would fly, what it costs, and what forbids it; ``str()`` gives a table.

    Attributes
    ----------
    plan
        Name of the plan.
    maps
        The maps that would be flown, in order. Those of a survey are its coarse tiles only.
    time_s
        Beam time of all maps together, in seconds.
    dose
        Highest dose that any point of the sample would get.
    dose_unit
        Unit of the doses.
    limits_um
        How far each axis may go, in words, by name of the axis.
    problems
        What forbids the plan; empty where it would start.
    notes
        What else a person should know.
    """

    plan: str
    maps: tuple[PlannedMap, ...]
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
        lines = [f"{self.plan}: {'would start' if self.allowed else 'would be REFUSED'}"]
        for planned in self.maps:
            grid = planned.grid
            fast, slow = grid.fast, grid.slow
            lines.append(
                f"  {planned.what:<10} {fast.num:>5} x {slow.num:<5} pixels of {_size(grid)} um"
                f"  {fast.name} {fast.low_um:g}..{fast.high_um:g}"
                f"  {slow.name} {slow.low_um:g}..{slow.high_um:g} um  {planned.time_s:8.1f} s"
            )
        lines.append(f"  time {self.time_s:.1f} s, dose {self.dose:.3g} {self.dose_unit}")
        lines += [f"  {axis}: {text}" for axis, text in self.limits_um.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  refused: {problem}" for problem in self.problems]
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at an IPython prompt."""
        printer.text("Preview(...)" if cycle else str(self))


def _size(grid: ScanGrid) -> str:
    """Return the size of a pixel in um as text: one number where it is square."""
    fast_um, slow_um = f"{grid.fast.step_um:g}", f"{grid.slow.step_um:g}"
    return fast_um if fast_um == slow_um else f"{fast_um} x {slow_um}"


def preview(plan: Callable[..., Any], *args: Any, **kwargs: Any) -> Preview:
    """Return what ``plan(*args, **kwargs)`` would do.

    Parameters
    ----------
    plan
        A plan of this package, or one of those that `bind_plans` returned.
    *args, **kwargs
        The arguments of the plan.

    Raises
    ------
    ConfigError
        If the plan is not one that can be previewed, or if values are of a wrong type. All else
        that forbids the plan is in the preview's `problems`.
    TypeError
        If the plan doesn't take these arguments.
    """
    name, beamline, request = asked_of(plan, args, kwargs)
    try:
        design = PREVIEWED[name].design(beamline, request)
    except RefusedError as error:
        reasons = error.reasons or (str(error),)
        design = Design.refused(Problem(type(error), reason) for reason in reasons)
    return Preview(
        name,
        design.maps,
        design.time_s,
        design.dose,
        preflight.dose_unit(beamline),
        _limits(beamline),
        # Each reason once, as `preflight.refuse` tells them.
        tuple(dict.fromkeys(problem.text for problem in design.problems)),
        design.notes,
    )


def asked_of(
    plan: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[str, Beamline, AnyRequest]:
    """Return a plan's name, its beamline and its request, as ``plan(*args, **kwargs)`` has them.

    Raises
    ------
    ConfigError
        If the plan is not one that can be previewed, or if values are of a wrong type.
    TypeError
        If the plan doesn't take these arguments.
    """
    bound_to: Beamline | None = getattr(plan, "beamline", None)
    if inspect.isgenerator(plan):
        raise ConfigError(
            f"preview({plan.__name__}(...)): give the plan and its arguments apart, as in"
            f" preview({plan.__name__}, ...)"
        )
    original = inspect.unwrap(plan) if callable(plan) else None
    name = getattr(original, "__name__", "")
    if original is None or name not in PREVIEWED:
        known = ", ".join(sorted(PREVIEWED))
        raise ConfigError(f"no preview of {name or plan!r}; there is one of {known}")
    if bound_to is not None:
        kwargs = checked_arguments(name, inspect.signature(plan), args, kwargs)
        args = (bound_to,)
    call = inspect.signature(original).bind(*args, **kwargs)
    call.apply_defaults()
    return (
        name,
        call.arguments["beamline"],
        PREVIEWED[name].request.from_arguments(call.arguments),
    )


def _limits(beamline: Beamline) -> dict[str, str]:
    limits = {}
    for stage in (beamline,) if beamline.fine is None else (beamline, beamline.rescanning):
        for axis, is_fast in ((stage.fast, True), (stage.slow, False)):
            facts = axis_facts(axis)
            box = preflight.allowed_box(stage, facts, is_fast=is_fast)
            limits[facts.name] = (
                box.text
                if isinstance(box, preflight.Problem)
                else f"{box.low_um:g}..{box.high_um:g} um ({box.source})"
            )
    return limits
