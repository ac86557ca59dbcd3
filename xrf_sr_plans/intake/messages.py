"""What arrives on a bus, and the document in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xrf_sr_plans.errors import MessageError
from xrf_sr_plans.intake.serializers import from_bytes
from xrf_sr_plans.schema import Document


class Place(NamedTuple):
    """Where a bus that keeps messages has one."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Message:
    """One message, as it came."""

    body: bytes
    sender: str
    """Who sent it, as far as a bus says: a prefix, a topic, a destination."""
    name: str = ""
    """Kind of the document, where a bus says that beside the body."""
    place: Place | None = None
    """Where it is kept; None where the bus keeps nothing."""


def document_in(message: Message) -> Document | None:
    """Return the document that a message holds; None where it holds something else.

    A body is the document itself where the bus says its name, as bluesky's 0MQ publisher does; a
    pair of name and document, as bluesky-kafka publishes; or an object with ``name`` and ``doc``,
    as blueapi publishes. Other messages of blueapi, on its tasks and their progress, hold none.

    Raises
    ------
    PickleRefusedError
        It is a pickle.
    MessageError
        It is damaged, or holds neither a document nor an object.
    """
    value = from_bytes(message.body)
    if message.name:
        return _checked(message.name, value)
    if isinstance(value, list) and len(value) == 2:
        return _checked(*value)
    if isinstance(value, Mapping):
        return _checked(value["name"], value["doc"]) if {"name", "doc"} <= value.keys() else None
    raise MessageError(f"a message holds no document but {type(value).__name__} {value!r:.60}")


def _checked(name: Any, doc: Any) -> Document:
    if not isinstance(name, str) or not isinstance(doc, dict):
        raise MessageError(f"a message holds no name and document but {name!r:.40}, {doc!r:.60}")
    return name, doc
