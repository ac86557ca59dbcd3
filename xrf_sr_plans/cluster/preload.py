"""What a scheduler or a worker of Dask does in addition, before it begins.

`xrf-sr cluster` starts its processes with it. For others there is Dask's own option:
``dask worker --preload xrf_sr_plans.cluster.preload``, and the same with ``dask scheduler``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from distributed import Scheduler

from xrf_sr_plans.cluster.check_workers import VERSIONS
from xrf_sr_plans.cluster.counting import GPU_MEMORY, MAPS, TaskCounter
from xrf_sr_plans.cluster.lanes import lanes_of
from xrf_sr_plans.cluster.versions import versions_here

if TYPE_CHECKING:
    from distributed import Worker

NICE = 10
"""How much nicer than others (lower in priority) a process is that only does what can wait."""


def dask_setup(server: Scheduler | Worker) -> None:
    """Let a scheduler count its tasks; let a worker say its versions and its GPU's memory."""
    if isinstance(server, Scheduler):
        server.add_plugin(TaskCounter(server))
        return
    server.startup_information[VERSIONS] = lambda _worker: versions_here()
    # Only workers need it, and it takes a second.
    from xrf_sr_plans.cluster.task import replies

    server.metrics[MAPS] = lambda _worker: dict(replies)
    server.metrics[GPU_MEMORY] = _gpu_memory
    if lanes_of(server.state.total_resources) == ["bulk"]:
        with contextlib.suppress(OSError):
            os.nice(NICE)


def _gpu_memory(_worker: Any) -> list[int]:
    """Return used and total bytes of the GPU's memory; nothing before torch uses one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    free, total = torch.cuda.mem_get_info()
    return [total - free, total]
