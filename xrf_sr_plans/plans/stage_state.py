"""The state of the stage that coordinates of the sample belong to, and what has changed in it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from xrf_sr_plans.devices.axes import own_position
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import LimitsError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans.preflight import Problem


def stage_state(beamline: Beamline) -> dict[str, float]:
    """Return where the axes are that don't fly a map on the coarse stage, by name.

    The axes that are held are in their own units, and left out where they don't say where they
    are. Those of the fine stage are at their centers, in um.
    """
    held = {str(held.axis.name): own_position(held.axis) for held in beamline.held}
    state = {name: position for name, position in held.items() if math.isfinite(position)}
    fine = beamline.fine
    if fine is not None:
        state |= {fine.fast.name: fine.center_um[0], fine.slow.name: fine.center_um[1]}
    return state


def silent_axes(beamline: Beamline) -> list[Problem]:
    """Return a problem for each axis that has to be held, but doesn't say where it is."""
    return [
        Problem(
            LimitsError,
            f"axis {held.axis.name!r}: doesn't say where it is, so that no region can be tied to"
            " its position",
        )
        for held in beamline.held
        if not math.isfinite(own_position(held.axis))
    ]


def changed_axes(beamline: Beamline, region: Region) -> list[Problem]:
    """Return a problem for each axis that isn't where it was when a region was found.

    The axes that plans move themselves are no problem, wherever they are.
    """
    fine = beamline.fine
    moved = {beamline.fast.name, beamline.slow.name}
    if fine is not None:
        moved |= {fine.fast.name, fine.slow.name}
    others = {name: position for name, position in region.stage.items() if name not in moved}
    return [Problem(LimitsError, text) for text in _changes(beamline, others)]


def _changes(beamline: Beamline, surveyed: Mapping[str, float]) -> list[str]:
    held = {str(held.axis.name): held for held in beamline.held}
    texts = []
    for name, was in surveyed.items():
        if name not in held:
            text = f"{beamline.name} doesn't name that axis, so that nobody can tell where it is"
            texts.append(f"surveyed at {name} {was:g}; {text}")
            continue
        now, tolerance = own_position(held[name].axis), held[name].tolerance
        if not math.isfinite(now):
            texts.append(f"surveyed at {name} {was:g}, but it doesn't say where it is now")
        elif abs(now - was) > tolerance:
            texts.append(
                f"surveyed at {name} {was:g}, but it is at {now:g} now, which is more than"
                f" {tolerance:g} away"
            )
    return texts
