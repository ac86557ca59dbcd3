"""`digest`: a checksum of documents in which lists and arrays of the same numbers are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def digest(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the sha256 of documents, in hexadecimal digits.

    All numbers count as float64, and a null among numbers counts as NaN. Documents that were
    written as JSON and read back therefore have the same digest as before.

    Parameters
    ----------
    documents
        Pairs of name and document; their order matters.
    """
    hasher = hashlib.sha256()
    for name, doc in documents:
        _text(hasher, name)
        _feed(hasher, doc)
    return hasher.hexdigest()


def _feed(hasher: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Mapping):
        hasher.update(b"{")
        for key in sorted(value):
            _text(hasher, str(key))
            _feed(hasher, value[key])
        hasher.update(b"}")
    elif isinstance(value, str):
        _text(hasher, value)
    elif value is None:
        hasher.update(b"none")
    elif (numbers := _numbers(value)) is not None:
        hasher.update(f"f{numbers.shape}".encode())
        hasher.update(numbers.tobytes())
    elif isinstance(value, (list, tuple, np.ndarray)):
        hasher.update(b"[")
        for item in value:
            _feed(hasher, item)
        hasher.update(b"]")
    else:
        _text(hasher, repr(value))


def _numbers(value: Any) -> np.ndarray | None:
    """Return a number, or nested sequences of numbers, as float64; None for anything else."""
    if not _starts_numeric(value):
        return None
    try:
        array = np.array(value, dtype="<f8")
    except (TypeError, ValueError):
        return None
    # There are many NaNs in binary, and only one of them may count.
    array[np.isnan(array)] = np.nan
    return array


def _starts_numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value is None or isinstance(value, (bool, int, float, list, tuple, np.number, np.bool_))


def _text(hasher: hashlib._Hash, text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    hasher.update(b"s%d:" % len(encoded))
    hasher.update(encoded)
