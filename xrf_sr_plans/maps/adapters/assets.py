"""Arrays that documents refer to, read by the libraries of the field.

There are two generations of references. A ``datum`` in the place of a value is filled by
event-model's `Filler`, with the handlers that are installed (area-detector-handlers and others
announce theirs as entry points ``databroker.handlers``). A ``stream_resource`` is read by the
consolidators of bluesky-tiled-plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np

from xrf_sr_plans.errors import AssemblyError, FileFormatError, MissingExtraError, in_words
from xrf_sr_plans.maps.adapters.runs import ForeignRun, Stream
from xrf_sr_plans.maps.computed_here import computed_here
from xrf_sr_plans.maps.files.roots import configured_roots, inside_roots

FRAMES_AT_ONCE = 1024
"""Frames of a file that are in memory at a time; spectra of a whole map may be gigabytes."""
EXTRA = "documents"
"""Name of the extra with the libraries that read what documents refer to."""


ArrayOf = Callable[[str, str], Any]
"""Returns what has a ``shape`` and takes slices of frames, by the names of stream and data key."""


def _nobody_asks(_what: str) -> None:
    """Take what is going to be read, which nobody wants to know."""


@dataclass(frozen=True)
class Assets:
    """Where and how the arrays are read that documents refer to.

    Parameters
    ----------
    handlers
        Handler class by ``spec`` of a resource, before those that are installed.
    root_map
        Folder that stands for the ``root`` of a resource on this machine, by that root.
    roots
        Folders in or below which files must lie that documents name; None: those of the environment
        variable ``XRF_SR_READ_ROOTS``, and anywhere where it isn't set. Whoever reads documents of
        unknown origin gives the folders, if need be none at all.
    arrays
        Returns the array [frame, ...] that a catalog holds of a stream and a data key, or None
        where it holds none. None: documents name files.
    before
        Called with what is going to be read, in words, before each part of a file.
    """

    handlers: Mapping[str, Any] = field(default_factory=dict)
    root_map: Mapping[str, str] = field(default_factory=dict)
    roots: Sequence[str | Path] | None = None
    arrays: ArrayOf | None = None
    before: Callable[[str], None] = _nobody_asks

    def check(self, path: str | Path, owner: str) -> None:
        """Refuse a file outside of the folders that may be read.

        Raises
        ------
        AssemblyError
            The file, links followed, is in none of `roots`.
        """
        roots = self.roots if self.roots is not None else configured_roots() or None
        if roots is None:
            return
        try:
            inside_roots(path, owner, roots)
        except FileFormatError as error:
            raise AssemblyError(str(error)) from error


class Hdf5Columns:
    """Handler of HDF5 files that hold a data set for each column, as SRX's fly scans leave them.

    Parameters
    ----------
    path
        The file.
    frame_per_point
        Frames of an event; None: an event has all frames of the file.
    """

    def __init__(self, path: str, frame_per_point: int | None = None, **_others: Any) -> None:
        self._path = path
        self._frames = frame_per_point

    def __call__(self, column: str, point_number: int | None = None, **_others: Any) -> np.ndarray:
        """Return the values of one column [frame, ...]."""
        import h5py

        with h5py.File(self._path, "r") as file:
            values = file[column]
            if self._frames is None or point_number is None:
                return values[()]
            first = point_number * self._frames
            return values[first : first + self._frames]


class Filling:
    """Reads the arrays that the events of a stream refer to, one event at a time.

    Parameters
    ----------
    run
        The run.
    stream
        One of its streams.
    keys
        The data keys whose arrays are wanted.
    assets
        Where and how they are read.

    Raises
    ------
    AssemblyError
        A file may not be read.
    """

    def __init__(
        self, run: ForeignRun, stream: Stream, keys: Collection[str], assets: Assets
    ) -> None:
        self._where = f"{run.owner}, stream {stream.name!r}"
        self._before = assets.before
        self._keys = tuple(keys)
        self._filler: Any = None
        self._resources, self._datums = _resources(run)
        self._handlers: dict[str, Any] = {}
        ids = {
            str(event["data"][key])
            for event in stream.events.values()
            for key in _unfilled(event, keys)
        }
        if ids:
            self._prepare(run, stream, ids, assets)

    def data(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of an event with the arrays in it. The event stays as it is.

        Raises
        ------
        AssemblyError
            An array can't be read, or there is no handler for its file.
        """
        data = dict(event["data"])
        for key in _unfilled(event, self._keys):
            one = {"uid": "", **event, "filled": {key: False}}
            path = self._path(str(event["data"][key]))
            self._before(f"{self._where}, data key {key!r}, the file {path}")
            try:
                data[key] = self._filler("event", one)[1]["data"][key]
            except Exception as error:
                said = self._in_words(error, str(event["data"][key]))
                raise AssemblyError(
                    f"{self._where}, data key {key!r}: is not filled; {said}"
                ) from error
        return data

    def _prepare(
        self, run: ForeignRun, stream: Stream, ids: Collection[str], assets: Assets
    ) -> None:
        from event_model import Filler

        used = {self._datums[one][0] for one in ids if one in self._datums}
        with_columns = {owner for owner, kwargs in self._datums.values() if "column" in kwargs}
        for uid in used & set(self._resources):
            resource = self._resources[uid]
            root = str(resource.get("root") or "")
            path = Path(assets.root_map.get(root, root)) / str(resource.get("resource_path", ""))
            assets.check(path, self._where)
            spec = str(resource.get("spec"))
            if spec not in self._handlers:
                self._handlers[spec] = _handler(spec, uid in with_columns, assets)
        self._filler = Filler(
            {spec: one for spec, one in self._handlers.items() if one is not None},
            root_map=dict(assets.root_map),
            inplace=False,
            retry_intervals=[],
        )
        for descriptor in stream.descriptors.values():
            self._filler("descriptor", dict(descriptor))
        for name, doc in run.assets:
            self._filler(name, doc)

    def _in_words(self, error: Exception, datum_id: str) -> str:
        resource = self._resources.get(self._datums.get(datum_id, ("", {}))[0])
        if resource is None:
            return f"{datum_id[:60]!r} is no number, and of no file that the run names"
        spec = str(resource.get("spec"))
        if self._handlers.get(spec) is None:
            return (
                f"there is no handler for files of the spec {spec!r}; give"
                f" handlers={{{spec!r}: ...}}, or pip install 'xrf-sr-plans[{EXTRA}]'"
            )
        return f"the file {self._path(datum_id)}: {in_words(error)}"

    def _path(self, datum_id: str) -> str:
        """Return the file that a datum is in, as the documents name it."""
        resource = self._resources.get(self._datums.get(datum_id, ("", {}))[0]) or {}
        return f"{resource.get('root', '')}/{resource.get('resource_path', '')}"


