"""`Ledger`: how well each model predicted the fine maps that were measured afterwards.

The file ``<folder>/<beamline>/<model>.jsonl`` holds one line for each element of each fine map.
Several processes may share a folder. `store.verdict` draws conclusions from the entries.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

logger = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class Entry(BaseModel):
    """How the prediction of one element compared with one fine map.

    The figures without a description are those of `metrics.agreement.Agreement`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="constants")

    time: float
    """When the fine map ended, in seconds since 1970."""
    fine_uid: str
    """Uid of the run of the fine map."""
    parent_uid: str
    """Uid of the run of the coarse map that the prediction was made from."""
    survey_uid: str = ""
    """Uid of the survey that both maps belong to, or empty."""
    element: str
    factor: int
    """How many times finer than the coarse map the prediction was, along each axis."""
    sampling: str = "fly"
    """How the coarse map was measured that the prediction was made from."""
    model: str
    """Name of the model."""
    model_sha256: str
    """Checksum of the model's weights, which is empty for a bicubic prediction."""
    calibration: str
    """Identifier of the calibration of the model's intervals."""
    pixels: int
    effective_pixels: float
    coverage_90: float
    psnr_enhanced_db: float
    psnr_baseline_db: float
    bias: float
    stage: str = ""
    """Name of the fast axis of the fine stage that flew the fine map; empty: there was none."""
    dx_um: float | None = None
    """How far from where it was expected the fine map was flown, along x; None: unknown."""
    dy_um: float | None = None
    """The same along y."""

    @property
    def order(self) -> tuple[float, str, str]:
        """Sort key: entries are ordered by the time of their fine maps, then by name."""
        return self.time, self.fine_uid, self.element

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What identifies an entry within the file of one model; it is stored only once."""
        return self.fine_uid, self.element, self.calibration, self.factor


class Ledger:
    """Entries of all beamlines and models.

    Parameters
    ----------
    folder
        Folder of the files, which is made when the first entry is written. With None the entries
        are kept in memory only.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._memory: dict[str, list[Entry]] = {}

    def path(self, beamline: str, model: Mapping[str, str]) -> Path:
        """Return the file of a model's entries; without a folder this is only their key."""
        name = f"{file_name(str(model['name']))}-{str(model['sha256'])[:12]}".rstrip("-")
        return (self.folder or Path()) / file_name(beamline) / f"{name}.jsonl"

    def append(self, beamline: str, model: Mapping[str, str], entries: Iterable[Entry]) -> int:
        """Add those of `entries` that are not in the ledger yet.

        They are written in one piece, under a lock, and are on the disk when this returns.

        Parameters
        ----------
        beamline
            Name of the beamline.
        model
            Name and sha256 of the model, as in `EnhancedMaps.model`.
        entries
            The entries of one or more fine maps.

        Returns
        -------
        int
            How many entries were new.

        Raises
        ------
        OSError
            The disk is full, or writing is not permitted.
        """
        path = self.path(beamline, model)
        if self.folder is None:
            kept = self._memory.setdefault(str(path), [])
            new = _new(entries, kept)
            kept += new
            return len(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            new = _new(entries, _read(path))
            if not new:
                return 0
            text = "".join(entry.model_dump_json() + "\n" for entry in new).encode()
            if file.seek(0, os.SEEK_END) and not _ends_with_newline(file):
                # Another process was killed while it wrote. Its torn line stays a line of its own.
                text = b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return len(new)

    def entries(self, beamline: str, model: Mapping[str, str]) -> list[Entry]:
        """Return a model's entries in order of time; damaged lines are left out with a warning."""
        path = self.path(beamline, model)
        known = self._memory.get(str(path), []) if self.folder is None else _read(path)
        return sorted(known, key=lambda entry: entry.order)

    def before(
        self,
        beamline: str,
        model: Mapping[str, str],
        factor: int,
        time: float,
        fine_uid: str,
        sampling: str = "fly",
    ) -> list[Entry]:
        """Return what was known about a model, at its present calibration, before a fine map.

        The answer depends on the time at which the fine map ended, not on when it is asked for,
        so that a replay gets the same entries as the live run.

        Parameters
        ----------
        beamline
            Name of the beamline.
        model
            Name, sha256 and calibration of the model, as in `EnhancedMaps.model`.
        factor
            Only entries of predictions with this factor are returned.
        time
            When the fine map ended, in seconds since 1970.
        fine_uid
            Uid of the fine map, which decides between maps that ended at the same time.
        sampling
            How the coarse map was measured. Predictions from rows and from square pixels have
            calibrations of their own, so only entries of the same kind are returned.
        """
        return [
            entry
            for entry in self.entries(beamline, model)
            if (entry.time, entry.fine_uid) < (time, fine_uid)
            and entry.calibration == model.get("calibration", "")
            and entry.factor == factor
            and (entry.sampling == "rows") == (sampling == "rows")
        ]


def content_key(entries: Sequence[Entry]) -> str:
    """Return a hash of the entries' content (16 hexadecimal digits)."""
    text = "".join(entry.model_dump_json() for entry in entries)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _new(entries: Iterable[Entry], known: Iterable[Entry]) -> list[Entry]:
    keys = {entry.key for entry in known}
    return [entry for entry in entries if entry.key not in keys]


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _read(path: Path) -> list[Entry]:
    entries: list[Entry] = []
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return entries
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError:
            if line.strip():
                logger.warning("%s: line %d is damaged and is left out", path, number)
    return entries


def file_name(text: str) -> str:
    """Return a file name for a text that others chose; it can't lead out of its folder."""
    return _UNSAFE.sub("_", text)[:80] or "unknown"
