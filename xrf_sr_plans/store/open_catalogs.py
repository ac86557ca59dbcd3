"""`opened`: the clients of catalogs, which a process keeps open for those who read from them."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xrf_sr_plans.errors import ConfigError, FileFormatError, MissingExtraError, in_words
from xrf_sr_plans.store.embedded import RUNS_FILE, embedded_catalog

if TYPE_CHECKING:
    from xrf_sr_plans.store.sources import Place

TILED, BROKER = "tiled:", "databroker:"
_MOST_OPEN = 8
"""Number of catalogs that are kept open; each that is embedded takes some threads and files."""


class _Open(NamedTuple):
    """A catalog that is open."""

    client: Any
    stamp: tuple[int, int] | None
    """Device and inode of an embedded catalog's database; None: it is elsewhere, or gone."""
    close: Callable[[], None] = lambda: None


_open: OrderedDict[Place, _Open] = OrderedDict()
_open_lock = threading.RLock()


def opened(place: Place) -> Any:
    """Return the client of a catalog, which this process keeps open, with a few others.

    One in a folder is opened again where another one has taken its place.

    Raises
    ------
    FileFormatError
        There is no such catalog, or it doesn't answer.
    MissingExtraError
        What opens it is not installed.
    """
    if place.kind == "object":
        return place.client
    try:
        with _open_lock:
            return _kept_open(place).client
    except (FileFormatError, MissingExtraError, ConfigError):
        raise
    except Exception as error:  # a server may answer anything
        raise FileFormatError(f"{place.label}: can't be opened: {in_words(error)}") from error


def _kept_open(place: Place) -> _Open:
    stamp, known = _stamp(place), _open.pop(place, None)
    if known is not None and known.stamp != stamp:
        known.close()
        known = None
    if place.kind == "folder" and stamp is None:
        # It would be made.
        raise FileFormatError(f"{place.label}: there is no catalog in it")
    _open[place] = known or _opened(place, stamp)
    while len(_open) > _MOST_OPEN:
        _open.popitem(last=False)[1].close()
    return _open[place]


def _stamp(place: Place) -> tuple[int, int] | None:
    if place.kind != "folder":
        return None
    try:
        stat = (Path(place.where) / RUNS_FILE).stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _opened(place: Place, stamp: tuple[int, int] | None) -> _Open:
    if place.kind == "folder":
        stack = contextlib.ExitStack()
        return _Open(stack.enter_context(embedded_catalog(place.where)), stamp, stack.close)
    if place.kind == "databroker":
        return _Open(_broker_catalog(place.where), stamp)
    try:
        from tiled.client import from_profile, from_uri
    except ImportError as error:
        raise MissingExtraError("reading from Tiled", "tiled") from error
    if place.where.startswith(TILED):
        return _Open(from_profile(place.where.removeprefix(TILED)), stamp)
    return _Open(from_uri(place.where), stamp)


def _broker_catalog(name: str) -> Any:
    try:
        import databroker
    except ImportError as error:
        raise MissingExtraError("reading from databroker", "databroker") from error
    try:
        return databroker.catalog[name]
    except KeyError as error:
        known = ", ".join(sorted(str(one) for one in databroker.catalog)[:20]) or "none"
        raise ConfigError(f"databroker knows no catalog {name!r}; it knows {known}") from error
