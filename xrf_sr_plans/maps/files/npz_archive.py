"""`read_arrays`: arrays from an npz archive that anybody may have written, or damaged.

What an archive declares is checked before memory is taken for it. The shape and the type in the
header of an array must agree with the length of its member, and that length with the number of
bytes that are really there. Nothing is ever unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from xrf_sr_plans.errors import FileFormatError, in_words

MAX_VALUES = 2**29
"""Largest number of values that an array in a file may have: 4 GiB as floats."""

MAX_BYTES = 8 * MAX_VALUES
"""Largest size in bytes of an array in a file, be it of numbers or of text."""

MAX_ARRAYS = 4096
"""Largest number of arrays that an archive may have."""

INFLATION = 1032
"""How many bytes deflate makes of one at most."""

# Allows for short members.
_SLACK_BYTES = 4096
# What `numpy.savez` and `numpy.savez_compressed` write.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_HEADER_BYTES = 10_000


def read_arrays(
    path: Path,
    needed: Collection[str],
    optional: Collection[str] | Callable[[str], bool] = (),
) -> dict[str, np.ndarray]:
    """Return arrays of an npz archive by name.

    Parameters
    ----------
    path
        The archive.
    needed
        Names of arrays that must be there.
    optional
        Names of arrays that are read where they are there, or what tells such a name. No other
        arrays are looked at.

    Raises
    ------
    FileFormatError
        The file can't be read, it is no npz archive, it is damaged, it lacks a needed array, or
        it declares an array that is too large or one of Python objects. The message names the
        file.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            size = path.stat().st_size
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if len(members) > MAX_ARRAYS:
                raise FileFormatError(
                    f"{path}: {len(members)} arrays in one npz archive; at most {MAX_ARRAYS} are"
                    " read"
                )
            missing = [name for name in needed if name not in members]
            if missing:
                raise FileFormatError(
                    f"{path}: npz has {', '.join(members) or 'no arrays'}; it needs"
                    f" {', '.join(missing)}"
                )
            chosen = optional if callable(optional) else optional.__contains__
            names = [*needed, *(name for name in members if name not in needed and chosen(name))]
            return {name: _read(archive, members[name], path, size) for name in names}
    except FileFormatError:
        raise
    except MemoryError as error:
        raise FileFormatError(f"{path}: the arrays don't fit into memory") from error
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged bytes
        raise FileFormatError(f"{path}: not a readable npz archive ({in_words(error)})") from error


def _read(archive: zipfile.ZipFile, member: str, path: Path, size: int) -> np.ndarray:
    info = archive.getinfo(member)
    if info.compress_type not in _METHODS:
        raise FileFormatError(
            f"{path}: {member!r} is compressed by method {info.compress_type}; allowed: {_METHODS}"
        )
    if info.file_size > info.compress_size * INFLATION + _SLACK_BYTES or info.compress_size > size:
        raise FileFormatError(
            f"{path}: {member!r} declares {info.file_size} bytes, {info.compress_size} of them in"
            f" a file of {size}: not what an archive can hold"
        )
    with archive.open(info) as stream:
        shape, dtype, header_bytes = _header(stream)
        declared = math.prod(shape)
        if dtype.hasobject:
            raise FileFormatError(
                f"{path}: {member!r} holds Python objects, which are never unpickled"
                " (allow_pickle is False)"
            )
        too_large = declared > MAX_VALUES or declared * dtype.itemsize > MAX_BYTES
        if too_large or declared * dtype.itemsize + header_bytes != info.file_size:
            raise FileFormatError(
                f"{path}: {member!r} declares the shape {shape} of {dtype} in a member of"
                f" {info.file_size} bytes; they must agree, and at most {MAX_VALUES} values are"
                " read"
            )
    with archive.open(info) as stream:
        return npy.read_array(stream, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    """Return shape and type in the header of an npy member, and the header's length in bytes."""
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream, max_header_size=_MAX_HEADER_BYTES)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream, max_header_size=_MAX_HEADER_BYTES)
    else:
        # Version 3 is for names of fields beyond Latin-1; the arrays read here have no fields.
        raise ValueError(f"npy version {version}; allowed: (1, 0), (2, 0)")
    if any(length < 0 for length in shape):
        raise ValueError(f"shape {shape}: a negative length")
    return shape, dtype, stream.tell()
