"""`ClusterStatus`: how a cluster is doing, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xrf_sr_plans.cluster.check_workers import ANSWER_TIMEOUT_S, worker_flaws
from xrf_sr_plans.cluster.counting import GPU_MEMORY, STATE_HANDLER, maps_of
from xrf_sr_plans.cluster.lanes import lanes_of
from xrf_sr_plans.errors import AnalysisError, ConfigError, in_words

if TYPE_CHECKING:
    from distributed import Client

STALE_S = 15.0
"""Age in seconds of a worker's last heartbeat from which it is said to hang."""
EXPIRY_DAYS = 30.0
"""How long before their end keys are warned of."""


@dataclass(frozen=True)
class WorkerStatus:
    """How a worker is doing."""

    name: str
    address: str
    lane: str
    """``live``, ``bulk``, or ``any`` where somebody else started it."""
    running: int
    """Number of tasks it is at."""
    maps: Mapping[str, int] = field(default_factory=dict)
    """How many maps it was asked for since it began, by how that ended."""
    gpu_memory_bytes: tuple[int, ...] = ()
    """Used and total memory of its GPU; nothing where it has used none yet."""
    flaw: str = ""
    """What is wrong with it, in words."""

    def __str__(self) -> str:
        parts = [self.lane, f"{self.running} running"]
        parts += [f"{count} maps {outcome}" for outcome, count in self.maps.items()]
        if self.gpu_memory_bytes:
            used, total = (number / 1e9 for number in self.gpu_memory_bytes)
            parts.append(f"{used:.1f} of {total:.0f} GB of GPU memory used")
        return f"worker {self.name}: {self.flaw or 'ok'}: {', '.join(parts)}"


@dataclass(frozen=True)
class ClusterStatus:
    """How a cluster is doing."""

    address: str
    workers: tuple[WorkerStatus, ...]
    counted: Mapping[str, Any] = field(default_factory=dict)
    """What the scheduler counted, as of `TaskCounter.state`; empty where it doesn't count."""
    key_days_left: float | None = None
    """For how many days the keys are still valid; None: there are none."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        lanes = [worker.lane for worker in self.workers]
        found = [] if lanes else ["no workers"]
        if "bulk" in lanes and "live" not in lanes and "any" not in lanes:
            found.append("no worker for live maps")
        flawed = sum(bool(worker.flaw) for worker in self.workers)
        if flawed:
            found.append(f"{flawed} of {len(lanes)} workers can't be used")
        if self.key_days_left is not None and self.key_days_left < EXPIRY_DAYS:
            found.append(f"the keys are valid for {max(self.key_days_left, 0):.0f} more days")
        return found

    def lines(self) -> list[str]:
        """Return it as lines to read: the cluster, its lanes, its workers."""
        state = "; ".join(self.problems)
        lanes = [worker.lane for worker in self.workers]
        counts = [f"{lanes.count(lane)} {lane}" for lane in dict.fromkeys(lanes)]
        parts = [f"{len(lanes)} workers" + (f" ({', '.join(counts)})" if counts else "")]
        if self.counted:
            started = self.counted["started"]
            up_h = (self.counted.get("now", started) - started) / 3600
            parts += [f"up {up_h:.1f} h", f"{self.counted['workers_lost']} workers lost"]
        else:
            parts.append("its scheduler counts nothing, as it has none of this package")
        head = f"{self.address}: {'TROUBLE: ' + state if state else 'ok'}: {', '.join(parts)}"
        told = [_lane_line(lane, one) for lane, one in self.counted.get("lanes", {}).items()]
        return [head, *told, *(str(worker) for worker in self.workers)]


def cluster_status(
    client: Client,
    address: str,
    keys: str | None = None,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> ClusterStatus:
    """Return how a cluster is doing.

    Parameters
    ----------
    client
        A client of the cluster.
    address
        Its address, as it is to be shown.
    keys
        Folder of the client's keys; None: there are none.
    timeout_s
        Longest wait for the scheduler, and for the workers.

    Raises
    ------
    AnalysisError
        The scheduler doesn't answer in time.
    """
    try:
        known, counted = _asked(client, timeout_s)
    except (OSError, TimeoutError) as error:
        raise AnalysisError(f"the scheduler at {address!r}: {in_words(error)}") from error
    workers = known["workers"]
    flaws = worker_flaws(client, workers, timeout_s)
    # By the scheduler's clock, since that of this computer may differ. One that doesn't tell the
    # time has at least heard of some worker at it.
    heard_of = (float(one.get("last_seen") or 0.0) for one in workers.values())
    now = float(counted.get("now") or max(heard_of, default=0.0))
    return ClusterStatus(
        address,
        tuple(_worker(at, one, flaws, now) for at, one in sorted(workers.items(), key=_by_name)),
        counted,
        _key_days_left(keys),
    )


def _asked(client: Client, timeout_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the scheduler knows of its workers, and what it counted."""
    scheduler: Any = client.scheduler
    sync: Any = client.sync
    known = sync(scheduler.identity, n_workers=-1, callback_timeout=timeout_s)
    return known, sync(_counted, scheduler, callback_timeout=timeout_s)


async def _counted(scheduler: Any) -> dict[str, Any]:
    try:
        return dict(await getattr(scheduler, STATE_HANDLER)())
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _worker(
    address: str, known: Mapping[str, Any], flaws: Mapping[str, str], now: float
) -> WorkerStatus:
    name = str(address if known.get("name") is None else known["name"])
    metrics = known.get("metrics") or {}
    silent_s = now - float(known.get("last_seen") or now)
    flaw = flaws.get(name, "")
    if silent_s > STALE_S:
        flaw = f"no sign of life for {silent_s:.0f} s"
    return WorkerStatus(
        name,
        address,
        " ".join(lanes_of(known.get("resources"))) or "any",
        int((metrics.get("task_counts") or {}).get("executing", 0)),
        maps_of([metrics]),
        tuple(metrics.get(GPU_MEMORY) or ()),
        flaw,
    )


def _lane_line(lane: str, counted: Mapping[str, Any]) -> str:
    rates = [f"{rate:.2g} {kind}/s" for kind, rate in counted["per_second"].items()]
    parts = [
        f"{counted['running']} running",
        f"{counted['waiting']} waiting",
        f"{counted['done']} done",
        f"{counted['failed']} failed",
        f"{counted['cancelled']} cancelled",
        *rates,
    ]
    if counted["latency_s"]:
        middle_s, high_s = counted["latency_s"]
        parts.append(f"latency {middle_s:.2g} s, 95 % below {high_s:.2g} s")
    return f"{lane}: {', '.join(parts)}"


def _key_days_left(keys: str | None) -> float | None:
    if keys is None:
        return None
    from xrf_sr_plans.cluster.keys import days_left

    try:
        return days_left(keys)
    except ConfigError:
        return None


def _by_name(worker: tuple[str, Mapping[str, Any]]) -> str:
    return str(worker[1].get("name"))
