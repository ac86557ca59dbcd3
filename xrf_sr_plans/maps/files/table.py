"""Tables (CSV, DAT) with a line for each pixel, as PyMca writes its fits.

The first line names the columns: ``row`` and ``column``, one for each element, and ``s(Fe_K)`` for
uncertainties, which are no maps. Columns ``x`` and ``y``, with their unit behind (``x_mm``), are
positions.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.files.model import FileAxis, MapsFile, build, is_element
from xrf_sr_plans.maps.files.options import ReadOptions

MAX_TABLE_BYTES = 2**28
"""Largest size of a table in bytes."""

_POSITION = re.compile(r"(?P<axis>[xy])(?:[ _\[(]+(?P<unit>[^\W\d_]+)[\])]?)?", re.I)


def read_table(
    path: Path, shown: str, options: ReadOptions, before: Callable[[int], None]
) -> MapsFile:
    """Return the maps in a table.

    Parameters
    ----------
    path
        The file.
    shown
        Its name in messages.
    options
        What the user knows better than the file.
    before
        Called before each step, with the number of values that it is going to read.

    Raises
    ------
    FileFormatError
        It is no table with a row, a column and elements, or a damaged one.
    """
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise FileFormatError(f"{shown}: a table of {size} bytes; at most {MAX_TABLE_BYTES}")
    before(size)
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeError as error:
        raise FileFormatError(f"{shown}: no table ({in_words(error)})") from error
    names, split = _columns(lines[0] if lines else "")
    places = {name.lower(): index for index, name in enumerate(names)}
    elements = [name for name in names if is_element(name)]
    if "row" not in places or "column" not in places or not elements:
        raise FileFormatError(
            f"{shown}: a table with the columns {names[:8]}; row, column and elements are needed"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.loadtxt(lines[1:], delimiter=split, ndmin=2)
    except ValueError as error:
        raise FileFormatError(f"{shown}: damaged table ({error})") from error
    if values.shape[1:] != (len(names),) or not len(values):
        raise FileFormatError(
            f"{shown}: damaged table: {len(names)} names over values of the shape {values.shape}"
        )
    planes = _planes(values, places, shown)
    axes = {}
    for name, index in places.items():
        match = _POSITION.fullmatch(name)
        if match is not None:
            axes[match["axis"]] = FileAxis(planes[index], match["unit"], name)
    return build(
        planes[[names.index(name) for name in elements]],
        elements,
        layout=f"table of {len(values)} pixels",
        path=shown,
        axes=axes,
        options=options,
        # PyMca writes the areas of peaks, in counts, and no unit.
        units="counts" if any(name.startswith("s(") for name in names) else None,
        meta={"reader": "csv"},
    )


def _columns(line: str) -> tuple[list[str], str | None]:
    """Return the names in the first line, and what stands between columns; None: blanks."""
    line = line.lstrip("#\ufeff ").strip()
    for split in (";", ",", "\t"):
        if split in line:
            return [name.strip().strip('"') for name in line.split(split)], split
    return line.split(), None


def _planes(values: np.ndarray, places: dict[str, int], shown: str) -> np.ndarray:
    """Return the table as planes [column of the table, row, column], NaN where it has no line."""
    where = values[:, [places["row"], places["column"]]]
    whole = np.isfinite(where) & (where == np.rint(where)) & (where >= 0)
    if not whole.all() or where.max() >= 8 * len(values) + 64:
        raise FileFormatError(f"{shown}: damaged table: rows and columns are no whole numbers")
    rows, columns = where.astype(int).T
    shape = (rows.max() + 1, columns.max() + 1)
    if shape[0] * shape[1] > 8 * len(values) + 64:
        raise FileFormatError(f"{shown}: damaged table: {len(values)} lines for {shape} pixels")
    if len(np.unique(rows * shape[1] + columns)) < len(values):
        raise FileFormatError(f"{shown}: damaged table: a pixel has several lines")
    planes = np.full((values.shape[1], *shape), np.nan)
    planes[:, rows, columns] = values.T
    return planes


def is_table(path: Path, head: bytes) -> bool:
    """Return whether a file may be a table of pixels, by the names of its columns."""
    start = head.split(b"\n")[0].lower().replace(b'"', b"").lstrip(b"# ")
    return start.startswith((b"row", b"column")) and b"column" in start
