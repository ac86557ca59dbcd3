"""Which way a survey is flown: as it is asked for, or as its time, dose and beamline have it best.

A user says how far rows are apart and how long each step takes, or leaves it to this module, which
compares the ways that there are (`survey_options`) and has each looked at as a whole
(`design.design_coarse_maps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import BudgetError, ConfigError, GridError, RefusedError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.area import Area
from xrf_sr_plans.plans.design import SurveyDesign, design_coarse_maps, largest_tile_um
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import USUAL_FACTOR, SurveyRequest, SurveyWish
from xrf_sr_plans.plans.row_pixels import AS_ASKED
from xrf_sr_plans.plans.survey_options import (
    USUAL_COUNTS_PER_S,
    Asked,
    Flight,
    SurveyOption,
    Way,
    survey_option,
    ways_of,
)
from xrf_sr_plans.plans.tiles import split_into_tiles
from xrf_sr_plans.sr.expected_error import ErrorTable, shipped_errors


@dataclass(frozen=True)
class SettledSurvey:
    """A survey of which everything is settled that its plan had left open.

    Attributes
    ----------
    request
        What is flown.
    design
        Its coarse part.
    options
        The ways that were compared, the best first; empty where nothing was left open.
    """

    request: SurveyRequest
    design: SurveyDesign
    options: tuple[SurveyOption, ...] = ()

    def derived_input(self) -> dict[str, list[str]]:
        """Return what was worked out, for start documents: nothing where nothing was open."""
        if not self.options:
            return {}
        return {"compared": [option.line() for option in self.options]}


def settled_survey(beamline: Beamline, wish: SurveyWish) -> SettledSurvey:
    """Return what a survey flies, and its design.

    Raises
    ------
    RefusedError
        If there isn't even a grid to speak of, if what was left open can't be settled, or if
        nothing that could be flown keeps within `time_s`. All else is in the design's `problems`.
    """
    problems = wish.problems(beamline)
    if wish.is_settled and wish.step_um is not None and wish.dwell_ms is not None:
        request = wish.settled(
            step_um=wish.step_um,
            dwell_ms=wish.dwell_ms,
            factor=wish.asked_factor or USUAL_FACTOR,
            sampling=wish.sampling,
        )
        return SettledSurvey(request, design_coarse_maps(beamline, request))
    preflight.refuse([*problems, *_open_questions(wish)])
    looks = _compared(beamline, wish, shipped_errors())
    best = next((look for look in looks if look.settled is not None), None)
    if best is None or best.settled is None:
        preflight.refuse(look.refusal for look in looks if look.refusal is not None)
        raise BudgetError(f"{_bounds(wish)}: there is no way to keep that")
    options = tuple(look.option for look in looks)
    design = best.settled.design
    notes = (*option_notes(best.option, options), *design.notes)
    return SettledSurvey(best.settled.request, replace(design, notes=notes), options)


def survey_options(
    beamline: Beamline, wish: SurveyWish, table: ErrorTable
) -> tuple[SurveyOption, ...]:
    """Return the ways that a survey can be flown, the best first, as `table` expects them to be.

    Raises
    ------
    RefusedError
        If something is wrong with what is asked, or if too little is asked.
    """
    preflight.refuse([*wish.problems(beamline), *_open_questions(wish)])
    return tuple(look.option for look in _compared(beamline, wish, table))


def option_notes(chosen: SurveyOption, options: Iterable[SurveyOption]) -> Iterator[str]:
    """Yield what a person should know of a choice: what is flown, and all that was compared."""
    yield (
        f"flown as {chosen.way}, {chosen.dwell_ms:.4g} ms at each step of {chosen.step_um:g} um:"
        f" {chosen.expected_db:.1f} dB expected"
    )
    yield from (f"compared: {option.line()}" for option in options)


@dataclass(frozen=True)
class _Look:
    """One way, with what would be flown or else with why it can't be looked at as a whole."""

    option: SurveyOption
    settled: SettledSurvey | None = None
    refusal: Problem | None = None


def _compared(beamline: Beamline, wish: SurveyWish, table: ErrorTable) -> list[_Look]:
    """Return all ways that are as asked, the best first."""
    ways = ways_of(beamline, wish.asked_factor, wish.sampling)
    looks = [_look_at(beamline, wish, way, table) for way in ways]
    return sorted(looks, key=lambda look: look.option.rank)


def _open_questions(wish: SurveyWish) -> Iterator[Problem]:
    """Yield a problem for each thing that is needed to settle what is left open."""
    if wish.step_um is None and wish.fine_step_um is None:
        text = "step_um is not given; then fine_step_um is needed, and time_s or max_dose"
        yield Problem(GridError, text)
    if wish.dwell_ms is None and wish.time_s is None and wish.max_dose is None:
        text = "dwell_ms is not given; then time_s or max_dose is needed"
        yield Problem(ConfigError, text)


def _bounds(wish: SurveyWish) -> str:
    """Return what bounds a survey, in words."""
    bounds = {"time_s": wish.time_s, "max_dose": wish.max_dose, "dwell_ms": wish.dwell_ms}
    return ", ".join(f"{name} {value:.4g}" for name, value in bounds.items() if value is not None)


def _look_at(beamline: Beamline, wish: SurveyWish, way: Way, table: ErrorTable) -> _Look:
    """Return one way, designed as a whole where it can be fast enough."""
    # `_open_questions` has seen to it that there is one.
    fine_step_um = wish.result_step_um or 0.0
    asked = Asked(
        fine_step_um=fine_step_um,
        time_s=wish.time_s,
        max_dose=wish.max_dose,
        dwell_ms=wish.dwell_ms,
        counts_per_s=USUAL_COUNTS_PER_S if wish.counts_per_s is None else wish.counts_per_s,
    )
    step_um = fine_step_um * way.factor if wish.step_um is None else wish.step_um
    try:
        flight = Flight.of(_maps(beamline, wish, step_um))
        option = survey_option(beamline, asked, way, flight, table)
        if option.problem:
            text = f"{_bounds(wish)} can't be kept by {way}, which {option.problem}"
            return _Look(option, refusal=Problem(BudgetError, text))
        request = wish.settled(
            step_um=step_um, dwell_ms=option.dwell_ms, factor=way.factor, sampling=way.sampling
        )
        design = design_coarse_maps(beamline, request)
    except RefusedError as error:
        option = SurveyOption.impossible(way, step_um, str(error))
        return _Look(option, refusal=Problem(type(error), str(error)))
    if wish.sampling is None:
        # Nobody but this module has asked for squares.
        notes = tuple(note for note in design.notes if note != AS_ASKED)
        design = replace(design, notes=notes)
    problem = "; ".join(problem.text for problem in design.problems)
    return _Look(replace(option, problem=problem), SettledSurvey(request, design))


def _maps(beamline: Beamline, wish: SurveyWish, step_um: float) -> list[ScanGrid]:
    """Return the maps of a survey with rows so far apart, in square pixels."""
    # The dwell time, hence the run-up, changes nothing about the pixels.
    center = wish.x_center_um, wish.y_center_um
    grid = Area(wish.width_um, wish.height_um, step_um, *center).grid(beamline, dwell_ms=1.0)
    return [tile.grid for tile in split_into_tiles(grid, largest_tile_um(beamline, wish.tile_um))]
