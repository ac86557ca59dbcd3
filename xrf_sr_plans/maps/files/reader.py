"""`FileReader`: one kind of file, how it is recognised, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.options import ReadOptions

HEAD_BYTES = 512
"""How many bytes from the start of a file its reader is told by."""


@dataclass(frozen=True)
class FileReader:
    """One kind of file.

    Parameters
    ----------
    name
        How a user calls it (``--reader``) and how messages name it.
    what
        The kind of file in a few words, for messages and help.
    matches
        Whether a file may be of this kind, by its path and its first `HEAD_BYTES`. It is asked of
        every file, so it opens nothing.
    read
        Returns the maps; raises FileFormatError where there are none.
    """

    name: str
    what: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path, ReadOptions], MapsFile]


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file.

    Raises
    ------
    FileFormatError
        There is no such file, or it can't be read.
    """
    try:
        if not path.is_file():
            raise FileFormatError(f"{path}: no such file")
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as error:
        raise FileFormatError(f"{path}: can't be read: {error.strerror}") from error
