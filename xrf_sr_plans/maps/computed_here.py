"""`computed_here`: the Dask arrays by which Tiled and its adapters read are computed here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()
_setting: list[Any] = []
"""What was set, once for each block that is in it: only the first one sets, the last one unsets."""


@contextmanager
def computed_here() -> Iterator[None]:
    """Let Dask arrays be computed in threads of this process, whatever Dask would do else.

    In the task of a cluster, and where somebody has connected to one in a notebook, Dask sends
    what is to be computed to that cluster. Catalogs in a folder can't be sent, and what can be
    should not take a worker's time twice.
    """
    try:
        import dask.config
    except ImportError:  # then nothing here reads through it
        yield
        return
    with _LOCK:
        _setting.append(_setting[0] if _setting else dask.config.set(scheduler="threads"))
    try:
        yield
    finally:
        with _LOCK:
            setting = _setting.pop()
            if not _setting:
                setting.__exit__(None, None, None)
