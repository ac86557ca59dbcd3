"""`adapted`: any run as row documents that the analysis reads, by the reader that recognises it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import AssemblyError, ConfigError, XrfSrError, in_our_words
from xrf_sr_plans.maps.adapters.adapted_map import AdaptedMap
from xrf_sr_plans.maps.adapters.assets import ArrayOf, Assets
from xrf_sr_plans.maps.adapters.channels import ChannelKeys
from xrf_sr_plans.maps.adapters.fly_rows import (
    is_hxn,
    is_srx,
    is_tes,
    read_hxn,
    read_srx,
    read_tes,
)
from xrf_sr_plans.maps.adapters.options import RunOptions
from xrf_sr_plans.maps.adapters.pixel_grid import (
    is_other_scan,
    is_pixel_grid,
    read_other_scan,
    read_pixel_grid,
)
from xrf_sr_plans.maps.adapters.read_apart import read_apart
from xrf_sr_plans.maps.adapters.runs import ForeignRun, foreign_run
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.schema import AnalysisRequest, Document

logger = logging.getLogger(__name__)

OURS = "xrf-sr"
"""Name of the reader of this package's own runs, which pass as they are."""
OnRefused = Callable[[str, XrfSrError], None]
"""Takes the uid of a run that can't be read, and why."""


@dataclass(frozen=True)
class RunKind:
    """One kind of run.

    Parameters
    ----------
    name
        How a user calls it and how messages name it.
    what
        The kind of run in a few words.
    matches
        Whether a run is of this kind, by its start document and its streams; opens no file.
    read
        Returns the map.
    """

    name: str
    what: str
    matches: Callable[[ForeignRun], bool]
    read: Callable[[ForeignRun, RunOptions], AdaptedMap]


RUN_KINDS: tuple[RunKind, ...] = (
    RunKind("hxn", "fly scans of HXN, one event a map", is_hxn, read_hxn),
    RunKind("srx", "fly scans of SRX, one event a row", is_srx, read_srx),
    RunKind("tes", "fly scans of TES, one event a row", is_tes, read_tes),
    RunKind(
        "grid_scan",
        "grid scans of bluesky, haven and ophyd-async, one event or frame a pixel",
        is_pixel_grid,
        read_pixel_grid,
    ),
    RunKind("scan", "other scans, which are refused by name", is_other_scan, read_other_scan),
)
"""All kinds of runs that are told apart, the more particular ones first."""


def run_kind(name: str) -> RunKind:
    """Return the reader of that name.

    Raises
    ------
    ConfigError
        There is none.
    """
    for reader in RUN_KINDS:
        if reader.name == name:
            return reader
    known = ", ".join(reader.name for reader in RUN_KINDS)
    raise ConfigError(f"no reader {name!r} of runs; there are {known}")


def is_ours(start: Mapping[str, Any]) -> bool:
    """Return whether a run was made by this package, so that it needs no reader."""
    return "xrf_sr" in start or "original_run_uid" in start


def read_run(
    documents: Iterable[Document] | ForeignRun, reader: str | None, options: RunOptions
) -> AdaptedMap:
    """Return the map of one run of another program.

    Parameters
    ----------
    documents
        The documents of the run.
    reader
        Name of the reader; None: the first of `RUN_KINDS` that recognises the run.
    options
        What the documents don't say.

    Raises
    ------
    AssemblyError
        No reader recognises the run, or the one that does can't read it.
    ConfigError
        There is no reader of that name.
    """
    with in_our_words("no run that can be read", AssemblyError):
        run = documents if isinstance(documents, ForeignRun) else foreign_run(documents)
        if reader is not None:
            return run_kind(reader).read(run, options)
        for one in RUN_KINDS:
            if one.matches(run):
                return one.read(run, options)
        raise AssemblyError(unrecognised(run))


def _map_of(run: ForeignRun, reader: str | None, options: RunOptions) -> AdaptedMap:
    """Return the map of a run; what reads files does so in a process of its own.

    Handlers that were given are code of this process, which reads in it.
    """
    names_files = bool(run.assets or run.stream_resources)
    if names_files and not options.assets.handlers:
        return read_apart(run, reader, options)
    return read_run(run, reader, options)


def unrecognised(run: ForeignRun) -> str:
    """Return the sentence that refuses a run of none of the known kinds."""
    known = "; ".join(f"{reader.name} ({reader.what})" for reader in RUN_KINDS[:-1])
    streams = ", ".join(repr(name) for name in run.streams) or "no streams"
    return f"{run.owner}: plan {run.plan_name!r} with {streams} is no map of a known kind: {known}"


