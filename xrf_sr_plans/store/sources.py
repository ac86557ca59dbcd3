"""Where stored runs are: files, folders, Tiled catalogs and databroker catalogs, by their names.

A `Place` and a `StoredRun` are small and can be sent to another process, which opens the catalog
for itself.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from xrf_sr_plans.errors import ConfigError, FileFormatError, MissingExtraError, in_words
from xrf_sr_plans.schema import Document
from xrf_sr_plans.store.documents import arrays_of, documents
from xrf_sr_plans.store.embedded import RUNS_FILE
from xrf_sr_plans.store.jsonl import read_jsonl
from xrf_sr_plans.store.open_catalogs import BROKER as BROKER
from xrf_sr_plans.store.open_catalogs import TILED as TILED
from xrf_sr_plans.store.open_catalogs import opened as opened

logger = logging.getLogger(__name__)

LINES = (".jsonl", ".jsonlines", ".ndjson")
"""Endings of files with documents."""
MAPS = (
    *(".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".npz", ".mda"),
    *(".tif", ".tiff", ".edf", ".csv"),
)
"""Endings of files with maps. A file that is named itself may have any."""
SERVERS = ("http://", "https://")

Kind = Literal["lines", "maps", "folder", "tiled", "databroker", "object"]


@dataclass(frozen=True)
class Place:
    """A file or a catalog with stored runs."""

    kind: Kind
    """``lines``: a file of documents; ``maps``: a file of maps; ``folder``: an embedded Tiled
    catalog; ``tiled``: a server's address, or ``tiled:`` and the name of a profile;
    ``databroker``: the name of a catalog; ``object``: a catalog that is open in this process."""
    where: str
    client: Any = field(default=None, compare=False, repr=False)
    """The client of an ``object``."""

    @property
    def label(self) -> str:
        """Name for people and journals, without the password or key that an address may have."""
        if self.kind != "tiled":
            return f"{BROKER}{self.where}" if self.kind == "databroker" else self.where
        parts = urlsplit(self.where)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def __repr__(self) -> str:
        # What an address may have besides is secret, and logs of clusters have such texts.
        return f"Place(kind={self.kind!r}, where={self.label!r})"

    @property
    def state(self) -> str:
        """What changes where a file is written again: its size and its time; "" for a catalog."""
        if self.kind not in ("lines", "maps"):
            return ""
        try:
            stat = Path(self.where).stat()
        except OSError:
            return "gone"
        return f"{stat.st_size} {stat.st_mtime_ns}"


@dataclass(frozen=True)
class StoredRun:
    """A run in a place, and what of its start document is needed to choose it."""

    place: Place
    key: str
    """Uid of the run in a catalog; "" for a file."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The start document; {} for a file of maps."""

    @property
    def label(self) -> str:
        """Name for people and journals."""
        return f"{self.place.label}#{self.key}" if self.key else self.place.label

    def documents(self) -> Iterator[Document]:
        """Yield the documents of the run; those of a file that holds several runs, of all of them.

        Raises
        ------
        FileFormatError
            The file or the run is damaged, gone or not readable.
        MissingExtraError
            What opens the catalog is not installed.
        """
        yield from documents(self.place.where if self.place.kind == "lines" else self.opened())

    def opened(self) -> Any:
        """Return the run in a catalog.

        Raises
        ------
        FileFormatError
            It is gone, or the catalog doesn't answer.
        MissingExtraError
            What opens the catalog is not installed.
        """
        try:
            return opened(self.place)[self.key]
        except KeyError as error:
            raise FileFormatError(f"{self.label}: there is no such run any more") from error

    def arrays(self) -> Callable[[str, str], Any] | None:
        """Return what finds the arrays beside the run's events (`documents.arrays_of`)."""
        if self.place.kind in ("lines", "maps"):
            return None
        # Asked for only where a run of others has such arrays.
        found = functools.cache(lambda: arrays_of(self.opened()))

        def array(stream: str, key: str) -> Any:
            find = found()
            return None if find is None else find(stream, key)

        return array


def places(source: Any, *, without: str | Path | None = None) -> Iterator[Place]:
    """Yield what is meant by the name of a source.

    Parameters
    ----------
    source
        A file; a folder, which stands for the files in it and below it, or is an embedded Tiled
        catalog; the address of a Tiled server or of a container in it; ``tiled:PROFILE``;
        ``databroker:CATALOG``; or the client of a catalog, which stays in this process.
    without
        Folder that is left out where it lies in `source`, such as that of the results.

    Raises
    ------
    ConfigError
        It is none of these.
    """
    if not isinstance(source, str | Path) and hasattr(source, "items"):
        yield Place("object", f"{type(source).__name__} {id(source):x}", source)
        return
    text = str(source)
    if text.startswith(SERVERS) or text.startswith(TILED):
        yield Place("tiled", text)
    elif text.startswith(BROKER):
        yield Place("databroker", text.removeprefix(BROKER))
    elif (path := Path(text)).is_file():
        yield _file(path)
    elif (path / RUNS_FILE).is_file():
        yield Place("folder", str(path))
    elif path.is_dir():
        yield from _files(path, None if without is None else Path(without).absolute())
    else:
        raise ConfigError(
            f"source {text!r}: no such file or folder; it may also be http(s)://…, {TILED}PROFILE"
            f" or {BROKER}CATALOG"
        )


