"""`on_dask`: units on a Dask cluster, a few at a time, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xrf_sr_plans.bulk.fitness import Fitness, flaw_on_worker
from xrf_sr_plans.bulk.units import Job, Report, Unit
from xrf_sr_plans.cluster.connection import ClusterAddress, connect
from xrf_sr_plans.cluster.lanes import placement, resources_of
from xrf_sr_plans.errors import AnalysisError, ConfigError, in_words

logger = logging.getLogger(__name__)

UNITS_PER_WORKER = 2
"""So many are with the cluster for each that it can do at a time: one more lies ready there."""
FIRST_WORKER_TIMEOUT_S = 60.0
"""Longest wait for the first worker of a cluster."""
NO_WORKER_TIMEOUT_S = 600.0
"""Longest time without any worker, such as while a GPU host is started again."""
RECONNECT_TIMEOUT_S = 120.0
"""Longest time without the scheduler."""
ANSWER_TIMEOUT_S = 60.0
"""Longest wait for an answer of the scheduler or of its workers."""
MOST_LOSSES = 3
"""How often a unit is given to the cluster again after the connection was lost with it."""
LOOK_S = 5.0
"""How often the cluster is asked for its workers."""

_KILLED = "the process that did it died: {}"
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Unfit:
    """What comes back instead of a report from a worker that can't do such units."""

    worker: str
    why: str


def on_dask(
    units: Sequence[Unit], job: Job[Unit, Report], where: ClusterAddress
) -> Iterator[Report]:
    """Yield the report of each unit as soon as it is there, in any order.

    Before anything runs, every worker is asked whether it has the same versions and sees the same
    files. A worker that joins later is asked before its first unit, and left out if not. Units of
    a worker that dies are done by others. One that is with several when they die is done once
    more, alone, and is at fault if that one dies, too. Where the scheduler is restarted, what it
    had is given to it again.

    Parameters
    ----------
    units
        What there is to do.
    job
        What is done with each.
    where
        The cluster.

    Raises
    ------
    MissingExtraError
        Dask.distributed is not installed.
    ConfigError
        No scheduler answers, it has no workers, or they can't do such units.
    AnalysisError
        The scheduler was lost and not found again, or has had no worker that can do such units
        for long.
    """
    window = _Window(job, where)
    try:
        yield from window.reports(units)
    finally:
        window.close()


