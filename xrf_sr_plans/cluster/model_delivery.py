"""How the files of a model get to a worker of a cluster: by their checksum, and once.

A request names the checksum of the model's files. A worker that doesn't have them says so, and is
sent their bytes. It keeps a few models in a folder, and the model that was used last in memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.sr.model_files import bounded
from xrf_sr_plans.sr.registry import WEIGHTS

SUFFIXES = (".safetensors", ".json", ".calibration.json", ".trust.json")
"""Endings of the files of a model; all but the last one are needed."""
MOST_MODELS = 8
"""How many models a worker keeps; the one that was not used for longest goes first."""
_STEM = "model"


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """The files of one model, by their endings."""

    contents: Mapping[str, bytes]

    @property
    def checksum(self) -> str:
        """Sha256 of endings, lengths and contents, in hexadecimal digits."""
        hasher = hashlib.sha256()
        for suffix in SUFFIXES:
            if suffix in self.contents:
                hasher.update(f"{suffix} {len(self.contents[suffix])}\n".encode())
                hasher.update(self.contents[suffix])
        return hasher.hexdigest()

    @classmethod
    def of(cls, weights: Path) -> ModelFiles:
        """Read the files beside a file of weights.

        Raises
        ------
        ModelError
            A file that is needed is missing or too large.
        """
        files = {suffix: weights.with_suffix(suffix) for suffix in SUFFIXES}
        return cls(
            {
                suffix: bounded(file)
                for suffix, file in files.items()
                if suffix != SUFFIXES[-1] or file.exists()
            }
        )


def checksum_of(weights: Path) -> str:
    """Return the checksum of a model's files, which are read again only when one has changed.

    Raises
    ------
    ModelError
        A file that is needed is missing or too large.
    """
    return _checksum(weights.resolve(), tuple(_stamp(weights, suffix) for suffix in SUFFIXES))


@lru_cache(maxsize=64)
def _checksum(weights: Path, _stamps: tuple[tuple[int, int] | None, ...]) -> str:
    return ModelFiles.of(weights).checksum


def _stamp(weights: Path, suffix: str) -> tuple[int, int] | None:
    try:
        found = weights.with_suffix(suffix).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class ModelFolder:
    """The models that a worker was sent. It is thread-safe.

    Parameters
    ----------
    folder
        Where they are kept; it must belong to this process alone, and is made if need be.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()

    def find(self, checksum: str) -> Path | None:
        """Return the weights of a model, be it sent or shipped with the package, else None."""
        for weights in WEIGHTS.glob("*.safetensors"):
            is_whole = weights.with_suffix(".calibration.json").exists()
            if is_whole and checksum_of(weights) == checksum:
                return weights
        with self._lock:
            weights = self._weights(checksum)
            if not weights.exists():
                return None
            os.utime(weights.parent)
            return weights

    def add(self, checksum: str, contents: Mapping[str, bytes]) -> Path:
        """Keep a model, and return its weights.

        Raises
        ------
        ModelError
            The files are not those of the checksum.
        OSError
            The disk is full, or writing is not permitted.
        """
        if set(contents) - set(SUFFIXES) or ModelFiles(contents).checksum != checksum:
            raise ModelError(f"the model's files are not those of the checksum {checksum[:12]}")
        with self._lock:
            weights = self._weights(checksum)
            if weights.exists():
                return weights
            self._folder.mkdir(parents=True, exist_ok=True)
            # As a whole or not at all, whenever the worker is killed.
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._folder))
            try:
                for suffix, content in contents.items():
                    (part / _STEM).with_suffix(suffix).write_bytes(content)
                part.replace(weights.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            self._bound()
            return weights

    def _weights(self, checksum: str) -> Path:
        return self._folder / checksum / f"{_STEM}{SUFFIXES[0]}"

    def _bound(self) -> None:
        kept = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        kept.sort(key=lambda path: path.stat().st_mtime_ns)
        for folder in kept[:-MOST_MODELS]:
            shutil.rmtree(folder, ignore_errors=True)
