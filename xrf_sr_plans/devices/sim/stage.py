"""A stage axis as a plain physics object: moves, limits, backlash and encoder noise."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable

import numpy as np

from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import StuckMotor
from xrf_sr_plans.devices.sim.trapezoid import distance_moved, move_duration_s
from xrf_sr_plans.errors import LimitsError
from xrf_sr_plans.ranges import ABOVE_ZERO, ANY_NUMBER, ZERO_OR_MORE, Range, check


class StageAxis:
    """One motorized axis, in um and seconds.

    The encoder sits on the motor's side of the play. The sample therefore lags by half the
    backlash in whichever direction the axis moved last, and the encoder doesn't show it.

    Parameters
    ----------
    name
        Name of the axis, for messages.
    clock
        The clock that moves take their time from.
    limits_um
        (low, high); as in EPICS, low == high means that no limits are set.
    velocity_um_s
        Velocity of ordinary moves.
    max_velocity_um_s
        Highest possible velocity.
    acceleration_s
        Time to reach the velocity from rest.
    backlash_um
        Play of the sample between the two directions.
    encoder_noise_um
        RMS error of one encoder reading.
    position_um
        Where the axis is to begin with.
    seed
        Seed of the encoder noise.
    stuck
        When and how the motor fails; None: never.

    Raises
    ------
    ConfigError
        The velocity is not above 0 and at most the highest one, or another number is outside its
        range.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        limits_um: tuple[float, float],
        velocity_um_s: float = 500.0,
        max_velocity_um_s: float = 2000.0,
        acceleration_s: float = 0.05,
        backlash_um: float = 0.05,
        encoder_noise_um: float = 0.01,
        position_um: float = 0.0,
        seed: int = 0,
        stuck: StuckMotor | None = None,
    ) -> None:
        check(
            f"axis {name!r}",
            ABOVE_ZERO.flaw("max_velocity_um_s", max_velocity_um_s)
            or Range(0.0, max_velocity_um_s, above=True).flaw("velocity_um_s", velocity_um_s),
            ABOVE_ZERO.flaw("acceleration_s", acceleration_s),
            ZERO_OR_MORE.flaw("backlash_um", backlash_um),
            ZERO_OR_MORE.flaw("encoder_noise_um", encoder_noise_um),
            ANY_NUMBER.flaw("position_um", position_um),
        )
        self.name = name
        self.clock = clock
        self.limits_um = limits_um
        self.velocity_um_s = velocity_um_s
        self.max_velocity_um_s = max_velocity_um_s
        self.acceleration_s = acceleration_s
        self.backlash_um = backlash_um
        self.encoder_noise_um = encoder_noise_um
        self.seed = seed
        self.stuck = stuck
        self.num_moves = 0
        self.moving = False
        self.motor_um = float(position_um)
        self._direction = 1
        self.on_move: list[Callable[[], None]] = []
        """Functions that are called whenever the axis has changed its position."""

    @property
    def sample_um(self) -> float:
        """Where the sample really is."""
        return self.motor_um + self.backlash_offset_um(self._direction)

    @property
    def encoder_um(self) -> float:
        """What the encoder reads here, which is always the same at the same place."""
        key = f"{self.seed}:{self.name}:{round(self.motor_um * 1e6)}"
        digest = hashlib.sha256(key.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return self.motor_um + self.encoder_noise_um * rng.standard_normal()

    def backlash_offset_um(self, direction: int) -> float:
        """Return how far the sample is off the motor's position after a move in a direction."""
        return -direction * self.backlash_um / 2

    def check_limits(self, target_um: float, what: str = "target") -> None:
        """Refuse a position outside the limits; `what` names it in the message.

        Raises
        ------
        LimitsError
            The position is not finite, or it lies outside limits that are set.
        """
        low, high = self.limits_um
        if not math.isfinite(target_um):
            raise LimitsError(f"axis {self.name!r}: {what} is {target_um} um")
        if low != high and not low <= target_um <= high:
            raise LimitsError(
                f"axis {self.name!r}: {what} {target_um:g} um is outside {low:g}..{high:g} um"
            )

    def travel(
        self, target_um: float, interrupt: threading.Event, velocity_um_s: float | None = None
    ) -> bool:
        """Move, and return whether the axis has arrived.

        Parameters
        ----------
        target_um
            Where to move to; limits are not checked here.
        interrupt
            Ends the move where the axis is as soon as it is set.
        velocity_um_s
            Velocity of this move; None: that of ordinary moves.

        Raises
        ------
        TimeoutError
            The motor is stuck and says so.
        MotorHangs
            The motor is stuck and doesn't say so.
        """
        if self._is_stuck():
            return self._fail_to_move(interrupt)
        start, distance = self.motor_um, target_um - self.motor_um
        if distance == 0:
            return True
        self._direction = 1 if distance > 0 else -1
        velocity = velocity_um_s or self.velocity_um_s
        total_s = move_duration_s(abs(distance), velocity, self.acceleration_s)
        self.moving = True
        try:
            elapsed_s = 0.0
            while elapsed_s < total_s:
                remaining_s = total_s - elapsed_s
                step_s = total_s if self.clock.instant else min(self.clock.slice_s, remaining_s)
                if not self.clock.spend(step_s, interrupt):
                    return False
                elapsed_s += step_s
                done = distance_moved(elapsed_s, abs(distance), velocity, self.acceleration_s)
                self._set_position(start + self._direction * done)
            self._set_position(target_um)
        finally:
            self.moving = False
        return True

    def _set_position(self, position_um: float) -> None:
        self.motor_um = float(position_um)
        for notify in self.on_move:
            notify()

    def _is_stuck(self) -> bool:
        index, self.num_moves = self.num_moves, self.num_moves + 1
        return self.stuck is not None and self.stuck.blocks_move(index)

    def _fail_to_move(self, interrupt: threading.Event) -> bool:
        assert self.stuck is not None
        if self.stuck.mode == "error":
            raise TimeoutError(f"axis {self.name!r} is stuck at {self.motor_um:g} um")
        if self.stuck.mode == "hang":
            raise MotorHangs
        return not interrupt.is_set()


class MotorHangs(Exception):
    """A move neither ends nor fails, so that its status stays open until someone stops it."""