def fill(run: ForeignRun, stream: Stream, keys: Collection[str], assets: Assets) -> None:
    """Put the arrays of data keys into all events of a stream, for keys whose arrays are small.

    Raises
    ------
    AssemblyError
        See `Filling`.
    """
    filling = Filling(run, stream, keys, assets)
    for event in stream.events.values():
        event["data"] = filling.data(event)


def _unfilled(event: Mapping[str, Any], keys: Collection[str]) -> list[str]:
    return [key for key in keys if isinstance(event["data"].get(key), str)]


def _resources(
    run: ForeignRun,
) -> tuple[dict[str, Mapping[str, Any]], dict[str, tuple[str, Mapping[str, Any]]]]:
    """Return the resources by uid, and of each datum its resource and its arguments, by id."""
    resources: dict[str, Mapping[str, Any]] = {}
    datums: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, doc in run.assets:
        if name == "resource":
            resources[str(doc.get("uid"))] = doc
        elif name == "datum":
            datums[str(doc.get("datum_id"))] = (
                str(doc.get("resource")), doc.get("datum_kwargs") or {}
            )  # fmt: skip
        else:
            columns = doc.get("datum_kwargs") or {}
            for place, one in enumerate(doc.get("datum_id") or ()):
                given = {key: values[place] for key, values in columns.items()}
                datums[str(one)] = (str(doc.get("resource")), given)
    return resources, datums


def _handler(spec: str, has_columns: bool, assets: Assets) -> Any:
    """Return the handler class for a spec; None where there is none."""
    if spec in assets.handlers:
        return assets.handlers[spec]
    if has_columns:
        return Hdf5Columns
    from importlib.metadata import entry_points

    for entry in entry_points(group="databroker.handlers"):
        if entry.name == spec:
            return entry.load()
    return None


