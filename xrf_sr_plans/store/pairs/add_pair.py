"""`add_pair`: a coarse and a fine map of one area, in two files, as a pair of the pair store."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files import as_photons
from xrf_sr_plans.maps.files.model import MapsFile, symbol
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.readers import ReadOptions, monitor_of, read_map
from xrf_sr_plans.measurement import COARSER_FACTORS
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.registration.register import MIN_PIXELS, register
from xrf_sr_plans.store.pairs.pair_store import PairStore

STEPS_ALIKE = 0.02
"""Relative difference of steps that are meant to be the same."""

_NAMESPACE = uuid.UUID("b4d0a3a4-2b0f-5a4e-9a37-6f0d0c1e7a52")


def add_pair(
    coarse: str | Path,
    fine: str | Path,
    folder: str | Path,
    *,
    reader: str | None = None,
    options: ReadOptions | None = None,
    dwell_ms: Sequence[float | None] = (None, None),
    units: str | None = None,
) -> tuple[str, PairRegistration]:
    """Store two maps of one area as a pair, and return its uid and how they are displaced.

    Both maps are cut to the area that they share. The pixels of the fine one are moved by less
    than half of one, so that they nest in those of the coarse one; the displacement that is
    measured afterwards knows nothing of that, nor needs to.

    Parameters
    ----------
    coarse, fine
        Files of maps or of documents, with positions of their pixels.
    folder
        Folder of the pair store.
    reader
        Name of the reader of both; None: the one that matches each.
    options
        What the user knows better than the files.
    dwell_ms
        Time at each pixel of the coarse and of the fine map; None: what the files say.
    units
        Unit of the values of both; None: what the files say.

    Raises
    ------
    ConfigError
        The maps share no element or too small an area, or their steps don't differ by a factor
        that pairs have.
    FileFormatError
        A file can't be read, holds no photons, or doesn't say where its pixels lie.
    OSError
        The disk is full, or writing is not permitted.
    """
    read = [
        _measured(path, reader, options, dwell, units)
        for path, dwell in zip((coarse, fine), dwell_ms, strict=True)
    ]
    names = [f"{path}" for path in (coarse, fine)]
    factor = _factor(read[0], read[1], names)
    maps = _nested(read[0], read[1], factor, names)
    digest = hashlib.sha256()
    for one in maps:
        digest.update(np.ascontiguousarray(one.counts.values).tobytes())
    uid = str(uuid.uuid5(_NAMESPACE, digest.hexdigest()))
    store = PairStore(folder)
    store.save_map(uid, 0, factor, maps[0])
    store.save_map(uid, 1, 1, maps[1])
    displaced = register(*maps)
    store.finish(uid, {0: displaced})
    return uid, displaced


def _measured(
    path: str | Path,
    reader: str | None,
    options: ReadOptions | None,
    dwell_ms: float | None,
    units: str | None,
) -> MapsFile:
    file = read_map(path, reader=reader, options=options, dwell_ms=dwell_ms)
    file = as_photons(file, dwell_ms=dwell_ms, units=units)
    if file.x_um is None or file.y_um is None or min(file.maps.shape[1:]) < 2:
        raise FileFormatError(f"{path}: doesn't say where its pixels lie")
    if abs(file.pixel_size_y_um - file.pixel_size_um) > STEPS_ALIKE * file.pixel_size_um:
        raise FileFormatError(
            f"{path}: pixels of {file.pixel_size_um:g} um x {file.pixel_size_y_um:g} um; pairs"
            " have square ones"
        )
    if dwell_ms is None and file.live_time is not None:
        dwell_ms = 1e3 * float(np.nanmedian(file.live_time.seconds))
    return MapsFile(**{**vars(file), "meta": {**file.meta, "dwell_ms": dwell_ms}})


def _factor(coarse: MapsFile, fine: MapsFile, names: Sequence[str]) -> int:
    ratio = coarse.pixel_size_um / fine.pixel_size_um
    for factor in COARSER_FACTORS:
        if abs(ratio / factor - 1) <= STEPS_ALIKE:
            return factor
    raise ConfigError(
        f"{names[0]} and {names[1]}: steps of {coarse.pixel_size_um:g} um and"
        f" {fine.pixel_size_um:g} um, which is {ratio:.3g} times finer; pairs have"
        f" {' or '.join(map(str, COARSER_FACTORS))}"
    )


def _nested(
    coarse: MapsFile, fine: MapsFile, factor: int, names: Sequence[str]
) -> tuple[ElementalMaps, ElementalMaps]:
    """Return both maps, cut to the coarse pixels that the fine map covers."""
    cuts, grids = {}, {}
    for name in ("y", "x"):
        coarse_um, fine_um = (getattr(file, f"{name}_um") for file in (coarse, fine))
        cuts[name], grids[name] = _shared(coarse_um, fine_um, name, factor, names)
    of_fine = {symbol(name) or name: index for index, name in enumerate(fine.elements)}
    chosen = [
        (name, index, of_fine[symbol(name) or name])
        for index, name in enumerate(coarse.elements)
        if (symbol(name) or name) in of_fine
    ]
    if not chosen:
        raise ConfigError(
            f"{names[0]} has {', '.join(coarse.elements)}, {names[1]} has"
            f" {', '.join(fine.elements)}: no element is in both"
        )
    made = []
    for place, file in enumerate((coarse, fine)):
        rows, columns = cuts["y"][place], cuts["x"][place]
        monitor = monitor_of(file)
        made.append(
            ElementalMaps.from_arrays(
                file.maps[[one[1:][place] for one in chosen]][:, rows, columns],
                ScanGrid(grids["x"][place], grids["y"][place], snake=False),
                [symbol(name) or name for name, *_ in chosen],
                i0=None if monitor is None else monitor[rows, columns],
                source_uid=names[place],
                dwell_ms=file.meta["dwell_ms"],
                step_um=grids["x"][place].step_um,
                probe_fwhm_um=None,
                sampling=file.meta.get("sampling", "fly"),
                complete=True,
            )
        )
    return made[0], made[1]


def _shared(
    coarse_um: np.ndarray, fine_um: np.ndarray, name: str, factor: int, names: Sequence[str]
) -> tuple[tuple[slice, slice], tuple[AxisGrid, AxisGrid]]:
    """Return which pixels of both maps cover the same part of an axis, and the grids of these."""
    step = (coarse_um[-1] - coarse_um[0]) / (len(coarse_um) - 1)
    part = step / factor
    # Fine pixel at the lower end of the first coarse pixel, as a fraction: whole where they nest.
    first = (coarse_um[0] - step / 2 - (fine_um[0] - part / 2)) / part
    begin = round(first)
    low = max(0, math.ceil(-begin / factor))
    high = min(len(coarse_um), (len(fine_um) - begin) // factor)
    if high - low < MIN_PIXELS:
        raise ConfigError(
            f"{names[0]} and {names[1]}: share {max(high - low, 0)} coarse pixels along {name}; at"
            f" least {MIN_PIXELS} are needed"
        )
    coarse = AxisGrid(name, float(coarse_um[0] + low * step), float(step), high - low)
    begins = begin + low * factor
    cut = slice(low, high), slice(begins, begins + (high - low) * factor)
    return cut, (coarse, coarse.refined(factor))
