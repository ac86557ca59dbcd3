"""Requests: what was asked of a plan, as one frozen object per plan.

A plan's signature is the one place where parameters, their types and their defaults are listed
for the user and for the queue server. A request has a field for each of them. The first statement
of a plan makes its request (`PlanRequest.from_arguments`), and so does `preview`. Design, flight
and metadata are given the request, never the parameters one by one.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Self

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.measurement import (
    COARSER_FACTORS,
    FACTORS,
    CoarserFactor,
    Factor,
    alternatives,
    not_allowed,
)
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.area import Area
from xrf_sr_plans.plans.arguments import choice_flaws, converted
from xrf_sr_plans.plans.metadata import metadata_problems
from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.row_pixels import SQUARES, RowPixels, chosen_row_pixels, finest

USUAL_FACTOR: Factor = 2
"""Factor of surveys whose step is given, unless the user says otherwise."""


@dataclass(frozen=True, kw_only=True)
class AnyRequest:
    """What every plan that measures is asked. The plans' docstrings describe each parameter."""

    budget_s: float | None
    max_dose: float | None
    row_attempts: int
    md: dict[str, Any] | None

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the request that a plan's arguments make.

        Parameters
        ----------
        arguments
            All arguments of the plan by name, defaults included: ``locals()`` in the first
            statement of the plan, or `inspect.BoundArguments.arguments` outside it. The request
            takes those that it has a field for, which is all but the beamline.

        Raises
        ------
        ConfigError
            If values are of a wrong type. The message lists all of them.
        """
        return cls(**converted({name: arguments[name] for name in _hints(cls)}, _hints(cls)))

    @property
    def query(self) -> str | None:
        """The element query that the analysis will be asked; None: none."""
        return None

    def problems(self, beamline: Beamline) -> list[Problem]:
        """Return what is wrong with the request, or the beamline, whatever is to be flown.

        Raises
        ------
        RefusedError
            If a number lies outside what its parameter takes, so that nothing can be designed.
            The message lists everything that is wrong.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        problems = [
            *preflight.element_problems(beamline),
            *(Problem(ConfigError, text) for text in choice_flaws(values, _hints(type(self)))),
            *metadata_problems(self.md),
            *preflight.query_problems(self.query, beamline.flyer.elements),
        ]
        numbers = {name: values[name] for name in values if name in PARAMETER_RANGES}
        wrong = preflight.number_problems(numbers)
        if wrong:
            preflight.refuse([*wrong, *problems])
        return problems

    def user_input(self) -> dict[str, Any]:
        """Return what the user asked, by parameter, for start documents.

        `md` is left out because it becomes part of the start document itself.
        """
        return {
            field.name: _plain(getattr(self, field.name))
            for field in fields(self)
            if field.name != "md"
        }


@dataclass(frozen=True, kw_only=True)
class PlanRequest(AnyRequest):
    """What plans are asked that are told how long each pixel takes."""

    dwell_ms: float


@dataclass(frozen=True, kw_only=True)
class AreaRequest(PlanRequest):
    """What plans are asked that map an area around a center."""

    width_um: float
    height_um: float
    step_um: float
    x_center_um: float | None
    y_center_um: float | None

    @property
    def area(self) -> Area:
        """The area to be mapped."""
        return Area(**{field.name: getattr(self, field.name) for field in fields(Area)})


@dataclass(frozen=True, kw_only=True)
class AnySurvey(AnyRequest):
    """What `coarse_survey_with_sr` is always asked, whatever is left open."""

    width_um: float
    height_um: float
    x_center_um: float | None
    y_center_um: float | None
    find: str | None
    sampling: schema.PixelChoice | None
    fine_step_um: float | None
    fine_dwell_ms: float | None
    rescan: schema.RescanMode
    approval_timeout_s: float
    undecided: schema.Undecided
    tile_um: float | None
    pad_um: float
    min_size_um: float
    max_regions: int
    worth: dict[str, float] | None
    preview_every_rows: int
    analysis_timeout_s: float

    @property
    def query(self) -> str | None:
        """The query `find`."""
        return self.find


