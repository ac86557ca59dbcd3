"""`TaskCounter`: what a scheduler counts for `xrf-sr cluster status` and for OpenTelemetry."""

from __future__ import annotations

import functools
import statistics
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from xrf_sr_plans.cluster.lanes import PRIORITIES, Lane, lanes_of
from xrf_sr_plans.cluster.versions import versions_here

if TYPE_CHECKING:
    from distributed import Scheduler
    from distributed.scheduler import TaskState

STATE_HANDLER = "xrf_sr_state"
"""Under which name a scheduler tells its state to whoever may ask it anything."""
GPU_MEMORY = "xrf_sr_gpu_memory_bytes"
"""Under which name a worker tells with each heartbeat how much of its GPU's memory is used, and
how much there is."""
MAPS = "xrf_sr_maps"
"""Under which name it tells how many maps it was asked for since it began, by how that ended."""
_METER = "xrf_sr_plans"
_MINUTE_S = 60.0
_REMEMBERED = 10_000
_LATENCIES = 500
_KINDS = 32
"""Kinds of tasks that are told from each other; all others are one."""
_OUTCOMES = {"memory": "done", "erred": "failed", "forgotten": "cancelled"}
"""How a task ends, by the state that Dask gives it."""
_UNFINISHED = ("queued", "no-worker", "waiting", "processing")


class TaskCounter(SchedulerPlugin):
    """Follow the tasks of a scheduler by lane and by kind; the kind is what Dask calls a prefix.

    Lanes are told by priority: what goes before others is ``live``.
    """

    name = "xrf-sr-task-counter"
    idempotent = True

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._started = time.time()
        self._submitted: dict[Any, float] = {}
        self._done: deque[tuple[float, Lane, str]] = deque(maxlen=_REMEMBERED)
        self._latencies_s: dict[Lane, deque[float]] = {
            lane: deque(maxlen=_LATENCIES) for lane in PRIORITIES
        }
        self._outcomes: Counter[tuple[Lane, str]] = Counter()
        self._kinds: set[str] = set()
        self._workers_lost = 0
        meter = metrics.get_meter(_METER)
        self._task_counter = meter.create_counter(
            "xrf_sr.cluster.tasks", "{task}", "Tasks of the cluster that are over"
        )
        self._latency = meter.create_histogram(
            "xrf_sr.cluster.latency", "s", "From the arrival of a task to its result"
        )
        self._lost_counter = meter.create_counter(
            "xrf_sr.cluster.workers_lost", "{process}", "Workers that died or were ended"
        )
        _create_gauges()
        _open_counters.add(self)
        scheduler.handlers[STATE_HANDLER] = self.state

    async def close(self) -> None:
        """Show nothing more."""
        _open_counters.discard(self)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Take a change of a task's state."""
        if start == "released" and finish == "waiting":
            # What is done again, as its worker died, has been waited for since it first arrived.
            self._submitted.setdefault(key, time.monotonic())
        elif finish in _OUTCOMES and key in self._submitted:
            task = self.scheduler.tasks[key]
            lane, kind, outcome = lane_of(task), self._kind(key), _OUTCOMES[finish]
            now = time.monotonic()
            taken_s = now - self._submitted.pop(key)
            self._outcomes[lane, outcome] += 1
            self._task_counter.add(1, {"lane": lane, "kind": kind, "outcome": outcome})
            if outcome == "done":
                self._done.append((now, lane, kind))
                self._latencies_s[lane].append(taken_s)
                self._latency.record(taken_s, {"lane": lane, "kind": kind})

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Take it that a worker is gone."""
        self._workers_lost += 1
        self._lost_counter.add(1)

    async def state(self) -> dict[str, Any]:
        """Return how the cluster is doing, as numbers, text, lists and dictionaries."""
        rates = self._per_second()
        queue = self._queue()
        return {
            "started": self._started,
            "now": time.time(),
            "versions": versions_here(),
            "workers_lost": self._workers_lost,
            "maps": dict(maps_of(worker.metrics for worker in self.scheduler.workers.values())),
            "lanes": {
                lane: {
                    "waiting": queue[lane, "waiting"],
                    "running": queue[lane, "running"],
                    "per_second": {kind: rate for (at, kind), rate in rates.items() if at == lane},
                    **{outcome: self._outcomes[lane, outcome] for outcome in _OUTCOMES.values()},
                    "latency_s": _middle_and_high(self._latencies_s[lane]),
                }
                for lane in PRIORITIES
            },
        }

    def observations(self, gauge: str) -> list[Observation]:
        """Return what the gauge of that name shows now."""
        return _GAUGES[gauge][2](self)

    def _workers(self) -> list[Observation]:
        lanes: Counter[str] = Counter()
        for worker in list(self.scheduler.workers.values()):
            lanes.update(lanes_of(worker.resources) or ["any"])
        return [Observation(count, {"lane": lane}) for lane, count in lanes.items()]

    def _queues(self) -> list[Observation]:
        queue = self._queue()
        return [Observation(queue[lane, "waiting"], {"lane": lane}) for lane in PRIORITIES]

    def _rates(self) -> list[Observation]:
        return [
            Observation(rate, {"lane": lane, "kind": kind})
            for (lane, kind), rate in self._per_second().items()
        ]

    def _gpu_memory(self) -> list[Observation]:
        return [
            Observation(used[0], {"worker": str(worker.name)})
            for worker in list(self.scheduler.workers.values())
            if (used := worker.metrics.get(GPU_MEMORY))
        ]

    def _maps(self) -> list[Observation]:
        return [
            Observation(count, {"worker": str(worker.name), "outcome": outcome})
            for worker in list(self.scheduler.workers.values())
            for outcome, count in maps_of([worker.metrics]).items()
        ]

    def _queue(self) -> Counter[tuple[Lane, str]]:
        """Return how many tasks of each lane wait, and how many run."""
        workers = list(self.scheduler.workers.values())
        running = {task for worker in workers for task in list(worker.executing)}
        found: Counter[tuple[Lane, str]] = Counter()
        for task in list(self.scheduler.tasks.values()):
            if task.state in _UNFINISHED:
                found[lane_of(task), "running" if task in running else "waiting"] += 1
        return found

    def _per_second(self) -> dict[tuple[Lane, str], float]:
        """Return how many tasks of each lane and kind were done per second, over a minute."""
        since = time.monotonic() - _MINUTE_S
        counts: defaultdict[tuple[Lane, str], int] = defaultdict(int)
        for at, lane, kind in list(self._done):
            counts[lane, kind] += at >= since
        return {which: count / _MINUTE_S for which, count in counts.items() if count}

    def _kind(self, key: Any) -> str:
        kind = key_split(key)
        if len(self._kinds) < _KINDS:
            self._kinds.add(kind)
        return kind if kind in self._kinds else "other"


def lane_of(task: TaskState) -> Lane:
    """Return the lane of a task, by its priority; Dask keeps priorities with their sign changed."""
    priority = task.priority[0] if task.priority else 0
    return "live" if -priority >= PRIORITIES["live"] else "bulk"


def maps_of(metrics_of_workers: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how many maps workers have been asked for, by how that ended.

    Parameters
    ----------
    metrics_of_workers
        What each of them told with its last heartbeat.
    """
    found: Counter[str] = Counter()
    for known in metrics_of_workers:
        found.update(known.get(MAPS) or {})
    # A model that was missing is sent, and then the same map is asked for again.
    found.pop("needed", None)
    return found


