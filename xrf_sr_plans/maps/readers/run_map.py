"""`map_of_run`: the maps of a run of any kind, as those of a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters import OURS, adapted
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.files import MapsFile, ReadOptions
from xrf_sr_plans.maps.files.model import LiveTime
from xrf_sr_plans.maps.units import um_per_unit
from xrf_sr_plans.schema import Document


def map_of_run(
    documents: Iterable[Document], *, path: str, reader: str | None = None, **known: Any
) -> MapsFile:
    """Return the first map in documents of runs.

    Parameters
    ----------
    documents
        Documents of one or several runs, in order.
    path
        What to call them in messages.
    reader
        Name of the reader of runs of other programs; None: the one that recognises each.
    **known
        What the reader is told besides, as `adapters.adapted` takes it.

    Returns
    -------
    MapsFile
        Values are photons. Besides what files have, its `meta` says how the map was measured:
        ``sampling``, ``fast_pixels``, ``dwell_ms`` and ``run_uid``.

    Raises
    ------
    AssemblyError
        No run is a map, or it can't be read.
    ConfigError
        There is no reader of that name.
    """
    builder: MapBuilder | None = None
    theirs = None if reader == OURS else reader
    for name, doc in adapted(documents, reader=theirs, **known):
        if name == "start":
            if builder is not None and builder.rows_received:
                # The next run: one map is all that is asked for.
                break
            builder = MapBuilder(doc) if _is_map(doc) else None
        elif builder is not None and name in ("descriptor", "event", "event_page"):
            getattr(builder, name)(doc)
    if builder is None or not builder.rows_received:
        raise AssemblyError(f"{path}: none of its runs has rows of a map")
    return _as_file(builder, path)


def known_of_run(options: ReadOptions) -> dict[str, Any]:
    """Return what a user knows of a run as the keywords of `adapters.adapted`.

    Raises
    ------
    ConfigError
        The unit of the axes is none of length.
    """
    keys = dict(options.keys)
    unit = options.axis_unit
    return {
        "channels": {element: list(of) for element, of in options.channels} or None,
        "elements": options.elements,
        "energy_kev": options.energy_kev,
        "um_per_unit": None if unit is None else um_per_unit(unit, "axis_unit"),
        "stream": keys.pop("stream", None),
        "root_map": dict(options.root_map),
        **{f"{role}_key": key for role, key in keys.items()},
    }


def _is_map(start: Any) -> bool:
    ours = start.get("xrf_sr")
    return isinstance(ours, dict) and "grid" in ours and "elements" in ours


def _as_file(builder: MapBuilder, path: str) -> MapsFile:
    maps, metadata = builder.maps(), builder.metadata
    live_time_s = maps.dataset["live_time_s"].values
    i0 = maps.i0.values
    meta = {
        "reader": "documents",
        "layout": f"run {builder.uid}",
        "path": path,
        "units": dict.fromkeys(builder.elements, "counts"),
        "pixel_size_y_um": builder.grid.slow.step_um,
        "skipped": [],
        "notes": [*metadata.notes, *builder.notes, *builder.problems],
        "sampling": metadata.sampling,
        "fast_pixels": metadata.fast_pixels,
        "dwell_ms": metadata.counting_ms,
        "run_uid": builder.uid,
    }
    timed = LiveTime(live_time_s, "live_time") if np.isfinite(live_time_s).any() else None
    return MapsFile(
        maps.counts.values,
        tuple(builder.elements),
        builder.grid.fast.step_um,
        meta,
        timed,
        builder.grid.fast.centers_um,
        builder.grid.slow.centers_um,
        i0 if np.isfinite(i0).any() else None,
        maps.coverage.values,
    )