def _files(folder: Path, without: Path | None) -> Iterator[Place]:
    """Yield the files in a folder and below it that hold runs or maps, by their names."""
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in (*LINES, *MAPS) or not file.is_file():
            continue
        # Names with a dot in front are of files that are being written, and of programs.
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if (file.parent / RUNS_FILE).exists() or (without and without in file.absolute().parents):
            continue
        yield _file(file)


def _file(path: Path) -> Place:
    return Place("lines" if path.suffix.lower() in LINES else "maps", str(path))


def runs(place: Place, where: Mapping[str, Any] | None = None) -> Iterator[StoredRun]:
    """Yield the runs of a place, of catalogs in their order, whatever kind of runs they are.

    Parameters
    ----------
    place
        Where they are.
    where
        What the start documents must hold: values by key, where ``xrf_sr.purpose`` is the key
        ``purpose`` inside ``xrf_sr``. The key ``survey_uid`` also finds what runs of earlier
        versions have in ``xrf_sr.survey_uid``.

    Raises
    ------
    FileFormatError
        The file or the catalog can't be read.
    MissingExtraError
        What opens the catalog is not installed.
    """
    where = where or {}
    if place.kind == "maps":
        if not where:
            yield StoredRun(place, "")
        return
    if place.kind == "lines":
        start = _first_start(place.where)
        if fits(start, where):
            yield StoredRun(place, "", start)
        return
    try:
        for key, start in _starts(opened(place), where):
            if fits(start, where):
                yield StoredRun(place, key, start)
    except (FileFormatError, MissingExtraError, ConfigError):
        raise
    except Exception as error:  # a server may answer anything
        raise FileFormatError(f"{place.label}: can't be read: {in_words(error)}") from error


def fits(start: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether a start document has the wanted values (see `runs`)."""
    return all(_fits(start, key, value) for key, value in where.items())


def _fits(start: Mapping[str, Any], key: str, value: Any) -> bool:
    found = _value(start, key)
    if found is None and key == "survey_uid":
        found = survey_of(start)
    return found == value or str(found) == str(value)


def _value(start: Mapping[str, Any], key: str) -> Any:
    value: Any = start
    for part in key.removeprefix("start.").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def survey_of(start: Mapping[str, Any]) -> str:
    """Return the uid of the survey that a run belongs to, or "".

    All runs of a survey have it under ``survey_uid``. Measured runs of earlier versions have it
    in ``xrf_sr`` only.
    """
    return str(_value(start, "survey_uid") or _value(start, "xrf_sr.survey_uid") or "")


def _first_start(path: str) -> Mapping[str, Any]:
    """Return the first start document of a file."""
    for name, doc in read_jsonl(path):
        if name != "start":
            break
        return doc
    raise FileFormatError(f"{path}: doesn't begin with a start document")


def _starts(catalog: Any, where: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield keys and start documents of the runs in a catalog, which may do part of the search."""
    found = _searched(catalog, where)
    for key, run in found.items():
        metadata = getattr(run, "metadata", None)
        if isinstance(metadata, Mapping) and "start" not in metadata:
            # Databroker 1 lists entries, of which a run has to be made first.
            metadata = getattr(found[key], "metadata", None)
        start = metadata.get("start") if isinstance(metadata, Mapping) else None
        # Other nodes, such as the container of the maps, are no runs.
        if start:
            yield str(key), dict(start)


def _searched(catalog: Any, where: Mapping[str, Any]) -> Any:
    """Let Tiled search for what it can; every run that it finds is looked at once more."""
    if not hasattr(catalog, "context"):
        return catalog
    from tiled.queries import Eq

    for key, value in where.items():
        # What a person types as a number may be a text there, and a survey has an older key.
        if isinstance(value, str) and key != "survey_uid":
            catalog = catalog.search(Eq(f"start.{key.removeprefix('start.')}", value))
    return catalog


def parsed_where(pairs: Iterable[str]) -> dict[str, Any]:
    """Return what was typed as KEY=VALUE, the values as JSON where they are that.

    Raises
    ------
    ConfigError
        A text has no ``=``, or nothing before it.
    """
    where: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"search {pair!r}; it should be KEY=VALUE, such as scan_id=12")
        try:
            where[key.strip()] = json.loads(value)
        except ValueError:
            where[key.strip()] = value
    return where
