"""`read_any_map`: the map in a file, be it a file of maps or one of documents."""

from __future__ import annotations

from pathlib import Path

from xrf_sr_plans.maps.files.reader import head_of
from xrf_sr_plans.maps.readers import RUN_READERS, MapsFile, ReadOptions, map_of_run, read_map
from xrf_sr_plans.store.documents import roots_of
from xrf_sr_plans.store.jsonl import read_jsonl


def read_any_map(
    path: str | Path, *, reader: str | None = None, options: ReadOptions | None = None
) -> MapsFile:
    """Return the map in a file of any kind.

    Parameters
    ----------
    path
        A file of maps, or one of documents as JSON lines, of which the first map is read.
    reader
        Name of the reader, of files or of runs; None: the first one that matches.
    options
        What the user knows better than the file; a run says its axes itself.

    Raises
    ------
    AssemblyError
        No run in the file is a map that can be read.
    ConfigError
        There is no reader of that name.
    FileFormatError
        There is no such file, no reader matches it, or it can't be read.
    """
    path = Path(path)
    of_runs = {known.name for known in RUN_READERS}
    if reader in of_runs or (reader is None and _is_lines(path, head_of(path))):
        return map_of_run(read_jsonl(path), path=str(path), reader=reader, roots=roots_of(path))
    return read_map(path, reader=reader, options=options)


def _is_lines(path: Path, head: bytes) -> bool:
    """Return whether a file holds documents: by its name, or by how its first line begins."""
    start = head.lstrip()
    return path.suffix.lower() == ".jsonl" or (
        start.startswith((b"{", b"[")) and b'"start"' in start[:80]
    )
