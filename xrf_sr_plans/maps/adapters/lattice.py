"""The equally spaced positions on which readings lie, and how they agree with what was announced.

Readings decide: start documents write extents relative to where a scan began, count a range by
pixels or by the steps between them, or are simply wrong. What they announce serves as the first
guess, settles where unmeasured pixels are, and gives neat numbers where the readings agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.grid import AxisGrid

_SAME_STEPS = 0.01
"""Distance in steps within which a lattice counts as the announced one."""
_STEP_ERROR = 0.05
"""Error in steps, over all pixels, from which on the step of the readings replaces the announced
one."""
_ODD_STEPS = 0.25
"""Distance in steps beyond which the difference to the announced lattice is worth a note."""
_NEAR_STEPS = 0.25
"""Distance in steps from a point of the lattice within which a reading lies on it."""
_MOST_FAR = 0.1
"""Share of readings that may lie on no point of the lattice."""
_UNITS_UM = (1.0, 1e3, 1e-3, 1e4, 1e6)
"""Micrometers in the units that readings without a unit were found to have."""
_SIMILAR = 1.4
"""Largest ratio of two steps that are the same one but for noise or for how pixels are counted."""


@dataclass(frozen=True)
class SaidAxis:
    """The pixels along one axis, as the start document announces them.

    Parameters
    ----------
    name
        Name of the axis.
    first_um
        Center of the pixel that is measured first.
    step_um
        Distance to the next one; negative where positions go down.
    num
        Number of pixels.
    is_relative
        Whether positions are relative to where the scan began.
    """

    name: str
    first_um: float
    step_um: float
    num: int
    is_relative: bool = False

    @property
    def is_up(self) -> bool:
        """Whether it is announced to run from low to high."""
        return self.step_um > 0

    @property
    def grid(self) -> AxisGrid:
        """The pixels in ascending order."""
        last_um = self.first_um + self.step_um * (self.num - 1)
        return AxisGrid(self.name, min(self.first_um, last_um), abs(self.step_um), self.num)

    def index(self, order: np.ndarray, is_up: bool) -> np.ndarray:
        """Return the pixels of frames, ascending, by their order of acquisition."""
        return order if is_up else self.num - 1 - order


def said_between(
    name: str, first_um: float, last_um: float, num: int, owner: str, *, is_relative: bool = False
) -> SaidAxis:
    """Return the axis whose outermost pixels are centered on two positions.

    A single pixel is centered on the first one, and its width is not known (1 um).

    Raises
    ------
    AssemblyError
        There is no pixel, a position is not finite, or both are the same for several pixels.
    """
    if num < 1:
        raise AssemblyError(f"{owner}: axis {name!r} has {num} pixels; at least 1 is needed")
    step_um = (last_um - first_um) / (num - 1) if num > 1 else 1.0
    if not (np.isfinite(first_um) and np.isfinite(step_um) and step_um):
        raise AssemblyError(
            f"{owner}: axis {name!r} has {num} pixels between {first_um:.6g} and {last_um:.6g} um"
        )
    return SaidAxis(name, first_um, step_um, num, is_relative)


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the pixels along an axis are.

    Parameters
    ----------
    grid
        The pixels in ascending order.
    index
        Pixel of each reading [reading]; -1 where it is on none.
    note
        How it differs from what was announced; "" where it doesn't.
    """

    grid: AxisGrid
    index: np.ndarray
    note: str = ""


def lattice_of(said: SaidAxis, readings_um: np.ndarray, order: np.ndarray) -> Lattice | None:
    """Return the lattice on which readings lie, whatever their order; None where there is none.

    Parameters
    ----------
    said
        The announced axis.
    readings_um
        Readings [reading] in um; NaN: unknown.
    order
        Number of each reading's pixel [reading] in the order of acquisition, as far as it is
        known; it decides only where a relative scan that was cut off began.
    """
    known = np.isfinite(readings_um)
    if not known.any():
        return None
    values = readings_um[known]
    nominal = said.index(order, said.is_up)[known]
    if said.num == 1:
        return _of_one_pixel(said, readings_um, known)
    step = abs(said.step_um)
    best: tuple[float, Lattice] | None = None
    for candidate in (step, _step_of(values, step)):
        if candidate is None or (best is not None and best[0] > 1 - 1e-9):
            continue
        origin, candidate = _refined(values, candidate, said)
        found, share = _windowed(said, values, nominal, origin, candidate)
        if best is None or share > best[0]:
            best = share, found
    if best is None or best[0] < 1 - _MOST_FAR:
        return None
    index = np.full(readings_um.size, -1)
    index[known] = best[1].index
    return replace(best[1], index=index)


