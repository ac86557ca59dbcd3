"""`process_environment`: what a process that enhances maps needs in its environment."""

from __future__ import annotations

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CACHE_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""What bounds the two caches of torch's convolutions, that of oneDNN and that of its wrapper ideep.

Both keep what was made for every shape of map, 1,024 convolutions each. That is about 70 MB, and
what is thrown out then for a new shape leaves holes in the heap that grow for hundreds of maps.
"""
_CACHED_CONVOLUTIONS = 64
"""Enough for several shapes; what one of them needs is made anew in milliseconds."""


def process_environment(threads: int, before: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process that enhances maps.

    Parameters
    ----------
    threads
        Number of CPU threads for the network. On a CPU the last bits of a result depend on it.
    before
        The environment so far; what it says about the caches is kept.
    """
    bounds = dict.fromkeys(_CACHE_VARIABLES, str(_CACHED_CONVOLUTIONS))
    return bounds | before | dict.fromkeys(THREAD_VARIABLES, str(threads))
