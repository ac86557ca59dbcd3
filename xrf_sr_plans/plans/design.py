"""Designs: what a plan would fly, what it costs and what forbids it, before anything moves.

There is one function per kind of plan which makes its design: `design_map` and
`design_coarse_maps` here, `rescan.design_rescans`, `pair.design_pair` and
`region_pairs.design_pairs`. The plan refuses or flies what that function returns, and `preview`
shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError, GridError, RefusedError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import FACTORS, MOST_PROBE_STEPS, Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.arguments import refusal
from xrf_sr_plans.plans.placed_grid import rescan_reach_um
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import SingleMapRequest, SurveyRequest
from xrf_sr_plans.plans.rescan_problems import rescan_problems
from xrf_sr_plans.plans.row_pixels import SQUARES, RowPixels
from xrf_sr_plans.plans.stage_state import stage_state
from xrf_sr_plans.plans.tiles import Tile, split_into_tiles
from xrf_sr_plans.plans.two_stages import center_problems, grid_extents_um, region_way_s
from xrf_sr_plans.plans.worth import rescans_limit_s, whole_map_s, worth_notes


@dataclass(frozen=True)
class PlannedMap:
    """One map that would be flown; `what` tells it from the other maps of its design.

    `dwell_ms` is the time at each pixel. `time_s` is its beam time in seconds, and `dose` is in
    the beamline's unit (`preflight.dose_unit`). Of `fast_pixels` pixels each step along the fast
    axis consists.
    """

    what: str
    grid: ScanGrid
    dwell_ms: float
    time_s: float
    dose: float
    fast_pixels: Factor = 1


@dataclass(frozen=True, kw_only=True)
class Design:
    """The maps that one plan would fly.

    Attributes
    ----------
    maps
        In the order of flight.
    time_s
        Beam time of all maps together, in seconds.
    dose
        Highest dose that any point of the sample would get, in the beamline's unit.
    problems
        What forbids to fly it; empty where the plan would start.
    notes
        What else a person should know.
    """

    maps: tuple[PlannedMap, ...]
    time_s: float
    dose: float
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def refused(cls, problems: Iterable[Problem]) -> Design:
        """Return a design without any map, because there isn't even a grid to speak of."""
        return Design(maps=(), time_s=0.0, dose=0.0, problems=tuple(problems))


@dataclass(frozen=True, kw_only=True)
class SurveyDesign(Design):
    """The coarse part of a survey, which is known before it is flown; the rescans are not.

    Attributes
    ----------
    grid
        The pixels of the whole survey, as they are read out.
    tiles
        The maps that it is flown as.
    analysis
        What the analysis is asked; None where `problems` say that it can't be asked that.
    fine_step_um, fine_dwell_ms
        How the rescans would be flown.
    whole_s
        Seconds that a fine map of everything would take.
    rescans_limit_s
        Seconds that all rescans may take together.
    """

    grid: ScanGrid
    tiles: tuple[Tile, ...]
    analysis: schema.AnalysisRequest | None
    fine_step_um: float
    fine_dwell_ms: float
    whole_s: float
    rescans_limit_s: float


def planned_map(
    beamline: Beamline,
    what: str,
    squares: ScanGrid,
    step_dwell_ms: float,
    pixels: RowPixels = SQUARES,
) -> PlannedMap:
    """Return one map with what it costs on this beamline.

    Parameters
    ----------
    beamline
        Its flux and time model count.
    what
        What tells the map from the others of its design.
    squares
        Its pixels before the rows are read out more finely.
    step_dwell_ms
        Time at each of these in ms.
    pixels
        How the rows are read out.
    """
    grid, dwell_ms = pixels.of(squares), pixels.dwell_ms(step_dwell_ms)
    cost = preflight.map_cost(beamline, grid, dwell_ms)
    return PlannedMap(what, grid, dwell_ms, cost.time_s, cost.dose, pixels.number)


