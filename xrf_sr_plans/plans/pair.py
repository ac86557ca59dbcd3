"""`acquire_pair`: coarse and fine maps of one area, for training and calibration."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import BudgetError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.measurement import CoarserFactor, Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import Design, PlannedMap, planned_map, told_with
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS, FlightProgress, MapRun
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import PairRequest
from xrf_sr_plans.plans.return_to_start import returning_to_start
from xrf_sr_plans.plans.row_pixels import SQUARES, RowPixels, chosen_row_pixels


@dataclass(frozen=True)
class PairOutcome:
    """The runs of one pair.

    Attributes
    ----------
    pair_uid
        It is in the metadata of all runs of the pair.
    fine_uid
        Uid of the fine map's run.
    coarse_uids
        Uids of the coarse maps' runs that were flown before the fine map, by factor.
    bracket_uids
        Uids of those that were flown again after it, by factor.
    lost_rows
        Rows that could not be measured, by the uid of the map's run.
    """

    pair_uid: str
    fine_uid: str
    coarse_uids: Mapping[int, str]
    bracket_uids: Mapping[int, str] = field(default_factory=dict)
    lost_rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class PairProgress(FlightProgress):
    """How far a pair has come; `fly_pair` fills it in, and `rows` are those of the latest map.

    Attributes
    ----------
    pair_uid
        Uid of the pair; empty before its first map.
    fine_uid
        Uid of the fine map's run; empty before it is complete.
    missing
        Maps that come after the latest one. None before the first map.
    last_rows
        Rows that the latest map has.
    """

    pair_uid: str = ""
    fine_uid: str = ""
    missing: int | None = None
    last_rows: int = 0

    @property
    def complete(self) -> bool:
        """Whether every row of every map is measured, or lost in a map that went on without it."""
        return self.missing == 0 and len(self.rows) == self.last_rows


@dataclass(frozen=True)
class PairMap(PlannedMap):
    """One map of a pair, with rows that are `factor` times as far apart as the fine map's."""

    factor: int = field(kw_only=True)


@dataclass(frozen=True, kw_only=True)
class PairDesign(Design):
    """The maps of one pair. `dose` is the sum of theirs because they share one area."""

    maps: tuple[PairMap, ...]


