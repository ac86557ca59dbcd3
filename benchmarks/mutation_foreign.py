"""Runs of other beamlines, damaged and read, for `mutations.py`.

Every pixel of the pattern counts something else, so that a frame of a map says by its counts where
it belongs. A map is wrong if a frame whose documents are undamaged lies elsewhere than it was
measured, or if counts appear that were never measured though no event is damaged. Where start
document, descriptors or stream resources are damaged there is nothing to compare with, and only
crashes, hangs and foreign exceptions count.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutating import Item, Rng, mutated_stream

from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.maps.adapters import adapted
from xrf_sr_plans.maps.assemble import MapBuilder

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.foreign_runs import (
    FIELD,
    ROI_CHANNELS,
    Document,
    grid_run,
    haven_run,
    hxn_run,
    ophyd_async_run,
    srx_run,
    tes_run,
)

_WHOLE = ("start", "descriptor", "stream_resource")
_NEAR = 0.01
KINDS = 9
"""Number of kinds of runs."""


@dataclass(frozen=True)
class Family:
    """One kind of run, undamaged."""

    name: str
    documents: list[Document]
    channels: Mapping[str, Any] | None
    frames: int
    """Most frames that one document brings."""


def families(folder: Path) -> list[Family]:
    """Return a run of each family; files that they refer to are written to a folder."""
    for name in ("srx", "haven", "ophyd-async"):
        (folder / name).mkdir(exist_ok=True)
    stored = srx_run(folder / "srx", lost={3})
    rows, all_frames = FIELD.nx, FIELD.nx * FIELD.ny
    return [
        Family("srx", filled(stored), ROI_CHANNELS, rows),
        Family("srx as stored", stored, ROI_CHANNELS, rows),
        Family("tes", tes_run(lost={2}), ROI_CHANNELS, rows),
        Family("hxn", hxn_run(), None, all_frames),
        Family("grid scan", grid_run(lost={17, 40}), None, 1),
        Family("relative grid scan", grid_run(relative=True, lost={5}), None, 1),
        Family("list grid scan", grid_run(from_lists=True, lost={17, 40}), None, 1),
        Family("haven", haven_run(folder / "haven"), ROI_CHANNELS, rows),
        Family("ophyd-async", ophyd_async_run(folder / "ophyd-async"), ROI_CHANNELS, 1),
    ]


def filled(documents: list[Document]) -> list[Document]:
    """Return a run with the arrays of its files in its events."""
    from event_model import Filler

    from xrf_sr_plans.maps.adapters.assets import Hdf5Columns

    class Spectra:
        def __init__(self, path: str) -> None:
            self._read = Hdf5Columns(path)

        def __call__(self) -> Any:
            return self._read("entry/instrument/detector/data")

    handlers = {"ZEBRA_HDF51": Hdf5Columns, "SIS_HDF51": Hdf5Columns, "XSP3_FLY": Spectra}
    out: list[Document] = []
    with Filler(handlers, inplace=False) as filler:
        for name, doc in documents:
            got = filler(name, dict(doc))[1]
            if name == "event":
                data = {key: np.asarray(value).tolist() for key, value in got["data"].items()}
                got = {**got, "data": data, "filled": {}}
            if name in ("start", "descriptor", "event", "stop"):
                out.append((name, dict(got)))
    return out


def case_of(seed: int, corpus: list[Family]) -> Callable[[int], tuple[str, list[str], int]]:
    """Return what damages and reads one run: the family, what is wrong in words, frames compared.

    Families take turns, so that each has its share of the numbers.
    """

    def case(number: int) -> tuple[str, list[str], int]:
        rng = np.random.default_rng([seed, 3, number])
        family = corpus[number % len(corpus)]
        items = mutated(rng, family)
        try:
            maps = assembled([(item.name, item.doc) for item in items], family)
        except XrfSrError:
            return f"{family.name}: refused", [], 0
        if maps is None:
            return f"{family.name}: no map", [], 0
        wrong, frames = compared(family, items, maps)
        return f"{family.name}: read", wrong, frames

    return case


def mutated(rng: Rng, family: Family) -> list[Item]:
    """Return the run with some documents damaged; rarely the start document, which ends most."""
    items = mutated_stream(rng, family.documents)
    while items and rng.random() < 0.8 and not _is_whole(family, items):
        items = mutated_stream(rng, family.documents)
    return items


def assembled(documents: list[Any], family: Family) -> Any:
    """Return the map of a damaged run; None where nothing of it came out."""
    builder: MapBuilder | None = None
    for name, doc in adapted(documents, channels=family.channels, dwell_ms=50):
        if name == "start" and isinstance(doc, Mapping) and "xrf_sr" in doc:
            builder = MapBuilder(doc)
        elif builder is not None and name in ("descriptor", "event"):
            getattr(builder, name)(doc)
    return None if builder is None else builder.maps()


def _is_whole(family: Family, items: list[Item]) -> bool:
    """Return whether all documents that the places of frames hang on are there as they were."""
    needed = {place for place, (name, _) in enumerate(family.documents) if name in _WHOLE}
    there = [item.origin for item in items]
    others = any(item.origin < 0 and item.name in _WHOLE for item in items)
    return not others and all(there.count(place) == 1 for place in needed)


def compared(family: Family, items: list[Item], maps: Any) -> tuple[list[str], int]:
    """Return what is wrong with the map of a damaged run, and how many frames were compared."""
    if not _is_whole(family, items):
        return [], 0
    damaged = [item for item in items if item.origin < 0]
    allowed = family.frames * sum(1 for item in damaged if item.name not in ("stop",))
    truth = {tuple(one): place for place, one in enumerate(FIELD.counts.reshape(3, -1).T.tolist())}
    x, y = maps.grid.fast.centers_um, maps.grid.slow.centers_um
    misplaced = invented = frames = 0
    for iy, ix in np.argwhere(np.isfinite(maps.counts.values).all(axis=0)).tolist():
        place = truth.get(tuple(np.round(maps.counts.values[:, iy, ix], 3).tolist()))
        if place is None:
            invented += 1
            continue
        frames += 1
        row, column = divmod(place, FIELD.nx)
        off_x = abs(x[ix] - FIELD.x[column]) / FIELD.dx_um
        off_y = abs(y[iy] - FIELD.y[row]) / FIELD.dy_um
        misplaced += bool(max(off_x, off_y) > _NEAR)
    wrong = []
    if misplaced + invented > allowed:
        ways = Counter(item.name for item in damaged)
        wrong.append(
            f"{misplaced} frames misplaced, {invented} never measured, of {frames}; damaged:"
            f" {dict(ways)}"
        )
    return wrong, frames
