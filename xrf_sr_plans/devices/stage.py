"""The parts of a beamline's stage: the fine stage, axes that are held, and what a device needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bluesky.protocols import HasName, NamedMovable

from xrf_sr_plans.devices.row_time import RowTimeModel
from xrf_sr_plans.maps.stage_placement import Sign
from xrf_sr_plans.ranges import (
    ABOVE_ZERO,
    ANY_NUMBER,
    BEAMLINE_RANGES,
    ZERO_OR_MORE,
    box_flaw,
    check,
    range_flaws,
)

if TYPE_CHECKING:
    from xrf_sr_plans.devices.protocols import RowFlyer

NEEDED: Mapping[str, tuple[str, ...]] = {
    "fast": ("name", "set"),
    "slow": ("name", "set"),
    "flyer": ("name", "elements", "prepare", "collect"),
    "shutter": ("set",),
    "analysis": ("name", "set", "trigger"),
    "rescan_queue": ("name", "set", "read"),
    "approvals": ("name", "set", "trigger", "read"),
    "axis": ("name",),
}
"""What plans use of each device; axes and flyers can't be None."""
_CAN_BE_NONE = ("analysis", "shutter", "rescan_queue", "approvals")


def device_flaw(field_name: str, device: object) -> str:
    """Return in words why something can't be a device of a beamline, or "" where it can."""
    if device is None and field_name in _CAN_BE_NONE:
        return ""
    if isinstance(device, str):
        return (
            f"{field_name} is {device!r}, which is text; give the device itself, or name it in a "
            "settings file (Beamline.from_settings)"
        )
    missing = [name for name in NEEDED[field_name] if not hasattr(device, name)]
    lacks = ", no ".join(missing)
    return f"{field_name} is {device!r:.80}, which has no {lacks}" if missing else ""


@dataclass(frozen=True)
class HeldAxis:
    """A stage axis that has to be where it was when a region was found, such as z or theta.

    Parameters
    ----------
    axis
        A positioner; its position is looked up as that of the other axes.
    tolerance
        How far it may be from where it was, in its own unit.

    Raises
    ------
    ConfigError
        The axis has no name, or the tolerance is not 0 or more.
    """

    axis: HasName
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check(
            "held axis",
            device_flaw("axis", self.axis),
            ZERO_OR_MORE.flaw("tolerance", self.tolerance),
        )


@dataclass(frozen=True)
class FineStage:
    """Axes of small range on top of a beamline's coarse stage, which fly the rescans.

    Coordinates of the sample are those of the coarse stage while the fine stage is at its center
    and doesn't fly: ``sample = coarse + sign * (fine - center) + offset``.

    Parameters
    ----------
    fast, slow
        The axes, as those of a `Beamline`. Their limits count, less the run-up.
    flyer
        A `RowFlyer` that flies these axes.
    reach_um
        Largest (width, height) of one map. Where limits and run-up leave less, that counts.
    center_um
        Where the axes (fast, slow) are while the coarse stage flies, in um.
    sign
        For each axis +1 where it runs with the coarse axis, and -1 where it runs against it.
    offset_um
        How far (x, y) on the sample the beam is from where both stages say it is when the fine
        stage flies, in um. Verifications of rescans tell it.
    coarse_error_um
        How far the coarse stage may stop from where it was sent, in um; so much of the range of
        the fine stage is kept free on every side.
    safe_box_um, max_rate_hz, max_points, readout_ms, max_velocity_um_s, encoder_um, run_up_um, \
time_model
        As those of a `Beamline`, but for the fine stage. The highest frame rate, the largest
        number of pixels and the readout time are those of the beamline where they are None.

    Raises
    ------
    ConfigError
        A number is outside its range, or a device is not of its kind. The message lists all of it.
    """

    fast: NamedMovable[float]
    slow: NamedMovable[float]
    flyer: RowFlyer
    reach_um: tuple[float, float]
    center_um: tuple[float, float] = (0.0, 0.0)
    sign: tuple[Sign, Sign] = (1, 1)
    offset_um: tuple[float, float] = (0.0, 0.0)
    coarse_error_um: float = 0.5
    safe_box_um: tuple[tuple[float, float], tuple[float, float]] | None = None
    max_rate_hz: float | None = None
    max_points: int | None = None
    readout_ms: float | None = None
    max_velocity_um_s: float | None = None
    encoder_um: float | None = None
    run_up_um: float | None = None
    time_model: RowTimeModel = field(default_factory=RowTimeModel)

    def __post_init__(self) -> None:
        model, box, sign = self.time_model, self.safe_box_um, self.sign
        is_model = isinstance(model, RowTimeModel)
        signs = isinstance(sign, (tuple, list)) and len(sign) == 2 and set(sign) <= {1, -1}
        check(
            "fine stage",
            "" if is_model else f"time_model is {model!r:.80}; it must be a RowTimeModel",
            "" if signs else f"sign is {sign!r:.80}; it must be a pair of 1 or -1",
            "" if box is None else box_flaw("safe_box_um", box),
            ABOVE_ZERO.pair_flaw("reach_um", self.reach_um),
            ANY_NUMBER.pair_flaw("center_um", self.center_um),
            ANY_NUMBER.pair_flaw("offset_um", self.offset_um),
            ZERO_OR_MORE.flaw("coarse_error_um", self.coarse_error_um),
            *range_flaws(vars(self), BEAMLINE_RANGES),
            *(device_flaw(name, vars(self)[name]) for name in ("fast", "slow", "flyer")),
        )
