"""`placed`: where on the stage each frame of a file's arrays lies, and the even grid it goes to.

Files keep the positions of a map as one list for each axis, or as one plane for each (every frame
by its own). Rows may run to and fro, either axis may descend, the first array axis may be x, rows
may be lost, and rows that were never flown are filled with zeros. Whatever comes, arrays leave on
an even grid whose x and y ascend.

* A frame lies where its position says. Within a row whose positions rise by a pixel a frame, the
  row is moved as a whole, so that the jitter of an encoder makes no holes.
* A position that is missing (NaN, or zeros behind the end of a scan) or lies nowhere near the grid
  is replaced by the one that is due by order.
* Frames that share a pixel are averaged, and pixels without a frame are not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.errors import FileFormatError

_NEAR = 0.5
"""How far from an even grid, in pixels, the positions of an axis may lie."""

_EXACT = 1e-6
"""How far from a line, in pixels, positions may lie that were written as its points."""

_LINE = 0.75
"""How far from the others of its row, in pixels, a frame may lie to be moved with them."""

_WILD = 0.1
"""Largest proportion of the positions along an axis that may lie nowhere near the grid."""

_EMPTIEST = 8
"""How many times more pixels than frames there may be, before the positions are no grid."""

_MOST_FOR_PAIRS = 500
"""How many positions are compared in pairs, where the slope has to survive wild ones."""


@dataclass(frozen=True, eq=False)
class Placed:
    """The even grid of a map, and the way of a file's arrays to it.

    Parameters
    ----------
    x_um, y_um
        Pixel centers [column] and [row], ascending; None where the file doesn't say.
    step_x_um, step_y_um
        Distance of the centers; NaN where it is unknown.
    unplaced
        Frames [row, column of the file] whose positions are missing, as zeros or NaN.
    notes
        What the user should know about it.
    """

    x_um: np.ndarray | None
    y_um: np.ndarray | None
    step_x_um: float
    step_y_um: float
    unplaced: np.ndarray
    notes: tuple[str, ...]
    _flat: np.ndarray
    _shape: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns of the grid."""
        return self._shape

    def frames(self) -> np.ndarray:
        """Return the number of frames in each pixel of the grid [row, column]."""
        return np.bincount(self._flat.ravel(), minlength=self._size).reshape(self._shape)

    def move(self, values: np.ndarray) -> np.ndarray:
        """Return values of the file [..., row, column] on the grid.

        Values that share a pixel are averaged, those that are NaN left out; pixels without any are
        NaN.
        """
        values = np.asarray(values, dtype=float)
        flat = self._flat.ravel()
        lines = values.reshape(-1, flat.size)
        moved = np.full((len(lines), self._size), np.nan)
        if flat.size == np.unique(flat).size:
            moved[:, flat] = lines
        else:
            for line, out in zip(lines, moved, strict=True):
                has = np.isfinite(line)
                number = np.bincount(flat[has], minlength=self._size)
                total = np.bincount(flat[has], weights=line[has], minlength=self._size)
                np.divide(total, number, out=out, where=number > 0)
        return moved.reshape(*values.shape[:-2], *self._shape)

    @property
    def _size(self) -> int:
        return self._shape[0] * self._shape[1]


def placed(
    x_um: np.ndarray | None, y_um: np.ndarray | None, shape: tuple[int, int], owner: str
) -> Placed:
    """Return the grid on which the positions of a map lie.

    Parameters
    ----------
    x_um, y_um
        Positions of the columns [column] and rows [row], or of every frame [row, column], in um;
        None: unknown. Lists may be longer than the map, whose frames are then the first ones, as
        in files whose last columns were cut off.
    shape
        Number of rows and columns of the file's arrays.
    owner
        What to call the map in messages.

    Raises
    ------
    FileFormatError
        The positions are no even grid, or there are fewer of them than frames.
    """
    x, y = _plane(x_um, shape, 1, f"{owner}: x"), _plane(y_um, shape, 0, f"{owner}: y")
    turned = False
    along, other = shape, (shape[1], shape[0])
    if x is not None and y is not None and _is_turned(x, y):
        turned, x, y = True, x.T, y.T
        along, other = other, along
    across = _across(x, along, f"{owner}: x")
    down = _across(None if y is None else y.T, other, f"{owner}: y")
    columns, rows = across.index, down.index.T
    n_rows, n_columns = down.num, across.num
    if n_rows * n_columns > _EMPTIEST * columns.size + 64:
        raise FileFormatError(
            f"{owner}: its {columns.size} positions would lie on a grid of {n_rows} x {n_columns}"
            " pixels: no map of evenly spaced rows"
        )
    flat = rows * n_columns + columns
    unplaced = across.missing | down.missing.T
    notes = [*across.notes, *down.notes]
    if turned:
        flat, unplaced = flat.T, unplaced.T
        notes.append("the fast axis is y: turned")
    return Placed(
        across.centers_um,
        down.centers_um,
        across.step_um,
        down.step_um,
        unplaced,
        tuple(notes),
        flat,
        (n_rows, n_columns),
    )


