"""`collect_pairs`: a pair of coarse and fine maps of each of several regions."""

from __future__ import annotations

from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.measurement import CoarserFactor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.collection import PairCollection
from xrf_sr_plans.plans.fine_maps import RegionOutcome
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.region_pairs import design_pairs
from xrf_sr_plans.plans.request import CollectRequest


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

    Each region is flown once, even where two of them have the same edges. What an abort, a stop or
    a killed session leaves is flown by `resume_collection`. A last run records what became of each
    region.

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
    return (yield from PairCollection(beamline, request).begin())
