"""Enhanced maps that a fine map may still be compared with, in memory and on disk.

``<folder>/predictions/<source uid>.<model>.npz``, read back without pickle. Several processes may
share a folder.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from xrf_sr_plans.errors import FileFormatError, GridError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.result import FIELDS
from xrf_sr_plans.store.ledger import file_name

IN_MEMORY = 16
"""Predictions kept in memory, newest last."""
ON_DISK_BYTES = 2 * 2**30
"""So much of prediction files is kept; the oldest go."""

_ATTRIBUTES = ("factor", "model", "source_uid", "fallback", "dwell_ms", "i0_median", "result_uid")


class Predictions:
    """Enhanced maps by the uid of the map they were made of; bounded in memory and on disk.

    Values are kept as float32, as result documents carry them, so that a comparison gives the
    same figures whether the prediction comes from memory, from disk or from stored documents.

    Parameters
    ----------
    folder
        Also keep them as files there, for after a restart; None: in memory only.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder) / "predictions"
        self._memory: dict[str, EnhancedMaps] = {}

    def keep(self, enhanced: EnhancedMaps) -> None:
        """Remember a prediction; its attribute ``source_uid`` says of which map.

        Raises
        ------
        OSError
            It can't be written; it is remembered in memory nevertheless.
        """
        uid = str(enhanced.dataset.attrs["source_uid"])
        enhanced = rounded(enhanced)
        self._memory.pop(uid, None)
        self._memory[uid] = enhanced
        while len(self._memory) > IN_MEMORY:
            del self._memory[next(iter(self._memory))]
        if self.folder is not None:
            self._write(uid, enhanced)

    def recall(self, source_uid: str, model_sha256: str | None = None) -> EnhancedMaps | None:
        """Return the latest prediction of a map, None where there is none.

        Where the map was predicted by several models, the one with `model_sha256` is preferred.

        Raises
        ------
        FileFormatError
            A damaged file, named.
        """
        found = self._memory.get(source_uid)
        if found is not None and model_sha256 in (None, found.model["sha256"]):
            return found
        if self.folder is None:
            return found
        stem = file_name(source_uid)
        sha = "*" if model_sha256 is None else _sha(model_sha256)
        paths = [*self.folder.glob(f"{stem}.{sha}.npz")]
        if not paths and found is None:
            paths = [*self.folder.glob(f"{stem}.*.npz")]
        return _load(max(paths, key=_age)) if paths else found

    def _write(self, uid: str, enhanced: EnhancedMaps) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{file_name(uid)}.{_sha(enhanced.model['sha256'])}.npz"
        part = path.with_suffix(f".{os.getpid()}.part")
        facts = {
            "grid": enhanced.grid.to_dict(),
            "elements": enhanced.elements,
            "attrs": {key: enhanced.dataset.attrs[key] for key in _ATTRIBUTES},
        }
        arrays = {name: enhanced.dataset[name].values for name in FIELDS}
        try:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, facts=np.array(json.dumps(facts)), **arrays)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        assert self.folder is not None
        kept = 0
        for number, path in enumerate(sorted(self.folder.glob("*.npz"), key=_age, reverse=True)):
            # Another process may be doing the same.
            with suppress(OSError):
                kept += path.stat().st_size
                if number and kept > ON_DISK_BYTES:
                    path.unlink()


def rounded(enhanced: EnhancedMaps) -> EnhancedMaps:
    """Return a prediction as documents carry it: float32, and the facts a comparison needs."""
    arrays = {name: enhanced.dataset[name].values.astype(np.float32) for name in FIELDS[:-1]}
    attrs: dict[str, Any] = {key: enhanced.dataset.attrs.get(key) for key in _ATTRIBUTES}
    trusted = enhanced.trusted.values.astype(bool)
    return EnhancedMaps.from_arrays(
        enhanced.grid, enhanced.elements, **arrays, trusted=trusted, **attrs
    )


def _sha(model_sha256: str) -> str:
    return model_sha256[:12] or "bicubic"


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _load(path: Path) -> EnhancedMaps:
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            arrays = {name: file[name] for name in FIELDS}
        grid = ScanGrid.from_dict(facts["grid"])
        return EnhancedMaps.from_arrays(grid, facts["elements"], **arrays, **facts["attrs"])
    except (OSError, KeyError, ValueError, TypeError, GridError, BadZipFile) as error:
        raise FileFormatError(f"{path}: {error!r}") from error
