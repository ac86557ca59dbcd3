"""`flaw` and `checked`: what a document lacks without which it belongs nowhere.

Only what every reader of documents relies on is asked for, since other programs write more and
less than the event model wants. Values are left to whoever knows what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.schema import Document


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        # Half of a character, which no file and no checksum can hold.
        return False
    return True


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_column(value: Any) -> bool:
    # Columns of a catalog may be arrays of any library.
    is_indexed = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    # An array of numpy without axes has a length only in name.
    has_length = getattr(value, "ndim", 1) > 0
    return is_indexed and has_length and not isinstance(value, str | bytes | Mapping)


def _is_facts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(facts, Mapping) and isinstance(facts.get("dtype"), str)
        for facts in value.values()
    )


_NEEDED: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "start": {"uid": (_is_text, "a text")},
    "descriptor": {
        "uid": (_is_text, "a text"),
        "run_start": (_is_text, "a text"),
        "data_keys": (_is_facts, "an object with an object with 'dtype' for each key"),
    },
    "event": {"descriptor": (_is_text, "a text"), "data": (_is_mapping, "an object")},
    "event_page": {
        "descriptor": (_is_text, "a text"),
        "data": (_is_mapping, "an object"),
        "timestamps": (_is_mapping, "an object"),
        "seq_num": (_is_column, "a list"),
        "time": (_is_column, "a list"),
        "uid": (_is_column, "a list"),
    },
    "stop": {"run_start": (_is_text, "a text")},
}
"""Kind of document -> key -> a check of its value, and what the value must be in words."""


def flaw(document: Any) -> str:
    """Return what is wrong with a (name, document) pair, or "" where nothing is.

    Parameters
    ----------
    document
        Whatever came in the place of a pair of a name and a document.
    """
    if not isinstance(document, Sequence) or isinstance(document, str) or len(document) != 2:
        return f"{document!r:.100} is no pair of a name and a document"
    name, doc = document
    if not isinstance(name, str):
        return f"its name is {name!r:.100}; a text is needed"
    if not isinstance(doc, Mapping):
        return f"{name} is {doc!r:.100}; an object is needed"
    for key, (is_right, what) in _NEEDED.get(name, {}).items():
        if not is_right(doc.get(key)):
            found = f"is {doc[key]!r:.100}" if key in doc else "is missing"
            return f"{key!r} of this {name} {found}; {what} is needed"
    return _flaw_of_page(doc) if name == "event_page" else ""


def checked(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Document]:
    """Yield documents as they are.

    Raises
    ------
    AssemblyError
        One of them has a `flaw`. The message says which.
    """
    for position, document in enumerate(documents, start=1):
        if problem := flaw(document):
            raise AssemblyError(f"document {position}: {problem}")
        name, doc = document
        yield name, dict(doc)


def _flaw_of_page(page: Mapping[str, Any]) -> str:
    """Return which column of an event page doesn't have one value for each event."""
    events = len(page["seq_num"])
    columns = {key: page[key] for key in ("time", "uid")}
    for group in ("data", "timestamps", "filled"):
        part = page.get(group, {})
        if not isinstance(part, Mapping):
            return f"{group!r} of this event_page is {part!r:.100}; an object is needed"
        columns |= {f"{group} {key}": column for key, column in part.items()}
    for key, column in columns.items():
        if not _is_column(column) or len(column) != events:
            return f"{key!r} of this event_page isn't a list of {events} values"
    return ""
