"""`read_map`: the maps of a file of any kind, be it of arrays or of documents."""

from __future__ import annotations

from pathlib import Path

from xrf_sr_plans.maps.files import MapsFile, ReadOptions
from xrf_sr_plans.maps.readers.registry import reader_of_file


def read_map(
    path: str | Path, *, reader: str | None = None, options: ReadOptions | None = None
) -> MapsFile:
    """Return the maps in a file.

    Parameters
    ----------
    path
        The file.
    reader
        Name of the reader (``--reader``); None: the first one that matches the file.
    options
        What the user knows better than the file.

    Raises
    ------
    ConfigError
        There is no reader of that name.
    FileFormatError
        There is no such file, no reader matches it, or it can't be read.
    """
    path = Path(path)
    return reader_of_file(path, reader).read(path, options or ReadOptions())
