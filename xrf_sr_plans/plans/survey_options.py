"""Ways to fly the coarse part of a survey in a given time, and what each is expected to reach.

A way is a distance between rows, a length of the pixels along them, and a time at each step.
Everything here is a function of the beamline's facts and of what was asked; nothing is read from
the stage but its limits, and nothing moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import FACTORS, SAME_GRID, Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.schema import PixelChoice
from xrf_sr_plans.sr.expected_error import ErrorTable, way_of

USUAL_COUNTS_PER_S = 5000.0
"""Photons per second of an element where it is brightest, unless the user says otherwise: 50 in
10 ms, in the middle of what is met in practice (5 to 1000)."""
_DIGITS = 4
"""Significant digits of a chosen dwell time."""


class Way(NamedTuple):
    """How far rows are apart, in pixels of the result, and how they are read out."""

    factor: Factor
    sampling: PixelChoice

    @property
    def fast_pixels(self) -> Factor:
        """Measured pixels per step along the fast axis."""
        return self.factor if self.sampling == "rows" else 1

    def __str__(self) -> str:
        if self.factor == SAME_GRID:
            return "every fine row"
        return f"{self.factor}x {self.sampling}"


WAYS: tuple[Way, ...] = tuple(
    Way(factor, sampling)
    for factor in FACTORS
    for sampling in ("rows", "squares")
    # Pixels as long as the rows are apart are squares.
    if (factor, sampling) != (SAME_GRID, "rows")
)
"""All ways that there are, the finest first."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a survey's coarse part is asked to be, apart from where it is.

    Parameters
    ----------
    fine_step_um
        Pixel size of the enhanced maps in um.
    time_s
        Beam time in seconds that the coarse part may take; None: as long as it needs.
    max_dose
        Highest dose, in the beamline's unit (`preflight.dose_unit`); None: no limit.
    dwell_ms
        Time at each step in ms; None: as long as time and dose allow, one of which is then given.
    counts_per_s
        Photons that an element counts per second where it is brightest.
    """

    fine_step_um: float
    time_s: float | None = None
    max_dose: float | None = None
    dwell_ms: float | None = None
    counts_per_s: float = USUAL_COUNTS_PER_S


@dataclass(frozen=True, kw_only=True)
class SurveyOption:
    """One way to fly the coarse part of a survey.

    Attributes
    ----------
    way
        Distance between rows, and length of the pixels along them.
    step_um
        Distance between rows in um, which is also the length of a step along them.
    dwell_ms
        Time at each step in ms.
    time_s
        Beam time in seconds.
    dose
        Mean dose, in the beamline's unit (`preflight.dose_unit`).
    photons
        Photons expected in an area as large as a pixel of the result, where the element is
        brightest.
    expected_db
        Peak signal-to-noise ratio that the enhanced map is expected to reach, in dB. NaN where
        none is known.
    limit
        What keeps the dwell time from being longer.
    problem
        Why it can't be flown; empty where it can.
    """

    way: Way
    step_um: float
    dwell_ms: float
    time_s: float
    dose: float
    photons: float
    expected_db: float
    limit: str
    problem: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it can be flown."""
        return not self.problem

    @classmethod
    def impossible(cls, way: Way, step_um: float, problem: str) -> SurveyOption:
        """Return a way of which there is nothing to say but why it can't be flown."""
        unknown = dict.fromkeys(("dwell_ms", "time_s", "dose", "photons", "expected_db"), math.nan)
        return cls(way=way, step_um=step_um, limit="", problem=problem, **unknown)

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """What options are sorted by, the best first and those that can't be flown last."""
        unknown = math.isnan(self.expected_db)
        return not self.allowed, unknown, 0.0 if unknown else -self.expected_db

    def line(self) -> str:
        """Return the option as one line for a person."""
        if math.isnan(self.dwell_ms):
            return f"{self.way}: {self.problem}"
        return (
            f"{self.way}: {self.step_um:.4g} um, {self.dwell_ms:.4g} ms, {self.time_s:.4g} s,"
            f" dose {self.dose:.3g}, {self.expected_db:.1f} dB;"
            f" {self.problem or f'limited by {self.limit}'}"
        )


class Flight(NamedTuple):
    """The rows of all maps of a survey together, and the steps in them."""

    rows: int
    steps: int

    @classmethod
    def of(cls, grids: Iterable[ScanGrid]) -> Flight:
        """Return those of maps whose pixels are as long as the rows are apart."""
        shapes = [grid.shape for grid in grids]
        return cls(sum(rows for rows, _ in shapes), sum(rows * steps for rows, steps in shapes))


def dwell_for_time_ms(beamline: Beamline, flight: Flight, time_s: float) -> float:
    """Return the time at each step, in ms, with which a flight takes `time_s` seconds.

    It is 0 or less where rows take longer than that by themselves.
    """
    model = beamline.time_model
    return (time_s - flight.rows * model.overhead_s) / (flight.steps * model.dwell_scale) * 1e3


def flight_s(beamline: Beamline, flight: Flight, dwell_ms: float) -> float:
    """Return the seconds that a flight takes, with so many ms at each step."""
    model = beamline.time_model
    return flight.rows * model.overhead_s + flight.steps * dwell_ms * 1e-3 * model.dwell_scale


