"""Do the same for every element of a map, as many at a time as torch has threads.

numpy and scipy work outside the interpreter's lock but on one core only. The calls between, which
hold it, take longer for small maps than what threads save. What is done for one
element doesn't depend on the others, nor the result on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

SMALLEST_MAP = 2**18
"""Pixels of one element below which threads make it slower, as measured on two cores."""
LARGEST_MAP = 2**25
"""Fine pixels of all elements under way together: each takes about 100 bytes for a moment."""

Result = TypeVar("Result")


def for_each(function: Callable[[int], Result], count: int, pixels: int) -> list[Result]:
    """Return ``[function(0), ... function(count - 1)]``; `pixels` is the size of one element."""
    import torch

    workers = min(torch.get_num_threads(), count, max(1, LARGEST_MAP // pixels))
    if workers < 2 or pixels < SMALLEST_MAP:
        return [function(index) for index in range(count)]
    with ThreadPoolExecutor(workers, thread_name_prefix="xrf-sr-elements") as pool:
        return list(pool.map(function, range(count)))