@dataclass(frozen=True, eq=False)
class _Axis:
    """The grid along one axis: the pixel of each frame [line, frame], and where pixels lie."""

    index: np.ndarray
    num: int
    centers_um: np.ndarray | None
    step_um: float
    missing: np.ndarray
    notes: tuple[str, ...] = ()


def _plane(
    positions: np.ndarray | None, shape: tuple[int, int], along: int, owner: str
) -> np.ndarray | None:
    """Return positions as one for each frame [row, column], NaN where they say nothing."""
    if positions is None:
        return None
    positions = np.asarray(positions, dtype=float)
    if positions.ndim == 2 and positions.shape != shape and 1 in positions.shape:
        positions = positions.ravel()
    enough = positions.ndim in (1, 2) and all(
        has >= needed
        for has, needed in zip(
            positions.shape, (shape[along],) if positions.ndim == 1 else shape, strict=True
        )
    )
    if not enough:
        raise FileFormatError(
            f"{owner} positions have the shape {positions.shape}, the map has {shape[0]} rows and"
            f" {shape[1]} columns; give the step (--step-um) to read it without them"
        )
    if positions.ndim == 1:
        line = positions[: shape[along]]
        positions = np.broadcast_to(line[None] if along == 1 else line[:, None], shape)
    positions = positions[: shape[0], : shape[1]].copy()
    positions[~(np.abs(positions) < 1e30)] = np.nan
    return positions


