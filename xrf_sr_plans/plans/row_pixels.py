"""`RowPixels`: whether the rows of a map are read out in pixels finer than the rows are apart.

A fly scan that is read out in square pixels averages along the row what it could have kept for
nothing: the same row, at the same velocity and dose, can be read out in shorter pixels. So maps
are flown as *rows* wherever the hardware takes that many frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import FACTORS, Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.preflight import Problem

MOST_READOUT = 0.1
"""Largest share of a pixel's time that may pass in reading out for rows to be flown unasked: what
shorter pixels show is not worth more of the photons."""

AS_ASKED = "squares, as asked for"
"""What is said of square pixels that somebody asked for."""


@dataclass(frozen=True)
class RowPixels:
    """Pixels per step along the fast axis, and why there are so many.

    Attributes
    ----------
    number
        Pixels per step: more than 1 are rows, 1 are squares.
    note
        Why, in words for a person; empty where there was nothing to choose.
    problems
        What forbids the rows that were asked for; empty where they can be flown.
    """

    number: Factor
    note: str = ""
    problems: tuple[Problem, ...] = ()

    def of(self, squares: ScanGrid) -> ScanGrid:
        """Return the pixels that are read out on a grid of square pixels."""
        return squares.refined((1, self.number))

    def dwell_ms(self, step_dwell_ms: float) -> float:
        """Return the time at each pixel in ms, given the time at each step."""
        return step_dwell_ms / self.number


SQUARES = RowPixels(1)
"""Square pixels, where nobody had a choice."""


def finest(factor: int) -> tuple[Factor, ...]:
    """Return the numbers of pixels per step up to `factor` that rows can have, the finest first."""
    return tuple(number for number in reversed(FACTORS) if 1 < number <= factor)


def chosen_row_pixels(
    beamline: Beamline,
    squares: Sequence[ScanGrid],
    step_dwell_ms: float,
    numbers: Sequence[Factor],
    asked: schema.PixelChoice | None,
) -> RowPixels:
    """Return how maps are read out: as rows where that is asked for or possible, else as squares.

    Parameters
    ----------
    beamline
        Its frame rate, readout time, number of pixels and encoder count.
    squares
        The pixels of all maps if they were square. What forbids these is no matter here.
    step_dwell_ms
        Time at each square pixel in ms.
    numbers
        Pixels per step that may be chosen, the best first.
    asked
        What the user wants; None: rows where they are possible.
    """
    numbers = [number for number in numbers if number > 1]
    if asked == "squares":
        return RowPixels(1, AS_ASKED)
    if not numbers:
        return SQUARES
    step_um = squares[0].fast.step_um
    if text := preflight.why_squares_only(beamline):
        return _squares(asked, [Problem(ConfigError, text)])
    if preflight.speed_problems(beamline, axis_facts(beamline.fast), step_um, step_dwell_ms):
        # Not even squares can be flown, which is told in the words of what was asked for.
        return SQUARES
    hindrances: list[Problem] = []
    for number in numbers:
        hindrances = list(_hindrances(beamline, squares, step_dwell_ms, number, asked))
        if not hindrances:
            return RowPixels(number, _about_rows(step_um, step_dwell_ms, number))
    return _squares(asked, hindrances)


def _squares(asked: schema.PixelChoice | None, hindrances: Sequence[Problem]) -> RowPixels:
    """Return squares, and why there are no rows: as a note, or as problems where rows are asked."""
    if asked == "rows":
        problems = (Problem(kind, f"sampling 'rows': {text}") for kind, text in hindrances)
        return RowPixels(1, problems=tuple(problems))
    reasons = "; ".join(problem.text for problem in hindrances)
    return RowPixels(1, f"squares, because rows are not possible: {reasons}")


def _hindrances(
    beamline: Beamline,
    squares: Sequence[ScanGrid],
    step_dwell_ms: float,
    number: Factor,
    asked: schema.PixelChoice | None,
) -> Iterator[Problem]:
    """Yield what forbids rows of so many pixels per step."""
    pixels = RowPixels(number)
    dwell_ms, grids = pixels.dwell_ms(step_dwell_ms), [pixels.of(grid) for grid in squares]
    facts = axis_facts(beamline.fast)
    yield from preflight.speed_problems(beamline, facts, grids[0].fast.step_um, dwell_ms)
    yield from preflight.points_problems(beamline, max(grids, key=lambda grid: grid.fast.num))
    if asked is None and MOST_READOUT * dwell_ms < beamline.readout_ms < dwell_ms:
        yield Problem(
            ConfigError,
            f"the detectors are read out for {beamline.readout_ms:g} of {dwell_ms:g} ms, more than"
            f" {MOST_READOUT:.0%} of a pixel's time",
        )


def _about_rows(step_um: float, step_dwell_ms: float, number: int) -> str:
    return (
        f"rows, {step_um:g} um apart, in pixels of {step_um / number:g} um and"
        f" {step_dwell_ms / number:g} ms: {number} to a step, at the time and dose of squares"
    )
