"""`RowTimeModel`: how long a row takes."""

from __future__ import annotations

from dataclasses import dataclass

from xrf_sr_plans.ranges import TIME_RANGES, check, range_flaws


@dataclass(frozen=True)
class RowTimeModel:
    """How long a row takes: ``num * dwell * dwell_scale + overhead_s``.

    Plans recalibrate it from finished rows (`plans.timing.recalibrated`).

    Parameters
    ----------
    overhead_s
        Seconds that a row takes besides its dwell, for run-up, return and readout.
    dwell_scale
        Real time per pixel, as a multiple of the dwell.
    patience
        A row is given up after this multiple of its expected time ...
    grace_s
        ... and this many seconds on top.

    Raises
    ------
    ConfigError
        A number is NaN, infinite or negative, or `dwell_scale` is 0.
    """

    overhead_s: float = 0.1
    dwell_scale: float = 1.0
    patience: float = 3.0
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        check("time model", *range_flaws(vars(self), TIME_RANGES))

    def row_s(self, num: int, dwell_ms: float) -> float:
        """Return the expected seconds for a row of `num` pixels."""
        return num * dwell_ms * 1e-3 * self.dwell_scale + self.overhead_s

    def timeout_s(self, expected_s: float) -> float:
        """Return how many seconds to wait for what should take `expected_s` seconds."""
        return self.patience * expected_s + self.grace_s
