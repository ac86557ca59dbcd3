"""What is checked before anything moves. Everything that is wrong is told at once.

These are pure functions of the beamline's facts and a grid. The plans, `preview` and the choice of
regions all use them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xrf_sr_plans.devices.axes import AxisFacts, axis_facts
from xrf_sr_plans.devices.map_protocols import HasMapPlan
from xrf_sr_plans.devices.protocols import Beamline, HasRowPlan, RowTimeModel
from xrf_sr_plans.errors import BudgetError, ConfigError, LimitsError, QueryError, RefusedError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.measurement import doubled_names
from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES, kind_of_refusal
from xrf_sr_plans.rois.query_parser import parse_query

_SLACK = 1e-6
"""Rounding error of positions, relative and in um, that doesn't count as a violation."""


class Problem(NamedTuple):
    """One reason to refuse a request: the error to be raised, and its message."""

    kind: type[RefusedError]
    text: str


class Box(NamedTuple):
    """How far pixels' edges and run-ups may reach along one axis, in um, and who says so."""

    low_um: float
    high_um: float
    source: str


@dataclass(frozen=True)
class MapCost:
    """What it costs to fly a map.

    Attributes
    ----------
    points
        Number of pixels.
    time_s
        Beam time in seconds.
    row_s
        Time of one row in seconds.
    dose
        Mean over the map, in `dose_unit`.
    dose_unit
        "photons/um^2" (incoming) where the beamline knows its flux, else "s/um^2" (of beam).
    velocity_um_s
        Velocity of the fast axis in um/s.
    """

    points: int
    time_s: float
    row_s: float
    dose: float
    dose_unit: str
    velocity_um_s: float


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one error that lists all `problems`, or return where there are none.

    Raises
    ------
    RefusedError
        If there is a problem. The error is of the problems' own kind where they share one, and
        its `reasons` are their texts.
    """
    different = {problem.text: problem for problem in problems}
    if not different:
        return
    kinds = {problem.kind for problem in different.values()}
    kind = kinds.pop() if len(kinds) == 1 else RefusedError
    error = kind("; ".join(different))
    error.reasons = tuple(different)
    raise error


def number_problems(values: Mapping[str, float | None]) -> list[Problem]:
    """Return a problem for each of `values`, by parameter, that its range doesn't have.

    None stands for a default and is no problem.
    """
    return [
        Problem(kind_of_refusal(name), PARAMETER_RANGES[name].flaw(name, value))
        for name, value in values.items()
        if value is not None and value not in PARAMETER_RANGES[name]
    ]


def element_problems(beamline: Beamline) -> list[Problem]:
    """Return a problem where the flyer names no element, or one of them more than once."""
    flyer = beamline.flyer
    wrong = doubled_names(flyer.elements) if len(flyer.elements) else "it measures no element"
    return [Problem(ConfigError, f"flyer {flyer.name!r}: {wrong}")] if wrong else []


def query_problems(find: str | None, elements: Sequence[str]) -> list[Problem]:
    """Return what is wrong with an element query; None is no query, and nothing is wrong with it.

    Parameters
    ----------
    find
        The query.
    elements
        Names of the elements that are measured.
    """
    if not isinstance(find, str):
        return []
    try:
        unknown = [name for name in parse_query(find).elements if name not in elements]
    except QueryError as error:
        return [Problem(QueryError, str(error))]
    return [
        Problem(QueryError, f"find {find!r}: nobody measures {name!r}; there are {list(elements)}")
        for name in unknown
    ]


def allowed_box(beamline: Beamline, facts: AxisFacts, *, is_fast: bool) -> Box | Problem:
    """Return how far an axis may go: where its own limits and the beamline's safe box overlap.

    Parameters
    ----------
    beamline
        It may have a safe box.
    facts
        The axis with its limits, each of which counts as it is.
    is_fast
        Whether it is the fast axis.

    Returns
    -------
    Box or Problem
        A problem where nothing is said about one of the two sides, where a limit is NaN, or where
        nothing is left between them.
    """
    lows, highs, sources = [facts.low_um], [facts.high_um], []
    if facts.low_um is not None or facts.high_um is not None:
        sources.append("limits")
    if beamline.safe_box_um is not None:
        low_um, high_um = beamline.safe_box_um[0 if is_fast else 1]
        lows.append(low_um)
        highs.append(high_um)
        sources.append("safe box")
    known_lows = [low for low in lows if low is not None]
    known_highs = [high for high in highs if high is not None]
    low, high = facts.low_um, facts.high_um
    if not known_lows or not known_highs:
        unknown = "limits" if not sources else "upper limit" if known_lows else "lower limit"
        return Problem(
            LimitsError,
            f"axis {facts.name!r}: knows no {unknown} (low {low}, high {high});"
            " set what is missing or give the beamline a safe_box_um",
        )
    if any(math.isnan(limit) for limit in (*known_lows, *known_highs)):
        text = f"axis {facts.name!r}: a limit is no number (low {low}, high {high})"
        return Problem(LimitsError, text)
    box = Box(max(known_lows), min(known_highs), " and ".join(sources))
    if not box.low_um < box.high_um:
        return Problem(
            LimitsError,
            f"axis {facts.name!r}: {box.source} leave nothing ({box.low_um:g}..{box.high_um:g} um)",
        )
    return box


def is_stepping(beamline: Beamline) -> bool:
    """Return whether rows are stepped, so that neither run-up nor fly velocity matters."""
    return isinstance(beamline.flyer, HasRowPlan)


def why_squares_only(beamline: Beamline) -> str:
    """Return in words why pixels have to be square, or "" where they needn't be."""
    flyer = beamline.flyer
    if is_stepping(beamline):
        return f"{flyer.name!r} steps its rows: only flown ones are read out finely"
    if isinstance(flyer, HasMapPlan) and flyer.squares_only:
        return f"the plan of {flyer.name!r} takes the same step along both axes"
    return ""


