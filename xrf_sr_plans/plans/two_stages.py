"""Plan stubs that bring the two stages of a beamline where a map needs them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from xrf_sr_plans.devices.axes import AxisFacts, axis_facts
from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.errors import FlightError, LimitsError, in_words
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.safeguard import stop_all

logger = logging.getLogger(__name__)

START_S = 0.5
"""Seconds that it takes to start at a region, besides the way to it."""
_SAME_PLACE_UM = 1e-6
"""Distance in um that is a rounding error."""


class _Target(NamedTuple):
    """Where an axis is sent."""

    axis: Any
    facts: AxisFacts
    position_um: float


def center_problems(beamline: Beamline) -> list[Problem]:
    """Return a problem for each axis of the fine stage whose center is outside its limits."""
    problems = []
    for target, is_fast in zip(_centers(beamline), (True, False), strict=False):
        box = preflight.allowed_box(beamline.rescanning, target.facts, is_fast=is_fast)
        if isinstance(box, Problem):
            problems.append(box)
        elif not box.low_um <= target.position_um <= box.high_um:
            text = (
                f"axis {target.facts.name!r}: its center of {target.position_um:g} um is outside"
                f" {box.low_um:g}..{box.high_um:g} um ({box.source})"
            )
            problems.append(Problem(LimitsError, text))
    return problems


def center_fine_stage(beamline: Beamline) -> MsgGenerator[None]:
    """Bring the fine stage to its center, so that the coarse stage has the sample's coordinates.

    Nothing is done where there is no fine stage.

    Raises
    ------
    FlightError
        If it doesn't get there.
    """
    try:
        yield from _sent(_centers(beamline), beamline.time_model)
    except ROW_FAILURES as error:
        text = f"the fine stage doesn't go to its center: {in_words(error)}"
        raise FlightError(text) from error


def go_to_region(
    beamline: Beamline, coarse_um: tuple[float, float]
) -> MsgGenerator[tuple[float, float]]:
    """Send the coarse stage to a region; return where it is then.

    Parameters
    ----------
    beamline
        It has a fine stage.
    coarse_um
        Where the coarse axes (fast, slow) are sent, in um.

    Returns
    -------
    tuple of float
        What the coarse axes read there, in um; where an axis doesn't read, it is where it was sent.

    Raises
    ------
    FlightError
        If an axis stops farther from there than the fine stage can make up for.
    """
    assert beamline.fine is not None
    devices = beamline.fast, beamline.slow
    targets = [
        _Target(device, axis_facts(device), position)
        for device, position in zip(devices, coarse_um, strict=True)
    ]
    yield from _sent(targets, beamline.time_model)
    there = [axis_facts(device).position_um for device in devices]
    for target, position_um in zip(targets, there, strict=True):
        error_um = abs(position_um - target.position_um)
        if error_um > beamline.fine.coarse_error_um + _SAME_PLACE_UM:
            raise FlightError(
                f"axis {target.facts.name!r} was sent to {target.position_um:g} um and is at"
                f" {position_um:g} um; the fine stage makes up for"
                f" {beamline.fine.coarse_error_um:g} um at most (coarse_error_um)"
            )
    x, y = (
        position_um if math.isfinite(position_um) else target.position_um
        for target, position_um in zip(targets, there, strict=True)
    )
    return x, y


def region_way_s(beamline: Beamline, extents_um: tuple[float, float]) -> float:
    """Return the seconds that the way to a region, and the start there, take on average.

    Parameters
    ----------
    beamline
        The velocities of its coarse stage count where it has a fine one.
    extents_um
        Width and height of the area that the regions lie in, in um. Two places in it are a third
        of that apart on average.
    """
    if beamline.fine is None:
        return START_S
    velocities = (axis_facts(axis).velocity_um_s for axis in (beamline.fast, beamline.slow))
    ways = (
        extent / 3 / velocity
        for extent, velocity in zip(extents_um, velocities, strict=True)
        if velocity
    )
    return START_S + max(ways, default=0.0)


def grid_extents_um(grid: ScanGrid) -> tuple[float, float]:
    """Return width and height of a grid, in um."""
    (y_low, y_high), (x_low, x_high) = grid.extents_um
    return x_high - x_low, y_high - y_low


def region_extents_um(regions: Iterable[Region]) -> tuple[float, float]:
    """Return width and height of the box around regions, in um; (0, 0) where there is none."""
    boxes = list(regions)
    if not boxes:
        return 0.0, 0.0
    return (
        max(box.x_high_um for box in boxes) - min(box.x_low_um for box in boxes),
        max(box.y_high_um for box in boxes) - min(box.y_low_um for box in boxes),
    )


def _centers(beamline: Beamline) -> list[_Target]:
    fine = beamline.fine
    if fine is None:
        return []
    return [
        _Target(axis, axis_facts(axis), center)
        for axis, center in zip((fine.fast, fine.slow), fine.center_um, strict=True)
    ]


def _sent(targets: list[_Target], times: RowTimeModel) -> MsgGenerator[None]:
    """Send axes to their targets, and stop them where that fails or is interrupted."""
    if not targets:
        return
    moves = [part for t in targets for part in (t.axis, t.position_um / t.facts.um_per_unit)]
    timeout_s = times.timeout_s(max(_travel_s(target) for target in targets))

    def stop(error: Exception) -> MsgGenerator[None]:
        logger.warning("axes are stopped on their way: %r", error)
        yield from stop_all(*(target.axis for target in targets))

    yield from bps.checkpoint()
    yield from bpp.contingency_wrapper(bps.mv(*moves, timeout=timeout_s), except_plan=stop)
    yield from bps.checkpoint()


def _travel_s(target: _Target) -> float:
    distance_um = abs(target.facts.position_um - target.position_um)
    if not target.facts.velocity_um_s or not math.isfinite(distance_um):
        return 0.0
    return distance_um / target.facts.velocity_um_s
