"""Frames between the RunEngine's process and the analysis process: a length, then msgpack.

A frame is eight bytes with the length of its body (little-endian, unsigned) and the body, which is
made by `xrf_sr_plans.packing`. What a frame says is the matter of `messages`.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from xrf_sr_plans import packing
from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.packing import unpack

_LENGTH = struct.Struct("<Q")

MAX_FRAME = 8 * 2**30
"""Length in bytes of the longest body that is accepted."""


def pack(value: Any) -> bytes:
    """Return a value as one frame. Values that msgpack can't hold are replaced by their `repr`."""
    body = packing.pack(value)
    return _LENGTH.pack(len(body)) + body


def unpack_frame(frame: bytes) -> Any:
    """Return the value of one whole frame.

    Raises
    ------
    WorkerError
        The body of the frame is not msgpack.
    """
    return unpack(memoryview(frame)[_LENGTH.size :])


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