def design_map(beamline: Beamline, request: SingleMapRequest) -> Design:
    """Return the design of a single map.

    Raises
    ------
    RefusedError
        If there isn't even a grid to speak of. All else is in the design's `problems`.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        grid = request.pixels(beamline)
        pixels = request.row_pixels(beamline, grid)
    planned = planned_map(beamline, "map", grid, request.dwell_ms, pixels)
    problems += [*pixels.problems, *_flight_problems(beamline, [planned], request)]
    return Design(
        maps=(planned,),
        time_s=planned.time_s,
        dose=planned.dose,
        problems=_once(problems),
        notes=(pixels.note,) if pixels.note else (),
    )


def design_coarse_maps(beamline: Beamline, request: SurveyRequest) -> SurveyDesign:
    """Return the design of a survey's coarse part.

    Raises
    ------
    RefusedError
        If there isn't even a grid to speak of. All else is in the design's `problems`.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        grid = request.area.grid(beamline, request.dwell_ms)
    # Cut as squares, so that every step of a row lies in one tile as a whole.
    squares, tile_problems = _tiles(beamline, grid, request.tile_um)
    pixels = request.row_pixels(beamline, [tile.grid for tile in squares])
    problems += [*tile_problems, *pixels.problems]
    titles = [f"tile {number}/{len(squares)}" for number in range(1, len(squares) + 1)]
    maps = tuple(
        planned_map(beamline, title, tile.grid, request.dwell_ms, pixels)
        for title, tile in zip(titles if len(squares) > 1 else ["survey"], squares, strict=True)
    )
    tiles = [
        Tile(planned.grid, tile.first_row, tile.first_column * pixels.number)
        for planned, tile in zip(maps, squares, strict=True)
    ]
    time_s = sum(planned.time_s for planned in maps)
    problems += _flight_problems(beamline, maps, request)
    analysis, analysis_problems = _analysis(request)
    problems += [*_survey_problems(beamline, request), *analysis_problems]
    fine_step_um = request.fine_step_um
    if fine_step_um is None:
        factor = request.factor if request.factor in FACTORS else FACTORS[0]
        fine_step_um = request.step_um / factor
    fine_dwell_ms = request.dwell_ms if request.fine_dwell_ms is None else request.fine_dwell_ms
    fine = {"fine_step_um": fine_step_um, "fine_dwell_ms": fine_dwell_ms}
    whole_s = whole_map_s(beamline, [tile.grid for tile in tiles], fine_step_um, fine_dwell_ms)
    limit_s = rescans_limit_s(request.budget_s, time_s, whole_s)
    if analysis is not None:
        rescans = rescan_problems(
            beamline,
            grid,
            fine_step_um=fine_step_um,
            dwell_ms=fine_dwell_ms,
            min_size_um=request.min_size_um,
        )
        # What forbids the survey itself is told once.
        told = {f"rescans: {problem.text}" for problem in problems}
        problems += [problem for problem in rescans if problem.text not in told]
        if not problems:
            analysis = _with_rescans(
                analysis, beamline, grid, fine_step_um, fine_dwell_ms, budget_s=limit_s
            )
    return SurveyDesign(
        maps=maps,
        time_s=time_s,
        dose=maps[0].dose,
        problems=_once(problems),
        notes=(
            *((pixels.note,) if pixels.note else ()),
            *_survey_notes(beamline, request, fine_step_um, time_s),
            *worth_notes(request.factor, request.budget_s, time_s, whole_s),
            *_stage_note(beamline, analysis),
            *_time_note(beamline, request, time_s, fine),
            *_dose_note(beamline, request, maps[0].dose, fine),
        ),
        grid=pixels.of(grid),
        tiles=tuple(tiles),
        analysis=analysis,
        fine_step_um=fine_step_um,
        fine_dwell_ms=fine_dwell_ms,
        whole_s=whole_s,
        rescans_limit_s=limit_s,
    )


@contextmanager
def told_with(problems: Iterable[Problem]) -> Iterator[None]:
    """Have a refusal in this context tell `problems` too, which were found before."""
    try:
        yield
    except RefusedError as error:
        reasons = error.reasons or (str(error),)
        preflight.refuse([*problems, *(Problem(type(error), reason) for reason in reasons)])


def _flight_problems(
    beamline: Beamline, maps: Sequence[PlannedMap], request: SingleMapRequest | SurveyRequest
) -> list[Problem]:
    """Return what forbids to fly all `maps`, which share step and dwell."""
    problems = center_problems(beamline)
    for planned in maps:
        problems += preflight.map_problems(beamline, planned.grid, planned.dwell_ms)
    cost = preflight.map_cost(beamline, maps[0].grid, maps[0].dwell_ms)
    time_s = sum(planned.time_s for planned in maps)
    problems += preflight.budget_problems(
        time_s, cost, budget_s=request.budget_s, max_dose=request.max_dose
    )
    return problems


def _tiles(
    beamline: Beamline, grid: ScanGrid, tile_um: float | None
) -> tuple[list[Tile], list[Problem]]:
    """Return the tiles of a survey, or one tile and why it can't be cut as asked."""
    try:
        return split_into_tiles(grid, largest_tile_um(beamline, tile_um)), []
    except RefusedError as error:
        return [Tile(grid, 0, 0)], [Problem(type(error), str(error))]


def largest_tile_um(beamline: Beamline, tile_um: float | None) -> tuple[float, float] | None:
    """Return the largest tile: the smaller of what is asked for and what the flyer reaches."""
    if tile_um is None:
        return beamline.reach_um
    reach = beamline.reach_um or (math.inf, math.inf)
    return min(tile_um, reach[0]), min(tile_um, reach[1])


def _analysis(request: SurveyRequest) -> tuple[schema.AnalysisRequest | None, list[Problem]]:
    """Return what the analysis is asked, or why it can't be asked that."""
    names = {name for name in schema.AnalysisRequest.model_fields if hasattr(request, name)}
    # None stands for the usual weights.
    names -= {"worth"} if request.worth is None else set()
    try:
        return schema.AnalysisRequest(**{name: getattr(request, name) for name in names}), []
    except ValidationError as error:
        return None, [
            Problem(ConfigError, refusal(str(wrong["loc"][0]), wrong["input"], wrong))
            for wrong in error.errors()
        ]


