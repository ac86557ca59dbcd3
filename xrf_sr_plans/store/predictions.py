"""`Predictions`: enhanced maps that a fine map may still be compared with.

On disk they are the files ``<folder>/predictions/<source uid>.<model>.npz``, which are read back
without pickle. Several processes may share a folder.
"""

from __future__ import annotations

import json
import logging
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.result import FIELDS, FLAGS
from xrf_sr_plans.store.ledger import file_name

logger = logging.getLogger(__name__)

IN_MEMORY = 16
"""Number of predictions that are kept in memory whatever they take."""
IN_MEMORY_BYTES = 2**28
"""Largest total size of more than that in memory where there is no folder; the oldest are dropped.

A survey of many small tiles needs all of them at its end.
"""
ON_DISK_BYTES = 2 * 2**30
"""Largest total size of the files; the oldest ones are deleted."""

_ATTRIBUTES = (
    *("factor", "sampling", "model", "source_uid", "fallback", "dwell_ms", "i0_median"),
    "result_uid",
)
"""Attributes of an enhanced map that a later comparison needs."""


class Predictions:
    """Enhanced maps by the uid of the map that they were made from.

    Values are kept as float32, as result documents carry them, so that a comparison gives the
    same figures whether the prediction comes from memory, from disk or from stored documents.
    What is kept is limited by `IN_MEMORY`, `IN_MEMORY_BYTES` and `ON_DISK_BYTES`.

    Parameters
    ----------
    folder
        Folder in which predictions also outlive a restart. With None they are kept in memory only.
    on_disk_bytes
        Largest total size of the files.
    """

    def __init__(self, folder: str | Path | None, on_disk_bytes: int = ON_DISK_BYTES) -> None:
        self._on_disk_bytes = on_disk_bytes
        self.folder = None if folder is None else Path(folder) / "predictions"
        self._memory: dict[str, EnhancedMaps] = {}

    def keep(self, enhanced: EnhancedMaps) -> None:
        """Remember a prediction under the uid in its attribute ``source_uid``.

        One of the same map by the same model that has more pixels stays, as where a stored run
        that was cut off is replayed.

        Raises
        ------
        OSError
            The file can't be written. The prediction is in memory nevertheless.
        """
        uid = str(enhanced.dataset.attrs["source_uid"])
        enhanced = rounded(enhanced)
        if self._has_more(uid, enhanced):
            logger.warning("the prediction for map %s stays: it has more pixels", uid)
            return
        self._memory.pop(uid, None)
        self._memory[uid] = enhanced
        most_bytes = IN_MEMORY_BYTES if self.folder is None else 0
        while len(self._memory) > IN_MEMORY and self._size() > most_bytes:
            del self._memory[next(iter(self._memory))]
        if self.folder is not None:
            self._write(uid, enhanced)

    def recall(self, source_uid: str, model_sha256: str | None = None) -> EnhancedMaps | None:
        """Return the latest prediction for a map, or None where there is none.

        Parameters
        ----------
        source_uid
            Uid of the run of the coarse map.
        model_sha256
            Checksum of the weights of the model whose prediction is preferred, where several
            models have predicted the map.

        Raises
        ------
        FileFormatError
            A file is damaged. The message names it.
        """
        remembered = self._memory.get(source_uid)
        if remembered is not None and model_sha256 in (None, remembered.model["sha256"]):
            return remembered
        if self.folder is None:
            return remembered
        stem = file_name(source_uid)
        sha = "*" if model_sha256 is None else _sha(model_sha256)
        paths = [*self.folder.glob(f"{stem}.{sha}.npz")]
        if not paths and remembered is None:
            paths = [*self.folder.glob(f"{stem}.*.npz")]
        return _load(max(paths, key=_age)) if paths else remembered

    def _size(self) -> int:
        return sum(int(known.dataset.nbytes) for known in self._memory.values())

    def _has_more(self, uid: str, enhanced: EnhancedMaps) -> bool:
        try:
            known = self.recall(uid, enhanced.model["sha256"])
        except FileFormatError:
            return False
        if known is None or known.model["sha256"] != enhanced.model["sha256"]:
            return False
        if known.estimate.shape != enhanced.estimate.shape:
            return False
        return int(known.estimate.count()) > int(enhanced.estimate.count())

    def _write(self, uid: str, enhanced: EnhancedMaps) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{file_name(uid)}.{_sha(enhanced.model['sha256'])}.npz"
        part = path.with_suffix(f".{uuid.uuid4().hex[:12]}.part")
        facts = {
            "grid": enhanced.grid.to_dict(),
            "elements": enhanced.elements,
            "attrs": {key: enhanced.dataset.attrs.get(key) for key in _ATTRIBUTES},
        }
        arrays = {name: enhanced.dataset[name].values for name in FIELDS}
        try:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, facts=np.array(json.dumps(facts)), **arrays)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self._delete_oldest()

    def _delete_oldest(self) -> None:
        assert self.folder is not None
        size = 0
        for number, path in enumerate(sorted(self.folder.glob("*.npz"), key=_age, reverse=True)):
            # Another process may have deleted the file already.
            with suppress(OSError):
                size += path.stat().st_size
                if number and size > self._on_disk_bytes:
                    path.unlink()


def rounded(enhanced: EnhancedMaps) -> EnhancedMaps:
    """Return a prediction as result documents carry it.

    Its values are float32, and its attributes are those that a comparison needs.
    """
    arrays = {
        name: enhanced.dataset[name].values.astype(bool if name in FLAGS else np.float32)
        for name in FIELDS
    }
    attrs: dict[str, Any] = {key: enhanced.dataset.attrs.get(key) for key in _ATTRIBUTES}
    return EnhancedMaps.from_arrays(enhanced.grid, enhanced.elements, **arrays, **attrs)


def _sha(model_sha256: str) -> str:
    return model_sha256[:12] or "bicubic"


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _load(path: Path) -> EnhancedMaps:
    arrays = read_arrays(path, ("facts", *FIELDS[:-1]), optional=FIELDS[-1:])
    try:
        facts = json.loads(str(arrays.pop("facts")))
        grid = ScanGrid.from_dict(facts["grid"])
        return EnhancedMaps.from_arrays(grid, facts["elements"], **arrays, **facts["attrs"])
    except Exception as error:  # damaged facts can raise anything
        raise FileFormatError(f"{path}: no prediction: {in_words(error)}") from error
