"""`READERS`: every kind of file and run that is read, and which one reads a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import AssemblyError, ConfigError
from xrf_sr_plans.maps.adapters import OURS, RUN_KINDS, RunKind, adapted
from xrf_sr_plans.maps.adapters.runs import ForeignRun
from xrf_sr_plans.maps.files import FILE_READERS, FileReader
from xrf_sr_plans.maps.files.read import file_reader
from xrf_sr_plans.maps.files.reader import head_of
from xrf_sr_plans.maps.readers.run_reader import RunReader


def _is_ours(start: Mapping[str, Any], descriptors: Sequence[Mapping[str, Any]]) -> bool:
    return isinstance(start.get("xrf_sr"), Mapping)


def _of_others(kind: RunKind) -> RunReader:
    return RunReader(
        kind.name,
        kind.what,
        lambda start, descriptors: kind.matches(ForeignRun(start)),
        partial(adapted, reader=kind.name),
    )


RUN_READERS: tuple[RunReader, ...] = (
    RunReader(
        OURS,
        "run of this package, one event a row",
        _is_ours,
        lambda documents, **known: iter(documents),
    ),
    *(_of_others(kind) for kind in RUN_KINDS),
)
"""Every kind of run; the first one that matches reads it. Ours are passed on as they are."""

READERS: tuple[FileReader | RunReader, ...] = (*FILE_READERS, *RUN_READERS)
"""Everything that is read. No two readers have the same name."""


def reader_of_file(path: str | Path, name: str | None = None) -> FileReader:
    """Return the reader of a file.

    Parameters
    ----------
    path
        The file.
    name
        Name of the reader (``--reader``); None: the first one that matches.

    Raises
    ------
    ConfigError
        There is no reader of that name.
    FileFormatError
        There is no such file, or no reader matches it.
    """
    path = Path(path)
    return file_reader(path, head_of(path), name)


def reader_of_run(
    start: Mapping[str, Any], descriptors: Sequence[Mapping[str, Any]], name: str | None = None
) -> RunReader:
    """Return the reader of a run.

    Parameters
    ----------
    start
        Its start document.
    descriptors
        Its descriptors, as far as they are known.
    name
        Name of the reader (``--reader``); None: the first one that matches.

    Raises
    ------
    ConfigError
        There is no reader of that name.
    AssemblyError
        No reader matches the run; the message names its plan and its streams.
    """
    if name is not None:
        for reader in RUN_READERS:
            if reader.name == name:
                return reader
        raise ConfigError(
            f"run {start.get('uid')}: reader is {name!r}; there are"
            f" {', '.join(reader.name for reader in RUN_READERS)}"
        )
    for reader in RUN_READERS:
        if reader.matches(start, descriptors):
            return reader
    streams = ", ".join(repr(doc.get("name")) for doc in descriptors) or "none"
    raise AssemblyError(
        f"run {start.get('uid')} of the plan {start.get('plan_name')!r} with the streams {streams}:"
        f" no kind of run that is read; there are readers for"
        f" {', '.join(f'{reader.name} ({reader.what})' for reader in RUN_READERS)}"
    )


def readers_in_words() -> list[str]:
    """Return the name of each reader and what it reads, a line each."""
    return [f"{reader.name}: {reader.what}" for reader in READERS]
