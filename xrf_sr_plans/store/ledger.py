"""How a beamline's models did against the fine maps that followed, and what that says of them.

``<folder>/<beamline>/<model>.jsonl`` is the ledger of one model: a line per fine map and element.
Several processes may share a folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

logger = logging.getLogger(__name__)


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class Entry(BaseModel):
    """How the prediction of one element did in one fine map; figures as in `Agreement`."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="constants")

    time: float
    """When the fine map ended, seconds since 1970."""
    fine_uid: str
    parent_uid: str
    survey_uid: str = ""
    element: str
    factor: int
    model: str
    model_sha256: str
    calibration: str
    pixels: int
    effective_pixels: float
    coverage_90: float
    psnr_enhanced_db: float
    psnr_baseline_db: float
    bias: float

    @property
    def order(self) -> tuple[float, str, str]:
        """Place in the ledger's time."""
        return self.time, self.fine_uid, self.element

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What may be there only once (for one model)."""
        return self.fine_uid, self.element, self.calibration, self.factor


class Ledger:
    """Entries of all beamlines and models; in memory only where `folder` is None.

    Parameters
    ----------
    folder
        Made when the first entry is written.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._memory: dict[str, list[Entry]] = {}

    def path(self, beamline: str, model: Mapping[str, Any]) -> Path:
        """Return where a model's entries are (relative to nothing if in memory only)."""
        name = f"{file_name(str(model['name']))}-{str(model['sha256'])[:12]}".rstrip("-")
        return (self.folder or Path()) / file_name(beamline) / f"{name}.jsonl"

    def append(self, beamline: str, model: Mapping[str, Any], entries: Iterable[Entry]) -> int:
        """Add entries that aren't there yet; return how many that were.

        They are written in one go, under a lock, and are on the disk when this returns.

        Raises
        ------
        OSError
            No space, no permission.
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
                # Somebody was killed while writing: their torn line stays one line.
                text = b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return len(new)

    def entries(self, beamline: str, model: Mapping[str, Any]) -> list[Entry]:
        """Return a model's entries in the order of time; damaged lines are left out."""
        path = self.path(beamline, model)
        found = self._memory.get(str(path), []) if self.folder is None else _read(path)
        return sorted(found, key=lambda entry: entry.order)

    def before(
        self, beamline: str, model: Mapping[str, Any], factor: int, time: float, fine_uid: str
    ) -> list[Entry]:
        """Return what was known of a calibrated model before a fine map.

        So the answer is the same whenever, and however often, that map is looked at.
        """
        return [
            entry
            for entry in self.entries(beamline, model)
            if (entry.time, entry.fine_uid) < (time, fine_uid)
            and entry.calibration == model.get("calibration", "")
            and entry.factor == factor
        ]


def content_key(entries: Sequence[Entry]) -> str:
    """Return a short hash of entries."""
    text = "".join(entry.model_dump_json() for entry in entries)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _new(entries: Iterable[Entry], known: Iterable[Entry]) -> list[Entry]:
    keys = {entry.key for entry in known}
    return [entry for entry in entries if entry.key not in keys]


def _ends_with_newline(file: Any) -> bool:
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
    """Return a text given by others as a file name that can't lead out of its folder."""
    return _UNSAFE.sub("_", text)[:80] or "unknown"
