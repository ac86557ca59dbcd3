"""The clock of the simulated hardware."""

from __future__ import annotations

import contextlib
import math
import threading

from xrf_sr_plans.errors import ConfigError

_SLICE_S = 0.02
"""Real seconds between two updates of something that moves."""


class Clock:
    """A clock that simulated hardware spends its time on.

    Parameters
    ----------
    speed
        Simulated seconds per real second: 1 is real time, 10 is ten times faster, and with
        ``math.inf`` nothing takes any time.

    Raises
    ------
    ConfigError
        `speed` is not above 0.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ConfigError(f"clock: speed is {speed}; it must be above 0")
        self.speed = float(speed)
        self._elapsed_s = 0.0
        self._lock = threading.Lock()

    @property
    def instant(self) -> bool:
        """Whether nothing takes real time, so that nothing needs a thread either."""
        return self.speed == float("inf")

    @property
    def elapsed_s(self) -> float:
        """Simulated seconds that the hardware has been busy so far."""
        return self._elapsed_s

    @property
    def slice_s(self) -> float:
        """Simulated seconds between two updates of something that moves."""
        return _SLICE_S * self.speed

    def spend(self, seconds: float, interrupt: threading.Event) -> bool:
        """Let simulated seconds pass, and return True.

        As soon as `interrupt` is set, return False without waiting any longer.
        """
        with self._lock:
            self._elapsed_s += max(0.0, seconds)
        if self.instant or seconds <= 0:
            return not interrupt.is_set()
        return not interrupt.wait(seconds / self.speed)


def as_clock(clock: Clock | float | str) -> Clock:
    """Return a clock by its name or its speed, such as "10"; a clock is returned as it is.

    Raises
    ------
    ConfigError
        `clock` is none of these.
    """
    if isinstance(clock, Clock):
        return clock
    if clock == "instant":
        return Clock(float("inf"))
    if clock == "real":
        return Clock(1.0)
    speed = math.nan
    if isinstance(clock, (int, float, str)) and not isinstance(clock, bool):
        with contextlib.suppress(ValueError):
            speed = float(clock)
    if speed > 0:
        return Clock(speed)
    raise ConfigError(
        f"clock is {clock!r:.80}; 'instant', 'real', a speed above 0 or a Clock is needed"
    )
