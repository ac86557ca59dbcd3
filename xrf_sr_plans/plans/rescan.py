"""`rescan_regions`: fine maps of regions that a survey proposed or a person typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.region import Rescan
from xrf_sr_plans.maps.region_documents import regions_from_arguments
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.decisions import RESULTS_S, wait_for_results
from xrf_sr_plans.plans.design import Design, PlannedMap, told_with
from xrf_sr_plans.plans.fine_maps import (
    FineMaps,
    RegionOutcome,
    stage_position_um,
)
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import AnyRequest, RescanRequest
from xrf_sr_plans.plans.return_to_start import centering_fine_stage
from xrf_sr_plans.plans.two_stages import center_problems
from xrf_sr_plans.rois.budget import spend_budget


@plan
def rescan_regions(
    beamline: Beamline,
    regions: list[dict[str, Any]],
    *,
    fine_step_um: float,
    dwell_ms: float,
    survey_uid: str | None = None,
    parent_uid: str | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[tuple[RegionOutcome, ...]]:
    """Map regions finely, each as a run of its own.

    A region that reaches beyond the limits is shrunk to what the stage allows. What can't be flown
    is reported as refused, and so is a region that was found with other axes of the stage, such as
    theta, at other positions. Where the beamline has a fine stage, that flies the maps: the coarse
    one goes to each region and stays at the last one.

    Parameters
    ----------
    regions
        `Region.to_dict()` of each region, or just its four edges in um: x_low_um, x_high_um,
        y_low_um and y_high_um.
    fine_step_um
        Pixel size in um.
    dwell_ms
        Time at each pixel in ms.
    survey_uid
        The survey that the regions come from, for the start documents.
    parent_uid
        Run uid of the map that the regions come from, where they don't say it themselves.
    budget_s
        Beam time in seconds for all regions together, spent on the best ones first. None means no
        limit.
    max_dose
        Highest dose at any point: incoming photons per um^2 where the beamline knows its flux,
        else seconds of beam per um^2. None means no limit.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    tuple of RegionOutcome
        In the order of flight, the refused ones last.

    Raises
    ------
    RefusedError
        If a region is malformed, or if none of the regions can be flown; nothing has moved.
    """
    request = RescanRequest.from_arguments(locals())
    design = design_rescans(beamline, request)
    preflight.refuse(design.problems)
    maps = _fine_maps(beamline, request).fly_each(design.rescans)
    flown = yield from centering_fine_stage(beamline, maps)
    what = f"the verification of {len(design.rescans)} rescans"
    yield from wait_for_results(beamline.analysis, what, RESULTS_S)
    return (*flown, *design.refused)


@dataclass(frozen=True, kw_only=True)
class RescanDesign(Design):
    """The rescans that would be flown, and the regions that would be refused.

    `dose` is the highest of a single map; where regions overlap, their doses add up.
    """

    rescans: tuple[Rescan, ...]
    refused: tuple[RegionOutcome, ...]


def design_rescans(beamline: Beamline, request: RescanRequest) -> RescanDesign:
    """Return the design of the rescans of given regions.

    Regions that can't be flown are refused one by one and are notes of the design. They are its
    problem where no region is left.

    Raises
    ------
    RefusedError
        If a region is malformed, or if a budget is not 0 or more.
    """
    problems = [*request.problems(beamline), *center_problems(beamline)]
    with told_with(problems):
        regions = regions_from_arguments(request.regions, request.parent_uid)
        fine = _fine_maps(beamline, request)
        possible, refused = fine.candidates(regions)
        return designed(beamline, problems, possible, refused, request, len(regions))


def designed(
    beamline: Beamline,
    problems: Sequence[Problem],
    possible: Sequence[Rescan],
    refused: Sequence[RegionOutcome],
    request: AnyRequest,
    number: int,
) -> RescanDesign:
    """Return the design of rescans: those that time and dose allow, in the order of flight.

    Parameters
    ----------
    beamline
        The beamline.
    problems
        What is wrong besides.
    possible
        The rescans that can be flown.
    refused
        The regions that can't.
    request
        Its budget and its highest dose count.
    number
        How many regions were asked for.

    Raises
    ------
    BudgetError
        If a budget is not 0 or more.
    """
    problems, refused = list(problems), list(refused)
    spending = spend_budget(
        possible,
        budget_s=request.budget_s,
        max_dose=request.max_dose,
        start_um=stage_position_um(beamline),
    )
    refused += [RegionOutcome(rescan.region, "refused", why) for rescan, why in spending.refused]
    if not spending.chosen:
        reasons = "; ".join(f"region {outcome.region.key}: {outcome.reason}" for outcome in refused)
        text = f"none of {number} regions can be flown: {reasons or 'none given'}"
        problems.append(Problem(RefusedError, text))
    maps = tuple(
        PlannedMap(rescan.region.key[:8], rescan.grid, rescan.dwell_ms, rescan.time_s, rescan.dose)
        for rescan in spending.chosen
    )
    return RescanDesign(
        maps=maps,
        time_s=sum(planned.time_s for planned in maps),
        dose=max((planned.dose for planned in maps), default=0.0),
        problems=tuple(problems),
        notes=() if not spending.chosen else tuple(_left_out(outcome) for outcome in refused),
        rescans=spending.chosen,
        refused=tuple(refused),
    )


def _left_out(outcome: RegionOutcome) -> str:
    return f"left out: region {outcome.region.key[:8]}: {outcome.reason}"


def _fine_maps(beamline: Beamline, request: RescanRequest) -> FineMaps:
    return FineMaps(
        beamline,
        request.fine_step_um,
        request.dwell_ms,
        survey_uid=request.survey_uid,
        parent_uid=request.parent_uid,
        row_attempts=request.row_attempts,
        md=request.md or {},
    )
