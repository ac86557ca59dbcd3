"""`placed_grid`: the pixels of a rescan, and where the stages that fly it have to be.

With one stage this is `fine_grid`. With two, the coarse stage goes where the middle of the fine
stage's range is on the middle of the region, or as near to that as its limits allow, and the fine
stage flies the pixels. Nothing here moves anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xrf_sr_plans.devices.axes import AxisFacts, axis_facts
from xrf_sr_plans.devices.protocols import Beamline, FineStage
from xrf_sr_plans.errors import LimitsError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.stage_placement import AxisPlacement, StagePlacement
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.fine_grid import WHOLE, fine_grid, fitted
from xrf_sr_plans.plans.preflight import Box, Problem


@dataclass(frozen=True)
class PlacedGrid:
    """The pixels of a rescan, and where the stages are while it is flown.

    Attributes
    ----------
    grid
        The pixels, in coordinates of the sample.
    coarse_um
        Where the coarse axes (fast, slow) go first, in um. None where there is one stage only.
    placement
        Where the axes that fly are on the sample. None where their positions are its coordinates.
    """

    grid: ScanGrid
    coarse_um: tuple[float, float] | None = None
    placement: StagePlacement | None = None

    @property
    def flown(self) -> ScanGrid:
        """The pixels as positions of the axes that fly them."""
        return self.grid if self.placement is None else self.placement.grid_of_axes(self.grid)


class StageFacts(NamedTuple):
    """What is known about the axes (fast, slow) of both stages; they are the same with one."""

    coarse: tuple[AxisFacts, AxisFacts]
    fine: tuple[AxisFacts, AxisFacts]


def stage_facts(beamline: Beamline) -> StageFacts:
    """Return what the axes of a beamline say about themselves now."""
    coarse = axis_facts(beamline.fast), axis_facts(beamline.slow)
    if beamline.fine is None:
        return StageFacts(coarse, coarse)
    return StageFacts(coarse, (axis_facts(beamline.fine.fast), axis_facts(beamline.fine.slow)))


def placed_grid(
    beamline: Beamline,
    region: Region,
    *,
    fine_step_um: float,
    dwell_ms: float,
    facts: StageFacts | None = None,
) -> PlacedGrid:
    """Return the fine pixels that cover a region, as far as limits and reach of all axes allow.

    The lattice begins at the region's lower edges, so that fine pixels nest in the pixels of the
    map that the region was found in.

    Parameters
    ----------
    beamline
        Its limits, reach and run-up count, and those of its fine stage.
    region
        The rectangle to be covered. Its `stage` says where the fine axes were in the survey; where
        it doesn't, they were at their center.
    fine_step_um
        Pixel size in um.
    dwell_ms
        Time at each pixel in ms.
    facts
        The axes. None means that they are read from the devices.

    Raises
    ------
    RefusedError
        If not even one pixel is allowed.
    """
    facts = facts or stage_facts(beamline)
    fine = beamline.fine
    if fine is None:
        pixel = {"fine_step_um": fine_step_um, "dwell_ms": dwell_ms}
        return PlacedGrid(fine_grid(beamline, region, **pixel, facts=facts.coarse))
    ranges = _fine_ranges(beamline, facts, fine_step_um, dwell_ms)
    references = _references(fine, region.stage)
    edges = (
        (region.x_low_um, region.x_high_um),
        (region.y_low_um, region.y_high_um),
    )
    pixels: list[AxisGrid] = []
    coarse_um: list[float] = []
    for index in range(2):
        stage = _Axis(
            facts.coarse[index],
            _box(preflight.allowed_box(beamline, facts.coarse[index], is_fast=index == 0)),
            ranges[index],
            fine.sign[index],
            references[index],
            None if beamline.safe_box_um is None else beamline.safe_box_um[index],
        )
        axis, position_um = _placed_axis(stage, edges[index], fine_step_um)
        pixels.append(axis)
        coarse_um.append(position_um)
    run_up = ranges[0].run_up_um
    return PlacedGrid(
        ScanGrid(pixels[0], pixels[1], run_up_um=run_up),
        (coarse_um[0], coarse_um[1]),
        placement_at(fine, region.stage, (coarse_um[0], coarse_um[1])),
    )


def placement_at(
    fine: FineStage, stage: Mapping[str, float], coarse_um: tuple[float, float]
) -> StagePlacement:
    """Return where the axes of the fine stage are on the sample.

    Parameters
    ----------
    fine
        The fine stage.
    stage
        Positions by name, in um, that the fine axes had in the survey. They had their centers
        where it doesn't name them.
    coarse_um
        Where the coarse axes (fast, slow) are, in um.
    """
    fast, slow = (
        AxisPlacement(axis.name, sign, coarse - sign * reference)
        for axis, sign, coarse, reference in zip(
            (fine.fast, fine.slow), fine.sign, coarse_um, _references(fine, stage), strict=True
        )
    )
    return StagePlacement(fast, slow)


def rescan_reach_um(
    beamline: Beamline, fine_step_um: float, dwell_ms: float
) -> tuple[float, float] | None:
    """Return the largest (width, height) in um that a region can be flown with; None: no largest.

    Parameters
    ----------
    beamline
        Its reach counts, or that of its fine stage, less what run-up and limits take from it.
    fine_step_um
        Pixel size of the rescans in um.
    dwell_ms
        Time at each of their pixels in ms.

    Raises
    ------
    LimitsError
        The fine stage has no limits, or its run-up leaves nothing of its range.
    """
    if beamline.fine is None:
        return beamline.reach_um
    fast, slow = _fine_ranges(beamline, stage_facts(beamline), fine_step_um, dwell_ms)
    return fast.reach_um, slow.reach_um


class _Range(NamedTuple):
    """What of one fine axis can be used for pixels, in um of that axis."""

    low_um: float
    high_um: float
    reach_um: float
    margin_um: float
    run_up_um: float


class _Axis(NamedTuple):
    """One coarse axis with the fine one on top of it."""

    coarse: AxisFacts
    box: Box
    fine: _Range
    sign: int
    reference_um: float
    safe_um: tuple[float, float] | None


def _fine_ranges(
    beamline: Beamline, facts: StageFacts, fine_step_um: float, dwell_ms: float
) -> tuple[_Range, _Range]:
    flying, fine = beamline.rescanning, beamline.fine
    assert fine is not None
    run_up = preflight.run_up_um(flying, facts.fine[0], fine_step_um, dwell_ms)
    ranges = []
    for index, axis_run_up in enumerate((run_up, 0.0)):
        axis, margin = facts.fine[index], fine.coarse_error_um
        box = _box(preflight.allowed_box(flying, axis, is_fast=index == 0))
        low, high = box.low_um + axis_run_up, box.high_um - axis_run_up
        reach = min(fine.reach_um[index], high - low - 2 * margin)
        if fine_step_um > reach * (1 + WHOLE):
            raise LimitsError(
                f"axis {axis.name!r}: {box.low_um:g}..{box.high_um:g} um ({box.source}) less"
                f" {axis_run_up:g} um run-up and {margin:g} um for the coarse stage's error on"
                f" both sides, and its reach of {fine.reach_um[index]:g} um, leave no pixel of"
                f" {fine_step_um:g} um"
            )
        ranges.append(_Range(low, high, reach, margin, axis_run_up))
    return ranges[0], ranges[1]


def _placed_axis(
    stage: _Axis, edges: tuple[float, float], step_um: float
) -> tuple[AxisGrid, float]:
    """Return the pixels between `edges` along one axis, and where the coarse stage goes."""
    fine, sign = stage.fine, stage.sign
    size_um = min(edges[1] - edges[0], math.floor(fine.reach_um / step_um + WHOLE) * step_um)
    center_um = edges[0] + math.ceil(size_um / step_um - WHOLE) * step_um / 2
    middle_um = (fine.low_um + fine.high_um) / 2
    wanted_um = center_um - sign * (middle_um - stage.reference_um)
    coarse_um = min(max(wanted_um, stage.box.low_um), stage.box.high_um)
    ends = (
        coarse_um + sign * (fine.low_um - stage.reference_um),
        coarse_um + sign * (fine.high_um - stage.reference_um),
    )
    low, high = min(ends) + fine.margin_um, max(ends) - fine.margin_um
    if stage.safe_um is not None:
        low = max(low, stage.safe_um[0] + fine.run_up_um)
        high = min(high, stage.safe_um[1] - fine.run_up_um)
    source = f"{stage.box.source} of both stages"
    window = Box(low, high, source)
    return fitted(stage.coarse, window, edges, step_um, fine.reach_um, 0.0), coarse_um


def _references(fine: FineStage, stage: Mapping[str, float]) -> tuple[float, float]:
    """Return the positions in um at which coordinates of the sample are the coarse stage's."""
    fast, slow = (
        float(stage.get(axis.name, center)) - sign * offset
        for axis, center, sign, offset in zip(
            (fine.fast, fine.slow), fine.center_um, fine.sign, fine.offset_um, strict=True
        )
    )
    return fast, slow


def _box(box: Box | Problem) -> Box:
    if isinstance(box, Problem):
        raise box.kind(box.text)
    return box
