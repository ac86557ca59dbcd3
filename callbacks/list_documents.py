"""`as_lists`: turn arrays in documents into lists without holding up other threads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

_CHUNK = 4096
"""Number of values that are converted at a time, which takes about 0.1 ms."""
_PAUSE_S = 1e-4
"""Pause after each chunk, in seconds."""


def as_lists(value: Any) -> Any:
    """Return `value` with every array in it as nested lists, and numpy scalars as Python's.

    Large arrays are converted in chunks with a pause after each. Calling `tolist` on a whole map
    would hold the interpreter lock for milliseconds, and the RunEngine with it.

    Parameters
    ----------
    value
        A document, or any part of one.
    """
    if isinstance(value, np.ndarray):
        return _array_as_lists(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: as_lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and any(
        not isinstance(item, (str, int, float, bool, type(None))) for item in value
    ):
        return [as_lists(item) for item in value]
    return list(value) if isinstance(value, tuple) else value


def _array_as_lists(array: np.ndarray) -> Any:
    if array.size <= _CHUNK or array.ndim < 2:
        return array.tolist()
    rows = max(1, _CHUNK * len(array) // array.size)
    out: list[Any] = []
    for first in range(0, len(array), rows):
        out += array[first : first + rows].tolist()
        time.sleep(_PAUSE_S)
    return out
