"""`survey_and_collect_pairs`: a survey chooses the areas of which pairs are acquired."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import BudgetError, ConfigError, GridError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import CoarserFactor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.collect_requests import SurveyAndCollectRequest
from xrf_sr_plans.plans.collection import PairCollection
from xrf_sr_plans.plans.design import Design, SurveyDesign, design_coarse_maps, told_with
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.pair import PairDesign, maps_of_pair
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.return_to_start import returning_to_start
from xrf_sr_plans.plans.survey_choice import SettledSurvey
from xrf_sr_plans.plans.survey_flight import SurveyFlight, SurveyOutcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectionOutcome:
    """What a survey has chosen, and the pairs that were acquired of it.

    Attributes
    ----------
    collection_uid
        It is in the metadata of the runs of all pairs; `resume_collection` takes it.
    outcomes_uid
        Uid of the run that records what became of each area.
    survey
        What the survey measured and proposed.
    regions
        What became of each area; the `run_uid` is that of the fine map.
    """

    collection_uid: str
    outcomes_uid: str
    survey: SurveyOutcome
    regions: tuple[RegionOutcome, ...]


@plan
def survey_and_collect_pairs(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    pair_um: float,
    fine_step_um: float,
    dwell_ms: float,
    number: int = 3,
    choose: schema.AreaChoice = "least represented",
    factors: list[CoarserFactor] | tuple[CoarserFactor, ...] = (2,),
    sampling: schema.PixelChoice | None = None,
    coarse_dwell_ms: float | None = None,
    order: schema.PairOrder = "bracketed",
    step_um: float | None = None,
    survey_dwell_ms: float | None = None,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    tile_um: float | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    analysis_timeout_s: float = 60.0,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[CollectionOutcome]:
    """Survey an area, choose where the model learns most, and acquire pairs there.

    Areas without structure beyond counting noise are never chosen. Each pair is flown once; what
    an abort, a stop or a killed session leaves of them is flown by `resume_collection`. The stage
    is brought back along each axis without a center once all is complete, but not after an abort,
    a stop, a halt or a failure.

    Parameters
    ----------
    width_um
        Width of the area that is surveyed, along the fast axis, in um.
    height_um
        Height of the area that is surveyed, along the slow axis, in um.
    pair_um
        Side of the square area of each pair in um, rounded to whole steps of the survey.
    fine_step_um
        Pixel size of the fine maps in um.
    dwell_ms
        Time at each pixel of the fine maps in ms.
    number
        How many pairs are acquired.
    choose
        Where: "least sure" takes areas in which a rescan takes most uncertainty away, "least
        represented" those that are least like what the pair store has, and like each other.
    factors
        How many times coarser the coarse maps are: 2, 4 or both.
    sampling
        How the rows of the survey and of the coarse maps are read out, at the same time and dose:
        "rows" in pixels as long as those of the fine maps, "squares" in square ones. None means
        rows where the hardware takes so many frames.
    coarse_dwell_ms
        Time at each step of the coarse maps in ms. None means the same as at each pixel of the
        fine maps.
    order
        "bracketed" flies the coarse maps of each pair before and after the fine one, "coarse first"
        only before it.
    step_um
        Distance between the rows of the survey in um. None means that of the coarsest maps, with
        which the areas compare best with those in the store.
    survey_dwell_ms
        Time at each step of the survey in ms. None means that of the coarse maps.
    x_center_um
        Center of the surveyed area along the fast axis in um. None means where the stage is now.
    y_center_um
        Center of the surveyed area along the slow axis in um. None means where the stage is now.
    tile_um
        Largest side of a tile of the survey in um. None means as large as the flyer reaches.
    budget_s
        Beam time in seconds for the survey and all pairs together. None means no limit.
    max_dose
        Highest dose at any point, survey and pair together: incoming photons per um^2 where the
        beamline knows its flux, else seconds of beam per um^2. None means no limit.
    analysis_timeout_s
        How many seconds to wait for the choice after the last row of the survey.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    CollectionOutcome
        The survey, and what became of each area. No area is an outcome that is told with why.

    Raises
    ------
    RefusedError
        If anything is wrong with the request, be it the survey, or pairs wherever they may be
        chosen. Nothing has moved, and the message lists all of it.
    FlightError
        If too many rows of the survey in succession can't be measured, or if the stage doesn't
        come back.
    """
    request = SurveyAndCollectRequest.from_arguments(locals())
    design = design_survey_and_pairs(beamline, request)
    preflight.refuse(design.problems)
    survey = request.survey()
    return (yield from returning_to_start(beamline, survey.area, _flown(beamline, request, design)))


@dataclass(frozen=True, kw_only=True)
class SurveyAndPairsDesign(Design):
    """What would be flown; `maps` are those of the survey, as nobody knows where the pairs are.

    Attributes
    ----------
    survey
        The survey.
    pair
        A pair at the place that takes most time.
    """

    survey: SurveyDesign | None = None
    pair: PairDesign | None = None


def design_survey_and_pairs(
    beamline: Beamline, request: SurveyAndCollectRequest
) -> SurveyAndPairsDesign:
    """Return the design of a survey and of pairs wherever it may choose them.

    `time_s` is that of the survey and of all pairs; `dose` is that of the survey and of a pair.

    Raises
    ------
    RefusedError
        If there isn't even a grid to speak of. All else is in the design's `problems`.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        survey = design_coarse_maps(beamline, request.survey())
        pairs = [
            maps_of_pair(beamline, request.pair_at(*center))
            for center in _outermost(survey.grid, request.area_um)
        ]
    pair = max(pairs, key=lambda one: one.time_s)
    time_s, dose = survey.time_s + request.number * pair.time_s, survey.dose + pair.dose
    problems += [*survey.problems, *_room(request, survey.grid)]
    problems += [
        Problem(problem.kind, f"pair in a corner of the area: {problem.text}")
        for problem in dict.fromkeys(problem for one in pairs for problem in one.problems)
    ]
    if beamline.analysis is None:
        text = f"{beamline.name} has no analysis: nothing can choose where pairs are acquired"
        problems.append(Problem(ConfigError, text))
    unit = preflight.dose_unit(beamline)
    if request.budget_s is not None and time_s > request.budget_s:
        text = (
            f"time {time_s:.1f} s: {survey.time_s:.1f} s for the survey and {pair.time_s:.1f} s for"
            f" each of {request.number} pairs; budget_s is {request.budget_s:g}"
        )
        problems.append(Problem(BudgetError, text))
    if request.max_dose is not None and dose > request.max_dose:
        text = f"dose {dose:.4g} {unit} of survey and pair; max_dose is {request.max_dose:.4g}"
        problems.append(Problem(BudgetError, text))
    side_um = request.area_um
    where = f"{request.number} pairs of {side_um:g} x {side_um:g} um, {request.choose}"
    return SurveyAndPairsDesign(
        maps=survey.maps,
        time_s=time_s,
        dose=dose,
        problems=tuple({problem.text: problem for problem in problems}.values()),
        notes=(f"{where}, {pair.time_s:.1f} s and {pair.dose:.3g} {unit} each", *pair.notes),
        survey=survey,
        pair=pair,
    )