@dataclass(frozen=True, kw_only=True)
class SurveyRequest(AnySurvey, AreaRequest):
    """A survey of which nothing is left open."""

    factor: Factor

    def row_pixels(self, beamline: Beamline, squares: Sequence[ScanGrid]) -> RowPixels:
        """Return how the rows of the tiles are read out, whose pixels would be `squares`.

        Rows have exactly `factor` pixels per step, because those are what the network reads.
        """
        numbers = (self.factor,) if self.factor in FACTORS else ()
        return chosen_row_pixels(beamline, squares, self.dwell_ms, numbers, self.sampling)


@dataclass(frozen=True, kw_only=True)
class SurveyWish(AnySurvey):
    """What was asked of `coarse_survey_with_sr`, which may leave open how the survey is flown."""

    step_um: float | None
    dwell_ms: float | None
    factor: Factor | None
    time_s: float | None
    counts_per_s: float | None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left open, and no time is given that has to be kept."""
        return self.step_um is not None and self.dwell_ms is not None and self.time_s is None

    @property
    def asked_factor(self) -> Factor | None:
        """The factor, where nobody is free to choose it: `USUAL_FACTOR` beside a given step."""
        if self.factor is None and self.step_um is not None:
            return USUAL_FACTOR
        return self.factor

    @property
    def result_step_um(self) -> float | None:
        """Pixel size of the enhanced maps in um; None where neither it nor a step is given."""
        if self.step_um is None:
            return self.fine_step_um
        return self.step_um / (self.asked_factor or USUAL_FACTOR)

    def settled(
        self,
        *,
        step_um: float,
        dwell_ms: float,
        factor: Factor,
        sampling: schema.PixelChoice | None,
    ) -> SurveyRequest:
        """Return the survey with what was left open."""
        shared = {field.name: getattr(self, field.name) for field in fields(AnySurvey)}
        settled = {"step_um": step_um, "dwell_ms": dwell_ms, "factor": factor}
        return SurveyRequest(**{**shared, **settled, "sampling": sampling})


@dataclass(frozen=True, kw_only=True)
class SingleMapRequest(PlanRequest):
    """What was asked of a plan that flies exactly one map."""

    def pixels(self, beamline: Beamline) -> ScanGrid:
        """Return the pixels of the map, with the run-up that the fast axis needs.

        Raises
        ------
        RefusedError
            If the numbers make no grid.
        """
        raise NotImplementedError

    def row_pixels(self, beamline: Beamline, squares: ScanGrid) -> RowPixels:
        """Return how the rows of the map are read out, whose pixels would be `squares`."""
        return SQUARES


@dataclass(frozen=True, kw_only=True)
class MapRequest(AreaRequest, SingleMapRequest):
    """What was asked of `xrf_map`."""

    factor: Factor
    sampling: schema.PixelChoice | None

    def row_pixels(self, beamline: Beamline, squares: ScanGrid) -> RowPixels:
        """Return the finest pixels that the hardware takes, at most `factor` to a step."""
        numbers = finest(self.factor) if self.factor in FACTORS else ()
        return chosen_row_pixels(beamline, [squares], self.dwell_ms, numbers, self.sampling)

    def pixels(self, beamline: Beamline) -> ScanGrid:
        """Return the pixels that cover the area."""
        return self.area.grid(beamline, self.dwell_ms)


@dataclass(frozen=True, kw_only=True)
class StartStopRequest(SingleMapRequest):
    """What was asked of `xrf_map_start_stop`: the ends of rows and columns."""

    x_start_um: float
    x_stop_um: float
    x_num: int
    y_start_um: float
    y_stop_um: float
    y_num: int

    def pixels(self, beamline: Beamline) -> ScanGrid:
        """Return the pixels between the two ends of each axis."""
        fast, slow = axis_facts(beamline.fast), axis_facts(beamline.slow)
        grid = ScanGrid.from_start_stop(
            self.x_start_um,
            self.x_stop_um,
            self.x_num,
            self.y_start_um,
            self.y_stop_um,
            self.y_num,
            fast=fast.name,
            slow=slow.name,
        )
        run_up_um = preflight.run_up_um(beamline, fast, grid.fast.step_um, self.dwell_ms)
        return replace(grid, run_up_um=run_up_um)


@dataclass(frozen=True, kw_only=True)
class GridRequest(SingleMapRequest):
    """What was asked of `fly_map`: the pixels themselves."""

    grid: ScanGrid
    fast_pixels: Factor
    purpose: schema.Purpose
    analysis: schema.AnalysisRequest | None

    @property
    def query(self) -> str | None:
        """The query `find` of the analysis."""
        return None if self.analysis is None else self.analysis.find

    def pixels(self, beamline: Beamline) -> ScanGrid:
        """Return the pixels that were given."""
        return self.grid


@dataclass(frozen=True, kw_only=True)
class RescanRequest(PlanRequest):
    """What was asked of `rescan_regions`."""

    regions: list[dict[str, Any]]
    fine_step_um: float
    survey_uid: str | None
    parent_uid: str | None


@dataclass(frozen=True, kw_only=True)
class ApprovedRequest(AnyRequest):
    """What was asked of `rescan_approved`."""

    survey_uid: str | None


@dataclass(frozen=True, kw_only=True)
class AnyPairRequest(PlanRequest):
    """What `acquire_pair` and `collect_pairs` are both asked: how the maps of a pair are flown."""

    fine_step_um: float
    factors: list[CoarserFactor] | tuple[CoarserFactor, ...]
    sampling: schema.PixelChoice | None
    coarse_dwell_ms: float | None
    order: schema.PairOrder

    def problems(self, beamline: Beamline) -> list[Problem]:
        """Return what is wrong with the request, or the beamline, whatever is to be flown.

        Raises
        ------
        RefusedError
            If numbers or factors are not allowed, so that nothing can be designed. The message
            lists everything that is wrong.
        """
        problems = super().problems(beamline)
        wrong = [Problem(ConfigError, text) for text in _factor_flaws(self.factors)]
        if wrong:
            preflight.refuse([*problems, *wrong])
        return problems


@dataclass(frozen=True, kw_only=True)
class PairRequest(AnyPairRequest):
    """What was asked of `acquire_pair`."""

    width_um: float
    height_um: float
    x_center_um: float | None
    y_center_um: float | None

    @property
    def area(self) -> Area:
        """The area to be mapped, with the fine step."""
        return Area(
            self.width_um, self.height_um, self.fine_step_um, self.x_center_um, self.y_center_um
        )


@dataclass(frozen=True, kw_only=True)
class CollectRequest(AnyPairRequest):
    """What was asked of `collect_pairs`."""

    regions: list[dict[str, Any]]

    def pair_of(self, region: Region) -> PairRequest:
        """Return what the pair of one region is asked; the rectangle of `region` is its area."""
        shared = {field.name: getattr(self, field.name) for field in fields(AnyPairRequest)}
        return PairRequest(
            **shared,
            width_um=region.width_um,
            height_um=region.height_um,
            x_center_um=region.x_center_um,
            y_center_um=region.y_center_um,
        )


def _factor_flaws(factors: Sequence[int]) -> list[str]:
    """Return what is wrong with the factors of a pair, in words."""
    if not factors:
        return [not_allowed("factors", [], f"at least one of {COARSER_FACTORS}")]
    allowed = alternatives(COARSER_FACTORS)
    wrong = [
        not_allowed("factor", factor, allowed)
        for factor in factors
        if factor not in COARSER_FACTORS
    ]
    if not wrong and len(set(factors)) < len(factors):
        wrong = [not_allowed("factors", list(factors), "each factor once")]
    return wrong


@cache
def _hints(request: type[AnyRequest]) -> dict[str, Any]:
    """Return the types of a request's fields, which are those of its plan's parameters."""
    return typing.get_type_hints(request)


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples become lists."""
    return list(value) if isinstance(value, tuple) else value