def least_dwell(beamline: Beamline, step_um: float, way: Way) -> tuple[float, str]:
    """Return the shortest time at a step, in ms, that the hardware allows, and what limits it."""
    bounds = [
        (
            way.fast_pixels * 1e3 / beamline.max_rate_hz,
            f"the detectors take at most {beamline.max_rate_hz:g} frames/s",
        )
    ]
    velocity_um_s = preflight.highest_velocity_um_s(beamline, axis_facts(beamline.fast))
    if velocity_um_s is not None:
        text = f"the fast axis moves at most {velocity_um_s:g} um/s"
        bounds.append((step_um / velocity_um_s * 1e3, text))
    return max(bounds)


def survey_option(
    beamline: Beamline, asked: Asked, way: Way, flight: Flight, table: ErrorTable
) -> SurveyOption:
    """Return one way to fly, with the longest dwell time that fits.

    Where the hardware can't be as fast as that, the option has the shortest dwell time that it
    allows, and a `problem`.

    Parameters
    ----------
    beamline
        Its time model, rate, velocity, readout time and flux count.
    asked
        What is to be flown. A time, a dose or a dwell time must be given.
    way
        The way to fly.
    flight
        Rows and steps of all maps with this distance between rows.
    table
        What enhanced maps reach.
    """
    step_um = asked.fine_step_um * way.factor
    dwell_ms, limit = _longest_dwell(beamline, asked, step_um, flight)
    least_ms, bound = least_dwell(beamline, step_um, way)
    problem = ""
    # Rounding must not make a refusal of what is just fast enough.
    if dwell_ms < least_ms * (1 - 10.0 ** (1 - _DIGITS)):
        problem, dwell_ms = _too_slow(beamline, asked, flight, least_ms, bound, limit), least_ms
    else:
        dwell_ms = max(dwell_ms, least_ms)
    time_s = flight_s(beamline, flight, dwell_ms)
    if not problem and asked.time_s is not None and time_s > asked.time_s * (1 + 1e-3):
        problem = f"takes {time_s:.4g} s with dwell_ms {dwell_ms:g}"
    counting_ms = max(dwell_ms - way.fast_pixels * beamline.readout_ms, 0.0)
    photons = asked.counts_per_s * counting_ms * 1e-3 / way.factor**2
    option = SurveyOption(
        way=way,
        step_um=step_um,
        dwell_ms=dwell_ms,
        time_s=time_s,
        dose=preflight.dose(beamline, step_um**2, dwell_ms),
        photons=photons,
        expected_db=math.nan,
        limit=limit,
        problem=problem,
    )
    if photons <= 0:
        text = f"the detectors are read out for all of the {dwell_ms:.4g} ms"
        return replace(option, problem=problem or text)
    probe_px = (beamline.probe_fwhm_um or 0.0) / asked.fine_step_um
    name = way_of(way.factor, rows=way.sampling == "rows")
    expected_db = table.expected_db(name, photons, probe_px)
    if expected_db is None:
        return replace(option, problem=problem or "nobody has measured what it reaches")
    return replace(option, expected_db=expected_db)


def _longest_dwell(
    beamline: Beamline, asked: Asked, step_um: float, flight: Flight
) -> tuple[float, str]:
    """Return the longest time at a step in ms, rounded down, and what limits it."""
    if asked.dwell_ms is not None:
        return asked.dwell_ms, "dwell_ms"
    bounds = []
    if asked.time_s is not None:
        bounds.append((dwell_for_time_ms(beamline, flight, asked.time_s), "time_s"))
    if asked.max_dose is not None:
        per_ms = preflight.dose(beamline, step_um**2, 1.0)
        bounds.append((asked.max_dose / per_ms, "max_dose"))
    dwell_ms, limit = min(bounds)
    return _rounded_down(dwell_ms), limit


def _rounded_down(value: float) -> float:
    """Return a value with `_DIGITS` significant digits, not above it."""
    if value <= 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - _DIGITS)
    return math.floor(value / unit * (1 + 1e-12)) * unit


def _too_slow(
    beamline: Beamline, asked: Asked, flight: Flight, least_ms: float, bound: str, limit: str
) -> str:
    """Return in words why a flight can't be as short as it should."""
    least_s = flight_s(beamline, flight, least_ms)
    rows_s = flight.rows * beamline.time_model.overhead_s
    if limit == "time_s" and asked.time_s is not None and rows_s >= asked.time_s:
        return f"takes {rows_s:.4g} s between its {flight.rows} rows alone"
    return f"takes at least {least_s:.4g} s, {least_ms:.3g} ms a step: {bound}"


def ways_of(
    beamline: Beamline, factor: Factor | None = None, sampling: PixelChoice | None = None
) -> Iterator[Way]:
    """Yield the ways that a beamline could fly, with this factor and sampling where given.

    On the grid of the result there are squares only. Stepped maps are square, too; rows of them
    are refused later, in words, where they are asked for.
    """
    squares_only = bool(preflight.why_squares_only(beamline))
    for way in WAYS:
        as_asked = sampling in (None, way.sampling) or way.factor == SAME_GRID
        possible = way.sampling == "squares" or not squares_only or sampling == "rows"
        if factor in (None, way.factor) and as_asked and possible:
            yield way