def _middle_and_high(latencies_s: deque[float]) -> list[float]:
    """Return the median and what 95 % stay below; nothing where nothing was done."""
    if len(latencies_s) < 2:
        return [*latencies_s, *latencies_s]
    return [
        statistics.median(latencies_s),
        statistics.quantiles(latencies_s, n=20, method="inclusive")[-1],
    ]


_GAUGES: dict[str, tuple[str, str, Callable[[TaskCounter], list[Observation]]]] = {
    "xrf_sr.cluster.workers": ("{process}", "Workers, by lane", TaskCounter._workers),
    "xrf_sr.cluster.queue": ("{task}", "Tasks that no worker has begun", TaskCounter._queues),
    "xrf_sr.cluster.tasks_per_second": ("{task}/s", "Over the last minute", TaskCounter._rates),
    "xrf_sr.cluster.maps": ("{map}", "Maps asked of a worker since it began", TaskCounter._maps),
    "xrf_sr.cluster.gpu_memory": (
        "By",
        "Used memory of the GPU of a worker, by all that use it",
        TaskCounter._gpu_memory,
    ),
}
_COUNTERS = ("xrf_sr.cluster.maps",)
"""Those of them that only grow."""
_open_counters: weakref.WeakSet[TaskCounter] = weakref.WeakSet()


@functools.cache
def _create_gauges() -> None:
    """Create the gauges, once for all schedulers that this process ever has.

    OpenTelemetry calls the function that a gauge of a name was first created with, and no later
    one, for as long as the process lives.
    """

    def observing(gauge: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> list[Observation]:
            return [one for counter in list(_open_counters) for one in counter.observations(gauge)]

        return observe

    meter = metrics.get_meter(_METER)
    for name, (unit, what, _) in _GAUGES.items():
        grows = name in _COUNTERS
        create = meter.create_observable_counter if grows else meter.create_observable_gauge
        create(name, [observing(name)], unit, what)
