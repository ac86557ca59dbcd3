"""What a worker of a cluster must have before it is given units: the same code, the same files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xrf_sr_plans.cluster.versions import mismatch, versions_here

LOOKED_AT = 20
"""Largest number of files that are looked for on each worker."""
LOOK_TIMEOUT_S = 30.0
"""Longest wait for a worker's file systems."""

_fit: set[str] = set()
"""Jobs for which this process is known to have everything."""


@dataclass(frozen=True)
class Fitness:
    """What a job needs of a worker. It is sent there with each unit, and looked at once."""

    needs: tuple[Callable[[], str], ...] = ()
    """As `Job.needs`."""
    versions: Mapping[str, str] = field(default_factory=versions_here)
    """Versions of the process that asks."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """By which a worker knows that it has looked before."""

    def flaw_here(self) -> str:
        """Return the sentence that tells why this process can't do such units, or ""."""
        if self.token in _fit:
            return ""
        flaw = mismatch(self.versions, versions_here())
        for need in () if flaw else self.needs:
            if flaw := need():
                break
        if not flaw:
            _fit.add(self.token)
        return flaw


async def flaw_on_worker(fitness: Fitness) -> str:
    """Return `Fitness.flaw_here` without keeping a worker from its other duties meanwhile."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(fitness.flaw_here), LOOK_TIMEOUT_S)
    except TimeoutError:
        return f"its files could not be looked at within {LOOK_TIMEOUT_S:g} s"


def files_flaw(files: tuple[tuple[str, int], ...]) -> str:
    """Return the sentence that tells which file is not here or another one, or "".

    Parameters
    ----------
    files
        Absolute paths and sizes in bytes.
    """
    for name, size in files:
        try:
            here = Path(name).stat().st_size
        except OSError:
            return f"it sees no file {name}: workers must see the same files under the same names"
        if here != size:
            return f"its file {name} is another one, of {here} instead of {size} bytes"
    return ""


def folder_flaw_there(marker: str) -> str:
    """Return the sentence that tells that a folder of results is not here or not writable, or "".

    Parameters
    ----------
    marker
        A file that the asking process has just put into it.
    """
    folder = Path(marker).parent
    if not Path(marker).is_file():
        return f"it sees not the same folder {folder}: results must go to one that all workers see"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"it may not write to the folder {folder}"
    return ""


def sample_of(files: list[str]) -> tuple[tuple[str, int], ...]:
    """Return some of the files with their sizes, from beginning to end: `LOOKED_AT` at most."""
    step = max(1, -(-len(files) // LOOKED_AT))
    found = []
    for name in files[::step]:
        with contextlib.suppress(OSError):
            found.append((name, Path(name).stat().st_size))
    return tuple(found)


@contextlib.contextmanager
def marked(folder: Path | None) -> Iterator[tuple[Callable[[], str], ...]]:
    """Put a file into a folder by which workers know it, and give what looks for it there."""
    if folder is None:
        yield ()
        return
    from functools import partial

    marker = folder.absolute() / f".{uuid.uuid4().hex}.seen"
    marker.touch()
    try:
        yield (partial(folder_flaw_there, str(marker)),)
    finally:
        marker.unlink(missing_ok=True)
