"""`rescan_problems`: what would forbid every rescan of a surveyed area, before it is flown."""

from __future__ import annotations

from collections.abc import Iterator

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.placed_grid import PlacedGrid, StageFacts, placed_grid, stage_facts
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.stage_state import silent_axes


def rescan_problems(
    beamline: Beamline,
    surveyed: ScanGrid,
    *,
    fine_step_um: float,
    dwell_ms: float,
    min_size_um: float = 0.0,
) -> list[Problem]:
    """Return what would forbid every rescan of a surveyed area, whatever is found there.

    These are the frame rate and the velocity, limits that leave no fine pixel of the area, and
    the number of pixels of even the smallest region. With two stages, the smallest region in each
    corner of the area has to be within reach.

    Parameters
    ----------
    beamline
        Its limits count, less the run-up that the fine maps need.
    surveyed
        The pixels of the survey.
    fine_step_um
        Pixel size of the rescans in um.
    dwell_ms
        Time at each of their pixels in ms.
    min_size_um
        Smallest side of a region in um.
    """
    flying, facts = beamline.rescanning, stage_facts(beamline)
    problems = preflight.speed_problems(flying, facts.fine[0], fine_step_um, dwell_ms)
    if beamline.fine is not None:
        problems += preflight.element_problems(flying)
    # A run-up at a velocity that is refused anyway would only add a second, confusing reason.
    if not problems:
        try:
            sizes = fine_step_um, dwell_ms, min_size_um
            for smallest in _smallest(beamline, surveyed, facts, *sizes):
                problems += preflight.map_problems(
                    flying, smallest.flown, dwell_ms, facts=facts.fine
                )
        except RefusedError as error:
            problems = [Problem(type(error), str(error))]
    problems += silent_axes(beamline)
    return [Problem(problem.kind, f"rescans: {problem.text}") for problem in problems]


def _smallest(
    beamline: Beamline,
    surveyed: ScanGrid,
    facts: StageFacts,
    fine_step_um: float,
    dwell_ms: float,
    min_size_um: float,
) -> Iterator[PlacedGrid]:
    """Yield the fine pixels of regions in the surveyed area that are as small as any can be.

    Raises
    ------
    RefusedError
        If no pixel of the area is allowed.
    """

    def placed(fast: AxisGrid, slow: AxisGrid) -> PlacedGrid:
        edges = (fast.low_um, fast.high_um, slow.low_um, slow.high_um)
        region = Region(*edges, elements=(), score=1.0, reason="", source_uid="")
        pixel = {"fine_step_um": fine_step_um, "dwell_ms": dwell_ms}
        return placed_grid(beamline, region, **pixel, facts=facts)

    size_um = max(min_size_um, fine_step_um)
    if beamline.fine is None:
        # One pixel that can be flown is enough: what reaches beyond the limits is shrunk.
        reachable = placed(surveyed.fast, surveyed.slow).grid
        lows = [(reachable.fast.low_um, reachable.slow.low_um)]
    else:
        (y_low, y_high), (x_low, x_high) = surveyed.extents_um
        lows = [(x, y) for x in (x_low, x_high - size_um) for y in (y_low, y_high - size_um)]
    for x_low, y_low in lows:
        fast, slow = (
            AxisGrid(axis.name, low + size_um / 2, size_um, 1)
            for axis, low in ((surveyed.fast, x_low), (surveyed.slow, y_low))
        )
        yield placed(fast, slow)
