"""`pack` and `unpack`: values as bytes that are data and not code, arrays of numbers to the bit.

It is msgpack, in which arrays of numbers cross as raw bytes. Nothing is pickled. Whatever msgpack
doesn't know crosses as its `repr`, since one odd value in a user's metadata must not cost the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from xrf_sr_plans.errors import WorkerError

_ARRAY = 1
"""Code of msgpack's extension type that arrays cross as."""
_DEEPEST = 50
"""Number of levels of nesting that a value is looked through for what can't be packed."""
LARGEST_ARRAY = 2**32 - 2**16
"""Bytes of the largest array that can be packed."""


def pack(value: Any) -> bytes:
    """Return a value as bytes. Values that msgpack can't hold are replaced by their `repr`."""
    try:
        return _packb(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # An int of more than 64 bits, a dict that changed meanwhile and the like: value by value.
        return _packb(_with_odd_values_as_text(value))


def unpack(body: bytes | bytearray | memoryview) -> Any:
    """Return the value that was packed. Arrays in it are read-only.

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
        raise WorkerError(f"{len(body)} bytes are not msgpack: {error}") from error


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
