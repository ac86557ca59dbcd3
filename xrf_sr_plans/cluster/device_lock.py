"""`one_map_at_a_time`: no two maps are on the same device of a host together.

Two maps on one GPU take as long as one after the other, and twice the memory. A worker for live
maps and one for the others share a GPU (`lanes`): the live one waits for one map of the other at
most. On a CPU it is each process for itself, whose threads would compete for its cores.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xrf_sr_plans.cluster.connection import inside_a_task
from xrf_sr_plans.cluster.lanes import Lane
from xrf_sr_plans.errors import ClusterError

_IN_PROCESS = threading.Lock()
_WAIT_S = 600.0
"""Longest wait of a unit of a replay or an evaluation for the worker's device."""
_POLL_S: dict[Lane, float] = {"live": 0.001, "bulk": 0.02}
"""How often it is looked whether the device is free: live maps get it first."""


@contextmanager
def one_map_at_a_time(device: str | None, lane: Lane, timeout_s: float) -> Iterator[None]:
    """Hold a device while a map is on it.

    Parameters
    ----------
    device
        A name that all processes of this host have for the device (`device_name`); None: the CPU,
        which only the threads of this process share.
    lane
        What the map is for.
    timeout_s
        Longest wait for the device.

    Raises
    ------
    ClusterError
        It was not free in time.
    """
    deadline = time.monotonic() + timeout_s
    if not _IN_PROCESS.acquire(timeout=max(0.0, timeout_s)):
        raise ClusterError(f"other maps were on this worker for {timeout_s:g} s")
    try:
        if device is None:
            yield
            return
        with _lock_file(device).open("a") as file:
            while not _locked(file.fileno()):
                if time.monotonic() > deadline:
                    raise ClusterError(f"{device} was not free for {timeout_s:g} s")
                time.sleep(_POLL_S[lane])
            # The lock goes when the file is closed, or the process dies.
            yield
    finally:
        _IN_PROCESS.release()


@contextmanager
def device_of_worker(lane: Lane) -> Iterator[None]:
    """Hold the device of a worker of a cluster; elsewhere there is nobody to share it with.

    Parameters
    ----------
    lane
        What the map is for.

    Raises
    ------
    ClusterError
        It was not free in ten minutes.
    ImportError
        torch is not installed.
    """
    if not inside_a_task():
        yield
        return
    with one_map_at_a_time(device_name(), lane, _WAIT_S):
        yield


def device_name() -> str | None:
    """Return the name of the GPU that maps are enhanced on here; None where there is none.

    Raises
    ------
    ImportError
        torch is not installed.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    known = torch.cuda.get_device_properties(0)
    uuid = getattr(known, "uuid", None)
    return f"cuda-{uuid or os.environ.get('CUDA_VISIBLE_DEVICES', '0')}"


def _lock_file(device: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in device)
    return Path(tempfile.gettempdir()) / f"xrf-sr-{os.getuid()}-{name}.lock"


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