class _Window(Generic[Unit, Report]):
    """The units that are with a cluster at a time."""

    def __init__(self, job: Job[Unit, Report], where: ClusterAddress) -> None:
        self._job, self._where = job, where
        self._client: Any = connect(where)
        self._fitness = Fitness(job.needs)
        self._running: dict[Any, Unit] = {}
        self._only_on: dict[Any, set[str]] = {}
        self._losses: Counter[str] = Counter()
        self._unfit: dict[str, str] = {}
        self._ended = threading.Event()
        self._workers: dict[str, int] = {}
        self._place: dict[str, Any] = {}
        self._seen = self._looked = -float("inf")

    def close(self) -> None:
        """Leave the cluster, which forgets what it has not begun."""
        # One that is gone must not be waited for.
        with contextlib.suppress(Exception):
            _in_time(lambda: self._client.close(timeout=5), 20, "the cluster")

    def reports(self, units: Sequence[Unit]) -> Iterator[Report]:
        """Yield the reports of all units."""
        if not units:
            return
        self._check_workers()
        waiting, suspects = deque(units), deque[Unit]()
        alone = False
        while waiting or suspects or self._running:
            if not waiting and not self._running:
                waiting.append(suspects.popleft())
                alone = True
            self._look()
            room = UNITS_PER_WORKER * sum(self._workers[worker] for worker in self._fit)
            while waiting and len(self._running) < (min(room, 1) if alone else room):
                self._submit(waiting.popleft())
            for future in self._done():
                unit = self._running.pop(future)
                self._only_on.pop(future, None)
                made = self._outcome(future, unit, alone)
                if made is _SUSPECT:
                    suspects.append(unit)
                elif made is _AGAIN:
                    waiting.append(unit)
                else:
                    yield made

    def _submit(self, unit: Unit) -> None:
        fit = self._fit
        future = self._client.submit(
            _on_worker, self._fitness, self._job.work, unit,
            # A name of its own: the same unit may be asked for again, as when its files are gone.
            key=f"{self._job.name}-{uuid.uuid4().hex}",
            workers=fit if self._unfit else None,
            **self._place,
        )  # fmt: skip
        self._running[future] = unit
        if self._unfit:
            self._only_on[future] = set(fit)
        future.add_done_callback(lambda _: self._ended.set())

    def _done(self) -> list[Any]:
        """Return what has ended, after a wait of at most `LOOK_S`."""
        done = [future for future in self._running if future.done()]
        if not done:
            self._ended.wait(LOOK_S if self._running else 1.0)
            self._ended.clear()
            done = [future for future in self._running if future.done()]
        return done

    def _outcome(self, future: Any, unit: Unit, alone: bool) -> Any:
        """Return the report of a unit that has ended, `_SUSPECT` or `_AGAIN`."""
        from distributed import KilledWorker

        status, made = future.status, None
        try:
            if status in ("finished", "error"):
                made = future.result(timeout=ANSWER_TIMEOUT_S)
        except KilledWorker as error:
            return self._job.lost(unit, _KILLED.format(in_words(error))) if alone else _SUSPECT
        except Exception as error:  # noqa: BLE001 - whatever a cluster may answer
            if status == "error":
                return self._job.lost(unit, f"the cluster could not do it: {in_words(error)}")
            status = "lost"
        finally:
            with contextlib.suppress(Exception):
                future.release()
        if status != "finished":
            self._losses[unit.key] += 1
            if self._losses[unit.key] > MOST_LOSSES:
                return self._job.lost(unit, "the connection to the cluster was lost with it")
            return _AGAIN
        if isinstance(made, _Unfit):
            self._leave_out(made)
            return _AGAIN
        return made

    def _leave_out(self, unfit: _Unfit) -> None:
        if unfit.worker not in self._unfit:
            logger.warning("worker %s is left out: %s", unfit.worker, unfit.why)
        self._unfit[unfit.worker] = unfit.why
        self._looked = -float("inf")

    @property
    def _fit(self) -> list[str]:
        return [worker for worker in self._workers if worker not in self._unfit]

    def _look(self) -> None:
        """Ask the cluster for its workers, now and then; refuse to wait for ever."""
        now = time.monotonic()
        if self._client.status == "running" and now - self._looked < LOOK_S and self._workers:
            return
        self._looked = now
        self._workers = {}
        try:
            if self._client.status == "closed":
                self._client = connect(self._where, timeout_s=LOOK_S)
            if self._client.status == "running":
                self._ask()
        except Exception as error:  # noqa: BLE001 - whatever a client without a scheduler raises
            logger.warning("the cluster %s: %s", self._where.address, in_words(error))
        if self._fit:
            self._seen = now
            for future, workers in self._only_on.items():
                if not workers & self._workers.keys():
                    future.cancel()
            return
        timeout_s = NO_WORKER_TIMEOUT_S if self._client.status == "running" else RECONNECT_TIMEOUT_S
        if time.monotonic() - self._seen > timeout_s:
            lost = "has had no worker" if self._client.status == "running" else "is gone"
            # Those that can't go on may be there while the others are started again.
            lost += " that can go on" if self._workers else ""
            why = f" ({_told(self._unfit)})" if self._workers else ""
            raise AnalysisError(
                f"the cluster {self._where.address} {lost} for {timeout_s:g} s{why}; what it had"
                " done is kept"
            )

    def _ask(self) -> None:
        def info() -> Any:
            return self._client.scheduler_info(n_workers=-1)["workers"]

        workers = _in_time(info, ANSWER_TIMEOUT_S, "the scheduler")
        self._place = _in_time(
            lambda: placement(self._client, "bulk"), ANSWER_TIMEOUT_S, "the scheduler"
        )
        lane = self._place["resources"]
        self._workers = {
            address: 1 if lane else int(worker.get("nthreads", 1))
            for address, worker in workers.items()
            if not lane or set(resources_of("bulk")) <= set(worker.get("resources") or {})
        }

    def _check_workers(self) -> None:
        """Refuse a cluster whose workers can't do such units, before anything runs."""
        began = time.monotonic()
        try:
            self._ask()
            while not self._workers and time.monotonic() - began < FIRST_WORKER_TIMEOUT_S:
                time.sleep(0.2)
                self._ask()
            if not self._workers:
                lane = "" if self._place["resources"] is None else " for what can wait"
                raise ConfigError(f"the cluster {self._where.address} has no workers{lane}")
            answers = _in_time(
                lambda: self._client.run(
                    flaw_on_worker, self._fitness, workers=list(self._workers), on_error="return"
                ),
                ANSWER_TIMEOUT_S,
                "one of its workers",
            )
        except (OSError, TimeoutError) as error:
            raise ConfigError(f"the cluster {self._where.address}: {in_words(error)}") from error
        flaws = {
            worker: in_words(answer) if isinstance(answer, BaseException) else str(answer)
            for worker, answer in answers.items()
            if answer
        }
        if flaws:
            raise ConfigError(f"the cluster {self._where.address} can't do this: {_told(flaws)}")
        self._seen = self._looked = time.monotonic()


_SUSPECT, _AGAIN = object(), object()


def _on_worker(fitness: Fitness, work: Callable[[Unit], Report], unit: Unit) -> Report | _Unfit:
    """Do a unit on a worker of a cluster, if it can."""
    if why := fitness.flaw_here():
        from distributed import get_worker

        return _Unfit(get_worker().address, why)
    return work(unit)


def _told(flaws: dict[str, str]) -> str:
    """Return what is wrong with which workers, each sentence once."""
    by_flaw: dict[str, list[str]] = {}
    for worker, flaw in flaws.items():
        by_flaw.setdefault(flaw, []).append(worker)
    return "; ".join(
        f"worker {workers[0]}{f' and {len(workers) - 1} more' if len(workers) > 1 else ''}: {flaw}"
        for flaw, workers in by_flaw.items()
    )


def _in_time(call: Callable[[], Answer], timeout_s: float, whom: str) -> Answer:
    """Return what a call to Dask returns that knows no timeout itself.

    Raises
    ------
    TimeoutError
        It doesn't return in time; its thread ends with this process.
    """
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            answers.append((None, error))

    thread = threading.Thread(target=ask, daemon=True, name="asks a Dask cluster")
    thread.start()
    thread.join(timeout_s)
    if not answers:
        raise TimeoutError(f"{whom} has not answered for {timeout_s:g} s")
    ((answer, error),) = answers
    if error is not None:
        raise error
    return answer
