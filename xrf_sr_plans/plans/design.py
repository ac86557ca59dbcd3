"""What a survey would do, worked out before anything moves; shared by the plan and `preview`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError, GridError, QueryError, RefusedError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import FACTORS, Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.arguments import refusal
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.tiles import Tile, split_into_tiles
from xrf_sr_plans.rois.query import parse_query


@dataclass(frozen=True)
class Area:
    """A rectangle in the vocabulary of 2-ID: centre (None: here), width, height and step, in um."""

    width_um: float
    height_um: float
    step_um: float
    x_center_um: float | None = None
    y_center_um: float | None = None

    def grid(self, beamline: Beamline, dwell_ms: float) -> ScanGrid:
        """Return the pixels, with the run-up that the axis needs.

        Raises
        ------
        RefusedError
            A number that isn't finite and positive, or a step larger than the area.
        """
        sizes = {name: getattr(self, name) for name in ("width_um", "height_um", "step_um")}
        problems = preflight.number_problems({**sizes, "dwell_ms": dwell_ms})
        fast, slow = axis_facts(beamline.fast), axis_facts(beamline.slow)
        # "Here" to a nanometre: what lies below is encoder noise.
        x_center = round(fast.position_um, 3) if self.x_center_um is None else self.x_center_um
        y_center = round(slow.position_um, 3) if self.y_center_um is None else self.y_center_um
        for facts, center in ((fast, x_center), (slow, y_center)):
            if not math.isfinite(center):
                problems.append(Problem(GridError, f"axis {facts.name!r}: centre is {center} um"))
        preflight.refuse(problems)
        for name in ("width_um", "height_um"):
            if self.step_um > sizes[name] * (1 + 1e-9):
                text = f"step_um {self.step_um:g} is larger than {name} {sizes[name]:g}"
                problems.append(Problem(GridError, text))
        preflight.refuse(problems)
        return ScanGrid.from_center(
            x_center_um=x_center,
            y_center_um=y_center,
            width_um=self.width_um,
            height_um=self.height_um,
            step_um=self.step_um,
            fast=fast.name,
            slow=slow.name,
            run_up_um=preflight.run_up_um(beamline, fast, self.step_um, dwell_ms),
        )


@dataclass(frozen=True)
class Design:
    """One or more maps that belong together: what they cost, and what forbids them."""

    title: str
    grid: ScanGrid
    tiles: tuple[Tile, ...]
    dwell_ms: float
    cost: preflight.MapCost
    time_s: float
    problems: tuple[Problem, ...] = ()
    analysis: schema.AnalysisRequest | None = None
    fine_step_um: float | None = None
    fine_dwell_ms: float | None = None


@dataclass(frozen=True)
class SurveyWishes:
    """Everything a user says about a survey; see `coarse_survey_with_sr` for the meaning."""

    area: Area
    dwell_ms: float
    find: str | None = None
    factor: Factor = 2
    fine_step_um: float | None = None
    fine_dwell_ms: float | None = None
    budget_s: float | None = None
    max_dose: float | None = None
    rescan: schema.RescanMode = "inline"
    tile_um: float | None = None
    pad_um: float = 0.0
    min_size_um: float = 0.0
    max_regions: int = 20
    preview_every_rows: int = 0
    analysis_timeout_s: float = 60.0


def design_map(
    beamline: Beamline,
    grid: ScanGrid,
    dwell_ms: float,
    *,
    title: str = "map",
    tile_um: float | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    tiled: bool = False,
) -> Design:
    """Return the design of a map; what forbids it is in `problems`, never raised."""
    problems: list[Problem] = []
    tiles = [Tile(grid, 0, 0)]
    try:
        if tiled:
            tiles = split_into_tiles(grid, _reach(beamline, tile_um))
    except RefusedError as error:
        problems.append(Problem(type(error), str(error)))
    for tile in tiles:
        problems += preflight.map_problems(beamline, tile.grid, dwell_ms)
    cost = preflight.map_cost(beamline, grid, dwell_ms)
    time_s = sum(preflight.map_cost(beamline, tile.grid, dwell_ms).time_s for tile in tiles)
    problems += preflight.budget_problems(time_s, cost, budget_s=budget_s, max_dose=max_dose)
    return Design(title, grid, tuple(tiles), dwell_ms, cost, time_s, tuple(dict.fromkeys(problems)))


def design_survey(beamline: Beamline, wishes: SurveyWishes) -> Design:
    """Return the design of a survey's coarse part; what forbids it is in `problems`.

    Raises
    ------
    RefusedError
        There isn't even a grid to speak of.
    """
    grid = wishes.area.grid(beamline, wishes.dwell_ms)
    design = design_map(
        beamline,
        grid,
        wishes.dwell_ms,
        title="survey",
        tile_um=wishes.tile_um,
        budget_s=wishes.budget_s,
        max_dose=wishes.max_dose,
        tiled=True,
    )
    problems = [*design.problems, *_wish_problems(beamline, wishes)]
    analysis = None
    try:
        analysis = schema.AnalysisRequest(
            factor=wishes.factor,
            find=wishes.find,
            pad_um=wishes.pad_um,
            min_size_um=wishes.min_size_um,
            max_regions=wishes.max_regions,
            preview_every_rows=wishes.preview_every_rows,
        )
    except ValidationError as error:
        problems += [
            Problem(ConfigError, refusal(str(one["loc"][0]), one["input"], one))
            for one in error.errors()
        ]
    factor = wishes.factor if wishes.factor in FACTORS else FACTORS[0]
    fine_step = wishes.fine_step_um
    return replace(
        design,
        problems=tuple(problems),
        analysis=analysis,
        fine_step_um=wishes.area.step_um / factor if fine_step is None else fine_step,
        fine_dwell_ms=wishes.dwell_ms if wishes.fine_dwell_ms is None else wishes.fine_dwell_ms,
    )


def _reach(beamline: Beamline, tile_um: float | None) -> tuple[float, float] | None:
    """Return the largest tile: the smaller of what is asked for and what the flyer reaches."""
    if tile_um is None:
        return beamline.reach_um
    if not tile_um > 0:
        raise GridError(f"tile_um is {tile_um}; it must be above 0")
    reach = beamline.reach_um or (math.inf, math.inf)
    return min(tile_um, reach[0]), min(tile_um, reach[1])


def _wish_problems(beamline: Beamline, wishes: SurveyWishes) -> list[Problem]:
    numbers: Mapping[str, Any] = {
        "fine_step_um": wishes.fine_step_um,
        "fine_dwell_ms": wishes.fine_dwell_ms,
        "analysis_timeout_s": wishes.analysis_timeout_s,
    }
    problems = preflight.number_problems(numbers)
    step_um, fine_step_um = wishes.area.step_um, wishes.fine_step_um
    if not problems and fine_step_um is not None and fine_step_um > step_um * (1 + 1e-9):
        text = f"fine_step_um {fine_step_um:g} is larger than step_um {step_um:g}"
        problems.append(Problem(GridError, text))
    modes: tuple[Literal["inline", "queue", "propose"], ...] = ("inline", "queue", "propose")
    if wishes.rescan not in modes:
        problems.append(
            Problem(ConfigError, f"rescan is {wishes.rescan!r}; it must be one of {modes}")
        )
    if wishes.rescan == "queue" and beamline.rescan_queue is None:
        text = f"rescan is 'queue', but {beamline.name} has no rescan_queue to queue with"
        problems.append(Problem(ConfigError, text))
    if wishes.find is not None:
        problems += _query_problems(wishes.find, list(beamline.flyer.elements))
    return problems


def _query_problems(find: str, elements: list[str]) -> list[Problem]:
    try:
        unknown = [name for name in parse_query(find).elements if name not in elements]
    except QueryError as error:
        return [Problem(QueryError, str(error))]
    return [
        Problem(QueryError, f"find {find!r}: nobody measures {name!r}; there are {elements}")
        for name in unknown
    ]
