"""Where units are computed: in this process, in several on this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from xrf_sr_plans.errors import ConfigError, MissingExtraError, in_words
from xrf_sr_plans.replays.task import UnitReport
from xrf_sr_plans.replays.units import Unit

Work = Callable[[Unit], UnitReport]
"""Analyzes one unit and never raises. It must be possible to send it to another process."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_DIED = "the process that analyzed it died: {}"
SCHEDULER_TIMEOUT_S = 20
"""Longest wait for the scheduler of a cluster."""
_ON_DASK = 1000
"""Number of units that are with the cluster at a time."""


def executed(
    units: Sequence[Unit], work: Work, *, workers: int = 1, threads: int = 1, dask: str = ""
) -> Iterator[UnitReport]:
    """Yield the report of each unit as soon as it is there, in any order.

    Parameters
    ----------
    units
        What there is to do.
    work
        Does one of them.
    workers
        Number of processes on this machine; 1: this process does it all.
    threads
        Number of threads that numerical libraries may use in each of them.
    dask
        Address of the scheduler of a Dask cluster, which is used instead; "": none.

    Raises
    ------
    MissingExtraError
        Dask.distributed is not installed.
    ConfigError
        No scheduler answers at that address.
    """
    if dask:
        yield from _on_dask(units, work, dask)
    elif workers > 1:
        with _environment(threads):
            yield from _in_processes(units, work, workers)
    else:
        yield from map(work, units)


def _in_processes(units: Sequence[Unit], work: Work, workers: int) -> Iterator[UnitReport]:
    """Use a pool of processes, and a new one where one of its processes has died.

    Nobody knows which unit killed it. So each that the pool had at the time is done once more,
    alone, and the one that kills its process again is at fault.
    """
    waiting = deque(units)
    while waiting:
        running: dict[Future[UnitReport], Unit] = {}
        try:
            with _pool(workers) as pool:
                while waiting or running:
                    # One more than there are processes, so that none has to wait for this one.
                    while waiting and len(running) <= workers:
                        future = pool.submit(work, waiting[0])
                        running[future] = waiting.popleft()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        report = future.result()
                        del running[future]
                        yield report
        except BrokenProcessPool:
            for unit in running.values():
                yield _alone(unit, work)


def _alone(unit: Unit, work: Work) -> UnitReport:
    try:
        with _pool(1) as pool:
            return pool.submit(work, unit).result()
    except BrokenProcessPool as error:
        return UnitReport(unit.key, error=_DIED.format(in_words(error)))


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


def _on_dask(units: Sequence[Unit], work: Work, address: str) -> Iterator[UnitReport]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise MissingExtraError("a Dask cluster", "dask") from error
    try:
        client = Client(address, set_as_default=False, timeout=SCHEDULER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler at {address!r}: {in_words(error)}") from error
    with client:
        waiting = deque(units)
        running: dict[Any, Unit] = {}

        def more() -> list[Future[UnitReport]]:
            sent = []
            while waiting and len(running) < _ON_DASK:
                unit = waiting.popleft()
                # Not "pure": the same unit may be asked for again, as when its files are gone.
                future = client.submit(work, unit, pure=False)
                running[future.key] = unit
                sent.append(future)
            return sent

        finished = as_completed(more(), loop=client.loop)
        for future in finished:
            unit = running.pop(future.key)
            try:
                yield future.result()
            except Exception as error:  # noqa: BLE001 - such as KilledWorker, or a lost scheduler
                yield UnitReport(unit.key, error=_DIED.format(in_words(error)))
            future.release()
            for sent in more():
                finished.add(sent)
