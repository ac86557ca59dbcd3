"""Documents as bytes and back: msgpack or JSON, never a pickle.

A pickle runs whatever code its writer likes, so that a bus on which pickles are read belongs to
whoever may write to it. Arrays of numbers cross as msgpack_numpy writes them, because readers with
bluesky-kafka's defaults then get arrays. msgpack_numpy itself is not used here, as it unpickles
arrays of objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from xrf_sr_plans import packing
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.errors import MessageError, MissingExtraError, PickleRefusedError, in_words

_NUMBERS = re.compile(r"[<>|=]?[biufc]\d{1,2}")
"""The types of numpy that hold numbers, as ``dtype.str``."""
_PICKLE_PROTOCOLS = range(2, 6)
_UNREADABLE = (ValueError, TypeError, LookupError, RecursionError, msgpack.UnpackException)


def to_msgpack(value: Any) -> bytes:
    """Return a document as msgpack, for ``bluesky.callbacks.zmq.Publisher(serializer=to_msgpack)``.

    It never raises, because an exception there would end the scan: a value that msgpack can't hold
    is replaced by its `repr`.
    """
    try:
        return _packb(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # An int of more than 64 bits, a dict that changed meanwhile and the like.
        return _packb(packing.unpack(packing.pack(value)))


def to_json(value: Any) -> bytes:
    """Return a document as JSON, in which NaN is null and an array is nested lists.

    Raises
    ------
    MissingExtraError
        orjson is not installed.
    MessageError
        The document holds what JSON can't.
    """
    try:
        import orjson
    except ImportError as error:
        raise MissingExtraError("writing JSON messages", "stomp") from error
    try:
        # Lists first: orjson would write a float32 with the digits that tell it from another one,
        # which as a float64 is another number.
        options = orjson.OPT_NON_STR_KEYS
        return orjson.dumps(as_lists(value), default=_unknown_to_msgpack, option=options)
    except TypeError as error:
        raise MessageError(f"a document can't be written as JSON: {in_words(error)}") from error


def from_bytes(body: bytes) -> Any:
    """Return what a message holds, which is msgpack or JSON. Arrays in it are read-only.

    Raises
    ------
    PickleRefusedError
        It is a pickle, which is not read.
    MessageError
        It is neither msgpack nor JSON, or damaged.
    """
    if is_pickle(body):
        raise PickleRefusedError(f"a message of {len(body)} bytes is a pickle, which is not read")
    try:
        # No map and no list begins with these bytes in msgpack, where both are small numbers.
        if body[:1] in (b"{", b"["):
            return json.loads(body)
        return msgpack.unpackb(
            body, object_hook=_with_arrays, strict_map_key=False, unicode_errors="surrogatepass"
        )
    except _UNREADABLE as error:
        raise MessageError(
            f"a message of {len(body)} bytes is neither msgpack nor JSON: {in_words(error, 120)}"
        ) from error


def is_pickle(body: bytes) -> bool:
    """Return whether bytes are a pickle of protocol 2 or later, which they begin and end like.

    An older protocol is text that is neither msgpack nor JSON.
    """
    # In msgpack the first byte is an empty map, which nothing follows.
    return len(body) > 2 and body[0] == 0x80 and body[1] in _PICKLE_PROTOCOLS and body[-1:] == b"."


def _packb(value: Any) -> bytes:
    return msgpack.packb(
        value, default=_unknown_to_msgpack, use_bin_type=True, unicode_errors="surrogatepass"
    )


def _unknown_to_msgpack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return value.tolist()
        return {
            b"nd": True,
            b"type": value.dtype.str,
            b"kind": b"",
            b"shape": list(value.shape),
            b"data": value.tobytes(),
        }
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return repr(value)


def _with_arrays(value: dict[Any, Any]) -> Any:
    """Return the array or the number of numpy that a map stands for, or the map itself."""
    if b"nd" not in value:
        return value
    kind = value.get(b"type")
    if isinstance(kind, bytes):
        kind = kind.decode("ascii")
    if not isinstance(kind, str) or not _NUMBERS.fullmatch(kind):
        # Objects would be a pickle.
        raise ValueError(f"an array of {kind!r:.40}, which is no type of numbers")
    numbers = np.frombuffer(value[b"data"], dtype=np.dtype(kind))
    return numbers.reshape(value[b"shape"]) if value[b"nd"] else numbers[0].item()
