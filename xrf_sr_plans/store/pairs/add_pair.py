"""`add_pair`: a coarse and a fine map of one area, in files or stored runs, as a pair."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files import as_photons
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.readers import ReadOptions, map_of_run, monitor_of, read_map
from xrf_sr_plans.maps.readers.run_map import known_of_run
from xrf_sr_plans.measurement import COARSER_FACTORS, Sampling
from xrf_sr_plans.registration.register import MIN_PIXELS
from xrf_sr_plans.schema import Document
from xrf_sr_plans.store.jsonl import read_jsonl
from xrf_sr_plans.store.pairs.complete import complete
from xrf_sr_plans.store.pairs.map_file import content_of
from xrf_sr_plans.store.pairs.nested import STEPS_ALIKE, nested, plain_names
from xrf_sr_plans.store.pairs.origin import origin_of_run
from xrf_sr_plans.store.pairs.pair_index import KnownPair
from xrf_sr_plans.store.pairs.pair_store import PairStore
from xrf_sr_plans.store.pairs.stored_pair import MapOrigin
from xrf_sr_plans.store.sources import StoredRun, places

_NAMESPACE = uuid.UUID("b4d0a3a4-2b0f-5a4e-9a37-6f0d0c1e7a52")


@dataclass(frozen=True)
class AddedPair:
    """A pair that is in the store."""

    known: KnownPair
    is_new: bool
    """False where the store had these maps already."""


def add_pair(
    coarse: str | Path,
    fine: str | Path,
    folder: str | Path,
    *,
    sample: str = "",
    reader: str | None = None,
    options: ReadOptions | None = None,
    dwell_ms: Sequence[float | None] = (None, None),
    units: str | None = None,
) -> AddedPair:
    """Store two maps of one area as a pair, and return it with its verdict.

    Both maps are cut to the area that they share and to the elements that both have.

    Parameters
    ----------
    coarse, fine
        Files of maps or of documents, with positions of their pixels; or ``CATALOG#UID``, a run in
        a catalog that `store.sources.places` knows.
    folder
        Folder of the pair store.
    sample
        Name of the sample; empty: as the documents say.
    reader
        Name of the reader of both; None: the one that matches each.
    options
        What the user knows better than the sources.
    dwell_ms
        Time at each pixel of the coarse and of the fine map; None: what the sources say.
    units
        Unit of the values of both; None: what the files say.

    Raises
    ------
    ConfigError
        The maps share no element or too small an area, or their steps don't differ by a factor
        that pairs have.
    FileFormatError
        A source can't be read, holds no photons, or doesn't say where its pixels lie.
    OSError
        The disk is full, or writing is not permitted.
    """
    options = options or ReadOptions()
    names = [str(coarse), str(fine)]
    read = [
        _measured(name, reader, options, dwell, units)
        for name, dwell in zip(names, dwell_ms, strict=True)
    ]
    pair = nested(read[0].maps, read[1].maps, names, MIN_PIXELS)
    contents = sorted(content_of(maps) for maps in (pair.coarse, pair.fine))
    uid = str(uuid.uuid5(_NAMESPACE, hashlib.sha256("".join(contents).encode()).hexdigest()))
    store = PairStore(folder)
    same = store.same_as(pair.fine, [pair.coarse])
    if same is None:
        store.save_map(uid, 0, pair.factor, pair.coarse, read[0].origin)
        store.save_map(uid, 1, 1, pair.fine, read[1].origin)
        # Who adds a pair by hand wants it, even if somebody removed it once.
        complete(store, uid, source="file", sample=sample, again=True)
    return AddedPair(store.known_pair(same or uid), is_new=same is None)


@dataclass(frozen=True)
class _Measured:
    maps: ElementalMaps
    origin: MapOrigin


def _measured(
    name: str,
    reader: str | None,
    options: ReadOptions,
    dwell_ms: float | None,
    units: str | None,
) -> _Measured:
    """Return the map in a source, and where it comes from."""
    starts: dict[str, Mapping[str, Any]] = {}
    run = _run(name)
    if run is not None:
        read = map_of_run(
            _noting(run.documents(), starts),
            path=name,
            reader=reader,
            dwell_ms=dwell_ms,
            arrays=run.arrays(),
            **known_of_run(options),
        )
    else:
        read = read_map(name, reader=reader, options=options, dwell_ms=dwell_ms)
        if "run_uid" in read.meta:
            # Reads the file twice; what a run says of its sample is worth that.
            for _ in _noting(read_jsonl(Path(name)), starts):
                pass
    file = as_photons(read, dwell_ms=dwell_ms, units=units)
    start = starts.get(str(file.meta.get("run_uid"))) or next(iter(starts.values()), None)
    origin = MapOrigin(run_uid=name) if start is None else origin_of_run(start)
    return _Measured(_as_maps(file, name, dwell_ms), origin)


def _run(name: str) -> StoredRun | None:
    """Return the run in a catalog that is meant by ``CATALOG#UID``; None: it is a file."""
    catalog, mark, uid = name.rpartition("#")
    if Path(name).exists() or not mark or not uid:
        return None
    found = [place for place in places(catalog) if place.kind not in ("lines", "maps")]
    if not found:
        raise ConfigError(f"source {name!r}: {catalog} is no catalog of runs")
    return StoredRun(found[0], uid)


def _noting(
    documents: Iterable[Document], starts: dict[str, Mapping[str, Any]]
) -> Iterator[Document]:
    """Yield documents, and put the start documents among them into a dict by their uids."""
    for name, doc in documents:
        if name == "start":
            starts[str(doc.get("uid"))] = doc
        yield name, doc


def _as_maps(file: MapsFile, name: str, dwell_ms: float | None) -> ElementalMaps:
    if file.x_um is None or file.y_um is None or min(file.maps.shape[1:]) < 2:
        raise FileFormatError(f"{name}: doesn't say where its pixels lie")
    axes = {
        axis: AxisGrid(axis, float(um[0]), float(um[-1] - um[0]) / (len(um) - 1), len(um))
        for axis, um in (("x", file.x_um), ("y", file.y_um))
    }
    if dwell_ms is None and file.live_time is not None:
        dwell_ms = 1e3 * float(np.nanmedian(file.live_time.seconds))
    return ElementalMaps.from_arrays(
        file.maps,
        ScanGrid(axes["x"], axes["y"], snake=False),
        plain_names(file.elements),
        i0=monitor_of(file),
        coverage=file.coverage,
        source_uid=name,
        dwell_ms=dwell_ms if dwell_ms is not None else file.meta.get("dwell_ms"),
        step_um=axes["y"].step_um,
        probe_fwhm_um=None,
        sampling=_sampling(file, axes["y"].step_um / axes["x"].step_um, name),
        complete=True,
    )


def _sampling(file: MapsFile, ratio: float, name: str) -> Sampling:
    """Return how a map was measured, by what its run or the shape of its pixels says."""
    if any(abs(ratio / factor - 1) <= STEPS_ALIKE for factor in COARSER_FACTORS):
        return "rows"
    if abs(ratio - 1) > STEPS_ALIKE:
        raise FileFormatError(
            f"{name}: pixels of {file.pixel_size_um:g} um x {file.pixel_size_y_um:g} um (x, y);"
            " they should be square, or rows 2 or 4 times as far apart as their pixels are long"
        )
    said = file.meta.get("sampling", "fly")
    return said if said != "rows" else "fly"