def line_lattice(
    said: SaidAxis, lines: list[tuple[np.ndarray, np.ndarray, bool]]
) -> tuple[Lattice, list[bool]] | None:
    """Return the lattice of the fast axis, by the readings of lines that were flown along it.

    The stage moves evenly along a line, so that the order of its frames tells the step far better
    than single readings do. Lines that are short move as their readings say.

    Parameters
    ----------
    said
        The announced axis.
    lines
        For each line the number of each frame in it [frame], the readings [frame] in um, and
        whether it is announced to run from low to high.

    Returns
    -------
    tuple of Lattice and list of bool, or None
        The lattice, with the pixels of the readings of all lines one after the other, and whether
        each line ran from low to high; None where the readings tell no step.
    """
    slopes = [line_slope(order, readings) for order, readings, _ in lines]
    moving = [slope for slope in slopes if slope is not None and slope]
    step = abs(said.step_um)
    if said.num > 1:
        if not moving or np.median(np.abs(moving)) < step / 10:
            return None
        measured = float(np.median(np.abs(moving)))
        if abs(measured / step - 1) * (said.num - 1) > _STEP_ERROR:
            step = measured
    ups = [
        is_up if slope is None or abs(slope) < step / 4 or said.num == 1 else slope > 0
        for slope, (_, _, is_up) in zip(slopes, lines, strict=True)
    ]
    low_um = said.grid.start_um
    nominal = [said.index(order, up) for (order, _, _), up in zip(lines, ups, strict=True)]
    away = [
        readings - (low_um + step * index)
        for (_, readings, _), index in zip(lines, nominal, strict=True)
    ]
    with_readings = [one[np.isfinite(one)] for one in away if np.isfinite(one).any()]
    if not with_readings:
        return None
    # Of each line the median, of all lines the median: most lines are whole.
    offset_um = float(np.median([np.median(one) for one in with_readings]))
    values = np.concatenate([readings for _, readings, _ in lines])
    known = np.isfinite(values)
    if said.num == 1:
        return _of_one_pixel(said, values, known), ups
    found, share = _windowed(
        said, values[known], np.concatenate(nominal)[known], low_um + offset_um, step, near=0.5
    )
    if share < 0.5:
        return None
    index = np.full(values.size, -1)
    index[known] = found.index
    return replace(found, index=index), ups


def line_slope(order: np.ndarray, readings: np.ndarray) -> float | None:
    """Return how far a line moves from frame to frame; None where that can't be told.

    Outliers are left out: what lies far from the line through all readings.
    """
    known = np.isfinite(readings)
    if known.sum() < 2 or np.ptp(order[known]) == 0:
        return None
    order, readings = order[known].astype(float), readings[known]
    slope = float(np.median(np.diff(readings) / np.diff(order)))
    away = readings - slope * order
    away = np.abs(away - np.median(away))
    sound = away <= 5 * max(float(np.median(away)), abs(slope) / 10, 1e-12)
    if sound.sum() < 2 or np.ptp(order[sound]) == 0:
        return slope
    x, y = order[sound] - order[sound].mean(), readings[sound] - readings[sound].mean()
    return float((x * y).sum() / (x * x).sum())


def unit_by_step(measured: float | None, said_um: float) -> float | None:
    """Return the micrometers in the unit in which readings have the announced step.

    Parameters
    ----------
    measured
        The step of readings whose unit nobody says.
    said_um
        The announced step in um.

    Returns
    -------
    float or None
        None where there is no such unit: encoders may count lines of a grating.
    """
    if not measured or not np.isfinite(measured):
        return None
    ratios = {unit: abs(measured) * unit / abs(said_um) for unit in _UNITS_UM}
    unit = min(ratios, key=lambda one: abs(np.log(ratios[one])))
    return unit if 1 / _SIMILAR <= ratios[unit] <= _SIMILAR else None


def unit_by_places(places: np.ndarray, said: SaidAxis) -> float | None:
    """Return the micrometers in the unit in which readings of some lines fit the announced axis.

    Where lines were lost the readings of two neighbors are several steps apart.

    Parameters
    ----------
    places
        Reading of each line [line], in the order of acquisition; NaN: unknown.
    said
        The announced axis.
    """
    steps = _steps_between(places)
    if not steps.size:
        return None
    for unit in _UNITS_UM:
        ratios = steps * unit / abs(said.step_um)
        off = np.abs(ratios - np.round(ratios))
        if np.round(ratios.min()) >= 1 and ratios.max() < said.num and np.median(off) < _NEAR_STEPS:
            return unit
    return unit_by_step(float(np.median(steps)), said.step_um)


def step_between(values: np.ndarray) -> float | None:
    """Return the usual distance between readings and the ones before them; None without any."""
    steps = _steps_between(values)
    return float(np.median(steps)) if steps.size else None


