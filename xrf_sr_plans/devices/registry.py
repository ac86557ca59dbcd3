"""`Registry`: where devices are looked up by name, whatever keeps them at a beamline."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from xrf_sr_plans.errors import ConfigError, in_words

_NOTHING = object()


class MadeDevices(dict[str, Any]):
    """Devices that settings have made, by name."""


class Registry:
    """Looks up devices, signals and plans by name, in several places one after the other.

    Parameters
    ----------
    sources
        Each is one of: a mapping by name, such as ``globals()``; a happi client; a registry with
        ``find(name=...)``, such as that of guarneri and BITS; anything with a ``devices`` that is
        one of these; or an object whose attributes are the devices, such as a module. None is
        left out.
    """

    def __init__(self, *sources: Any) -> None:
        self._sources = [source for source in sources if source is not None]

    def find(self, name: str, what: str) -> Any:
        """Return what has a name; of a dotted name ``a.b`` that is the attribute b of a.

        Parameters
        ----------
        name
            The name.
        what
            What names it, for the message, such as "beamline.fast".

        Raises
        ------
        ConfigError
            There is no such name, there are several, or it can't be made.
        """
        found = self._found(name, what)
        if found is not _NOTHING:
            return found
        head, *attributes = name.split(".")
        if attributes:
            found = self._found(head, what)
        if found is _NOTHING:
            raise ConfigError(f"{what} is {name!r}; {self._missing(head)}")
        for attribute in attributes:
            inner = getattr(found, attribute, _NOTHING)
            if inner is _NOTHING:
                near = _nearest(attribute, (one for one in dir(found) if one[:1] != "_"))
                raise ConfigError(f"{what} is {name!r}; {head} has no {attribute!r}{near}")
            found = inner
        return found

    def _found(self, name: str, what: str) -> Any:
        for source in self._sources:
            found = _lookup(source, name, what)
            if found is not _NOTHING:
                return found
        return _NOTHING

    def _missing(self, name: str) -> str:
        known = [one for source in self._sources for one in _names(source)]
        return f"there is no {name!r} in {self}{_nearest(name, known)}"

    def __str__(self) -> str:
        """Return in words where names are looked up."""
        others = [one for one in self._sources if not isinstance(one, MadeDevices) or one]
        return " or ".join(dict.fromkeys(map(_kind, others or self._sources)))


def _lookup(source: Any, name: str, what: str) -> Any:
    """Return what a source has under a name, or `_NOTHING`.

    Raises
    ------
    ConfigError
        The source has several, or one that it can't make.
    """
    try:
        if isinstance(source, Registry):
            return source._found(name, what)
        # happi: an item of the database, made when it is asked for.
        if callable(getattr(source, "load_device", None)):
            return source.load_device(name=name) if _is_item(source, name) else _NOTHING
        if isinstance(source, Mapping):
            return source.get(name, _NOTHING)
        if callable(getattr(source, "find", None)):
            found = source.find(name=name, allow_none=True)
            return _NOTHING if found is None else found
        if (devices := getattr(source, "devices", None)) is not None:
            return _lookup(devices, name, what)
        return getattr(source, name, _NOTHING)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{what} is {name!r}; {_kind(source)}: {in_words(error)}") from error


def _is_item(client: Any, name: str) -> bool:
    """Return whether a happi client knows an item of this name."""
    return len(client.search(name=name)) > 0


def _names(source: Any) -> Iterator[str]:
    """Yield the names that a source has, where it can say them without making anything."""
    if isinstance(source, Registry):
        for one in source._sources:
            yield from _names(one)
    elif callable(getattr(source, "load_device", None)):
        yield from (str(item["name"]) for item in source.all_items)
    elif isinstance(source, Mapping):
        yield from (name for name in source if isinstance(name, str) and name[:1] != "_")
    elif hasattr(source, "device_names"):
        yield from map(str, source.device_names)
    elif getattr(source, "devices", None) is not None:
        yield from _names(source.devices)
    else:
        yield from (name for name in dir(source) if name[:1] != "_")


def _kind(source: Any) -> str:
    """Return in words what a source is."""
    if isinstance(source, Registry):
        return str(source)
    if callable(getattr(source, "load_device", None)):
        return "the happi database"
    if isinstance(source, MadeDevices):
        return "the table [devices]"
    if isinstance(source, Mapping):
        return "the namespace"
    return f"the registry ({type(source).__module__}.{type(source).__name__})"


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