def streamed(
    run: ForeignRun, stream: Stream, key: str, assets: Assets
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the values of a data key that lie in files beside the stream's events, piece by piece.

    Yields
    ------
    tuple of ndarray
        Values [frame, ...] and the number of each frame [frame], from 0. There is nothing where no
        file is named for the key.

    Raises
    ------
    AssemblyError
        The files can't be read, may not be read, or hold less than the documents say.
    MissingExtraError
        bluesky-tiled-plugins or tiled is not installed.
    """
    resources = [
        doc
        for uid, doc in run.stream_resources.items()
        if doc.get("data_key") == key and uid in stream.data
    ]
    if not resources:
        return
    where = f"{run.owner}, stream {stream.name!r}, data key {key!r}"
    try:
        from bluesky_tiled_plugins.writing.consolidators import consolidator_factory
    except ImportError as error:
        raise MissingExtraError(f"reading {where}", EXTRA) from error
    for resource in resources:
        datums = sorted(stream.data[str(resource["uid"])], key=lambda doc: doc["indices"]["start"])
        path = _path_of(resource, where)
        assets.check(path, where)
        assets.before(f"{where}, the file {path}")
        try:
            adapter, frames = _adapter(consolidator_factory, resource, stream, datums)
            for datum in datums:
                first, last = int(datum["indices"]["start"]), int(datum["indices"]["stop"])
                numbers = _numbers(datum, first, last)
                for low in range(first, last, FRAMES_AT_ONCE):
                    high = min(low + FRAMES_AT_ONCE, last)
                    assets.before(f"{where}, the file {path}")
                    values = _frames(adapter, frames, low, high)
                    yield values, numbers[low - first : high - first]
        except AssemblyError as error:
            raise AssemblyError(f"{where}: {path} {error}") from error
        except Exception as error:
            raise AssemblyError(f"{where}: can't be read from {path}: {in_words(error)}") from error


def _adapter(
    factory: Any,
    resource: Mapping[str, Any],
    stream: Stream,
    datums: Sequence[Mapping[str, Any]],
) -> tuple[Any, int]:
    """Return what reads the array of a resource, and the number of its frames."""
    descriptor = next(
        one for one in stream.descriptors.values() if resource["data_key"] in one["data_keys"]
    )
    consolidator = factory(dict(resource), dict(descriptor))
    reached = 0
    for datum in datums:
        start = int(datum["indices"]["start"])
        if start > reached:
            # Consolidators count frames; without this they would cut the file short by a gap.
            gap = {"indices": {"start": reached, "stop": start}}
            consolidator.consume_stream_datum({**datum, **gap, "seq_nums": {"start": 0, "stop": 0}})
        consolidator.consume_stream_datum({"seq_nums": {"start": 0, "stop": 0}, **datum})
        reached = max(reached, int(datum["indices"]["stop"]))
    return consolidator.init_adapter(), reached


def _frames(adapter: Any, frames: int, low: int, high: int) -> np.ndarray:
    """Return the values of some frames [frame, ...]."""
    from tiled.ndslice import NDSlice

    length = int(adapter.structure().shape[0])
    # Several arrays of a frame may lie one behind the other along the first axis.
    each = length // frames if frames and length % frames == 0 else 1
    if not 0 <= low <= high or each < 1 or high * each > length:
        raise AssemblyError(f"holds {length} frames; {low} to {high} are referred to")
    with computed_here():
        values = np.asarray(adapter.read(slice=NDSlice(slice(low * each, high * each))))
    if len(values) != (high - low) * each:
        raise AssemblyError(f"holds fewer frames than {high}, which are referred to")
    return values.reshape(high - low, -1, *values.shape[1:]) if each > 1 else values


def _numbers(datum: Mapping[str, Any], first: int, last: int) -> np.ndarray:
    """Return the number of each frame of a datum, from 0: by its event where the datum says it."""
    seq_nums = datum.get("seq_nums") or {}
    begin, end = int(seq_nums.get("start", 0)), int(seq_nums.get("stop", 0))
    return np.arange(begin - 1, end - 1) if end - begin == last - first else np.arange(first, last)


def _path_of(resource: Mapping[str, Any], where: str) -> Path:
    uri = urlparse(str(resource.get("uri")))
    if uri.scheme != "file":
        raise AssemblyError(f"{where}: is in {resource.get('uri')!r}; a file:// URI is needed")
    return Path(unquote(uri.path))
