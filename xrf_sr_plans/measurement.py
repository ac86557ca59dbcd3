"""How a map was measured: the one description that models, methods and figures are given.

Whatever says "factor" or "sampling" takes the word, its allowed values and the sentence that
refuses another value from here.
"""

from __future__ import annotations

import math
import typing
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from xrf_sr_plans.errors import ConfigError

Factor = Literal[1, 2, 4]
"""How many fine pixels a step of the survey holds along each axis."""
FACTORS: tuple[Factor, ...] = typing.get_args(Factor)
CoarserFactor = Literal[2, 4]
"""How many times coarser a map is than the one that is made of it, or than the fine map of its
pair, where it is coarser at all."""
COARSER_FACTORS: tuple[CoarserFactor, ...] = typing.get_args(CoarserFactor)
SAME_GRID = 1
"""The factor of a map whose result has the same pixels: it is freed of noise, and of the blur of
a known probe."""

Sampling = Literal["fly", "area", "point", "rows"]
"""What a pixel averages over: its path along the fast axis, its whole area, or nothing.

``rows`` is a fly scan that is read out in pixels as short as those of the enhanced map along the
fast axis, while its rows are a coarse step apart. `physics.forward.AVERAGES` has the axes."""
SAMPLINGS: tuple[Sampling, ...] = typing.get_args(Sampling)
Reading = tuple[int, int]
"""What a network reads: a factor, and measured pixels per coarse step along the fast axis."""
READINGS: tuple[Reading, ...] = ((1, 1), (2, 1), (4, 1), (2, 2), (4, 4))
"""All ways in which a map can be measured: squares of every factor, and rows."""
ENLARGED_SQUARES: tuple[Reading, ...] = ((2, 1), (4, 1))
"""Squares of which the result has more pixels."""
MOST_PROBE_STEPS = 100
"""Width of the widest probe, in coarse steps. A wider one is a unit that was mistaken."""

TRAINED_PROBE_STEPS = 1.2
"""Width of the widest probe, in coarse steps, that networks are trained with and told of.

A map with a wider probe is smoother than any in training. Told how wide, they fail on it; told of
this one, they gain on it what they gain elsewhere.
"""


def alternatives(allowed: Iterable[object]) -> str:
    """Return alternatives as text, such as "2 or 4"."""
    *others, last = (repr(value) for value in allowed)
    return f"{', '.join(others)} or {last}" if others else last


def not_allowed(name: str, value: object, allowed: str) -> str:
    """Return the sentence that refuses a value, such as "factor is 3; it should be 2 or 4".

    The queue server's manager refuses a plan's argument in pydantic's words, "Input should be
    2 or 4", which can't be changed. The end of this sentence is the same.
    """
    return f"{name} is {value!r:.80}; it should be {allowed}"


def doubled_names(names: Iterable[str]) -> str:
    """Return in words which element names are there more than once, or "" where each is once.

    Everything is kept by name: maps, regions, queries. Of two maps of one name one would be lost.
    """
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if not doubled:
        return ""
    which = ", ".join(repr(name) for name in doubled)
    return f"{which} is named more than once; each element needs a name of its own"


def factor_not_allowed(value: object) -> str:
    """Return the sentence that refuses a factor which is none of `FACTORS`."""
    return not_allowed("factor", value, alternatives(FACTORS))


def checked_factor(factor: int) -> Factor:
    """Return `factor` as one of `FACTORS`.

    Raises
    ------
    ConfigError
        It is none of them.
    """
    for allowed in FACTORS:
        if factor == allowed:
            return allowed
    raise ConfigError(factor_not_allowed(factor))


def checked_sampling(name: str) -> Sampling:
    """Return `name` as one of `SAMPLINGS`.

    Raises
    ------
    ConfigError
        It is none of them.
    """
    for sampling in SAMPLINGS:
        if name == sampling:
            return sampling
    raise ConfigError(not_allowed("sampling", name, alternatives(SAMPLINGS)))


def fly_scan(reading: Reading) -> Sampling:
    """Return how a fly scan of a reading is sampled: as rows, or as the squares of its path."""
    return "rows" if reading[1] > 1 else "fly"


def reading_name(reading: Reading) -> str:
    """Return a reading in words: "2" for squares, "2 rows" for rows."""
    factor, pixels = reading
    return f"{factor} rows" if pixels > 1 else str(factor)


@dataclass(frozen=True)
class Measurement:
    """How a coarse map was measured, and which blur its enhancement is to remove.

    Parameters
    ----------
    factor
        Fine pixels per coarse step along each axis, one of `FACTORS`.
    sampling
        What a measured pixel averages over, one of `SAMPLINGS`.
    probe_steps
        Full width at half maximum of the probe in coarse steps; 0 where it is unknown.
    deblur
        True: the estimate is that of the sample itself, freed of the probe's blur. False: the
        estimate keeps that blur and is what a fine scan with the same probe would count.
    noisy
        False: the counts are expected values without Poisson noise, so nothing needs smoothing.

    Raises
    ------
    ConfigError
        A factor or sampling that is not allowed, or a probe width that is negative, not finite or
        above `MOST_PROBE_STEPS`.
    """

    factor: int
    sampling: Sampling = "fly"
    probe_steps: float = 0.0
    deblur: bool = True
    noisy: bool = True

    def __post_init__(self) -> None:
        checked_factor(self.factor)
        checked_sampling(self.sampling)
        if not (math.isfinite(self.probe_steps) and self.probe_steps >= 0):
            problem = f"probe FWHM is {self.probe_steps} coarse steps; it should be 0 or more"
            raise ConfigError(problem)
        if self.probe_steps > MOST_PROBE_STEPS:
            raise ConfigError(
                f"probe FWHM is {self.probe_steps:g} coarse steps; it should be at most"
                f" {MOST_PROBE_STEPS}. Are the units right?"
            )

    @property
    def fast_pixels(self) -> int:
        """Measured pixels per coarse step along the fast axis: `factor` for rows, else 1."""
        return self.factor if self.sampling == "rows" else 1

    @property
    def reading(self) -> Reading:
        """What a network needs a head for to read the map: factor and `fast_pixels`."""
        return self.factor, self.fast_pixels

    @property
    def squares(self) -> Measurement:
        """How the map is measured once the pixels of each coarse step are summed.

        It is the same unless the map is rows.
        """
        return replace(self, sampling="fly") if self.sampling == "rows" else self

    @property
    def refinement(self) -> tuple[int, int]:
        """Fine pixels per measured pixel along the (slow, fast) axis."""
        return self.factor, self.factor // self.fast_pixels

    @property
    def removed_probe_steps(self) -> float:
        """Width, in coarse steps, of the probe blur that the estimate is freed of."""
        return self.probe_steps if self.deblur else 0.0

    @property
    def kept_probe_steps(self) -> float:
        """Width, in coarse steps, of the probe blur that the estimate keeps."""
        return 0.0 if self.deblur else self.probe_steps

    @property
    def sharpening_steps(self) -> float:
        """Width of the removed probe blur, or minus that of the kept one, in coarse steps."""
        return self.probe_steps if self.deblur else -self.probe_steps
