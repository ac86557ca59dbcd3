"""`fine_grid`: the pixels of a rescan that is flown by the axes that flew the survey."""

from __future__ import annotations

import math

from xrf_sr_plans.devices.axes import AxisFacts, axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import LimitsError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans import preflight

WHOLE = 1e-6
"""Deviation in pixels from a whole number of pixels that still counts as whole."""


def fine_grid(
    beamline: Beamline,
    region: Region,
    *,
    fine_step_um: float,
    dwell_ms: float,
    facts: tuple[AxisFacts, AxisFacts] | None = None,
) -> ScanGrid:
    """Return the fine pixels that cover a region, as far as limits and reach allow.

    The lattice begins at the region's lower edges, so that fine pixels nest in the pixels of the
    map that the region was found in.

    Parameters
    ----------
    beamline
        Its limits, reach and run-up count.
    region
        The rectangle to be covered.
    fine_step_um
        Pixel size in um.
    dwell_ms
        Time at each pixel in ms.
    facts
        The fast and the slow axis. None means that they are read from the devices.

    Raises
    ------
    RefusedError
        If not even one pixel is allowed.
    """
    fast, slow = facts or (axis_facts(beamline.fast), axis_facts(beamline.slow))
    run_up = preflight.run_up_um(beamline, fast, fine_step_um, dwell_ms)
    reach = beamline.reach_um or (math.inf, math.inf)
    x_edges = region.x_low_um, region.x_high_um
    y_edges = region.y_low_um, region.y_high_um
    x_box = preflight.allowed_box(beamline, fast, is_fast=True)
    y_box = preflight.allowed_box(beamline, slow, is_fast=False)
    return ScanGrid(
        fitted(fast, x_box, x_edges, fine_step_um, reach[0], run_up),
        fitted(slow, y_box, y_edges, fine_step_um, reach[1], 0.0),
        run_up_um=run_up,
    )


def fitted(
    facts: AxisFacts,
    box: preflight.Box | preflight.Problem,
    edges: tuple[float, float],
    step_um: float,
    reach_um: float,
    run_up: float,
) -> AxisGrid:
    """Return the pixels along one axis between `edges`, as far as box, run-up and reach allow."""
    if isinstance(box, preflight.Problem):
        raise box.kind(box.text)
    if step_um > reach_um * (1 + WHOLE):
        text = f"a pixel of {step_um:g} um is larger than the reach of {reach_um:g} um"
        raise LimitsError(f"axis {facts.name!r}: {text}")
    lowest, highest = box.low_um + run_up, box.high_um - run_up
    low, high = edges
    if not lowest < highest:
        raise LimitsError(
            f"axis {facts.name!r}: {run_up:g} um run-up on both sides leave nothing of"
            f" {box.low_um:g}..{box.high_um:g} um ({box.source})"
        )
    if low < lowest:
        # Only whole pixels are left out, so that the others stay on the region's lattice.
        low += math.ceil((lowest - low) / step_um - WHOLE) * step_um
    most = math.floor((min(highest - low, reach_um)) / step_um + WHOLE)
    num = min(math.ceil((high - low) / step_um - WHOLE), most)
    if num < 1:
        raise LimitsError(
            f"axis {facts.name!r}: no pixel of {edges[0]:g}..{edges[1]:g} um lies within"
            f" {lowest:g}..{highest:g} um ({box.source}, {run_up:g} um run-up)"
        )
    return AxisGrid(facts.name, low + step_um / 2, step_um, num)


def shrink_note(region: Region, grid: ScanGrid) -> str:
    """Return in words what of a region its grid leaves out, or "" where it covers everything."""
    notes = []
    for axis, low, high in (
        (grid.fast, region.x_low_um, region.x_high_um),
        (grid.slow, region.y_low_um, region.y_high_um),
    ):
        slack = WHOLE * axis.step_um
        if axis.low_um > low + slack or axis.high_um < high - slack:
            notes.append(
                f"axis {axis.name!r}: {low:g}..{high:g} um shrunk to"
                f" {axis.low_um:g}..{axis.high_um:g} um"
            )
    return "; ".join(notes)
