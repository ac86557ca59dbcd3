"""`read_map`: the maps of a file of any kind, be it of arrays or of documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.files import MapsFile, ReadOptions
from xrf_sr_plans.maps.files.photons import SAME_TIME
from xrf_sr_plans.maps.files.reader import head_of
from xrf_sr_plans.maps.readers.json_lines import read_jsonl
from xrf_sr_plans.maps.readers.registry import RUN_READERS, reader_of_file
from xrf_sr_plans.maps.readers.roots import roots_of
from xrf_sr_plans.maps.readers.run_map import known_of_run, map_of_run


def read_map(
    path: str | Path,
    *,
    reader: str | None = None,
    options: ReadOptions | None = None,
    dwell_ms: float | None = None,
) -> MapsFile:
    """Return the map in a file of any kind, be it of arrays or of documents.

    Parameters
    ----------
    path
        A file of maps, or one of documents as JSON lines, of which the first map is read.
    reader
        Name of the reader (``--reader``), of files or of runs; None: the first one that matches.
    options
        What the user knows better than the file.
    dwell_ms
        Time at each pixel of a run; None: as its documents say. Values of files become photons by
        `as_photons` only.

    Raises
    ------
    AssemblyError
        No run in the file is a map that can be read.
    ConfigError
        There is no reader of that name, or something is said of the file that such files don't
        have.
    FileFormatError
        There is no such file, no reader matches it, or it can't be read.
    """
    path = Path(path)
    options = options or ReadOptions()
    of_runs = {known.name for known in RUN_READERS}
    if reader in of_runs or (reader is None and is_lines(path, head_of(path))):
        if options.of_files:
            raise ConfigError(
                f"{path}: holds documents, whose readings say where pixels are;"
                f" {', '.join(options.of_files)} can't be given for it"
            )
        known = known_of_run(options)
        return map_of_run(
            read_jsonl(path),
            path=str(path),
            reader=reader,
            roots=roots_of(path),
            dwell_ms=dwell_ms,
            **known,
        )
    if options.of_runs:
        raise ConfigError(
            f"{path}: holds no documents, so that it has no data keys;"
            f" {', '.join(options.of_runs)} can't be given for it"
        )
    return reader_of_file(path, reader).read(path, options)


def is_lines(path: Path, head: bytes) -> bool:
    """Return whether a file holds documents: by its name, or by how its first line begins."""
    start = head.lstrip()
    return path.suffix.lower() == ".jsonl" or (
        start.startswith((b"{", b"[")) and b'"start"' in start[:80]
    )


def placed_counts(file: MapsFile, row_pixels: int = 1) -> xr.DataArray:
    """Return the values of a map that was read (element, y, x), with its place on the stage.

    Its attribute ``step_um`` is the length of a pixel along x.

    Parameters
    ----------
    file
        What `read_map` returned. Where it doesn't know the place of an axis, pixels count from 0
        on, in steps that follow from those along the other axis.
    row_pixels
        How many pixels of a row make up the distance of two rows: 1 for squares.

    Raises
    ------
    ConfigError
        The file says no step at all, or its rows lie at another distance.
    """
    path = file.meta.get("path", "the map")
    known = {"x": file.pixel_size_um, "y": file.pixel_size_y_um}
    listed = {"y": file.y_um, "x": file.x_um}
    if row_pixels > 1 and file.meta.get("one_size"):
        listed["y"] = None
    if listed["y"] is None:
        known["y"] = known["x"] * row_pixels
    if not known["x"] > 0:
        known["x"] = known["y"] / row_pixels
    if not known["x"] > 0:
        raise ConfigError(
            f"{path}: the step is {known['x']} um; the file doesn't say it: give --step-um"
        )
    if row_pixels > 1 and abs(known["y"] - row_pixels * known["x"]) > 0.05 * known["y"]:
        raise ConfigError(
            f"{path}: its rows are {known['y']:g} um apart and its pixels {known['x']:g} um long;"
            f" rows of {row_pixels} pixels a step would be {row_pixels * known['x']:g} um apart"
        )
    um = {"units": "um"}
    coords = {}
    for name, num in zip("yx", file.maps.shape[1:], strict=True):
        centers = listed[name]
        coords[name] = (name, known[name] * np.arange(num) if centers is None else centers, um)
    return xr.DataArray(
        file.maps,
        dims=("element", "y", "x"),
        coords={"element": list(file.elements), **coords},
        attrs={"step_um": known["x"]},
    )


def monitor_of(file: MapsFile) -> np.ndarray | None:
    """Return what counts of a map that was read are divided by [row, column]; None: nothing.

    Where pixels were counted for different times, it is those. Else it is the flux monitor.

    Parameters
    ----------
    file
        What `as_photons` returned.
    """
    times = file.meta.get("exposure")
    if times is not None and np.nanstd(times) > SAME_TIME * np.nanmean(times):
        return np.asarray(times)
    return file.i0 if file.i0 is not None else times
