"""Frames between the RunEngine's process and the analysis process: length, then msgpack.

Never pickle: what comes out of a pipe is data. Arrays of numbers cross as raw bytes; whatever
msgpack doesn't know crosses as its `repr`, since one odd value in a user's metadata must not
cost the map.
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
MAX_FRAME = 8 * 2**30


def pack(message: Any) -> bytes:
    """Return one frame."""
    try:
        body = _packb(message)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # An int of more than 64 bits, a dict that changed meanwhile, ...: value by value.
        body = _packb(_plain(message))
    return _LENGTH.pack(len(body)) + body


def unpack_frame(frame: bytes) -> Any:
    """Return the message of one whole frame."""
    return unpack(memoryview(frame)[_LENGTH.size :])


def unpack(body: bytes | bytearray | memoryview) -> Any:
    """Return the message of a frame's body.

    Raises
    ------
    WorkerError
        Bytes that are no message.
    """
    try:
        try:
            return _unpackb(body)
        except TypeError:
            # Keys that were tuples arrive as lists, which are no keys.
            return _unpackb(body, object_pairs_hook=_with_text_keys)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WorkerError(f"{len(body)} bytes that are no message: {error}") from error


def read_frame(stream: BinaryIO) -> Any:
    """Read one message; None: the other side has closed.

    Raises
    ------
    WorkerError
        A frame that is cut off or no message.
    """
    head = _read(stream, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise WorkerError(f"a frame of {length} bytes; at most {MAX_FRAME} are allowed")
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


def _packb(message: Any) -> bytes:
    return msgpack.packb(
        message, default=_default, use_bin_type=True, unicode_errors="surrogatepass"
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


def _default(value: Any) -> Any:
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


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > 50:
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in list(value.items())}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    try:
        _packb(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return repr(value)
    return value
