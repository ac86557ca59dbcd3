"""Coming back to "here": a plan around where the stage was leaves the stage where it was."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, TypeVar

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import FlightError, in_words
from xrf_sr_plans.plans.design import Area
from xrf_sr_plans.plans.fly_map import ROW_FAILURES
from xrf_sr_plans.plans.safeguard import still

logger = logging.getLogger(__name__)

_TRIES = 2
_SAME_PLACE = 0.25
"""In pixels: where the axis was sent and where it reads may be so far apart."""

T = TypeVar("T")


class _Home(NamedTuple):
    axis: Any
    position_um: float
    um_per_unit: float
    velocity_um_s: float


def returning_to_start(beamline: Beamline, area: Area, part: MsgGenerator[T]) -> MsgGenerator[T]:
    """Run `part`; when it has completed, bring the axes without a centre back to where they were.

    So the same call maps the same place again. After an abort, a stop, a halt or a failure
    nothing is moved.

    Raises
    ------
    FlightError
        An axis doesn't come back; what was measured is complete.
    """
    homes = _homes(beamline, area)
    returned = yield from part
    if homes:
        yield from _back(beamline, homes)
    return returned


def _homes(beamline: Beamline, area: Area) -> list[_Home]:
    homes = []
    for axis, center_um in ((beamline.fast, area.x_center_um), (beamline.slow, area.y_center_um)):
        if center_um is not None:
            continue
        facts = axis_facts(axis)
        here_um = facts.position_um
        # Back to where it was sent, as bluesky's relative plans: readings err, and going back to
        # a reading each time would make the stage walk. After an interrupted move, to the reading.
        sent_um = facts.setpoint_um
        if sent_um is not None and abs(sent_um - here_um) <= _SAME_PLACE * area.step_um:
            here_um = sent_um
        homes.append(_Home(axis, here_um, facts.um_per_unit, facts.velocity_um_s or 0.0))
    return homes


def _back(beamline: Beamline, homes: list[_Home]) -> MsgGenerator[None]:
    targets = [part for home in homes for part in (home.axis, home.position_um / home.um_per_unit)]
    timeout = beamline.time_model.timeout_s(max(_way_s(home) for home in homes))
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
            yield from still(*(home.axis for home in homes))
    places = ", ".join(f"{home.axis.name} to {home.position_um:g} um" for home in homes)
    raise FlightError(f"all is measured, but the stage doesn't come back ({places}): {reason}")


def _way_s(home: _Home) -> float:
    if not home.velocity_um_s:
        return 0.0
    return abs(axis_facts(home.axis).position_um - home.position_um) / home.velocity_um_s