def _is_turned(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether x changes from row to row and y along the rows."""

    def rises_along_rows(plane: np.ndarray) -> bool:
        along, down = _typical_step(plane), _typical_step(plane.T)
        return along > down

    return bool(not rises_along_rows(x) and rises_along_rows(y) and _typical_step(x.T) > 0)


def _typical_step(plane: np.ndarray) -> float:
    steps = np.abs(np.diff(plane, axis=1))
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if steps.size else 0.0


def _across(plane: np.ndarray | None, shape: tuple[int, int], owner: str) -> _Axis:
    """Return the grid along the frames of lines; `plane` is [line, frame]."""
    n_lines, num = shape
    order = np.broadcast_to(np.arange(num), shape)
    nowhere = np.zeros(shape, dtype=bool)
    if plane is None:
        return _Axis(order, num, None, float("nan"), nowhere)
    plane = _without_fill(plane)
    missing = ~np.isfinite(plane)
    down = _descends(plane)
    # Each line in ascending order of its positions; `order` follows, so that indices stay those
    # of the frames as they are stored.
    order = np.where(down[:, None], num - 1 - order, order)
    ascending = np.where(down[:, None], plane[:, ::-1], plane)
    profile = _profile(ascending)
    fit = _even(profile)
    if fit is None:
        if np.nanmax(plane, initial=-np.inf) > np.nanmin(plane, initial=np.inf):
            raise FileFormatError(
                f"{owner} positions are not evenly spaced ({_shown(profile)}): no map that can be"
                " read by them; if its frames are, give their step (--step-um)"
            )
        return _Axis(order, num, None, float("nan"), missing)
    start, step, places = fit
    index, moved = _indices(plane, order, places, start, step)
    notes = [f"{moved} of {n_lines} lines lie elsewhere along the axis"] if moved else []
    low = int(index.min())
    index = index - low
    count = int(index.max()) + 1
    centers = start + step * (low + np.arange(count))
    return _Axis(index, count, centers, step, missing, tuple(notes))


def _without_fill(plane: np.ndarray) -> np.ndarray:
    """Return positions with those that are only filled in, as zeros, replaced by NaN.

    Rows that were never flown, and frames behind the end of a row, have zeros for positions.
    """
    zero = plane == 0.0
    plane = plane.copy()
    # Two or more in succession: a scan passes zero once along a line.
    doubled = zero & (np.roll(zero, 1, axis=1) | np.roll(zero, -1, axis=1))
    if plane.shape[1] > 1 and not zero.all() and not _is_flat(plane, zero):
        plane[doubled] = np.nan
    return plane


def _is_flat(plane: np.ndarray, zero: np.ndarray) -> bool:
    """Return whether the positions that are not zero don't change along lines either."""
    rest = plane[~zero & np.isfinite(plane)]
    return bool(rest.size == 0 or np.ptp(rest, axis=None) == 0)


def _descends(plane: np.ndarray) -> np.ndarray:
    """Return for each line whether its positions fall [line].

    A line that says nothing follows the majority.
    """
    signs = np.nansum(np.sign(np.diff(plane, axis=1)), axis=1)
    majority = np.sign(np.sum(np.sign(signs)))
    return np.where(signs == 0, majority, signs) < 0


def _profile(lines: np.ndarray) -> np.ndarray:
    """Return the median position of each frame over the lines that have one [frame]."""
    profile = np.full(lines.shape[1], np.nan)
    has = np.isfinite(lines).any(axis=0)
    profile[has] = np.nanmedian(lines[:, has], axis=0)
    return profile


def _even(profile: np.ndarray) -> tuple[float, float, np.ndarray] | None:
    """Return start, step and the pixel of each place in order, of the grid positions lie on.

    None where there is no such grid, or where all positions are the same.
    """
    known = np.flatnonzero(np.isfinite(profile))
    values = profile[known]
    if known.size < 2 or values.max() == values.min():
        return None
    steps = np.diff(values) / np.diff(known)
    typical = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if not typical > 0:
        return None
    # Evenly spaced, or with gaps of whole pixels where rows are lost, or but for a few wild ones.
    gaps = np.concatenate([[0], np.cumsum(np.rint(np.diff(values) / typical))])
    for places in (known.astype(float), known[0] + gaps):
        # A wild position makes one large gap: not these.
        if not 0 < np.ptp(places) <= 2 * profile.size:
            continue
        step, start = _line(places, values)
        if step > 0 and np.abs(values - start - step * places).max() <= _NEAR * step:
            return float(start), float(step), _filled(profile.size, known, places)
    # Imported where it is needed, which is rare: it takes longer to load than a file to read.
    from scipy import stats

    chosen = np.unique(np.linspace(0, known.size - 1, _MOST_FOR_PAIRS).astype(int))
    step, start = stats.theilslopes(values[chosen], known[chosen], method="joint")[:2]
    wild = np.abs(values - start - step * known) > _NEAR * step
    if not step > 0 or wild.mean() > _WILD:
        return None
    step, start = _line(known[~wild], values[~wild])
    return float(start), float(step), np.arange(profile.size)


def _line(places: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return step and start of the line through positions; as written, where they lie on it."""
    step = (values[-1] - values[0]) / (places[-1] - places[0])
    start = values[0] - step * places[0]
    if np.abs(values - start - step * places).max() > _EXACT * abs(step):
        step, start = np.polyfit(places, values, 1)
    return float(step), float(start)


def _filled(num: int, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the pixel of each place in order, those without position one after the other."""
    index = np.rint(places).astype(int)
    extra = np.interp(np.arange(num), known, index - known)
    filled = np.arange(num) + np.rint(extra).astype(int)
    filled[known] = index
    return filled


def _indices(
    plane: np.ndarray, order: np.ndarray, places: np.ndarray, start: float, step: float
) -> tuple[np.ndarray, int]:
    """Return the pixel of each frame [line, frame], and how many lines were not where due."""
    due = places[order]
    off = (plane - start) / step - due
    has = np.isfinite(off)
    shift = np.zeros(len(plane))
    some = has.any(axis=1)
    shift[some] = np.nanmedian(off[some], axis=1)
    beside = np.abs(off - shift[:, None])
    whole = np.rint(shift).astype(int)
    index = due + whole[:, None]
    # Frames that lie elsewhere than the rest of their line go where they themselves say.
    alone = has & (beside > _LINE)
    wild = alone & (alone.sum(axis=1) <= max(_WILD * plane.shape[1], 1))[:, None]
    own = np.rint(np.where(has, off, 0.0)).astype(int) + due
    return np.where(alone & ~wild, own, index), int(np.count_nonzero(whole))


def _shown(values: np.ndarray) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:4])
    return shown + (" ..." if values.size > 4 else "")