def _steps_between(values: np.ndarray) -> np.ndarray:
    values = values[np.isfinite(values)]
    steps = np.abs(np.diff(values))
    return steps[steps > 1e-9 * max(1.0, float(np.abs(values).max(initial=0.0)))]


def _of_one_pixel(said: SaidAxis, readings_um: np.ndarray, known: np.ndarray) -> Lattice:
    center_um = float(np.median(readings_um[known]))
    grid = replace(said.grid, start_um=center_um)
    return Lattice(grid, np.where(known, 0, -1))


def _step_of(values: np.ndarray, said_step: float) -> float | None:
    """Return the step of readings in any order, from the distances between those next to another.

    Readings of one place, which differ a little, are taken together.
    """
    ordered = np.sort(values)
    gaps = np.diff(ordered)
    largest = float(gaps.max(initial=0.0))
    wide = gaps[gaps > min(said_step, largest) / 4]
    return float(np.median(wide)) if wide.size else None


def _refined(values: np.ndarray, step: float, said: SaidAxis) -> tuple[float, float]:
    """Return an origin near the announced one, and the step, by which readings fit best."""
    reference = said.grid.start_um
    turns = np.exp(2j * np.pi * (values - reference) / step)
    origin = reference + step * float(np.angle(turns.mean())) / (2 * np.pi)
    if step != abs(said.step_um):
        # Walk from reading to reading: over the whole map the error of a guessed step adds up.
        # A wild reading far away would weigh more than all others.
        near = np.abs(values - np.median(values)) <= 2 * said.num * step
        ordered = np.sort(values[near])
        index = np.concatenate([[0.0], np.cumsum(np.round(np.diff(ordered) / step))])
        if np.ptp(index):
            step, origin = (float(one) for one in np.polyfit(index, ordered, 1))
    return origin, step


def _windowed(
    said: SaidAxis,
    values: np.ndarray,
    nominal: np.ndarray,
    origin: float,
    step: float,
    near: float = _NEAR_STEPS,
) -> tuple[Lattice, float]:
    """Return the `num` pixels of an endless lattice that hold most readings, and their share.

    Of several choices the one nearest to what was announced is taken, or for relative scans the
    one nearest to what the order of the readings says.
    """
    low_um = said.grid.start_um
    # The point of the lattice that is nearest to the announced first pixel has the number 0.
    zero = origin - step * np.round((origin - low_um) / step)
    place = (values - zero) / step
    index = np.floor(place + 0.5)
    on_lattice = np.abs(place - index) <= near
    shift = _shift(said, index[on_lattice], nominal[on_lattice])
    inside = on_lattice & (index >= shift) & (index < shift + said.num)
    share = float(inside.mean())
    start_um = zero + shift * step
    # What readings of this scatter can't tell apart from what was announced is the announced.
    scatter = float(np.std((place - index)[inside])) if inside.any() else 0.0
    same = max(_SAME_STEPS, 2.5 * scatter / np.sqrt(max(int(inside.sum()), 1)))
    ends = (start_um - low_um, start_um - low_um + (step - abs(said.step_um)) * (said.num - 1))
    away = max(abs(end) for end in ends) / step
    if away <= min(same, _STEP_ERROR):
        start_um, step = low_um, abs(said.step_um)
    note = ""
    if away > _ODD_STEPS and not said.is_relative:
        last = low_um + abs(said.step_um) * (said.num - 1)
        note = (
            f"{said.name}: the start document says {low_um:.6g} to {last:.6g} um, the readings"
            f" {start_um:.6g} to {start_um + step * (said.num - 1):.6g} um: readings taken"
        )
    grid = AxisGrid(said.name, start_um, step, said.num)
    return Lattice(grid, np.where(inside, index - shift, -1).astype(int), note), share


def _shift(said: SaidAxis, index: np.ndarray, nominal: np.ndarray) -> float:
    """Return the number of the first pixel, in pixels from the announced one."""
    if not index.size:
        return 0.0
    # Readings of each number, and how many lie in a window that begins there.
    numbers, times = np.unique(index, return_counts=True)
    total = np.concatenate([[0], np.cumsum(times)])

    def inside(shift: float) -> int:
        low, high = np.searchsorted(numbers, [shift, shift + said.num])
        return int(total[high] - total[low])

    by_order = float(np.round(np.median(index - nominal)))
    choices = {0.0, by_order, *numbers.tolist(), *(numbers - said.num + 1).tolist()}
    most = max(inside(shift) for shift in choices)
    best = [shift for shift in choices if inside(shift) == most]
    # An announced place that no reading is near says nothing.
    wanted = by_order if said.is_relative or not inside(0.0) else 0.0
    return min(best, key=lambda shift: (abs(shift - wanted), shift))