@plan
def acquire_pair(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    fine_step_um: float,
    dwell_ms: float,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    factors: list[CoarserFactor] | tuple[CoarserFactor, ...] = (2,),
    sampling: schema.PixelChoice | None = None,
    coarse_dwell_ms: float | None = None,
    order: schema.PairOrder = "bracketed",
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[PairOutcome]:
    """Map one area coarsely and finely, with pixels that nest exactly.

    The stage is brought back along each axis without a center once all maps are complete, but not
    after an abort, a stop, a halt or a failure.

    Parameters
    ----------
    width_um
        Width of the area in um, rounded up to whole pixels of the coarsest map.
    height_um
        Height of the area in um, rounded up likewise.
    fine_step_um
        Pixel size of the fine map in um.
    dwell_ms
        Time at each pixel of the fine map in ms.
    x_center_um
        Center along the fast axis in um. None means where the stage is now.
    y_center_um
        Center along the slow axis in um. None means where the stage is now.
    factors
        How many times coarser the coarse maps are: 2, 4 or both.
    sampling
        How the rows of the coarse maps are read out, at the same time and dose: "rows" in pixels
        as long as those of the fine map, "squares" in square ones. None means rows where the
        hardware takes so many frames.
    coarse_dwell_ms
        Time at each step of the coarse maps in ms; best that of the surveys to be learnt for. None
        means the same as at each pixel of the fine map, whose square pixels then have as many
        photons as those of the coarse maps.
    order
        "bracketed" flies the coarse maps before and, the other way round, after the fine one: drift
        shows, and twice as many coarse maps are learnt from. "coarse first" flies them only before.
    budget_s
        Beam time in seconds that all maps together may take. None means no limit.
    max_dose
        Dose that all maps together may give: incoming photons per um^2 where the beamline knows
        its flux, else seconds of beam per um^2. None means no limit.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    PairOutcome
        The uids of the runs.

    Raises
    ------
    RefusedError
        If anything is wrong with the request. Nothing has moved, and the message lists all of it.
    FlightError
        If too many rows in succession can't be measured, or if the stage doesn't come back.
    """
    request = PairRequest.from_arguments(locals())
    design = design_pair(beamline, request)
    preflight.refuse(design.problems)
    flight = fly_pair(beamline, request, design)
    return (yield from returning_to_start(beamline, request.area, flight))


def design_pair(beamline: Beamline, request: PairRequest) -> PairDesign:
    """Return the design of a pair: coarse maps, the fine map, and the coarse ones again.

    Raises
    ------
    RefusedError
        If factors or sizes make no grids. All else is in the design's `problems`.
    """
    problems = request.problems(beamline)
    with told_with(problems):
        design = maps_of_pair(beamline, request)
    return replace(design, problems=(*problems, *design.problems))


def maps_of_pair(beamline: Beamline, request: PairRequest) -> PairDesign:
    """Return the design of a pair with those problems only that its maps have.

    Raises
    ------
    RefusedError
        If factors or sizes make no grids.
    """
    coarse_dwell_ms = request.coarse_dwell_ms
    if coarse_dwell_ms is None:
        coarse_dwell_ms = request.dwell_ms
    factors = tuple(request.factors)
    grids = _nested_grids(beamline, request, factors, coarse_dwell_ms)
    facts = axis_facts(beamline.fast)

    def pair_map(factor: int, dwell_ms: float, pixels: RowPixels) -> PairMap:
        step_um = grids[factor].fast.step_um
        run_up_um = preflight.run_up_um(beamline, facts, step_um, dwell_ms)
        what = "fine" if factor == 1 else f"coarse {factor}x"
        grid = replace(grids[factor], run_up_um=run_up_um)
        return PairMap(**vars(planned_map(beamline, what, grid, dwell_ms, pixels)), factor=factor)

    readouts = {
        factor: chosen_row_pixels(
            beamline, [grids[factor]], coarse_dwell_ms, [factor], request.sampling
        )
        for factor in sorted(factors)
    }
    coarse = [pair_map(factor, coarse_dwell_ms, pixels) for factor, pixels in readouts.items()]
    again = reversed(coarse) if request.order == "bracketed" else ()
    maps = (*coarse, pair_map(1, request.dwell_ms, SQUARES), *again)
    problems = [problem for pixels in readouts.values() for problem in pixels.problems]
    return PairDesign(
        maps=maps,
        time_s=sum(planned.time_s for planned in maps),
        dose=sum(planned.dose for planned in maps),
        problems=tuple(dict.fromkeys([*problems, *_problems(beamline, request, maps)])),
        notes=tuple(
            f"coarse {factor}x: {pixels.note}" for factor, pixels in readouts.items() if pixels.note
        ),
    )


def _nested_grids(
    beamline: Beamline, request: PairRequest, factors: tuple[Factor, ...], coarse_dwell_ms: float
) -> dict[int, ScanGrid]:
    """Return grids of the same outer edges by factor, 1 being the fine one."""
    coarsest = max(factors)
    coarse_area = replace(request.area, step_um=request.fine_step_um * coarsest)
    grid = coarse_area.grid(beamline, coarse_dwell_ms)
    return {
        factor: grid if factor == coarsest else grid.refined(coarsest // factor)
        for factor in (*factors, 1)
    }


def _problems(beamline: Beamline, request: PairRequest, maps: tuple[PairMap, ...]) -> list[Problem]:
    problems: list[Problem] = []
    for planned in maps:
        problems += preflight.map_problems(beamline, planned.grid, planned.dwell_ms)
    cost = preflight.map_cost(beamline, maps[0].grid, maps[0].dwell_ms)
    time_s = sum(planned.time_s for planned in maps)
    problems += preflight.budget_problems(time_s, cost, budget_s=request.budget_s)
    dose = sum(planned.dose for planned in maps)
    if request.max_dose is not None and not dose <= request.max_dose:
        limit = f"max_dose is {request.max_dose:.4g}"
        text = f"dose {dose:.4g} {cost.dose_unit} of all maps; {limit}"
        problems.append(Problem(BudgetError, text))
    return problems


def fly_pair(
    beamline: Beamline,
    request: PairRequest,
    design: PairDesign,
    region: Region | None = None,
    *,
    collection_uid: str = "",
    progress: PairProgress | None = None,
) -> MsgGenerator[PairOutcome]:
    """Fly all maps of a pair that was designed and not refused.

    Parameters
    ----------
    beamline
        The beamline.
    request
        What was asked of the pair.
    design
        Its maps.
    region
        What the pair is made of, where it is made of one; it goes into the start documents.
    collection_uid
        Uid of the collection that it belongs to, if any; it goes there, too.
    progress
        Filled in while the pair is flown, so that the caller of one that is interrupted knows how
        far it came.
    """
    progress = progress or PairProgress()
    pair_uid = progress.pair_uid = str(uuid.uuid4())
    uids: list[tuple[int, str]] = []
    lost: dict[str, tuple[int, ...]] = {}
    collected: dict[str, Any] = {}
    if collection_uid and region is not None:
        collected = {"collection_uid": collection_uid, "region_key": region.key}
    of_collection = {"collection_uid": collection_uid} if collection_uid else {}
    for position, planned in enumerate(design.maps):
        run = MapRun(
            beamline,
            planned.grid,
            planned.dwell_ms,
            fast_pixels=planned.fast_pixels,
            purpose="pair_fine" if planned.factor == 1 else "pair_coarse",
            parent_uid=None if region is None else region.source_uid or None,
            region=region,
            # Assembled only: the pair is what an enhancement is judged by.
            analysis=schema.AnalysisRequest(enhance=False),
            user_input=request.user_input(),
            derived_input={
                "pair_uid": pair_uid,
                "pair_position": position,
                "pair_maps": len(design.maps),
                "pair_factor": planned.factor,
                **collected,
            },
            row_attempts=request.row_attempts,
            md={"pair_uid": pair_uid, **of_collection, **(request.md or {})},
        )
        progress.missing = len(design.maps) - 1 - position
        progress.last_rows = planned.grid.shape[0]
        progress.rows.clear()
        flown = yield from fly(run, progress)
        uids.append((planned.factor, flown.uid))
        progress.fine_uid = flown.uid if planned.factor == 1 else progress.fine_uid
        if flown.lost_rows:
            lost[flown.uid] = flown.lost_rows
    fine = [factor for factor, _ in uids].index(1)
    return PairOutcome(pair_uid, uids[fine][1], dict(uids[:fine]), dict(uids[fine + 1 :]), lost)
