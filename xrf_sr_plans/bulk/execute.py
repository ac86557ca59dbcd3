"""`executed`: units done in this process, in several on this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from xrf_sr_plans.bulk.units import Job, Report, Unit
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.errors import in_words
from xrf_sr_plans.ranges import Range

WORKERS = Range(1, 1024, whole=True)
"""Number of processes on this machine that is allowed."""

DIED = "the process that did it died: {}"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def executed(
    units: Sequence[Unit],
    job: Job[Unit, Report],
    *,
    workers: int = 1,
    threads: int = 1,
    cluster: ClusterAddress | None = None,
) -> Iterator[Report]:
    """Yield the report of each unit as soon as it is there, in any order.

    Parameters
    ----------
    units
        What there is to do.
    job
        What is done with each.
    workers
        Number of processes on this machine; 1: this process does it all.
    threads
        Number of threads that numerical libraries may use in each of them.
    cluster
        A Dask cluster that is used instead; None: none.

    Raises
    ------
    MissingExtraError
        Dask.distributed is not installed.
    ConfigError
        No cluster is reached, or its workers can't do such units.
    AnalysisError
        The cluster was lost. What was yielded before is done.
    """
    if cluster is not None:
        from xrf_sr_plans.bulk.on_dask import on_dask

        yield from on_dask(units, job, cluster)
    elif workers > 1:
        with _environment(threads):
            yield from _in_processes(units, job, workers)
    else:
        yield from map(job.work, units)


def _in_processes(units: Sequence[Unit], job: Job[Unit, Report], workers: int) -> Iterator[Report]:
    """Use a pool of processes, and a new one where one of its processes has died.

    Nobody knows which unit killed it. So each that the pool had at the time is done once more,
    alone, and the one that kills its process again is at fault.
    """
    waiting = deque(units)
    while waiting:
        running: dict[Future[Report], Unit] = {}
        try:
            with _pool(workers) as pool:
                while waiting or running:
                    # One more than there are processes, so that none has to wait for this one.
                    while waiting and len(running) <= workers:
                        future = pool.submit(job.work, waiting[0])
                        running[future] = waiting.popleft()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        report = future.result()
                        del running[future]
                        yield report
        except BrokenProcessPool:
            for unit in running.values():
                yield _alone(unit, job)


def _alone(unit: Unit, job: Job[Unit, Report]) -> Report:
    try:
        with _pool(1) as pool:
            return pool.submit(job.work, unit).result()
    except BrokenProcessPool as error:
        return job.lost(unit, DIED.format(in_words(error)))


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked process can't use torch where this one has used it.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Let the processes that are started meanwhile use that many threads each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
