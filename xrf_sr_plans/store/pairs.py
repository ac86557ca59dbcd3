"""`PairStore`: coarse and fine maps of the same areas, in a folder of npz and json files.

The arrays of a map are in ``<folder>/<pair uid>/map-<position>.npz``, and its grid, elements and
attributes in the json file of the same name. ``pair.json`` is written with the registration once
all maps of the pair are there. Files appear as a whole or not at all, and writing one again changes
nothing, so several processes may share a folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xrf_sr_plans.errors import ConfigError, FileFormatError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.registration.pair_registration import PairRegistration

logger = logging.getLogger(__name__)

Split = Literal["learn", "held out"]
PairSource = Literal["pair", "rescan", "file"]
"""Where pairs come from: `acquire_pair`, a survey and one of its rescans, or two files."""
_ARRAYS = ("counts", "i0", "live_time_s", "coverage")
_MAX_JSON_BYTES = 2**24
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class StoredMap:
    """One map of a pair."""

    position: int
    """Place of the map in the order in which the maps of the pair were flown."""
    factor: int
    """How many times larger its step is than that of the fine map, which has factor 1."""
    maps: ElementalMaps


@dataclass(frozen=True)
class StoredPair:
    """All maps of one pair."""

    pair_uid: str
    fine: StoredMap
    coarse: tuple[StoredMap, ...]
    registration: Mapping[int, PairRegistration]
    """How each coarse map and the fine one lie on each other, by position."""
    sample: str = ""
    """Which sample it is of, as far as that is known."""
    split: Split = "learn"
    """Whether it is learnt from or held out: the same for all pairs of one sample, for good."""
    source: PairSource = "pair"
    problem: str = ""
    """Why nothing is learnt from it; empty where something can be."""


class PairStore:
    """Write and read pairs.

    Parameters
    ----------
    folder
        Folder of the pairs, which is made when the first map is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def save_map(self, pair_uid: str, position: int, factor: int, maps: ElementalMaps) -> None:
        """Store one map of a pair, unless more of the same run is stored already.

        Parameters
        ----------
        pair_uid
            Uid of the pair.
        position
            Place of the map in the order in which the maps of the pair were flown.
        factor
            How many times larger its step is than that of the fine map, which has factor 1.
        maps
            The map as it was measured.

        Raises
        ------
        ConfigError
            The uid can't be a file name.
        OSError
            The disk is full, or writing is not permitted.
        """
        home = self._home(pair_uid)
        home.mkdir(parents=True, exist_ok=True)
        stem = home / f"map-{position}"
        if _has_more(stem.with_suffix(".json"), maps):
            logger.warning("%s stays: it has more pixels of the run than what comes now", stem)
            return
        arrays = {name: maps.dataset[name].values for name in _ARRAYS}
        with _WholeFile(stem.with_suffix(".npz")) as part, part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        facts = {
            "position": position,
            "factor": factor,
            "elements": maps.elements,
            "grid": maps.grid.to_dict(),
            "attrs": maps.attrs,
        }
        _write_json(stem.with_suffix(".json"), facts)

    def maps(self, pair_uid: str) -> list[StoredMap]:
        """Return those maps of a pair that are stored, in the order in which they were flown."""
        paths = self._home(pair_uid).glob("map-*.json")
        return sorted((_read_map(path) for path in paths), key=lambda stored: stored.position)

    def finish(self, pair_uid: str, registration: Mapping[int, PairRegistration]) -> None:
        """Mark a pair as complete, so that `pairs` yields it from now on.

        Parameters
        ----------
        pair_uid
            Uid of the pair.
        registration
            How each coarse map and the fine one lie on each other, by position.
        """
        record = {
            "pair_uid": pair_uid,
            "registration": {
                str(position): registered.to_dict() for position, registered in registration.items()
            },
        }
        _write_json(self._home(pair_uid) / "pair.json", record)

    def pairs(self) -> Iterator[StoredPair]:
        """Yield the complete pairs in order of their uids.

        Raises
        ------
        FileFormatError
            A file is damaged. The message names it.
        """
        for path in sorted(self.folder.glob("*/pair.json")):
            record = _read_json(path)
            maps = self.maps(path.parent.name)
            fine = [stored for stored in maps if stored.factor == 1]
            if len(fine) != 1:
                raise FileFormatError(f"{path.parent}: {len(fine)} fine maps; 1 is needed")
            yield StoredPair(
                path.parent.name,
                fine[0],
                tuple(stored for stored in maps if stored.factor != 1),
                _registration(record, path),
            )

    def _home(self, pair_uid: str) -> Path:
        if not _UID.fullmatch(pair_uid):
            raise ConfigError(f"pair uid {pair_uid!r}: letters, digits, '-' and '_' are allowed")
        return self.folder / pair_uid


def _has_more(path: Path, maps: ElementalMaps) -> bool:
    """Return whether a stored map has more pixels than another one, of the same run."""
    if not path.exists():
        return False
    try:
        stored = _read_map(path).maps
    except FileFormatError:
        return False
    if stored.attrs.get("source_uid") != maps.attrs.get("source_uid"):
        return False
    return (stored.coverage.values > 0).sum() > (maps.coverage.values > 0).sum()


def _read_map(path: Path) -> StoredMap:
    facts = _read_json(path)
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


def _registration(record: Mapping[str, Any], path: Path) -> dict[int, PairRegistration]:
    try:
        return {
            int(position): PairRegistration.from_dict(registered)
            for position, registered in record["registration"].items()
        }
    except Exception as error:  # damaged facts can raise anything
        raise FileFormatError(f"{path}: no record of a pair: {in_words(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES + 1)
        if len(text) > _MAX_JSON_BYTES:
            raise FileFormatError(f"{path}: longer than {_MAX_JSON_BYTES} bytes")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path}: {in_words(error)}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: holds a {type(content).__name__}; an object is needed")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with _WholeFile(path) as part:
        part.write_text(json.dumps(content, indent=1))


class _WholeFile:
    """Give a temporary path to write to, which replaces `path` if all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
