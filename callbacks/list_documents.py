"""Documents with `ndarray` values to documents of plain lists, without holding up other threads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

_BITE = 4096
_PAUSE_S = 1e-4


def as_lists(value: Any) -> Any:
    """Return `value` with every array in it as (nested) lists, numpy scalars as Python's.

    Large arrays are converted in bites of about 0.1 ms with a pause after each: `tolist` of a
    whole map would hold the interpreter lock for milliseconds, and the RunEngine with it.
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
    if array.size <= _BITE or array.ndim < 2:
        return array.tolist()
    rows = max(1, _BITE * len(array) // array.size)
    out: list[Any] = []
    for first in range(0, len(array), rows):
        out += array[first : first + rows].tolist()
        time.sleep(_PAUSE_S)
    return out
