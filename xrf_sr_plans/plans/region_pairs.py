"""`pairs_in_turn`: the pair of each of several regions, as long as time and dose last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import BudgetError, RefusedError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import regions_from_arguments
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import Design, PlannedMap, told_with
from xrf_sr_plans.plans.pair import PairDesign, maps_of_pair
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import CollectRequest, PairRequest
from xrf_sr_plans.plans.stage_state import changed_axes


class RegionPair(NamedTuple):
    """The pair that would be flown of one region, or the reason why none would be."""

    region: Region
    request: PairRequest
    design: PairDesign | None
    refusal: RefusedError | None = None


def pairs_in_turn(
    beamline: Beamline, request: CollectRequest, tried: Mapping[str, int] | None = None
) -> Iterator[RegionPair]:
    """Yield the pair of each region, designed when it is its turn.

    A pair that can be flown takes its time out of the budget of those which follow.

    Parameters
    ----------
    beamline
        The beamline.
    request
        What was asked.
    tried
        How often each region was flown in vain, by `Region.key`, which counts as dose.

    Raises
    ------
    GridError
        If a region is malformed, before the first pair.
    """
    left_s, known = request.budget_s, set[str]()
    for region in regions_from_arguments(request.regions):
        pair_request = request.pair_of(region)
        try:
            if region.key in known:
                raise RefusedError("a region with the same edges comes before it")
            preflight.refuse(changed_axes(beamline, region))
            design = maps_of_pair(beamline, replace(pair_request, budget_s=left_s))
            tries = (tried or {}).get(region.key, 0)
            preflight.refuse([*design.problems, *_dose_of_tries(design, request, tries)])
            known.add(region.key)
        except RefusedError as error:
            yield RegionPair(region, pair_request, None, error)
            continue
        left_s = None if left_s is None else left_s - design.time_s
        yield RegionPair(region, pair_request, design)


def _dose_of_tries(design: PairDesign, request: CollectRequest, tries: int) -> Iterator[Problem]:
    """Yield a problem where the dose of what was flown in vain leaves too little for a pair."""
    limit, dose = request.max_dose, design.dose * (1 + tries)
    if limit is not None and tries and dose > limit >= design.dose:
        text = (
            f"dose {dose:.4g} with what was flown in vain, {tries} times; max_dose is {limit:.4g}"
        )
        yield Problem(BudgetError, text)


def design_pairs(
    beamline: Beamline, request: CollectRequest, tried: Mapping[str, int] | None = None
) -> Design:
    """Return the maps of all pairs that would be flown; `dose` is that of the most exposed pair.

    Regions that would be left out are notes. They are problems where no pair at all is left.
    `tried` is as in `pairs_in_turn`.

    Raises
    ------
    GridError
        If a region is malformed.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        pairs = list(pairs_in_turn(beamline, request, tried))
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
