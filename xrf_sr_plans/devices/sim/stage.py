"""A stage axis as a physics object: trapezoidal moves, limits, backlash, encoder noise."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable

import numpy as np

from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import StuckMotor
from xrf_sr_plans.errors import ConfigError, LimitsError


class StageAxis:
    """One motorised axis, in um and seconds.

    The encoder sits on the motor's side of the play: the sample lags by half the backlash in
    whichever direction the axis last moved, and the encoder doesn't know.

    Parameters
    ----------
    limits_um
        (low, high); low == high means none are set, as in EPICS.
    velocity_um_s, max_velocity_um_s
        Of ordinary moves, and the highest possible.
    acceleration_s
        Time to reach full speed.
    backlash_um
        Play between the two directions.
    encoder_noise_um
        RMS error of one encoder reading.
    stuck
        When and how the motor fails.
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
        if not (0 < velocity_um_s <= max_velocity_um_s and acceleration_s > 0):
            raise ConfigError(
                f"axis {name!r}: velocity {velocity_um_s} um/s must be above 0 and at most "
                f"{max_velocity_um_s}, acceleration_s {acceleration_s} above 0"
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
        self.moves = 0
        self.moving = False
        self.motor_um = float(position_um)
        self._direction = 1
        self.on_move: list[Callable[[], None]] = []

    @property
    def sample_um(self) -> float:
        """Where the sample really is."""
        return self.motor_um + self.play_um(self._direction)

    @property
    def encoder_um(self) -> float:
        """What the encoder reads here; the same place always reads the same."""
        key = f"{self.seed}:{self.name}:{round(self.motor_um * 1e6)}"
        digest = hashlib.sha256(key.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return self.motor_um + self.encoder_noise_um * rng.standard_normal()

    def play_um(self, direction: int) -> float:
        """Return the sample's offset from the motor after moving in a direction."""
        return -direction * self.backlash_um / 2

    def check(self, target_um: float, what: str = "target") -> None:
        """Refuse a position outside the limits.

        Raises
        ------
        LimitsError
            Not finite, or outside limits that are set.
        """
        low, high = self.limits_um
        if not math.isfinite(target_um):
            raise LimitsError(f"axis {self.name!r}: {what} is {target_um} um")
        if low < high and not low <= target_um <= high:
            raise LimitsError(
                f"axis {self.name!r}: {what} {target_um:g} um is outside {low:g}..{high:g} um"
            )

    def travel(
        self, target_um: float, interrupt: threading.Event, velocity_um_s: float | None = None
    ) -> bool:
        """Move; return False where it was interrupted on the way.

        Raises
        ------
        TimeoutError
            The motor is stuck and says so.
        """
        if self._is_stuck():
            return self._stay(interrupt)
        start, distance = self.motor_um, target_um - self.motor_um
        if distance == 0:
            return True
        self._direction = 1 if distance > 0 else -1
        velocity = velocity_um_s or self.velocity_um_s
        total = travel_s(abs(distance), velocity, self.acceleration_s)
        self.moving = True
        try:
            spent = 0.0
            while spent < total:
                step = total if self.clock.instant else min(self.clock.slice_s, total - spent)
                if not self.clock.spend(step, interrupt):
                    return False
                spent += step
                done = travelled_um(spent, abs(distance), velocity, self.acceleration_s)
                self._be_at(start + self._direction * done)
            self._be_at(target_um)
        finally:
            self.moving = False
        return True

    def _be_at(self, position_um: float) -> None:
        self.motor_um = float(position_um)
        for notify in self.on_move:
            notify()

    def _is_stuck(self) -> bool:
        index, self.moves = self.moves, self.moves + 1
        return self.stuck is not None and self.stuck.holds(index)

    def _stay(self, interrupt: threading.Event) -> bool:
        assert self.stuck is not None
        if self.stuck.mode == "error":
            raise TimeoutError(f"axis {self.name!r} is stuck at {self.motor_um:g} um")
        if self.stuck.mode == "hang":
            raise MotorHangs
        return not interrupt.is_set()


class MotorHangs(Exception):
    """The move neither ends nor fails: its status stays open until someone stops it."""


def travel_s(distance_um: float, velocity_um_s: float, acceleration_s: float) -> float:
    """Return the duration of a trapezoidal move."""
    ramps_um = velocity_um_s * acceleration_s
    if distance_um < ramps_um:
        return 2 * math.sqrt(distance_um * acceleration_s / velocity_um_s)
    return 2 * acceleration_s + (distance_um - ramps_um) / velocity_um_s


def travelled_um(
    time_s: float, distance_um: float, velocity_um_s: float, acceleration_s: float
) -> float:
    """Return how far a trapezoidal move has come after `time_s`."""
    total = travel_s(distance_um, velocity_um_s, acceleration_s)
    rate = velocity_um_s / acceleration_s
    ramp = min(acceleration_s, total / 2)
    if time_s >= total:
        return distance_um
    if time_s <= ramp:
        return rate * time_s**2 / 2
    if time_s >= total - ramp:
        return distance_um - rate * (total - time_s) ** 2 / 2
    return rate * ramp**2 / 2 + rate * ramp * (time_s - ramp)


def arrival_s(distance_um: np.ndarray, velocity_um_s: float, acceleration_s: float) -> np.ndarray:
    """Return when an axis that starts from rest has come so far, if it doesn't brake."""
    ramp_um = velocity_um_s * acceleration_s / 2
    ramping = np.sqrt(2 * np.clip(distance_um, 0, None) * acceleration_s / velocity_um_s)
    return np.where(
        distance_um < ramp_um, ramping, acceleration_s + (distance_um - ramp_um) / velocity_um_s
    )


def swept_um(time_s: np.ndarray, velocity_um_s: float, acceleration_s: float) -> np.ndarray:
    """Return how far an axis that starts from rest has come, if it doesn't brake."""
    ramping = velocity_um_s / acceleration_s * time_s**2 / 2
    ramp_um = velocity_um_s * acceleration_s / 2
    return np.where(
        time_s < acceleration_s, ramping, ramp_um + velocity_um_s * (time_s - acceleration_s)
    )