def _outermost(grid: ScanGrid, side_um: float) -> Iterator[tuple[float, float]]:
    """Yield the centers (x, y) of areas in the corners of a surveyed area, in um."""
    for x_um in (grid.fast.low_um + side_um / 2, grid.fast.high_um - side_um / 2):
        for y_um in (grid.slow.low_um + side_um / 2, grid.slow.high_um - side_um / 2):
            yield x_um, y_um


def _room(request: SurveyAndCollectRequest, grid: ScanGrid) -> Iterator[Problem]:
    """Yield a problem where the surveyed area has no room for so many areas."""
    side_um = request.area_um
    across, along = (
        int((axis.high_um - axis.low_um) / side_um + 1e-6) for axis in (grid.fast, grid.slow)
    )
    if across * along < request.number:
        yield Problem(
            GridError,
            f"number is {request.number}; the area has room for {across * along} areas of"
            f" {side_um:g} x {side_um:g} um",
        )


def _flown(
    beamline: Beamline, request: SurveyAndCollectRequest, design: SurveyAndPairsDesign
) -> MsgGenerator[CollectionOutcome]:
    """Fly the survey, and then the pairs that it has chosen."""
    assert design.survey is not None, "it was not refused"
    settled = SettledSurvey(request.survey(), design.survey)
    surveyed = yield from SurveyFlight(beamline, settled, request.user_input()).run()
    regions = [outcome.region for outcome in surveyed.regions]
    left_s = request.budget_s
    left_s = None if left_s is None else max(left_s - design.survey.time_s, 0.0)
    dose = request.max_dose
    dose = None if dose is None else max(dose - design.survey.dose, 0.0)
    note = "; ".join(dict.fromkeys(one.reason for one in surveyed.analyses if one.reason))
    if not regions:
        note = note or "the analysis has chosen no area"
        logger.warning("survey %s: no pair is acquired: %s", surveyed.survey_uid, note)
    asked = request.collect(regions, budget_s=left_s, max_dose=dose)
    collection = PairCollection(beamline, asked, survey_uid=surveyed.survey_uid, note=note)
    outcomes = yield from collection.begin()
    return CollectionOutcome(
        collection.uid,
        collection.outcomes_uid,
        replace(surveyed, regions=tuple(surveyed.regions)),
        outcomes,
    )