def run_up_um(beamline: Beamline, facts: AxisFacts, step_um: float, dwell_ms: float) -> float:
    """Return how far before a row the fast axis starts, to be at its velocity when the row begins.

    The result is in um. It is the beamline's own figure if there is one. Otherwise it is what the
    axis would cover at full velocity in its acceleration time, which is twice what it covers
    while it accelerates, or one step if that time isn't known. Stepped rows need none.

    Parameters
    ----------
    beamline
        It may say how much run-up it needs.
    facts
        The fast axis, with its acceleration time.
    step_um
        Pixel size along the fast axis in um.
    dwell_ms
        Time at each pixel in ms.
    """
    if is_stepping(beamline):
        return 0.0
    if beamline.run_up_um is not None:
        return beamline.run_up_um
    if facts.acceleration_s is None:
        return step_um
    return step_um / dwell_ms * 1e3 * facts.acceleration_s


def map_cost(
    beamline: Beamline, grid: ScanGrid, dwell_ms: float, time_model: RowTimeModel | None = None
) -> MapCost:
    """Return what it costs to fly a map.

    Parameters
    ----------
    beamline
        Its flux and time model count.
    grid
        The pixels.
    dwell_ms
        Time at each pixel in ms.
    time_model
        How long rows take. None means the time model of the beamline.
    """
    rows, columns = grid.shape
    row_s = (time_model or beamline.time_model).row_s(columns, dwell_ms)
    return MapCost(
        points=rows * columns,
        time_s=rows * row_s,
        row_s=row_s,
        dose=dose(beamline, grid.fast.step_um * grid.slow.step_um, dwell_ms),
        dose_unit=dose_unit(beamline),
        velocity_um_s=grid.fast.step_um / dwell_ms * 1e3,
    )


def dose(beamline: Beamline, pixel_um2: float, dwell_ms: float) -> float:
    """Return the dose in a pixel of `pixel_um2` um^2, in the unit that `dose_unit` returns."""
    seconds_per_um2 = dwell_ms * 1e-3 / pixel_um2
    return seconds_per_um2 * (1.0 if beamline.flux_ph_s is None else beamline.flux_ph_s)


def dose_unit(beamline: Beamline) -> str:
    """Return the unit of doses, which depends on whether the flux is known."""
    return "s/um^2" if beamline.flux_ph_s is None else "photons/um^2"


def budget_problems(
    time_s: float,
    cost: MapCost,
    *,
    budget_s: float | None = None,
    max_dose: float | None = None,
) -> Iterator[Problem]:
    """Yield a problem for each budget that is exceeded.

    Parameters
    ----------
    time_s
        Beam time in seconds.
    cost
        A map's cost, of which the dose counts.
    budget_s
        Highest beam time in seconds. None means no limit.
    max_dose
        Highest dose, in the unit of the map's dose. None means no limit.
    """
    if budget_s is not None and time_s > budget_s:
        yield Problem(BudgetError, f"needs {time_s:.4g} s; budget_s is {budget_s:.4g} s")
    if max_dose is not None and cost.dose > max_dose:
        yield Problem(
            BudgetError,
            f"dose {cost.dose:.4g} {cost.dose_unit}; max_dose is {max_dose:.4g}",
        )


def map_problems(
    beamline: Beamline,
    grid: ScanGrid,
    dwell_ms: float,
    *,
    facts: tuple[AxisFacts, AxisFacts] | None = None,
) -> list[Problem]:
    """Return everything that forbids to fly a map, which may be flown where the list is empty.

    Parameters
    ----------
    beamline
        Its limits and its axes count.
    grid
        The pixels.
    dwell_ms
        Time at each pixel in ms.
    facts
        The fast and the slow axis. None means that they are read from the devices.
    """
    problems = number_problems({"dwell_ms": dwell_ms})
    if problems:
        return problems
    fast, slow = facts or (axis_facts(beamline.fast), axis_facts(beamline.slow))
    problems += _range_problems(beamline, fast, grid.fast, grid.run_up_um, is_fast=True)
    problems += _range_problems(beamline, slow, grid.slow, 0.0, is_fast=False)
    problems += _reach_problems(beamline, grid)
    problems += points_problems(beamline, grid)
    return problems + speed_problems(beamline, fast, grid.fast.step_um, dwell_ms)


