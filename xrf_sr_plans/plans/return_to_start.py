"""`returning_to_start`: a plan without a center leaves the stage where it was."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, TypeVar

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import FlightError, in_words
from xrf_sr_plans.plans.area import Area
from xrf_sr_plans.plans.flight import ROW_FAILURES
from xrf_sr_plans.plans.safeguard import stop_all

logger = logging.getLogger(__name__)

_TRIES = 2
_SAME_PLACE = 0.25
"""Distance in pixels between setpoint and reading up to which an axis is where it was sent."""

T = TypeVar("T")


class _Home(NamedTuple):
    """Where an axis is brought back to."""

    axis: Any
    position_um: float
    um_per_unit: float
    velocity_um_s: float


def returning_to_start(beamline: Beamline, area: Area, part: MsgGenerator[T]) -> MsgGenerator[T]:
    """Run `part`; once it is complete, bring the axes without a center back to where they were.

    The same call then maps the same place again. A fine stage goes to its center. After an abort,
    a stop, a halt or a failure nothing is moved.

    Parameters
    ----------
    beamline
        Its stage.
    area
        The area that `part` maps; its centers say which axes are brought back.
    part
        The plan that maps it.

    Raises
    ------
    FlightError
        If an axis doesn't come back; what was measured is complete.
    """
    homes = [*_fine_homes(beamline), *_homes(beamline, area)]
    return (yield from _homing(beamline, homes, part))


def centering_fine_stage(beamline: Beamline, part: MsgGenerator[T]) -> MsgGenerator[T]:
    """Run `part`; once it is complete, bring the fine stage to its center, where there is one.

    After an abort, a stop, a halt or a failure nothing is moved.

    Parameters
    ----------
    beamline
        Its fine stage.
    part
        The plan that may move it.

    Raises
    ------
    FlightError
        If an axis doesn't come back; what was measured is complete.
    """
    return (yield from _homing(beamline, _fine_homes(beamline), part))


def _homing(beamline: Beamline, homes: list[_Home], part: MsgGenerator[T]) -> MsgGenerator[T]:
    returned = yield from part
    if homes:
        yield from _bring_back(beamline, homes)
    return returned


def _fine_homes(beamline: Beamline) -> list[_Home]:
    fine = beamline.fine
    if fine is None:
        return []
    homes = []
    for axis, center_um in zip((fine.fast, fine.slow), fine.center_um, strict=True):
        facts = axis_facts(axis)
        homes.append(_Home(axis, center_um, facts.um_per_unit, facts.velocity_um_s or 0.0))
    return homes


def _homes(beamline: Beamline, area: Area) -> list[_Home]:
    homes = []
    for axis, center_um in ((beamline.fast, area.x_center_um), (beamline.slow, area.y_center_um)):
        if center_um is not None:
            continue
        facts = axis_facts(axis)
        start_um = facts.position_um
        # Like bluesky's relative plans, go back to where the axis was sent: readings err, and a
        # stage that goes back to a reading each time walks away. After an interrupted move the
        # two are far apart, and the reading is where it was.
        sent_um = facts.setpoint_um
        if sent_um is not None and abs(sent_um - start_um) <= _SAME_PLACE * area.step_um:
            start_um = sent_um
        homes.append(_Home(axis, start_um, facts.um_per_unit, facts.velocity_um_s or 0.0))
    return homes


def _bring_back(beamline: Beamline, homes: list[_Home]) -> MsgGenerator[None]:
    targets = [part for home in homes for part in (home.axis, home.position_um / home.um_per_unit)]
    timeout = beamline.time_model.timeout_s(max(_travel_s(home) for home in homes))
    reason = ""
    for _ in range(_TRIES):
        try:
            yield from bps.checkpoint()
            yield from bps.mv(*targets, timeout=timeout)
            yield from bps.checkpoint()
            return
        except ROW_FAILURES as error:
            reason = in_words(error)
            logger.warning("the way back failed: %s", reason)
            yield from stop_all(*(home.axis for home in homes))
    places = ", ".join(f"{home.axis.name} to {home.position_um:g} um" for home in homes)
    raise FlightError(f"all is measured, but the stage doesn't come back ({places}): {reason}")


def _travel_s(home: _Home) -> float:
    if not home.velocity_um_s:
        return 0.0
    return abs(axis_facts(home.axis).position_um - home.position_um) / home.velocity_um_s
