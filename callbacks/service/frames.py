"""Frames between the RunEngine's process and the analysis process: a length, then msgpack.

A frame is eight bytes with the length of its body (little-endian, unsigned) and the body. Nothing
is pickled, because what comes out of a pipe is data and not code. Arrays of numbers cross as raw
bytes. Whatever msgpack doesn't know crosses as its `repr`, since one odd value in a user's
metadata must not cost the map. What a frame says is the matter of `messages`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import msgpack
import numpy as np

from xrf_sr_plans.errors import WorkerError

_LENGTH = struct.Struct("<Q")
_ARRAY = 1
"""Code of msgpack's extension type that arrays cross as."""

_DEEPEST = 50
"""Number of levels of nesting that a value is looked through for what can't be packed."""

MAX_FRAME = 8 * 2**30
"""Length in bytes of the longest body that is accepted."""


def pack(value: Any) -> bytes:
    """Return a value as one frame. Values that msgpack can't hold are replaced by their `repr`."""
    try:
        body = _packb(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # An int of more than 64 bits, a dict that changed meanwhile and the like: value by value.
        body = _packb(_with_odd_values_as_text(value))
    return _LENGTH.pack(len(body)) + body


def unpack_frame(frame: bytes) -> Any:
    """Return the value of one whole frame.

    Raises
    ------
    WorkerError
        The body of the frame is not msgpack.
    """
    return unpack(memoryview(frame)[_LENGTH.size :])


def unpack(body: bytes | bytearray | memoryview) -> Any:
    """Return the value of a frame's body. Arrays in it are read-only.

    Raises
    ------
    WorkerError
        The bytes are not msgpack.
    """
    try:
        try:
            return _unpackb(body)
        except TypeError:
            # Keys that were tuples arrive as lists, which are no keys.
            return _unpackb(body, object_pairs_hook=_with_text_keys)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WorkerError(f"a frame of {len(body)} bytes is not msgpack: {error}") from error


def read_frame(stream: BinaryIO) -> Any:
    """Return the value of the next frame, or None where the other side has closed.

    Raises
    ------
    WorkerError
        The frame is cut off, is longer than `MAX_FRAME`, or its body is not msgpack.
    """
    head = _read(stream, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise WorkerError(f"a frame says it has {length} bytes; at most {MAX_FRAME} are allowed")
    body = _read(stream, length)
    if body is None:
        raise WorkerError(f"a frame of {length} bytes was cut off")
    return unpack(body)


def _read(stream: BinaryIO, length: int) -> bytearray | None:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return None
        view = view[count:]
    return buffer


def _packb(value: Any) -> bytes:
    return msgpack.packb(
        value, default=_unknown_to_msgpack, use_bin_type=True, unicode_errors="surrogatepass"
    )


def _unpackb(body: bytes | bytearray | memoryview, **how: Any) -> Any:
    return msgpack.unpackb(
        body,
        ext_hook=_from_extension,
        strict_map_key=False,
        unicode_errors="surrogatepass",
        **how,
    )


def _with_text_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {key if isinstance(key, str | int) else repr(key): value for key, value in pairs}


def _unknown_to_msgpack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            return value.tolist()
        head = [value.dtype.str, list(value.shape), value.tobytes()]
        return msgpack.ExtType(_ARRAY, msgpack.packb(head))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return repr(value)


def _from_extension(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension {code}")
    dtype, shape, raw = msgpack.unpackb(data)
    return np.frombuffer(raw, dtype=np.dtype(dtype)).reshape(shape)


def _with_odd_values_as_text(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        return repr(value)
    if isinstance(value, Mapping):
        return {
            str(key): _with_odd_values_as_text(item, depth + 1) for key, item in list(value.items())
        }
    if isinstance(value, (list, tuple)):
        return [_with_odd_values_as_text(item, depth + 1) for item in value]
    try:
        _packb(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return repr(value)
    return value