def points_problems(beamline: Beamline, grid: ScanGrid) -> Iterator[Problem]:
    """Yield a problem where a map has more pixels than one map can have."""
    points = math.prod(grid.shape)
    if points > beamline.max_points:
        yield Problem(
            LimitsError,
            f"{grid.shape[1]} x {grid.shape[0]} = {points} pixels;"
            f" {beamline.name} takes at most {beamline.max_points} in one map",
        )


def _reach_problems(beamline: Beamline, grid: ScanGrid) -> Iterator[Problem]:
    """Yield a problem for each axis along which a map is larger than one map can be."""
    if beamline.reach_um is None:
        return
    for axis, reach_um in zip((grid.fast, grid.slow), beamline.reach_um, strict=True):
        size_um = axis.high_um - axis.low_um
        if size_um > reach_um * (1 + _SLACK):
            yield Problem(
                LimitsError,
                f"axis {axis.name!r}: the map is {size_um:g} um long;"
                f" {beamline.name} reaches {reach_um:g} um in one map",
            )


def speed_problems(
    beamline: Beamline, facts: AxisFacts, step_um: float, dwell_ms: float
) -> list[Problem]:
    """Return a problem for each thing that forbids pixels of this length and time in a row.

    These are the rate of the frames, the velocity of the fast axis and its encoder's resolution.

    Parameters
    ----------
    beamline
        Its highest frame rate, readout time, velocity and encoder resolution count.
    facts
        The fast axis.
    step_um
        Pixel size along it in um.
    dwell_ms
        Time at each pixel in ms.
    """
    problems = [*_frame_problems(beamline, dwell_ms)]
    encoder_um = beamline.encoder_um
    if encoder_um is not None and not is_stepping(beamline) and step_um < encoder_um * (1 - _SLACK):
        text = (
            f"axis {facts.name!r}: a pixel of {step_um:g} um is shorter than {encoder_um:g} um,"
            " the resolution of its encoder"
        )
        problems.append(Problem(LimitsError, text))
    highest_um_s = highest_velocity_um_s(beamline, facts)
    velocity_um_s = step_um / dwell_ms * 1e3
    if highest_um_s is not None and velocity_um_s > highest_um_s * (1 + _SLACK):
        text = (
            f"axis {facts.name!r}: step / dwell needs {velocity_um_s:g} um/s;"
            f" at most {highest_um_s:g} um/s is allowed"
        )
        problems.append(Problem(LimitsError, text))
    return problems


def highest_velocity_um_s(beamline: Beamline, facts: AxisFacts) -> float | None:
    """Return the highest velocity in um/s with which a row may be flown.

    It is None where nobody says so, and for stepped rows, which aren't flown.

    Parameters
    ----------
    beamline
        It may allow less than the axis does.
    facts
        The fast axis.
    """
    known = [
        limit
        for limit in (beamline.max_velocity_um_s, facts.max_velocity_um_s)
        if limit is not None and limit > 0
    ]
    return min(known) if known and not is_stepping(beamline) else None


def _frame_problems(beamline: Beamline, dwell_ms: float) -> Iterator[Problem]:
    """Yield a problem where frames come faster than they can be taken, or count nothing at all."""
    rate_hz = 1e3 / dwell_ms
    if rate_hz > beamline.max_rate_hz * (1 + _SLACK):
        text = (
            f"dwell_ms {dwell_ms:g} means {rate_hz:g} frames/s;"
            f" the detectors take at most {beamline.max_rate_hz:g}"
        )
        yield Problem(LimitsError, text)
    if dwell_ms <= beamline.readout_ms:
        text = (
            f"dwell_ms {dwell_ms:g} leaves no time to count: the detectors are read out for"
            f" {beamline.readout_ms:g} ms of it"
        )
        yield Problem(LimitsError, text)


def _range_problems(
    beamline: Beamline, facts: AxisFacts, axis: AxisGrid, run_up: float, *, is_fast: bool
) -> Iterator[Problem]:
    box = allowed_box(beamline, facts, is_fast=is_fast)
    if isinstance(box, Problem):
        yield box
        return
    low, high = axis.low_um - run_up, axis.high_um + run_up
    slack = _SLACK * max(1.0, abs(low), abs(high))
    if low < box.low_um - slack or high > box.high_um + slack:
        yield Problem(
            LimitsError,
            f"axis {facts.name!r}: the map needs {low:g}..{high:g} um (half a pixel"
            f"{f' and {run_up:g} um run-up' if run_up else ''} included);"
            f" {box.source} allow {box.low_um:g}..{box.high_um:g} um",
        )
