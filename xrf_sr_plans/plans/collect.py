"""`collect_pairs`: a pair of coarse and fine maps of each of several regions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import FlightError, RefusedError, in_words
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import regions_from_arguments
from xrf_sr_plans.measurement import CoarserFactor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import Design, PlannedMap, told_with
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.pair import PairDesign, fly_pair, maps_of_pair
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import CollectRequest, PairRequest

logger = logging.getLogger(__name__)


class RegionPair(NamedTuple):
    """The pair that would be flown of one region, or the reason why none would be."""

    region: Region
    request: PairRequest
    design: PairDesign | None
    refusal: RefusedError | None = None


@plan
def collect_pairs(
    beamline: Beamline,
    regions: list[dict[str, Any]],
    *,
    fine_step_um: float,
    dwell_ms: float,
    factors: list[CoarserFactor] | tuple[CoarserFactor, ...] = (2,),
    sampling: schema.PixelChoice | None = None,
    coarse_dwell_ms: float | None = None,
    order: schema.PairOrder = "bracketed",
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[tuple[RegionOutcome, ...]]:
    """Acquire a pair of each region, in the order given, as long as the budget lasts.

    Parameters
    ----------
    regions
        `Region.to_dict()` of each region, or just its four edges in um: x_low_um, x_high_um,
        y_low_um and y_high_um.
    fine_step_um
        Pixel size of the fine maps in um.
    dwell_ms
        Time at each pixel of the fine maps in ms.
    factors
        How many times coarser the coarse maps are: 2, 4 or both.
    sampling
        How the rows of the coarse maps are read out, at the same time and dose: "rows" in pixels
        as long as those of the fine maps, "squares" in square ones. None means rows where the
        hardware takes so many frames.
    coarse_dwell_ms
        Time at each step of the coarse maps in ms. None means the same as at each pixel of the
        fine maps.
    order
        "bracketed" flies the coarse maps of each pair before and after the fine one, "coarse first"
        only before it.
    budget_s
        Beam time in seconds for all pairs together, where a pair that no longer fits is left out;
        None: no limit.
    max_dose
        Dose that all maps of one pair together may give: incoming photons per um^2 where the
        beamline knows its flux, else seconds of beam per um^2. None means no limit.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    tuple of RegionOutcome
        One per region; its `run_uid` is that of the fine map.

    Raises
    ------
    RefusedError
        If a region is malformed, or if no pair at all can be flown. Nothing has moved.
    """
    request = CollectRequest.from_arguments(locals())
    preflight.refuse(design_pairs(beamline, request).problems)
    outcomes = []
    for pair in pairs_in_turn(beamline, request):
        outcome = yield from _collected(beamline, pair)
        reason = outcome.reason
        logger.info("pair of region %s %s: %s", pair.region.key, outcome.disposition, reason)
        outcomes.append(outcome)
    return tuple(outcomes)


def _collected(beamline: Beamline, pair: RegionPair) -> MsgGenerator[RegionOutcome]:
    """Fly the pair of one region, which can fail without an effect on the other regions."""
    if pair.design is None:
        return RegionOutcome(pair.region, "refused", str(pair.refusal))
    try:
        done = yield from fly_pair(beamline, pair.request, pair.design, pair.region)
    except RefusedError as error:
        return RegionOutcome(pair.region, "refused", str(error))
    except (FlightError, *ROW_FAILURES) as error:
        return RegionOutcome(pair.region, "failed", in_words(error))
    return RegionOutcome(pair.region, "rescanned", f"pair {done.pair_uid}", done.fine_uid)


def pairs_in_turn(beamline: Beamline, request: CollectRequest) -> Iterator[RegionPair]:
    """Yield the pair of each region, designed when it is its turn.

    A pair that can be flown takes its time out of the budget of those which follow.

    Raises
    ------
    GridError
        If a region is malformed, before the first pair.
    """
    left_s = request.budget_s
    for region in regions_from_arguments(request.regions):
        pair_request = request.pair_of(region)
        try:
            design = maps_of_pair(beamline, replace(pair_request, budget_s=left_s))
            preflight.refuse(design.problems)
        except RefusedError as error:
            yield RegionPair(region, pair_request, None, error)
            continue
        left_s = None if left_s is None else left_s - design.time_s
        yield RegionPair(region, pair_request, design)


def design_pairs(beamline: Beamline, request: CollectRequest) -> Design:
    """Return the maps of all pairs that would be flown; `dose` is that of the most exposed pair.

    Regions that would be left out are notes. They are problems where no pair at all is left.

    Raises
    ------
    GridError
        If a region is malformed.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        pairs = list(pairs_in_turn(beamline, request))
    designs = [pair.design for pair in pairs if pair.design is not None]
    left_out = [
        Problem(type(pair.refusal), f"region {pair.region.key[:8]}: {pair.refusal}")
        for pair in pairs
        if pair.refusal is not None
    ]
    if not designs:
        problems += left_out or [Problem(RefusedError, "no region to collect a pair of was given")]
    maps: tuple[PlannedMap, ...] = tuple(planned for design in designs for planned in design.maps)
    return Design(
        maps=maps,
        time_s=sum(design.time_s for design in designs),
        dose=max((design.dose for design in designs), default=0.0),
        problems=tuple(problems),
        notes=(
            *dict.fromkeys(note for design in designs for note in design.notes),
            *(f"left out: {problem.text}" for problem in left_out if designs),
        ),
    )