def _with_rescans(
    analysis: schema.AnalysisRequest,
    beamline: Beamline,
    grid: ScanGrid,
    fine_step_um: float,
    fine_dwell_ms: float,
    *,
    budget_s: float,
) -> schema.AnalysisRequest:
    """Return the request with what rescans cost, and with the beam time that they may take."""
    rows = beamline.rescanning.time_model
    rescans = schema.RescanModel(
        step_um=fine_step_um,
        dwell_ms=fine_dwell_ms * rows.dwell_scale,
        row_overhead_s=rows.overhead_s,
        region_overhead_s=region_way_s(beamline, grid_extents_um(grid)),
        budget_s=budget_s,
        reach_um=rescan_reach_um(beamline, fine_step_um, fine_dwell_ms),
        stage=stage_state(beamline),
    )
    return analysis.model_copy(update={"rescans": rescans})


def _survey_problems(beamline: Beamline, request: SurveyRequest) -> list[Problem]:
    """Return what forbids the survey apart from the flight of its tiles."""
    problems = []
    step_um, fine_step_um = request.step_um, request.fine_step_um
    if fine_step_um is not None and fine_step_um > step_um * (1 + 1e-9):
        text = f"fine_step_um {fine_step_um:g} is larger than step_um {step_um:g}"
        problems.append(Problem(GridError, text))
    probe_um = beamline.probe_fwhm_um or 0.0
    if probe_um > MOST_PROBE_STEPS * step_um:
        text = (
            f"the probe of {beamline.name}, {probe_um:g} um, is {probe_um / step_um:g} steps wide;"
            f" nothing is enhanced above {MOST_PROBE_STEPS}. Are the units right?"
        )
        problems.append(Problem(ConfigError, text))
    if request.rescan == "queue" and beamline.rescan_queue is None:
        text = f"rescan is 'queue', but {beamline.name} has no rescan_queue to queue with"
        problems.append(Problem(ConfigError, text))
    if request.rescan == "ask" and beamline.approvals is None:
        text = f"rescan is 'ask', but {beamline.name} has no approvals to ask with"
        problems.append(Problem(ConfigError, text))
    return problems


def _survey_notes(
    beamline: Beamline, request: SurveyRequest, fine_step_um: float, time_s: float
) -> Iterable[str]:
    what = "whatever stands out" if request.find is None else f"what matches {request.find!r}"
    yield f"rescans ({request.rescan}) at {fine_step_um:g} um of {what}"
    if request.rescan == "ask":
        at_most = f"{request.approval_timeout_s:g} s"
        yield f"somebody is asked for at most {at_most}; undecided then: {request.undecided}"
    if request.budget_s is not None:
        yield f"{max(request.budget_s - time_s, 0.0):.1f} s left for rescans"
    if beamline.analysis is None:
        yield "no analysis device: nothing will be enhanced, no region proposed"


def _stage_note(beamline: Beamline, analysis: schema.AnalysisRequest | None) -> Iterable[str]:
    """Yield a note where another stage than that of the survey flies the rescans."""
    fine, rescans = beamline.fine, None if analysis is None else analysis.rescans
    if fine is not None and rescans is not None and rescans.reach_um is not None:
        width_um, height_um = rescans.reach_um
        yield (
            f"rescans are flown by {fine.fast.name!r} and {fine.slow.name!r}, at most"
            f" {width_um:g} x {height_um:g} um each"
        )


def _time_note(
    beamline: Beamline, request: SurveyRequest, time_s: float, fine: Mapping[str, float]
) -> Iterable[str]:
    """Yield a note where the survey itself, of `time_s`, leaves too little time for any rescan."""
    if request.budget_s is None:
        return
    side_um = max(request.min_size_um, fine["fine_step_um"])
    pixels = math.ceil(side_um / fine["fine_step_um"] - 1e-6)
    rows = beamline.rescanning.time_model
    needed_s = pixels * rows.row_s(pixels, fine["fine_dwell_ms"])
    left_s = request.budget_s - time_s
    if 0 <= left_s < needed_s:
        yield (
            f"budget_s leaves {left_s:.3g} s for rescans, the smallest of which needs"
            f" {needed_s:.3g}: every region will be refused"
        )


def _dose_note(
    beamline: Beamline, request: SurveyRequest, dose: float, fine: Mapping[str, float]
) -> Iterable[str]:
    """Yield a note where the survey's own `dose` leaves too little for any rescan."""
    if request.max_dose is None:
        return
    needed = preflight.dose(beamline, fine["fine_step_um"] ** 2, fine["fine_dwell_ms"])
    left = request.max_dose - dose
    if 0 <= left < needed:
        yield (
            f"max_dose leaves {left:.3g} {preflight.dose_unit(beamline)} for rescans, which need"
            f" {needed:.3g}: every region will be refused"
        )


def _once(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return each problem once, in order: tiles often have the same one."""
    return tuple({problem.text: problem for problem in problems}.values())