def adapted(
    documents: Iterable[Document],
    reader: str | None = None,
    channels: Mapping[str, ChannelKeys] | None = None,
    *,
    dwell_ms: float | None = None,
    i0_key: str | None = None,
    live_time_key: str | None = None,
    fast_key: str | None = None,
    slow_key: str | None = None,
    stream: str | None = None,
    energy_kev: tuple[float, float] | None = None,
    um_per_unit: float | None = None,
    elements: Sequence[str] = (),
    analysis: AnalysisRequest | None = None,
    handlers: Mapping[str, Any] | None = None,
    root_map: Mapping[str, str] | None = None,
    roots: Sequence[str | Path] | None = None,
    arrays: ArrayOf | None = None,
    on_refused: OnRefused | None = None,
) -> Iterator[Document]:
    """Yield documents of any runs as the analysis reads them.

    Runs of this package pass as they are. A run of another program is held back until its stop
    document, or the end of all documents, and comes out as row documents with its own start and
    stop document. So the runs of a file may follow each other or be mixed.

    Parameters
    ----------
    documents
        The documents of one or several runs, in order.
    reader
        Name of the reader of the runs that are not ours; None: the one that recognises each.
    channels
        The data key of each element's counts, or several data keys to be added up, by element;
        None: those that are named after elements. ``fluor[640:660]`` stands for bins of spectra.
    dwell_ms, i0_key, live_time_key, fast_key, slow_key, stream, energy_kev, um_per_unit, \
    elements, analysis
        See `RunOptions`.
    handlers, root_map, roots, arrays
        See `Assets`.
    on_refused
        Called with each run that can't be read; such runs are then left out. None: the first one
        ends in an error. Runs that no reader recognises (alignment scans in the same file) are
        left out in any case where another run of the same documents is read.

    Raises
    ------
    AssemblyError
        A run can't be read, or none of the runs is recognised.
    ConfigError
        There is no reader of that name.
    """
    options = RunOptions(
        channels, dwell_ms, i0_key, live_time_key, fast_key, slow_key, stream,
        energy_kev, um_per_unit, elements, analysis,
        Assets(handlers or {}, root_map or {}, roots, arrays),
    )  # fmt: skip
    if reader == OURS:
        yield from documents
        return
    if reader is not None:
        run_kind(reader)
    yield from _Adapting(reader, options, on_refused).documents(documents)


class _Adapting:
    """The runs of a stream of documents while they come in."""

    def __init__(
        self, reader: str | None, options: RunOptions, on_refused: OnRefused | None
    ) -> None:
        self._reader = reader
        self._options = options
        self._on_refused = on_refused
        self._index = RunIndex()
        self._held: dict[str, list[Document]] = {}
        self._passed = 0
        self._unknown: AssemblyError | None = None

    def documents(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents as the analysis reads them."""
        for name, doc in documents:
            run = self._index.run_of(name, doc) if isinstance(doc, Mapping) else None
            if name == "start" and run is not None:
                if run in self._held:
                    yield from self._read(run)
                if is_ours(doc):
                    self._passed += 1
                else:
                    self._held[run] = []
            if run not in self._held or run is None:
                yield name, doc
                continue
            self._held[run].append((name, doc))
            if name == "stop":
                yield from self._read(run)
        for run in list(self._held):
            yield from self._read(run)
        if self._unknown is not None and not self._passed:
            raise self._unknown

    def _read(self, uid: str) -> Iterator[Document]:
        held = self._held.pop(uid)
        stop = next((doc for name, doc in held if name == "stop"), None)
        try:
            with in_our_words(f"run {uid}", AssemblyError):
                run = foreign_run(held)
                is_known = self._reader or any(one.matches(run) for one in RUN_KINDS)
            if not is_known:
                self._unknown = self._unknown or AssemblyError(unrecognised(run))
                logger.warning("%s", unrecognised(run))
                return
            with in_our_words(run.owner, AssemblyError):
                found = list(_map_of(run, self._reader, self._options).documents(stop))
        except XrfSrError as error:
            if self._on_refused is None:
                raise
            self._on_refused(uid, error)
            self._passed += 1
            return
        self._passed += 1
        yield from found


def adapt_grid_scan(
    documents: Iterable[Document],
    channels: Mapping[str, ChannelKeys],
    *,
    dwell_ms: float | None = None,
    i0_key: str | None = None,
    um_per_unit: float | None = None,
    analysis: AnalysisRequest | None = None,
) -> Iterator[Document]:
    """Yield a scan with one event or frame a pixel as row documents; see `adapted`."""
    options = RunOptions(
        channels, dwell_ms, i0_key=i0_key, um_per_unit=um_per_unit, analysis=analysis
    )
    yield from _one(documents, ("grid_scan", "scan"), options)


def adapt_row_events(
    documents: Iterable[Document],
    channels: Mapping[str, ChannelKeys],
    *,
    stream: str | None = None,
    i0_key: str | None = None,
    fast_key: str | None = None,
    slow_key: str | None = None,
    analysis: AnalysisRequest | None = None,
) -> Iterator[Document]:
    """Yield a fly scan, with an event a row or for all rows, as row documents; see `adapted`."""
    options = RunOptions(
        channels, stream=stream, i0_key=i0_key, fast_key=fast_key, slow_key=slow_key,
        analysis=analysis,
    )  # fmt: skip
    yield from _one(documents, ("srx", "tes", "hxn", "grid_scan", "scan"), options)


def _one(
    documents: Iterable[Document], readers: Sequence[str], options: RunOptions
) -> Iterator[Document]:
    """Yield one run as row documents, by one of some readers: the first that recognises it."""
    with in_our_words("no run that can be read", AssemblyError):
        run = foreign_run(documents)
        known = [one for one in RUN_KINDS if one.name in readers and one.matches(run)]
        name = known[0].name if known else readers[0]
        found = list(_map_of(run, name, options).documents(run.stop))
    yield from found
