"""Pairs that were stored before there was a log: a folder each, with npz and json files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.store.pairs.pair_log import NAME
from xrf_sr_plans.store.pairs.stored_pair import StoredMap

_ARRAYS = ("counts", "i0", "live_time_s", "coverage")
_MAX_JSON_BYTES = 2**24


def has_older(folder: Path) -> bool:
    """Return whether a folder holds pairs that have no log."""
    return not (folder / NAME).exists() and any(folder.glob("*/pair.json"))


def refuse_older(folder: Path) -> None:
    """Refuse a folder of pairs that have no log.

    Raises
    ------
    FileFormatError
        It is one. The message says what to do.
    """
    if has_older(folder):
        raise FileFormatError(
            f"{folder}: holds pairs of an earlier version of this package; `xrf-sr pairs convert"
            f" {folder}` makes a store of them"
        )


def older_pairs(folder: Path) -> Iterator[tuple[str, list[StoredMap]]]:
    """Yield the uid and the maps of each pair that was complete.

    Raises
    ------
    FileFormatError
        A file is damaged. The message names it.
    """
    for path in sorted(folder.glob("*/pair.json")):
        home = path.parent
        yield home.name, sorted(map(_map, home.glob("map-*.json")), key=lambda one: one.position)


def _map(path: Path) -> StoredMap:
    facts = _facts(path)
    arrays = read_arrays(path.with_suffix(".npz"), _ARRAYS)
    try:
        maps = ElementalMaps.from_arrays(
            grid=ScanGrid.from_dict(facts["grid"]),
            elements=facts["elements"],
            **arrays,
            **facts["attrs"],
        )
        return StoredMap(int(facts["position"]), int(facts["factor"]), maps)
    except Exception as error:  # damaged facts can raise anything
        raise FileFormatError(f"{path}: no map of a pair: {in_words(error)}") from error


def _facts(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES + 1)
        if len(text) > _MAX_JSON_BYTES:
            raise ValueError(f"longer than {_MAX_JSON_BYTES} bytes")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: {in_words(error)}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: holds a {type(content).__name__}; an object is needed")
    return content
